#include "base/dynamic_library.h"

#include <dlfcn.h>

#include "base/error.h"

namespace hpresil {

DynamicLibrary DynamicLibrary::open(const std::vector<std::string>& names, LibraryTerms terms,
                                    std::source_location where) {
  std::string tried;
  for (const std::string& name : names) {
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD);
    const bool loaded = library != nullptr;
    if (!loaded) {
      library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    if (library != nullptr) {
      return {[library](const char* symbol) { return dlsym(library, symbol); },
              name + (loaded ? ", loaded before" : ", loaded by hpresil"), std::move(terms)};
    }
    const char* why = dlerror();
    tried += (tried.empty() ? "" : "; ") + std::string(why == nullptr ? name : why);
  }
  fail(terms.what + " is not here (" + tried + "): " + terms.if_absent, where);
}

void DynamicLibrary::lacks(const char* symbol, std::source_location where) const {
  fail(terms_.what + " (" + origin_ + ") has no function " + symbol + ": " + terms_.if_lacking, where);
}

}  // namespace hpresil
