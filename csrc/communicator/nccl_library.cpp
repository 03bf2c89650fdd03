#include "communicator/nccl_library.h"

#include <dlfcn.h>

#include "base/error.h"

namespace hpresil {
namespace {

using Lookup = std::function<void*(const char*)>;

// Fills one entry; the function's C type is that of the entry.
template <typename Result, typename... Arguments>
bool fill(const Lookup& lookup, const char* symbol, std::function<Result(Arguments...)>& entry) {
  void* found = lookup(symbol);
  if (found != nullptr) {
    entry = reinterpret_cast<Result (*)(Arguments...)>(found);
  }
  return found != nullptr;
}

template <typename Entry>
void need(const Lookup& lookup, const std::string& origin, const char* symbol, Entry& entry) {
  if (!fill(lookup, symbol, entry)) {
    fail("NCCL (" + origin + ") has no symbol " + symbol + ": hpresil needs NCCL " +
         nccl_version_text(kNcclOldest) + " or newer; install one, or use gloo");
  }
}

int version_of(const Lookup& lookup, const std::string& origin) {
  std::function<NcclResult(int*)> get_version;
  need(lookup, origin, "ncclGetVersion", get_version);
  int version = 0;
  expects(get_version(&version) == kNcclSuccess, "ncclGetVersion failed");
  if (version < kNcclOldest) {
    fail("NCCL (" + origin + ") is " + nccl_version_text(version) + "; hpresil needs " +
         nccl_version_text(kNcclOldest) +
         " or newer: install a newer torch, or the package nvidia-nccl-cu13");
  }
  return version;
}

void fill_needed(const Lookup& lookup, NcclApi& api) {
  const std::string& origin = api.origin;
  need(lookup, origin, "ncclGetUniqueId", api.get_unique_id);
  need(lookup, origin, "ncclCommInitRankConfig", api.init_rank_config);
  need(lookup, origin, "ncclCommSplit", api.split);
  need(lookup, origin, "ncclCommGetAsyncError", api.get_async_error);
  need(lookup, origin, "ncclCommFinalize", api.finalize);
  need(lookup, origin, "ncclCommDestroy", api.destroy);
  need(lookup, origin, "ncclCommAbort", api.abort);
  need(lookup, origin, "ncclGetErrorString", api.error_string);
  need(lookup, origin, "ncclGetLastError", api.last_error);
  need(lookup, origin, "ncclGroupStart", api.group_start);
  need(lookup, origin, "ncclGroupEnd", api.group_end);
  need(lookup, origin, "ncclAllReduce", api.all_reduce);
  need(lookup, origin, "ncclBroadcast", api.broadcast);
  need(lookup, origin, "ncclReduce", api.reduce);
  need(lookup, origin, "ncclAllGather", api.all_gather);
  need(lookup, origin, "ncclReduceScatter", api.reduce_scatter);
  need(lookup, origin, "ncclSend", api.send);
  need(lookup, origin, "ncclRecv", api.receive);
}

void fill_optional(const Lookup& lookup, NcclApi& api) {
  fill(lookup, "ncclCommInitRankScalable", api.init_rank_scalable);
  fill(lookup, "ncclCommShrink", api.shrink);
  fill(lookup, "ncclCommRevoke", api.revoke);
  fill(lookup, "ncclCommGetUniqueId", api.grow_id);
  fill(lookup, "ncclCommGrow", api.grow);
  fill(lookup, "ncclCommSuspend", api.suspend);
  fill(lookup, "ncclCommResume", api.resume);
}

}  // namespace

std::shared_ptr<const NcclApi> nccl_from(const Lookup& lookup, const std::string& origin) {
  auto api = std::make_shared<NcclApi>();
  api->origin = origin;
  api->version = version_of(lookup, origin);
  fill_needed(lookup, *api);
  fill_optional(lookup, *api);
  return api;
}

std::shared_ptr<const NcclApi> open_nccl(const std::string& name) {
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD);
  const bool loaded = library != nullptr;
  if (!loaded) {
    library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    const char* why = dlerror();
    fail("NCCL is not here (" + std::string(why == nullptr ? name : why) +
         "): install a CUDA build of torch, which brings it, or put its folder into LD_LIBRARY_PATH; "
         "without NVIDIA devices use gloo");
  }
  const std::string origin = name + (loaded ? ", loaded before" : ", loaded by hpresil");
  return nccl_from([library](const char* symbol) { return dlsym(library, symbol); }, origin);
}

}  // namespace hpresil
