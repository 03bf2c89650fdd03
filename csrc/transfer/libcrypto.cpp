#include "transfer/libcrypto.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/dynamic_library.h"
#include "base/error.h"

namespace hpresil::transfer {
namespace {

constexpr int kGetTag = 0x10;  // EVP_CTRL_AEAD_GET_TAG, the same in OpenSSL 1.1 and 3
constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;

struct Functions {
  unsigned char* (*HMAC)(const void*, const void*, int, const unsigned char*, std::size_t, unsigned char*,
                         unsigned*);
  const void* (*EVP_sha256)();
  const void* (*EVP_aes_256_gcm)();
  void* (*EVP_CIPHER_CTX_new)();
  void (*EVP_CIPHER_CTX_free)(void*);
  int (*EVP_EncryptInit_ex)(void*, const void*, void*, const unsigned char*, const unsigned char*);
  int (*EVP_EncryptUpdate)(void*, unsigned char*, int*, const unsigned char*, int);
  int (*EVP_EncryptFinal_ex)(void*, unsigned char*, int*);
  int (*EVP_CIPHER_CTX_ctrl)(void*, int, int, void*);
  int (*CRYPTO_memcmp)(const void*, const void*, std::size_t);
  void (*OPENSSL_cleanse)(void*, std::size_t);
};

// Python's ssl has usually loaded one of them already.
std::vector<std::string> names() {
  const char* given = std::getenv("HPRESIL_LIBCRYPTO");
  const bool only = given != nullptr && *given != '\0';
  return only ? std::vector<std::string>{given}
              : std::vector<std::string>{"libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so"};
}

Functions load() {
  const DynamicLibrary found = DynamicLibrary::open(
      names(),
      {"OpenSSL's libcrypto",
       "transfers between nodes need it; install it (Debian: apt-get install libssl3) or name the file "
       "with HPRESIL_LIBCRYPTO",
       "transfers between nodes need OpenSSL 1.1.1 or newer"});
  Functions all{};
  found.need("HMAC", all.HMAC);
  found.need("EVP_sha256", all.EVP_sha256);
  found.need("EVP_aes_256_gcm", all.EVP_aes_256_gcm);
  found.need("EVP_CIPHER_CTX_new", all.EVP_CIPHER_CTX_new);
  found.need("EVP_CIPHER_CTX_free", all.EVP_CIPHER_CTX_free);
  found.need("EVP_EncryptInit_ex", all.EVP_EncryptInit_ex);
  found.need("EVP_EncryptUpdate", all.EVP_EncryptUpdate);
  found.need("EVP_EncryptFinal_ex", all.EVP_EncryptFinal_ex);
  found.need("EVP_CIPHER_CTX_ctrl", all.EVP_CIPHER_CTX_ctrl);
  found.need("CRYPTO_memcmp", all.CRYPTO_memcmp);
  found.need("OPENSSL_cleanse", all.OPENSSL_cleanse);
  return all;
}

const Functions& library() {
  static const Functions all = load();
  return all;
}

const unsigned char* raw(const std::byte* bytes) { return reinterpret_cast<const unsigned char*>(bytes); }
unsigned char* raw(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }

}  // namespace

void open_libcrypto() { (void)library(); }

Key hmac_sha256(Bytes key, Bytes text) {
  Key made{};
  const Functions& use = library();
  const auto* done = use.HMAC(use.EVP_sha256(), key.data(), static_cast<int>(key.size()), raw(text.data()),
                              text.size(), raw(made.data()), nullptr);
  expects(done != nullptr, "libcrypto refused HMAC-SHA256");
  return made;
}

bool equal_secretly(Bytes first, Bytes second) {
  return first.size() == second.size() &&
         library().CRYPTO_memcmp(first.data(), second.data(), first.size()) == 0;
}

void wipe(std::span<std::byte> secret) { library().OPENSSL_cleanse(secret.data(), secret.size()); }

void fill_random(std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = getrandom(out.data() + done, out.size() - done, 0);
    if (got < 0 && errno != EINTR) {
      fail_errno("getrandom", errno);
    }
    done += static_cast<std::size_t>(std::max<ssize_t>(got, 0));
  }
}

Gmac::Gmac(const Key& key) : context_(library().EVP_CIPHER_CTX_new()) {
  const Functions& use = library();
  if (context_ == nullptr ||
      use.EVP_EncryptInit_ex(context_, use.EVP_aes_256_gcm(), nullptr, raw(key.data()), nullptr) != 1) {
    use.EVP_CIPHER_CTX_free(context_);
    fail("libcrypto refused AES-256-GCM");
  }
}

Gmac::~Gmac() { library().EVP_CIPHER_CTX_free(context_); }

void Gmac::begin(std::uint64_t high, std::uint32_t low) {
  std::array<unsigned char, 12> number{};
  std::memcpy(number.data(), &high, sizeof(high));
  std::memcpy(number.data() + sizeof(high), &low, sizeof(low));
  expects(library().EVP_EncryptInit_ex(context_, nullptr, nullptr, nullptr, number.data()) == 1,
          "libcrypto refused a GMAC number");
}

void Gmac::add(Bytes text) {
  while (!text.empty()) {
    const std::size_t now = std::min(text.size(), kMostAtOnce);
    int ignored = 0;
    expects(library().EVP_EncryptUpdate(context_, nullptr, &ignored, raw(text.data()),
                                        static_cast<int>(now)) == 1,
            "libcrypto refused GMAC text");
    text = text.subspan(now);
  }
}

Tag Gmac::finish() {
  Tag tag{};
  std::array<unsigned char, 16> none{};
  int ignored = 0;
  const Functions& use = library();
  expects(use.EVP_EncryptFinal_ex(context_, none.data(), &ignored) == 1 &&
              use.EVP_CIPHER_CTX_ctrl(context_, kGetTag, static_cast<int>(tag.size()), tag.data()) == 1,
          "libcrypto refused a GMAC tag");
  return tag;
}

}  // namespace hpresil::transfer
