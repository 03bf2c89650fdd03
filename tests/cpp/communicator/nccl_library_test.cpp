// How NCCL is found: what is missing, what is too old, and which features a version has.
#include "communicator/nccl_library.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace hpresil {
namespace {

using Names = std::vector<std::string>;

NcclResult says_21800(int* version) {
  *version = 21800;
  return kNcclSuccess;
}
NcclResult says_22905(int* version) {
  *version = 22905;
  return kNcclSuccess;
}
NcclResult says_23203(int* version) {
  *version = 23203;
  return kNcclSuccess;
}
NcclResult says_21605(int* version) {
  *version = 21605;
  return kNcclSuccess;
}
void nothing() {}

std::shared_ptr<const NcclApi> library(NcclResult (*version)(int*),
                                       const std::set<std::string>& missing = {}) {
  return nccl_from(
      [version, missing](const char* symbol) -> void* {
        if (missing.count(symbol) != 0) {
          return nullptr;
        }
        return std::string(symbol) == "ncclGetVersion" ? reinterpret_cast<void*>(version)
                                                       : reinterpret_cast<void*>(&nothing);
      },
      "a test");
}

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const NativeError& error) {
    return error.what();
  }
  return "";
}

bool says(const std::string& text, const Names& parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) {
      ADD_FAILURE() << "'" << part << "' is not in: " << text;
      return false;
    }
  }
  return true;
}

TEST(NcclLibrary, EveryFeatureHasTheVersionItCameWith) {
  EXPECT_EQ(features_of(*library(says_21800)), Names{});
  EXPECT_EQ(features_of(*library(says_22905)), (Names{"scalable_init", "shrink", "revoke", "grow"}));
  EXPECT_EQ(features_of(*library(says_23203)),
            (Names{"scalable_init", "shrink", "revoke", "grow", "suspend"}));
}

TEST(NcclLibrary, AFeatureWhoseSymbolIsMissingIsNotThere) {
  const auto api = library(says_23203, {"ncclCommResume", "ncclCommShrink"});
  EXPECT_EQ(features_of(*api), (Names{"scalable_init", "revoke", "grow"}));
  says(message([&] { require_feature(*api, "shrink"); }),
       {"should have shrink", "a test", "initialised anew"});
}

TEST(NcclLibrary, AFeatureThatCameLaterIsNamedWithItsVersionAndTheWayOut) {
  const auto api = library(says_22905);
  says(message([&] { require_feature(*api, "suspend"); }),
       {"2.29.5", "2.29.7", "suspend", "install", "stand-ins"});
  EXPECT_EQ(message([&] { require_feature(*api, "grow"); }), "");
}

TEST(NcclLibrary, ASymbolThatAllVersionsHaveIsNamedIfItIsMissing) {
  says(message([] { library(says_23203, {"ncclCommAbort"}); }), {"ncclCommAbort", "2.18.0", "install"});
  says(message([] { library(says_23203, {"ncclGetVersion"}); }), {"ncclGetVersion"});
}

TEST(NcclLibrary, AnOldVersionIsRefusedInWords) {
  says(message([] { library(says_21605); }), {"2.16.5", "2.18.0", "install"});
}

TEST(NcclLibrary, AFileThatIsNotThereIsAnErrorThatSaysWhatToDo) {
  says(message([] { open_nccl("libnccl-that-is-not-there.so.2"); }),
       {"libnccl-that-is-not-there", "torch", "gloo"});
}

}  // namespace
}  // namespace hpresil
