#include "communicator/nccl_api.h"

#include <algorithm>

#include "base/error.h"

namespace hpresil {

const std::array<NcclFeature, 5>& nccl_features() {
  static const std::array<NcclFeature, 5> kFeatures = {{
      {"scalable_init", 22300, "one root serves all ranks",
       [](const NcclApi& api) { return api.init_rank_scalable != nullptr; }},
      {"shrink", 22700, "the communicator is initialised anew",
       [](const NcclApi& api) { return api.shrink != nullptr; }},
      {"revoke", 22809, "the communicator is aborted and initialised anew",
       [](const NcclApi& api) { return api.revoke != nullptr; }},
      {"grow", 22902, "the communicator is initialised anew",
       [](const NcclApi& api) { return api.grow != nullptr && api.grow_id != nullptr; }},
      {"suspend", 22907, "stand-ins stay active and keep their memory, or there are none",
       [](const NcclApi& api) { return api.suspend != nullptr && api.resume != nullptr; }},
  }};
  return kFeatures;
}

std::vector<std::string> features_of(const NcclApi& api) {
  std::vector<std::string> names;
  for (const NcclFeature& feature : nccl_features()) {
    if (api.version >= feature.oldest && feature.found(api)) {
      names.emplace_back(feature.name);
    }
  }
  return names;
}

bool has_feature(const NcclApi& api, const std::string& name) {
  const std::vector<std::string> names = features_of(api);
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string nccl_version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

void require_feature(const NcclApi& api, const char* name) {
  const auto& all = nccl_features();
  const auto feature =
      std::find_if(all.begin(), all.end(), [&](const NcclFeature& f) { return std::string(f.name) == name; });
  expects(feature != all.end(), "no feature of NCCL has this name");
  if (api.version < feature->oldest) {
    fail("NCCL " + nccl_version_text(api.version) + " (" + api.origin + ") has no " + name +
         ", which came with " + nccl_version_text(feature->oldest) +
         ": install a newer NCCL or torch; until then " + feature->without);
  }
  if (!feature->found(api)) {
    fail("NCCL " + nccl_version_text(api.version) + " (" + api.origin + ") should have " + name +
         ", but a symbol of it is missing: install NVIDIA's own build; until then " + feature->without);
  }
}

void check_nccl(const NcclApi& api, NcclResult result, const std::string& what, NcclComm* communicator) {
  if (result == kNcclSuccess || result == kNcclInProgress) {
    return;
  }
  const char* detail = communicator == nullptr ? nullptr : api.last_error(communicator);
  const std::string more = detail == nullptr || *detail == '\0' ? "" : std::string(" (") + detail + ")";
  fail(what + ": " + api.error_string(result) + more);
}

}  // namespace hpresil
