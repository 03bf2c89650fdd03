// NCCL as a script: what each call answers is set by the test, what was called is written down.
#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "communicator/nccl_api.h"

namespace hpresil {

// Thread safety: everything through `lock`; the members are set before other threads call.
class ScriptedNccl {
 public:
  int version = 23203;
  // How often a fresh communicator says "in progress", and what it says afterwards, by the order of making.
  std::map<int, int> busy_for;
  std::map<int, NcclResult> becomes;
  NcclResult init_returns = kNcclInProgress;
  int init_refused_at = -1;  // the place of the init that fails at once
  NcclResult group_end_returns = kNcclInProgress;
  std::atomic<bool> abort_hangs = false;
  std::atomic<bool> stuck = false;  // every state is "in progress" for as long as this is set

  std::shared_ptr<const NcclApi> api() {
    auto table = std::make_shared<NcclApi>();
    table->version = version;
    table->origin = "a script";
    fill_life(*table);
    fill_operations(*table);
    fill_changes(*table);
    return table;
  }

  std::vector<std::string> calls() {
    const std::lock_guard held(lock_);
    return calls_;
  }
  int count(const std::string& call) {
    const auto all = calls();
    return static_cast<int>(std::count(all.begin(), all.end(), call));
  }
  // From now on the communicator made as number `index` says this.
  void set_state(int index, NcclResult state) {
    const std::lock_guard held(lock_);
    comms_.at(static_cast<std::size_t>(index)).state = state;
    comms_.at(static_cast<std::size_t>(index)).busy = 0;
  }
  NcclConfig last_config() {
    const std::lock_guard held(lock_);
    return config_;
  }
  int made() {
    const std::lock_guard held(lock_);
    return static_cast<int>(comms_.size());
  }

 private:
  struct Comm {
    int busy;
    NcclResult state;
    bool gone = false;
  };

  void note(const std::string& call) { calls_.push_back(call); }

  NcclComm* make(const NcclConfig& config) {
    config_ = config;
    const int index = static_cast<int>(comms_.size());
    const auto state = becomes.find(index);
    comms_.push_back({busy_for.count(index) != 0 ? busy_for[index] : 0,
                      state == becomes.end() ? kNcclSuccess : state->second});
    return reinterpret_cast<NcclComm*>(&comms_.back());
  }
  static Comm& of(NcclComm* comm) { return *reinterpret_cast<Comm*>(comm); }

  NcclResult init(NcclComm** out, const NcclConfig& config, const std::string& call) {
    const std::lock_guard held(lock_);
    note(call);
    if (static_cast<int>(comms_.size()) == init_refused_at) {
      return kNcclInvalidArgument;
    }
    *out = make(config);
    return init_returns;
  }

  NcclResult on(NcclComm* comm, const std::string& call) {
    const std::lock_guard held(lock_);
    note(of(comm).gone ? call + " of one that is gone" : call);
    return kNcclSuccess;
  }

  void fill_life(NcclApi& table) {
    table.get_unique_id = [this](NcclUniqueId* id) {
      const std::lock_guard held(lock_);
      id->internal[0] = static_cast<char>(++ids_);
      return kNcclSuccess;
    };
    table.init_rank_config = [this](NcclComm** out, int, NcclUniqueId, int, NcclConfig* config) {
      return init(out, *config, "init");
    };
    table.init_rank_scalable = [this](NcclComm** out, int, int, int ids, NcclUniqueId*, NcclConfig* config) {
      return init(out, *config, "init with " + std::to_string(ids) + " roots");
    };
    table.get_async_error = [this](NcclComm* comm, NcclResult* state) {
      const std::lock_guard held(lock_);
      Comm& it = of(comm);
      if (it.gone) {
        note("look of one that is gone");
      }
      *state = stuck || it.busy-- > 0 ? kNcclInProgress : it.state;
      return kNcclSuccess;
    };
    table.finalize = [this](NcclComm* comm) { return on(comm, "finalize"); };
    table.destroy = [this](NcclComm* comm) { return end(comm, "destroy"); };
    table.abort = [this](NcclComm* comm) {
      while (abort_hangs) {
      }
      return end(comm, "abort");
    };
    table.error_string = [](NcclResult result) {
      return result == kNcclRemoteError ? "remote process exited" : "scripted failure";
    };
    table.last_error = [](NcclComm*) { return "the script says so"; };
    table.group_start = [this] { return plain("group start", kNcclSuccess); };
    table.group_end = [this] { return plain("group end", group_end_returns); };
  }

