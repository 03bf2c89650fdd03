// Offers frames to other agents of the job, over TCP and, on this machine, over a Unix socket.
//
// One thread holds those at the door, one more serves each connection of a client that has proved itself;
// nothing is queued in memory but what is in the sockets' buffers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "transfer/door.h"
#include "transfer/serving.h"

namespace hpresil::transfer {

struct ServerSettings {
  DoorSettings door;
  std::int64_t stall_ns;     // the longest wait for a client that takes no bytes
  std::int64_t idle_ns;      // the longest between two requests
  std::size_t most_clients;  // connections served at once
};

// Thread safe. close() and the destructor end all connections and threads; no frame is touched afterwards.
class FrameServer {
 public:
  FrameServer(const ServerSettings& settings, const JobKey& key);
  ~FrameServer();
  FrameServer(const FrameServer&) = delete;
  FrameServer& operator=(const FrameServer&) = delete;

  // Until it is withdrawn, clients get this frame's version. `crc`: of all bytes, for a local client to
  // compare. The bytes that are here must not change meanwhile. A newer offer of the same version goes first.
  std::uint64_t offer(std::shared_ptr<Frame> frame, std::optional<std::uint32_t> crc);

  // How many connections take it now.
  [[nodiscard]] std::size_t takers(std::uint64_t offer) const;

  // Ends its connections. Returns whether nobody reads it any more, waiting up to `timeout_ns` for that.
  bool withdraw(std::uint64_t offer, std::int64_t timeout_ns);

  void close();

  [[nodiscard]] const JobKey& key() const { return key_; }
  [[nodiscard]] int port() const { return door_->port(); }
  [[nodiscard]] std::size_t waiting() const { return door_->waiting(); }
  [[nodiscard]] std::size_t clients() const;
  [[nodiscard]] std::map<std::string, std::uint64_t> refused() const { return refusals_.counts(); }
  [[nodiscard]] const ServedBytes& served() const { return served_; }

 private:
  struct Offer {
    std::shared_ptr<Frame> frame;
    std::optional<std::uint32_t> crc;
  };
  struct Session {
    Connection connection;
    ServerHandshake handshake;
    bool local;
    std::uint64_t offer;
    bool ended;
    std::thread thread;
  };

  std::size_t count_takers(std::uint64_t offer) const;
  void welcome(Visitor visitor);
  void reap();
  void serve(Session& session);
  void converse(Session& session);
  std::optional<Offer> find(Session& session);
  Verdict judge(const Session& session, const std::optional<Offer>& offer) const;
  void pass(Session& session, Frame& frame);

  ServerSettings settings_;
  JobKey key_;
  Refusals refusals_;
  ServedBytes served_;
  mutable std::mutex lock_;
  std::condition_variable changed_;
  std::map<std::uint64_t, Offer> offers_;
  std::list<Session> sessions_;
  std::uint64_t last_offer_ = 0;
  bool closing_ = false;
  std::unique_ptr<Door> door_;
};

}  // namespace hpresil::transfer
