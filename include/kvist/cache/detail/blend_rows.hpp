#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/plan.hpp>

#include <algorithm>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Carries out a plan's blends on rows of dk and dv channels: read(row, k, v) gives one, write(row, k, v) takes one, where a
/// null pointer stands for what stays as it was and keeps its bits (a coded row is not coded again). All sums come before all
/// writes: a source is never read after it has changed.
template <class Read, class Write>
void blend_rows(const HeadPlan& plan, int dim_k, int dim_v, Read read, Write write) {
  const std::size_t dk = std::size_t(dim_k), dv = std::size_t(dim_v), m = plan.self.size();
  std::vector<float> k(m * dk), v(m * dv), src_k(dk), src_v(dv);
  std::vector<char> new_k(m, 0), new_v(m, 0);
  for (std::size_t s = 0; s < m; ++s) {
    const Self& self = plan.self[s];
    read(self.dst, k.data() + s * dk, v.data() + s * dv);
    new_k[s] = self.wk != 1;
    new_v[s] = self.wv != 1;
    for (std::size_t c = 0; c < dk; ++c) k[s * dk + c] *= self.wk;
    for (std::size_t c = 0; c < dv; ++c) v[s * dv + c] *= self.wv;
  }
  for (const Blend& b : plan.blend) {
    const auto self = std::lower_bound(plan.self.begin(), plan.self.end(), b.dst,
                                       [](const Self& x, Index dst) { return x.dst < dst; });
    const std::size_t s = std::size_t(self - plan.self.begin());
    read(b.src, src_k.data(), src_v.data());
    new_k[s] = new_k[s] || b.wk != 0;
    new_v[s] = new_v[s] || b.wv != 0;
    for (std::size_t c = 0; c < dk; ++c) k[s * dk + c] += b.wk * src_k[c];
    for (std::size_t c = 0; c < dv; ++c) v[s * dv + c] += b.wv * src_v[c];
  }
  for (std::size_t s = 0; s < m; ++s)
    if (new_k[s] || new_v[s])
      write(plan.self[s].dst, new_k[s] ? k.data() + s * dk : nullptr, new_v[s] ? v.data() + s * dv : nullptr);
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
