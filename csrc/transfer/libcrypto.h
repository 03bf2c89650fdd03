// The few primitives of OpenSSL's libcrypto that transfers use, opened at run time.
//
// Opened, not linked: one module then serves machines with OpenSSL 3 and 1.1, and imports where there is
// none; only a transfer needs it. Python's ssl has usually loaded the same library already. A path in
// HPRESIL_LIBCRYPTO is tried alone. Thread safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hpresil::transfer {

using Bytes = std::span<const std::byte>;
using Key = std::array<std::byte, 32>;
using Tag = std::array<std::byte, 16>;
using Nonce = std::array<std::byte, 32>;

// Throws NativeError, which says what to install, when there is no usable libcrypto. Later calls cost
// nothing.
void open_libcrypto();

// HMAC-SHA256 (RFC 2104) of `text`.
Key hmac_sha256(Bytes key, Bytes text);

// Compares without telling by its duration where two values differ.
bool equal_secretly(Bytes first, Bytes second);

// Overwrites what must not stay in memory.
void wipe(std::span<std::byte> secret);

// Random bytes of the kernel.
void fill_random(std::span<std::byte> out);

// AES-256-GMAC (NIST SP 800-38D): a keyed checksum of 16 bytes. One key must never see the same number
// twice with different texts. Thread safety: none.
class Gmac {
 public:
  explicit Gmac(const Key& key);
  ~Gmac();
  Gmac(const Gmac&) = delete;
  Gmac& operator=(const Gmac&) = delete;

  // Starts a text whose number is (high, low).
  void begin(std::uint64_t high, std::uint32_t low);
  void add(Bytes text);
  Tag finish();

 private:
  void* context_ = nullptr;
};

}  // namespace hpresil::transfer
