// What travels on a transfer's connection: frames of fixed sizes, little-endian, no field without a check.
//
//     client                                  server
//     Hello 72       ────────────────────▶
//                    ◀────────────────────    Challenge 40
//     Proof 32       ────────────────────▶
//                    ◀────────────────────    Accept 64
//     Request 32 …   ────────────────────▶                    several may be on their way
//                    ◀────────────────────    Answer 64, the chunk's bytes …    in the order of the requests
//
// Parsing is pure; a frame that is malformed is no value. Numbers are bytes unless the name says else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "transfer/libcrypto.h"

namespace hpresil::transfer {

constexpr std::uint32_t kLeastChunk = 4096;
constexpr std::uint32_t kLargestChunk = 16U << 20;
constexpr std::uint64_t kLargestFrame = std::uint64_t{1} << 44;
constexpr std::uint32_t kLongestWaitMs = 3'600'000;

constexpr std::size_t kHelloBytes = 72;
constexpr std::size_t kChallengeBytes = 40;
constexpr std::size_t kProofBytes = 32;
constexpr std::size_t kAcceptBytes = 64;
constexpr std::size_t kRequestBytes = 32;
constexpr std::size_t kAnswerBytes = 64;

enum class Purpose : std::uint32_t { size = 1, chunks = 2, descriptor = 3 };
enum class Verdict : std::uint32_t {
  welcome = 1,
  not_here = 2,
  other_chunks = 3,
  too_many = 4,
  wrong_door = 5
};
enum class Wish : std::uint32_t { chunk = 1, still_valid = 2 };
enum class Status : std::uint32_t { coming = 1, wait = 2, gone = 3 };

// What a client wants: a version at a generation, on a grid of chunks. `wait_ms`: how long the server may
// wait for the version to be offered.
struct Hello {
  std::uint64_t generation;
  std::uint64_t version;
  std::uint32_t chunk_bytes;
  std::uint32_t wait_ms;
  Purpose purpose;
  Nonce nonce;
};

struct Accept {
  Verdict verdict;
  bool has_crc;
  std::uint64_t frame_bytes;
  std::uint32_t crc;
};

struct Request {
  Wish wish;
  std::uint32_t nbytes;
  std::uint64_t offset;
};

// `origin` and `content` are the chunk's lasting check, see frame.h.
struct Answer {
  Status status;
  std::uint32_t nbytes;
  std::uint64_t offset;
  Tag origin;
  Tag content;
};

using HelloFrame = std::array<std::byte, kHelloBytes>;
using ChallengeFrame = std::array<std::byte, kChallengeBytes>;
using AcceptBody = std::array<std::byte, kAcceptBytes - sizeof(Key)>;
using RequestBody = std::array<std::byte, kRequestBytes - sizeof(Tag)>;
using AnswerBody = std::array<std::byte, kAnswerBytes - sizeof(Tag)>;

HelloFrame encode(const Hello& hello);
ChallengeFrame encode_challenge(const Nonce& nonce);
AcceptBody encode(const Accept& accept);
RequestBody encode(const Request& request);
AnswerBody encode(const Answer& answer);

// Nothing for a frame of another size, with another magic, an unknown value or one outside its limits.
std::optional<Hello> parse_hello(Bytes frame);
std::optional<Nonce> parse_challenge(Bytes frame);
std::optional<Accept> parse_accept(Bytes body);
std::optional<Request> parse_request(Bytes body);
std::optional<Answer> parse_answer(Bytes body);

}  // namespace hpresil::transfer
