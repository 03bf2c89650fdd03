// Any bytes said to either side of a handshake: nobody who does not hold the secret gets in, nothing breaks.
#include <cstdlib>
#include <string_view>

#include "transfer/handshake.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t nbytes) {
  using namespace hpresil::transfer;
  constexpr std::string_view kSecret = "a secret of a job";
  static const JobKey key(std::as_bytes(std::span(kSecret)), "job");
  const Bytes said(reinterpret_cast<const std::byte*>(data), nbytes);
  const auto part = [&](std::size_t at, std::size_t size) {
    return at >= said.size() ? Bytes() : said.subspan(at, std::min(size, said.size() - at));
  };
  ServerHandshake server(key, Nonce{});
  if (server.answer(part(0, kHelloBytes)) && server.proves(part(kHelloBytes, kProofBytes))) {
    std::abort();
  }
  ClientHandshake client(key, {.generation = 1,
                               .version = 1,
                               .chunk_bytes = 4096,
                               .wait_ms = 0,
                               .purpose = Purpose::chunks,
                               .nonce = {}});
  if (client.answer(part(0, kChallengeBytes)) && client.accept(part(kChallengeBytes, kAcceptBytes))) {
    std::abort();
  }
  return 0;
}
