#include "reduction/reduction.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "base/thread.h"
#include "reduction/float_mode.h"
#include "reduction/kernel.h"
#include "trace/span.h"

namespace hpresil {
namespace {

using reduction_detail::Kernel;

constexpr std::size_t kPartElements = std::size_t{1} << 18;

const Kernel& kernel_of(CpuLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case CpuLevel::portable:
    case CpuLevel::sse42:
      return reduction_detail::kPortable;
    case CpuLevel::avx2:
      return reduction_detail::kAvx2;
    case CpuLevel::avx512:
      return reduction_detail::kAvx512;
  }
#else
  static_cast<void>(level);
#endif
  return reduction_detail::kPortable;
}

template <typename T>
void add_all(reduction_detail::Add<T> add, void* to, std::span<const void* const> sources, std::size_t count,
             int threads) {
  std::vector<const T*> typed;
  typed.reserve(sources.size());
  for (const void* source : sources) {
    typed.push_back(static_cast<const T*>(source));
  }
  run_parallel(threads, (count + kPartElements - 1) / kPartElements, [&](std::size_t part) {
    const PlainFloatMode plain;
    const std::size_t begin = part * kPartElements;
    add(static_cast<T*>(to), typed.data(), typed.size(), begin, std::min(count, begin + kPartElements));
  });
}

std::size_t bytes_of(FloatType type) { return type == FloatType::f4 ? sizeof(float) : sizeof(double); }

void expect_aligned(const void* address, FloatType type) {
  expects(reinterpret_cast<std::uintptr_t>(address) % bytes_of(type) == 0,
          "an address is not a multiple of its elements' size");
}

}  // namespace

std::vector<double> square_sums(const void* from, std::size_t count, std::size_t block, FloatType type,
                                int threads, CpuLevel level) {
  expects(block > 0, "block must be at least 1");
  expect_aligned(from, type);
  expects(threads >= 1, "threads must be at least 1");
  const Kernel& kernel = kernel_of(level);
  const Span span = Span::of_bytes(SpanName::squares, count * bytes_of(type));
  const std::size_t blocks = (count + block - 1) / block;
  const std::size_t per_part = std::max<std::size_t>(1, kPartElements / block);
  std::vector<double> sums(blocks);
  run_parallel(threads, (blocks + per_part - 1) / per_part, [&](std::size_t part) {
    const PlainFloatMode plain;
    const std::size_t end = std::min(blocks, (part + 1) * per_part);
    for (std::size_t b = part * per_part; b < end; ++b) {
      const std::size_t begin = b * block;
      const std::size_t size = std::min(block, count - begin);
      sums[b] = type == FloatType::f4 ? kernel.square_sum_f4(static_cast<const float*>(from) + begin, size)
                                      : kernel.square_sum_f8(static_cast<const double*>(from) + begin, size);
    }
  });
  return sums;
}

void add_ordered(void* to, std::span<const void* const> sources, std::size_t count, FloatType type,
                 int threads, CpuLevel level) {
  expects(!sources.empty(), "add_ordered needs at least one source");
  expect_aligned(to, type);
  for (const void* source : sources) {
    expect_aligned(source, type);
  }
  expects(threads >= 1, "threads must be at least 1");
  const Kernel& kernel = kernel_of(level);
  const Span span = Span::of_bytes(SpanName::sum, count * sources.size() * bytes_of(type));
  if (type == FloatType::f4) {
    add_all<float>(kernel.add_f4, to, sources, count, threads);
  } else {
    add_all<double>(kernel.add_f8, to, sources, count, threads);
  }
}

}  // namespace hpresil
