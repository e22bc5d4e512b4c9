#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Removes ascending rows from a vector, keeping the order of the others. Rows that it does not have are no matter.
template <class T>
void erase_rows(std::vector<T>& v, const std::vector<Index>& rows) {
  if (rows.empty() || v.empty()) return;
  std::size_t to = std::min(std::size_t(rows[0]), v.size()), d = 0;
  for (std::size_t from = to; from < v.size(); ++from) {
    if (d < rows.size() && std::size_t(rows[d]) == from) ++d;
    else v[to++] = std::move(v[from]);
  }
  v.resize(to, T{});
}

/// Memory for what x holds, and for n elements at least.
template <class X>
void fit_memory(X& x, std::size_t n) {
  X next;
  next.reserve(std::max(n, x.size()));
  next.assign(x.begin(), x.end());
  x = std::move(next);
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
