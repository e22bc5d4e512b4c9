#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/kernels/dispatch.hpp>

#include <span>

namespace kvist::inline KVIST_ABI {
namespace kernels::detail {

/// One of these per instruction set.
struct PoolTable {
  void (*max)(const float* x, Index n, int kernel, float* out);
  void (*avg)(const float* x, Index n, int kernel, float* out);
};

}  // namespace kernels::detail

namespace kernels {
/// The table of the level that runs now.
KVIST_KERNELS_INLINE const detail::PoolTable& pool_table();

/// out[i] = the largest of x over the `kernel` entries centred on i, fewer at the borders; what a NaN among them makes of it is
/// open. Requires: kernel odd; out [n] apart from x.
inline void max_pool(std::span<const float> x, int kernel, float* out) {
  pool_table().max(x.data(), Index(x.size()), kernel, out);
}

/// out[i] = the sum of x over those entries, in ascending order, divided by `kernel` at the borders too: the same bits for
/// every instruction set. Requires: kernel odd; out [n] apart from x.
inline void avg_pool(std::span<const float> x, int kernel, float* out) {
  pool_table().avg(x.data(), Index(x.size()), kernel, out);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_KERNELS_EXTERN)
#include <kvist/kernels/detail/pool_table.ipp>
#endif
