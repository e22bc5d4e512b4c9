#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/types.hpp>
#include <kvist/kernels/dispatch.hpp>

#include <bit>

namespace kvist::inline KVIST_ABI {
namespace kernels::detail {

/// One of these per instruction set.
struct HadamardTable {
  void (*hadamard)(float* x, Index rows, int d);
};

}  // namespace kernels::detail

namespace kernels {
/// The table of the level that runs now.
KVIST_KERNELS_INLINE const detail::HadamardTable& hadamard_table();

/// Rows x [rows, d], one behind the other, times the normalised Hadamard matrix in Sylvester order, in place; it is its own
/// inverse. The same bits at every level of instruction set. Requires: d a power of two. Cost: d log2 d additions a row.
inline void hadamard(float* x, Index rows, int d) {
  KVIST_ASSERT(d >= 1 && std::has_single_bit(unsigned(d)) && rows >= 0);
  hadamard_table().hadamard(x, rows, d);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_KERNELS_EXTERN)
#include <kvist/kernels/detail/hadamard_table.ipp>
#endif
