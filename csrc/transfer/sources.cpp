#include "transfer/sources.h"

#include <algorithm>
#include <numeric>

namespace hpresil::transfer {

Sources::Sources(std::size_t count, std::size_t at_once) : given_up_(count, false), slots_(at_once) {
  for (auto& slot : slots_) {
    if (next_ < count) {
      slot = next_++;
    }
  }
}

std::optional<std::size_t> Sources::in_slot(std::size_t slot) {
  while (slots_[slot] && given_up_[*slots_[slot]]) {
    slots_[slot] = next_ < given_up_.size() ? std::optional(next_++) : std::nullopt;
  }
  return slots_[slot];
}

int Sources::broke(std::size_t source, int worker, std::uint64_t arrived) {
  Breaks& breaks = breaks_[{source, worker}];
  breaks.in_a_row = arrived > breaks.arrived ? 1 : breaks.in_a_row + 1;
  breaks.arrived = arrived;
  if (breaks.in_a_row >= kTries) {
    give_up(source);
  }
  return breaks.in_a_row;
}

void Sources::full(std::size_t source) {
  if (next_ < given_up_.size()) {
    give_up(source);
  }
}

std::vector<std::size_t> ranked(const std::vector<double>& bytes_per_s) {
  std::vector<std::size_t> order(bytes_per_s.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const double best = bytes_per_s.empty() ? 0 : *std::max_element(bytes_per_s.begin(), bytes_per_s.end());
  const auto near_best = [&](std::size_t i) { return best > 0 && bytes_per_s[i] >= 0.9 * best; };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (near_best(a) || near_best(b)) {
      return near_best(a) && !near_best(b);
    }
    return bytes_per_s[a] > bytes_per_s[b];
  });
  return order;
}

}  // namespace hpresil::transfer
