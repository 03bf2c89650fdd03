// Any bytes as any frame of a transfer: no value, or one within its limits that is written back as it was
// read.
#include <algorithm>
#include <cstdlib>

#include "transfer/wire.h"

namespace {

using namespace hpresil::transfer;

template <typename Frame>
void must_equal(const Frame& written, Bytes read) {
  if (!std::equal(written.begin(), written.end(), read.begin(), read.end())) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t nbytes) {
  const Bytes frame(reinterpret_cast<const std::byte*>(data), nbytes);
  if (const auto hello = parse_hello(frame)) {
    must_equal(encode(*hello), frame);
  }
  if (const auto nonce = parse_challenge(frame)) {
    must_equal(encode_challenge(*nonce), frame);
  }
  if (const auto accept = parse_accept(frame)) {
    must_equal(encode(*accept), frame);
  }
  if (const auto request = parse_request(frame)) {
    must_equal(encode(*request), frame);
  }
  if (const auto answer = parse_answer(frame)) {
    must_equal(encode(*answer), frame);
  }
  return 0;
}
