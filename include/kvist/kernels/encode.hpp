#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/kernels/dispatch.hpp>
#include <kvist/kernels/packed_layout.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels::detail {

/// One of these per instruction set.
struct EncodeTable {
  using Encode = void(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n);
  Encode *affine, *q8_0, *q4_0;
};

}  // namespace kernels::detail

namespace kernels {
/// The table of the level that runs now.
KVIST_KERNELS_INLINE const detail::EncodeTable& encode_table();

/// Rows [n, dim] become entries t .. t+n-1 of a page: codes between the least and the largest number of each group, as
/// Affine<f16> has them, bit for bit at every level of instruction set. Other entries keep theirs. With groups along the
/// entries the rows are one group, and it gets its scale from them.
/// Requires: layout.valid(), layout.minima, centre 0; t + n <= 128; along entries t a multiple of the group and n <= group.
inline void encode_affine(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n) {
  KVIST_ASSERT(layout.valid() && layout.minima && layout.centre == 0 && t >= 0 && t + n <= PackedLayout::page);
  KVIST_ASSERT(layout.along == GroupAlong::channels || (t % layout.group == 0 && n <= layout.group));
  encode_table().affine(layout, page, t, rows, n);
}

/// The same with the scales and codes of ggml's q8_0. Requires: a layout of 8 bits in groups of 32 channels without
/// minima; 32 divides dim.
inline void encode_q8_0(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n) {
  KVIST_ASSERT(layout.bits == 8 && layout.group == 32 && layout.dim % 32 == 0 && t + n <= PackedLayout::page);
  encode_table().q8_0(layout, page, t, rows, n);
}

/// The same with those of q4_0. Requires: the same with 4 bits.
inline void encode_q4_0(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n) {
  KVIST_ASSERT(layout.bits == 4 && layout.group == 32 && layout.dim % 32 == 0 && t + n <= PackedLayout::page);
  encode_table().q4_0(layout, page, t, rows, n);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_KERNELS_EXTERN)
#include <kvist/kernels/detail/encode_table.ipp>
#endif