  NcclResult plain(const std::string& call, NcclResult result) {
    const std::lock_guard held(lock_);
    note(call);
    return result;
  }

  NcclResult end(NcclComm* comm, const std::string& call) {
    const NcclResult result = on(comm, call);
    const std::lock_guard held(lock_);
    of(comm).gone = true;
    return result;
  }

  void fill_operations(NcclApi& table) {
    table.all_reduce = [this](const void*, void*, std::size_t count, int, int, NcclComm* comm, CudaStream) {
      return on(comm, "all_reduce " + std::to_string(count));
    };
    table.broadcast = [this](const void*, void*, std::size_t count, int, int root, NcclComm* comm,
                             CudaStream) {
      return on(comm, "broadcast " + std::to_string(count) + " from " + std::to_string(root));
    };
    table.reduce = [this](const void*, void*, std::size_t, int, int, int, NcclComm* comm, CudaStream) {
      return on(comm, "reduce");
    };
    table.all_gather = [this](const void*, void*, std::size_t, int, NcclComm* comm, CudaStream) {
      return on(comm, "all_gather");
    };
    table.reduce_scatter = [this](const void*, void*, std::size_t, int, int, NcclComm* comm, CudaStream) {
      return on(comm, "reduce_scatter");
    };
    table.send = [this](const void*, std::size_t count, int, int peer, NcclComm* comm, CudaStream) {
      return on(comm, "send " + std::to_string(count) + " to " + std::to_string(peer));
    };
    table.receive = [this](void*, std::size_t count, int, int peer, NcclComm* comm, CudaStream) {
      return on(comm, "receive " + std::to_string(count) + " from " + std::to_string(peer));
    };
  }

  void fill_changes(NcclApi& table) {
    table.split = [this](NcclComm*, int colour, int, NcclComm** out, NcclConfig* config) {
      if (colour < 0) {
        return kNcclSuccess;
      }
      return init(out, *config, "split");
    };
    table.shrink = [this](NcclComm*, int* excluded, int count, NcclComm** out, NcclConfig* config,
                          int flags) {
      std::string call = "shrink " + std::to_string(flags);
      for (int i = 0; i < count; ++i) {
        call += " -" + std::to_string(excluded[i]);
      }
      return init(out, *config, call);
    };
    table.revoke = [this](NcclComm* comm, int) { return on(comm, "revoke"); };
    table.grow_id = [this](NcclComm* comm, NcclUniqueId* id) {
      id->internal[0] = 'g';
      return on(comm, "grow id");
    };
    table.grow = [this](NcclComm* comm, int ranks, const NcclUniqueId* id, int rank, NcclComm** out,
                        NcclConfig* config) {
      const std::string who = comm == nullptr ? "newcomer " + std::to_string(rank) : "member";
      return init(out, *config,
                  "grow to " + std::to_string(ranks) + " " + who + (id == nullptr ? "" : " with id"));
    };
    table.suspend = [this](NcclComm* comm, int) { return on(comm, "suspend"); };
    table.resume = [this](NcclComm* comm) { return on(comm, "resume"); };
  }

  std::mutex lock_;
  std::deque<Comm> comms_;
  std::vector<std::string> calls_;
  NcclConfig config_;
  int ids_ = 0;
};

}  // namespace hpresil
