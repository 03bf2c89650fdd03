// The few declarations of NCCL that hpresil needs, so that no header of NCCL is needed to build.
//
// NcclConfig is the layout of NCCL 2.17 to 2.23; it says its own size, and every later NCCL takes what is not
// in it as undefined. splitShare is known from 2.18 on, so that is the oldest NCCL that is supported.
#pragma once

#include <climits>
#include <cstddef>

namespace hpresil {

struct NcclComm;  // opaque
using CudaStream = void*;

inline constexpr std::size_t kNcclIdBytes = 128;
struct NcclUniqueId {
  char internal[kNcclIdBytes];
};

enum NcclResult : int {
  kNcclSuccess = 0,
  kNcclUnhandledCudaError = 1,
  kNcclSystemError = 2,
  kNcclInternalError = 3,
  kNcclInvalidArgument = 4,
  kNcclInvalidUsage = 5,
  kNcclRemoteError = 6,
  kNcclInProgress = 7,
  kNcclTimeout = 8,  // from 2.30 on
};

enum NcclType : int { kNcclUint8 = 1, kNcclUint64 = 5, kNcclFloat32 = 7 };
enum NcclSum : int { kNcclSum = 0 };

inline constexpr int kNcclUndefined = INT_MIN;
inline constexpr unsigned kNcclMagic = 0xcafebeef;
inline constexpr int kNcclOldest = 21800;  // as ncclGetVersion counts: major * 10000 + minor * 100 + patch
inline constexpr int kShrinkAbort = 1;
inline constexpr int kRevokeDefault = 0;
inline constexpr int kSuspendMemory = 1;

struct NcclConfig {
  std::size_t size = sizeof(NcclConfig);
  unsigned magic = kNcclMagic;
  unsigned version = kNcclOldest;
  int blocking = 0;  // NCCL's own default is 1
  int cga_cluster_size = kNcclUndefined;
  int min_ctas = kNcclUndefined;
  int max_ctas = kNcclUndefined;
  const char* net_name = nullptr;
  int split_share = 0;
};
static_assert(sizeof(NcclConfig) == 48, "the layout of NCCL 2.17 on a 64-bit machine");

}  // namespace hpresil
