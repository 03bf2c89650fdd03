// A shared mapping of a memory file.
#pragma once

#include <cstddef>

namespace hpresil {

// Thread safety: none; the owner serialises close() with every use of data().
class Mapping {
 public:
  // Maps the first `nbytes` of `fd`, which must hold that many. `populate` faults all pages in now:
  // a first write into a cold page costs over ten times a copy into a warm one.
  Mapping(int fd, std::size_t nbytes, bool writable, bool populate);
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return nbytes_; }
  [[nodiscard]] bool writable() const { return writable_; }
  void close();

 private:
  std::byte* data_ = nullptr;
  std::size_t nbytes_;
  bool writable_;
};

}  // namespace hpresil
