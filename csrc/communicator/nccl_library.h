// Finds NCCL at run time and fills its table of functions.
#pragma once

#include <memory>
#include <string>

#include "base/dynamic_library.h"
#include "communicator/nccl_api.h"

namespace hpresil {

// Opens NCCL: the instance that is loaded already (torch's own: two in one process would not know of each
// other's communicators, and a fault in one would not reach the other), else by the loader's search.
// Stays open for the life of the process. `name`: another file, for tests and for what lies elsewhere.
// Throws NativeError: not found, a symbol that every supported version has is missing, or too old; each says
// what to do.
std::shared_ptr<const NcclApi> open_nccl(const std::string& name = "libnccl.so.2");

// The table from any source of symbols; `lookup` returns null for what is not there. As open_nccl otherwise.
std::shared_ptr<const NcclApi> nccl_from(const DynamicLibrary::Lookup& lookup, const std::string& origin);

}  // namespace hpresil
