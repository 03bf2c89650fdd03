// What a server with the right key may say: answers of any content and any bytes behind them. The client
// takes a chunk only with its check, and writes nowhere but in the chunk's place.
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "transfer/stream.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t nbytes) {
  using namespace hpresil;
  using namespace hpresil::transfer;
  constexpr std::string_view kSecret = "a secret of a job";
  constexpr std::size_t kFrame = 12'288;
  static const JobKey key(std::as_bytes(std::span(kSecret)), "job");
  static const Fd file = create_memfd("fuzz", kFrame);
  static Frame frame(key, {1, 1}, {kFrame, 4096}, {file.get(), 0, nullptr}, true);
  std::memset(frame.at(frame.grid().at(0)), 0, kFrame);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    return 0;
  }
  Connection client{Fd(ends[0])};
  Connection server{Fd(ends[1])};
  const SessionKeys keys = {key.derive("c", {}), key.derive("s", {})};
  Stream stream(client, keys, frame);
  try {
    stream.ask(frame.grid().at(1));
    Sequence said(keys.server_writes);
    Bytes left(reinterpret_cast<const std::byte*>(data), nbytes);
    while (left.size() >= sizeof(AnswerBody)) {
      const Bytes body = left.first(sizeof(AnswerBody));
      left = left.subspan(body.size());
      server.send_all(body);
      server.send_all(said.next(body));
      if (body[0] == std::byte{1}) {  // bytes of a chunk follow
        server.send_all(left.first(std::min<std::size_t>(left.size(), 4096)));
        left = left.subspan(std::min<std::size_t>(left.size(), 4096));
      }
    }
    ::shutdown(server.fd(), SHUT_RDWR);
    (void)stream.receive();
    std::abort();  // no input has the check of its bytes under a key it does not know
  } catch (const Broken&) {
  }
  for (const std::size_t other : {0, 2}) {
    const std::byte* place = frame.at(frame.grid().at(other));
    for (std::size_t i = 0; i < 4096; ++i) {
      if (place[i] != std::byte{0}) {
        std::abort();
      }
    }
  }
  return 0;
}
