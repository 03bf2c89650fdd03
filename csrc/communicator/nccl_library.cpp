#include "communicator/nccl_library.h"

#include "base/dynamic_library.h"
#include "base/error.h"

namespace hpresil {
namespace {

LibraryTerms terms() {
  return {"NCCL",
          "install a CUDA build of torch, which brings it, or put its folder into LD_LIBRARY_PATH; without "
          "NVIDIA devices use gloo",
          "hpresil needs NCCL " + nccl_version_text(kNcclOldest) + " or newer; install one, or use gloo"};
}

int version_of(const DynamicLibrary& library) {
  NcclResult (*get_version)(int*) = nullptr;
  library.need("ncclGetVersion", get_version);
  int version = 0;
  expects(get_version(&version) == kNcclSuccess, "ncclGetVersion failed");
  if (version < kNcclOldest) {
    fail("NCCL (" + library.origin() + ") is " + nccl_version_text(version) + "; hpresil needs " +
         nccl_version_text(kNcclOldest) +
         " or newer: install a newer torch, or the package nvidia-nccl-cu13");
  }
  return version;
}

void fill_needed(const DynamicLibrary& library, NcclApi& api) {
  library.need("ncclGetUniqueId", api.get_unique_id);
  library.need("ncclCommInitRankConfig", api.init_rank_config);
  library.need("ncclCommSplit", api.split);
  library.need("ncclCommGetAsyncError", api.get_async_error);
  library.need("ncclCommFinalize", api.finalize);
  library.need("ncclCommDestroy", api.destroy);
  library.need("ncclCommAbort", api.abort);
  library.need("ncclGetErrorString", api.error_string);
  library.need("ncclGetLastError", api.last_error);
  library.need("ncclGroupStart", api.group_start);
  library.need("ncclGroupEnd", api.group_end);
  library.need("ncclAllReduce", api.all_reduce);
  library.need("ncclBroadcast", api.broadcast);
  library.need("ncclReduce", api.reduce);
  library.need("ncclAllGather", api.all_gather);
  library.need("ncclReduceScatter", api.reduce_scatter);
  library.need("ncclSend", api.send);
  library.need("ncclRecv", api.receive);
}

void fill_optional(const DynamicLibrary& library, NcclApi& api) {
  library.find("ncclCommInitRankScalable", api.init_rank_scalable);
  library.find("ncclCommShrink", api.shrink);
  library.find("ncclCommRevoke", api.revoke);
  library.find("ncclCommGetUniqueId", api.grow_id);
  library.find("ncclCommGrow", api.grow);
  library.find("ncclCommSuspend", api.suspend);
  library.find("ncclCommResume", api.resume);
}

std::shared_ptr<const NcclApi> table(const DynamicLibrary& library) {
  auto api = std::make_shared<NcclApi>();
  api->origin = library.origin();
  api->version = version_of(library);
  fill_needed(library, *api);
  fill_optional(library, *api);
  return api;
}

}  // namespace

std::shared_ptr<const NcclApi> nccl_from(const DynamicLibrary::Lookup& lookup, const std::string& origin) {
  return table(DynamicLibrary(lookup, origin, terms()));
}

std::shared_ptr<const NcclApi> open_nccl(const std::string& name) {
  return table(DynamicLibrary::open({name}, terms()));
}

}  // namespace hpresil
