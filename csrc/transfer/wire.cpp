#include "transfer/wire.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hpresil::transfer {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are written as they lie in memory");

constexpr std::uint64_t kMagic = 0x31524654'53525048;  // "HPRSTFR1"

class Writer {
 public:
  explicit Writer(std::span<std::byte> out) : out_(out) {}

  template <typename T>
  Writer& put(const T& value) {
    std::memcpy(out_.data(), &value, sizeof(T));
    out_ = out_.subspan(sizeof(T));
    return *this;
  }

 private:
  std::span<std::byte> out_;
};

class Reader {
 public:
  explicit Reader(Bytes in) : in_(in) {}

  template <typename T>
  T get() {
    T value{};
    std::memcpy(&value, in_.data(), sizeof(T));
    in_ = in_.subspan(sizeof(T));
    return value;
  }

 private:
  Bytes in_;
};

template <typename Enum>
bool within(Enum value, Enum last) {
  const auto number = static_cast<std::uint32_t>(value);
  return number >= 1 && number <= static_cast<std::uint32_t>(last);
}

bool is_chunk(std::uint64_t offset, std::uint32_t nbytes) {
  return nbytes >= 1 && nbytes <= kLargestChunk && offset < kLargestFrame;
}

}  // namespace

HelloFrame encode(const Hello& hello) {
  HelloFrame frame{};
  Writer(frame)
      .put(kMagic)
      .put(hello.generation)
      .put(hello.version)
      .put(hello.chunk_bytes)
      .put(hello.wait_ms)
      .put(hello.purpose)
      .put(std::uint32_t{0})
      .put(hello.nonce);
  return frame;
}

ChallengeFrame encode_challenge(const Nonce& nonce) {
  ChallengeFrame frame{};
  Writer(frame).put(kMagic).put(nonce);
  return frame;
}

AcceptBody encode(const Accept& accept) {
  AcceptBody body{};
  Writer(body)
      .put(kMagic)
      .put(accept.verdict)
      .put(std::uint32_t{accept.has_crc})
      .put(accept.frame_bytes)
      .put(accept.crc)
      .put(std::uint32_t{0});
  return body;
}

RequestBody encode(const Request& request) {
  RequestBody body{};
  Writer(body).put(request.wish).put(request.nbytes).put(request.offset);
  return body;
}

AnswerBody encode(const Answer& answer) {
  AnswerBody body{};
  Writer(body)
      .put(answer.status)
      .put(answer.nbytes)
      .put(answer.offset)
      .put(answer.origin)
      .put(answer.content);
  return body;
}

std::optional<Hello> parse_hello(Bytes frame) {
  if (frame.size() != kHelloBytes) {
    return std::nullopt;
  }
  Reader reader(frame);
  const auto magic = reader.get<std::uint64_t>();
  Hello hello{};
  hello.generation = reader.get<std::uint64_t>();
  hello.version = reader.get<std::uint64_t>();
  hello.chunk_bytes = reader.get<std::uint32_t>();
  hello.wait_ms = reader.get<std::uint32_t>();
  hello.purpose = reader.get<Purpose>();
  const auto reserved = reader.get<std::uint32_t>();
  hello.nonce = reader.get<Nonce>();
  const bool good = magic == kMagic && reserved == 0 && within(hello.purpose, Purpose::descriptor) &&
                    hello.chunk_bytes >= kLeastChunk && hello.chunk_bytes <= kLargestChunk &&
                    hello.wait_ms <= kLongestWaitMs;
  return good ? std::optional(hello) : std::nullopt;
}

std::optional<Nonce> parse_challenge(Bytes frame) {
  if (frame.size() != kChallengeBytes) {
    return std::nullopt;
  }
  Reader reader(frame);
  const auto magic = reader.get<std::uint64_t>();
  return magic == kMagic ? std::optional(reader.get<Nonce>()) : std::nullopt;
}

std::optional<Accept> parse_accept(Bytes body) {
  if (body.size() != sizeof(AcceptBody)) {
    return std::nullopt;
  }
  Reader reader(body);
  const auto magic = reader.get<std::uint64_t>();
  Accept accept{};
  accept.verdict = reader.get<Verdict>();
  const auto has_crc = reader.get<std::uint32_t>();
  accept.has_crc = has_crc == 1;
  accept.frame_bytes = reader.get<std::uint64_t>();
  accept.crc = reader.get<std::uint32_t>();
  const auto reserved = reader.get<std::uint32_t>();
  const bool good = magic == kMagic && within(accept.verdict, Verdict::wrong_door) && has_crc <= 1 &&
                    accept.frame_bytes <= kLargestFrame && reserved == 0;
  return good ? std::optional(accept) : std::nullopt;
}

std::optional<Request> parse_request(Bytes body) {
  if (body.size() != sizeof(RequestBody)) {
    return std::nullopt;
  }
  Reader reader(body);
  Request request{};
  request.wish = reader.get<Wish>();
  request.nbytes = reader.get<std::uint32_t>();
  request.offset = reader.get<std::uint64_t>();
  const bool empty = request.nbytes == 0 && request.offset == 0;
  const bool good = within(request.wish, Wish::still_valid) &&
                    (request.wish == Wish::chunk ? is_chunk(request.offset, request.nbytes) : empty);
  return good ? std::optional(request) : std::nullopt;
}

std::optional<Answer> parse_answer(Bytes body) {
  if (body.size() != sizeof(AnswerBody)) {
    return std::nullopt;
  }
  Reader reader(body);
  Answer answer{};
  answer.status = reader.get<Status>();
  answer.nbytes = reader.get<std::uint32_t>();
  answer.offset = reader.get<std::uint64_t>();
  answer.origin = reader.get<Tag>();
  answer.content = reader.get<Tag>();
  const bool good =
      within(answer.status, Status::gone) && answer.nbytes <= kLargestChunk && answer.offset < kLargestFrame;
  return good ? std::optional(answer) : std::nullopt;
}

}  // namespace hpresil::transfer
