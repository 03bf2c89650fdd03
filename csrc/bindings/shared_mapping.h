// What Python holds as a Mapping.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"
#include "bindings/module.h"
#include "memory/mapping.h"

namespace hpresil::bindings {

// A mapping that knows how many Python views point into it, so that close() cannot pull the memory
// away under a tensor.
struct SharedMapping : Mapping {
  using Mapping::Mapping;
  std::size_t views = 0;

  void close_checked() {
    if (views > 0) {
      fail("the mapping cannot be closed: " + std::to_string(views) + " views into it are alive");
    }
    // The last mapping of a file frees its pages, tens of milliseconds for a gradient: not under the GIL.
    // From here on this object is closed for other threads.
    Mapping mine(std::move(*this));
    const py::gil_scoped_release released;
    mine.close();
  }
  [[nodiscard]] std::byte* open_data() const {
    expects(data() != nullptr, "the mapping is closed");
    return data();
  }
};

}  // namespace hpresil::bindings
