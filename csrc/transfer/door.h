// Where connections come in: one thread holds all of those that have not yet proved to belong to the job.
//
// A stranger costs a descriptor and a few hundred bytes, for `handshake_ns` at most. There are at most
// `most_waiting` of them: when one more comes, the one that has waited longest goes, so silent ones keep
// nobody out.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "memory/memfd.h"
#include "transfer/handshake.h"
#include "transfer/refusals.h"

namespace hpresil::transfer {

struct DoorSettings {
  std::string host;       // "": no door for other machines
  int port;               // 0: a free one
  std::string unix_path;  // "": no door for this machine
  std::int64_t handshake_ns;
  std::size_t most_waiting;
};

// A connection that has proved itself. Its socket blocks; nothing was sent after the challenge.
struct Visitor {
  Fd socket;
  ServerHandshake handshake;
  bool local;
};

class Door {
 public:
  // Listens, then starts the thread. `welcome` and `beat` are called in that thread, must return soon and not
  // throw; `beat` ten times a second at least.
  Door(const DoorSettings& settings, const JobKey& key, Refusals& refusals,
       std::function<void(Visitor)> welcome, std::function<void()> beat);
  ~Door();
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] std::size_t waiting() const { return waiting_count_; }
  void close();

 private:
  struct Stranger {
    Fd socket;
    ServerHandshake handshake;
    bool local;
    std::int64_t until_ns;
    bool challenged;
    std::size_t filled;
    std::array<std::byte, kHelloBytes> buffer;
  };
  using Place = std::list<Stranger>::iterator;

  std::thread open();
  void run();
  void let_in(const Fd& listener, bool local);
  void admit(Fd socket, bool local);
  void hear(int fd);
  bool read_some(Stranger& stranger, std::size_t wanted);
  void challenge(Place stranger);
  void judge(Place stranger);
  void turn_away(Place stranger, const char* reason);
  void expire();

  DoorSettings settings_;
  JobKey key_;
  Refusals& refusals_;
  std::function<void(Visitor)> welcome_;
  std::function<void()> beat_;
  Fd internet_;
  Fd local_;
  Fd stop_;
  int port_ = 0;
  std::list<Stranger> strangers_;  // in the order in which their time ends
  std::atomic<std::size_t> waiting_count_{0};
  std::thread thread_;
};

}  // namespace hpresil::transfer
