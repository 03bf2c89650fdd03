// NCCL as a table of functions: the library's own (nccl_library.h), or a script in a test.
//
// Invariant: all functions of the first block are there. One of the second is there exactly if the feature it
// belongs to is: the library has its symbols *and* says a version that is new enough, since a symbol alone
// may be a stub of an unfinished feature.
// Thread safety: the table never changes; what its functions allow is NCCL's to say (see communicator.h).
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "communicator/nccl_types.h"

namespace hpresil {

struct NcclApi {
  int version = 0;
  std::string origin;  // where it was found, in words

  std::function<NcclResult(NcclUniqueId*)> get_unique_id;
  std::function<NcclResult(NcclComm**, int ranks, NcclUniqueId, int rank, NcclConfig*)> init_rank_config;
  std::function<NcclResult(NcclComm*, int color, int key, NcclComm**, NcclConfig*)> split;
  std::function<NcclResult(NcclComm*, NcclResult*)> get_async_error;
  std::function<NcclResult(NcclComm*)> finalize;
  std::function<NcclResult(NcclComm*)> destroy;
  std::function<NcclResult(NcclComm*)> abort;
  std::function<const char*(NcclResult)> error_string;
  std::function<const char*(NcclComm*)> last_error;
  std::function<NcclResult()> group_start;
  std::function<NcclResult()> group_end;
  std::function<NcclResult(const void*, void*, std::size_t, int type, int op, NcclComm*, CudaStream)>
      all_reduce;
  std::function<NcclResult(const void*, void*, std::size_t, int type, int root, NcclComm*, CudaStream)>
      broadcast;
  std::function<NcclResult(const void*, void*, std::size_t, int type, int op, int root, NcclComm*,
                           CudaStream)>
      reduce;
  std::function<NcclResult(const void*, void*, std::size_t, int type, NcclComm*, CudaStream)> all_gather;
  std::function<NcclResult(const void*, void*, std::size_t, int type, int op, NcclComm*, CudaStream)>
      reduce_scatter;
  std::function<NcclResult(const void*, std::size_t, int type, int peer, NcclComm*, CudaStream)> send;
  std::function<NcclResult(void*, std::size_t, int type, int peer, NcclComm*, CudaStream)> receive;

  std::function<NcclResult(NcclComm**, int ranks, int rank, int ids, NcclUniqueId*, NcclConfig*)>
      init_rank_scalable;
  std::function<NcclResult(NcclComm*, int*, int, NcclComm**, NcclConfig*, int flags)> shrink;
  std::function<NcclResult(NcclComm*, int flags)> revoke;
  std::function<NcclResult(NcclComm*, NcclUniqueId*)> grow_id;
  std::function<NcclResult(NcclComm*, int, const NcclUniqueId*, int, NcclComm**, NcclConfig*)> grow;
  std::function<NcclResult(NcclComm*, int flags)> suspend;
  std::function<NcclResult(NcclComm*)> resume;
};

struct NcclFeature {
  const char* name;
  int oldest;                         // version that has it
  const char* without;                // what happens instead
  bool (*found)(const NcclApi& api);  // all its functions are in the table
};

// Of what is not in every supported NCCL.
const std::array<NcclFeature, 5>& nccl_features();

// The names of the features `api` has.
std::vector<std::string> features_of(const NcclApi& api);

bool has_feature(const NcclApi& api, const std::string& name);

// "2.29.7" for 22907.
std::string nccl_version_text(int version);

// Throws NativeError that names the feature, the version there is, the one it needs, and what to do, unless
// `api` has it.
void require_feature(const NcclApi& api, const char* name);

// Throws NativeError with NCCL's words unless `result` is success or in progress. `communicator` may be null.
void check_nccl(const NcclApi& api, NcclResult result, const std::string& what,
                NcclComm* communicator = nullptr);

}  // namespace hpresil
