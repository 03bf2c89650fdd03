#include "snapshot/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>

#include "base/error.h"
#include "base/thread.h"

namespace hpresil {
namespace {

constexpr std::size_t kHugeBytes = std::size_t{2} << 20;
constexpr std::size_t kChunkBytes = std::size_t{32} << 20;  // what one thread faults in at a time

#ifndef MADV_POPULATE_WRITE
constexpr int kPopulateWrite = 23;  // Linux 5.14
#else
constexpr int kPopulateWrite = MADV_POPULATE_WRITE;
#endif

std::size_t round_up(std::size_t nbytes, std::size_t unit) { return (nbytes + unit - 1) / unit * unit; }

std::string word_in_brackets(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const auto begin = line.find('[');
  const auto end = line.find(']');
  return end == std::string::npos || begin > end ? "" : line.substr(begin + 1, end - begin - 1);
}

// Reserved huge pages, -1 where there are not enough: then mapping fails, never a later touch.
int huge_memfd(const std::string& name, std::size_t nbytes) {
  Fd fd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(nbytes)) != 0) {
    return -1;
  }
  void* tried = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (tried == MAP_FAILED) {
    return -1;
  }
  munmap(tried, nbytes);  // the file keeps what the mapping has reserved for it
  return fd.release();
}

std::string why_small() {
  const std::string shmem = word_in_brackets("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  if (shmem == "always" || shmem == "advise" || shmem == "within_size" || shmem == "force") {
    return "transparent huge pages, as far as the kernel has them free (shmem_enabled: " + shmem + ")";
  }
  return "small pages: not enough huge pages are reserved (vm.nr_hugepages), and transparent ones are off "
         "for "
         "shared memory (transparent_hugepage/shmem_enabled: " +
         (shmem.empty() ? "not there" : shmem) + ")";
}

// One chunk; 0 or an errno.
int populate(std::byte* data, std::size_t nbytes) {
  for (;;) {
    if (madvise(data, nbytes, kPopulateWrite) == 0) {
      return 0;
    }
    if (errno ==
        EINVAL) {  // an older kernel: a write of what is there, which other processes may change meanwhile
      for (std::size_t at = 0; at < nbytes; at += 4096) {
        std::atomic_ref<unsigned char>(*reinterpret_cast<unsigned char*>(data + at)).fetch_or(0);
      }
      return 0;
    }
    if (errno != EINTR && errno != EAGAIN) {
      return errno;
    }
  }
}

}  // namespace

Arena create_arena(const std::string& name, std::size_t nbytes) {
  expects(nbytes > 0, "an arena needs at least one byte");
  Arena arena{Fd(), round_up(nbytes, kHugeBytes), "huge pages"};
  arena.fd = Fd(huge_memfd(name, arena.nbytes));
  if (arena.fd.get() < 0) {
    arena.fd = create_memfd(name, arena.nbytes);
    arena.note = why_small();
  }
  add_seals(arena.fd.get(), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return arena;
}

void fault_in(std::byte* data, std::size_t nbytes, int threads) {
  madvise(data, nbytes, MADV_HUGEPAGE);  // refused where there are none: then they are small
  const std::size_t chunks = (nbytes + kChunkBytes - 1) / kChunkBytes;
  std::atomic<int> error{0};
  run_parallel(threads, chunks, [&](std::size_t i) {
    const std::size_t at = i * kChunkBytes;
    const int found = error == 0 ? populate(data + at, std::min(kChunkBytes, nbytes - at)) : 0;
    if (found != 0) {
      error = found;
    }
  });
  if (error != 0) {
    fail_errno("faulting in " + std::to_string(nbytes) + " bytes of a frame (is there enough memory?)",
               error);
  }
}

}  // namespace hpresil
