#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/kernels/rows.hpp>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// o [group, dim] += sum of w[g * stride + i] * row i. Rows without weight for any query are not read: hidden and dropped
/// ones may hold what is no number, and 0 times that is none either.
inline void sum_weighted(const Rows<float>& rows, const float* w, std::ptrdiff_t stride, int group, float* o) {
  const auto weighs = [&](Index i) {
    for (int g = 0; g < group; ++g)
      if (w[g * stride + i] != 0) return true;
    return false;
  };
  for (Index i = 0; i < rows.n;) {
    Index end = i;
    while (end < rows.n && weighs(end)) ++end;
    if (end > i) kernels::axpy_group(rows.part(i, end - i), w + i, stride, group, o);
    i = end + 1;  // row `end` has no weight
  }
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
