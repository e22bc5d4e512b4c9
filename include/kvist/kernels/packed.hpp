#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/kernels/dispatch.hpp>
#include <kvist/kernels/packed_layout.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {
namespace kernels {

/// How finely queries and probabilities are rounded before they meet integer codes.
enum class Accuracy : std::uint8_t {
  fast,  ///< 8 bits: one pass; relative error of the output up to 1.8e-2 on random data (4-bit rounding itself: 1e-1)
  exact,  ///< 16 bits as two passes over the codes: relative error up to 1e-4
};

/// Up to four queries made ready for pages of one layout: done once per query, used for every page.
struct PackedQuery {
  static constexpr int max_group = 4;
  static constexpr int max_sets = PackedLayout::max_dim / 4;
  int group = 0;
  bool wide = false;
  alignas(64) float q[max_group][PackedLayout::max_dim];              // scaled; zeros behind dim
  alignas(64) std::int8_t code[2][max_group][PackedLayout::max_dim];  // along channels: rounded, high and low part
  float step[max_sets][max_group], bias[max_sets][max_group],
      sum[max_sets][max_group];  // along channels, per group
};

/// A stretch of memory that will be read soon. A kernel asks for its lines evenly while it works on something else: only
/// so does the memory bus never wait at long contexts.
struct Ahead {
  const void* at = nullptr;
  std::size_t bytes = 0;
};

namespace detail {

/// One of these per instruction set.
struct PackedTable {
  void (*prepare)(const PackedLayout& layout, const float* q, int group, float scale, bool wide,
                  PackedQuery& out);
  void (*key_logits)(const PackedLayout& layout, const std::uint8_t* page, const PackedQuery& query,
                     float* logits, std::ptrdiff_t stride, Ahead ahead);
  void (*value_sum)(const PackedLayout& layout, const std::uint8_t* page, const float* w,
                    std::ptrdiff_t stride, int group, bool wide, float* o, Ahead ahead);
};

}  // namespace detail

/// The table of the level that runs now.
KVIST_KERNELS_INLINE const detail::PackedTable& packed_table();

/// Makes queries q [G, dim] ready; `scale` multiplies every logit. Requires: layout.valid(), layout.keys, 1 <= G <= 4.
inline void prepare(const PackedLayout& layout, const float* q, int group, float scale, Accuracy accuracy,
                    PackedQuery& out) {
  KVIST_ASSERT(layout.valid() && layout.keys && group >= 1 && group <= PackedQuery::max_group);
  packed_table().prepare(layout, q, group, scale, accuracy == Accuracy::exact, out);
}

/// logits[g * stride + t] = scale * q[g] . key[t] for all 128 entries of a page, straight from the codes.
/// Logits of entries that the page does not hold yet are to be ignored. Requires: stride >= 128.
inline void key_logits(const PackedLayout& layout, const std::uint8_t* page, const PackedQuery& query,
                       float* logits, std::ptrdiff_t stride, Ahead ahead = {}) {
  packed_table().key_logits(layout, page, query, logits, stride, ahead);
}

/// o[g, c] += sum over the page's 128 entries of w[g * stride + t] * value[t, c]; w is 0 for entries that do not count.
/// o [G, dim]. Requires: layout.valid(), !layout.keys, 1 <= G <= 4.
inline void value_sum(const PackedLayout& layout, const std::uint8_t* page, const float* w,
                      std::ptrdiff_t stride, int group, Accuracy accuracy, float* o, Ahead ahead = {}) {
  KVIST_ASSERT(layout.valid() && !layout.keys && group >= 1 && group <= PackedQuery::max_group);
  packed_table().value_sum(layout, page, w, stride, group, accuracy == Accuracy::exact, o, ahead);
}

/// Entries first .. first+n-1 of a page as f32 out [n, dim].
inline void unpack(const PackedLayout& layout, const std::uint8_t* page, Index first, Index n, float* out) {
  for (Index t = 0; t < n; ++t)
    for (int c = 0; c < layout.dim; ++c)
      out[std::ptrdiff_t(t) * layout.dim + c] = layout.value(page, first + t, c);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_KERNELS_EXTERN)
#include <kvist/kernels/detail/packed_table.ipp>
#endif
