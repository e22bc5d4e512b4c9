#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>
#include <numeric>

namespace kvist::inline KVIST_ABI {

/// For engines that free memory in pages of `page` rows: whole pages leave, those with the lowest mean score first (of
/// equal ones the later page), until at most the budget stays. Pages that hold a guarded row, and the last page where it
/// is not full, stay. Requires: page >= 1.
/// Fails with: bad_budget where the pages that must stay hold more entries than the budget.
inline Status select_pages(const SelectCall& call, Index page, std::vector<Index>& drop) {
  drop.clear();
  const Index n = call.size(), full = n / page;
  std::vector<Index> free;
  std::vector<double> score(std::size_t(full), 0.0);
  for (Index p = 0; p < full; ++p) {
    if (p * page < call.guards.sinks || (p + 1) * page > (long long)n - call.guards.recent) continue;
    for (Index i = p * page; i < (p + 1) * page; ++i)
      score[std::size_t(p)] += double(call.scores[std::size_t(i)]);
    free.push_back(p);
  }
  const Index losers = Index(std::max<long long>(0, ((long long)n - call.budget + page - 1) / page));
  if (losers > Index(free.size()))
    return Error{Errc::bad_budget, "pages that hold guarded entries do not fit in the budget",
                 n - Index(free.size()) * page, call.budget};
  std::sort(free.begin(), free.end(), [&](Index a, Index b) {
    return score[std::size_t(a)] < score[std::size_t(b)] ||
           (score[std::size_t(a)] == score[std::size_t(b)] && a > b);
  });
  free.resize(std::size_t(losers));
  std::sort(free.begin(), free.end());
  for (const Index p : free)
    for (Index i = p * page; i < (p + 1) * page; ++i) drop.push_back(i);
  return Done{};
}

}  // namespace kvist::inline KVIST_ABI
