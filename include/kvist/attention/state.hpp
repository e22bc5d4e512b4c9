#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The attention of a query group over the entries seen so far: for each of G queries the largest logit m, the sum l of
/// exp(logit - m) and the weighted sum o [dv] of values, not yet divided by l. Memory is the caller's. States over
/// disjoint entries merge exactly, which is what lets a cache be a list of stores of different kinds.
/// Source: Milakov, Gimelshein 2018, arXiv 1805.02867 (online softmax); Ye et al. 2025, arXiv 2501.01005 (merging).
struct AttnState {
  int group = 0;
  int dim_v = 0;
  float* m = nullptr;  ///< [G]
  float* l = nullptr;  ///< [G]
  float* o = nullptr;  ///< [G, dv]

  float* row(int g) const { return o + std::ptrdiff_t(g) * dim_v; }
  /// The state over no entries.
  void clear() const {
    std::fill_n(m, group, -std::numeric_limits<float>::infinity());
    std::fill_n(l, group, 0.0f);
    std::fill_n(o, std::ptrdiff_t(group) * dim_v, 0.0f);
  }
};

/// An AttnState with memory of its own.
class AttnBuffer {
 public:
  AttnBuffer() = default;
  AttnBuffer(int group, int dim_v) { resize(group, dim_v); }
  void resize(int group, int dim_v) {
    group_ = group;
    dim_v_ = dim_v;
    data_.resize(std::size_t(group) * std::size_t(dim_v + 2));
    state().clear();
  }
  AttnState state() {
    return {group_, dim_v_, data_.data(), data_.data() + group_, data_.data() + 2 * group_};
  }

 private:
  int group_ = 0, dim_v_ = 0;
  std::vector<float> data_;
};

/// Adds one logit without a value (an attention sink that the model learnt) for query g: it takes probability only.
inline void add_sink(const AttnState& s, int g, float logit) {
  const float m = std::max(s.m[g], logit);
  const float keep = s.l[g] > 0 ? std::exp(s.m[g] - m) : 0.0f;
  s.l[g] = s.l[g] * keep + std::exp(logit - m);
  for (int c = 0; c < s.dim_v; ++c) s.row(g)[c] *= keep;
  s.m[g] = m;
}

/// into += from, as if one pass had seen the entries of both. Empty states (l = 0) change nothing.
/// Requires: same group and dim_v.
inline void merge(const AttnState& into, const AttnState& from) {
  KVIST_ASSERT(into.group == from.group && into.dim_v == from.dim_v);
  for (int g = 0; g < into.group; ++g) {
    if (!(from.l[g] > 0)) continue;
    const float m = std::max(into.m[g], from.m[g]);
    const float a = into.l[g] > 0 ? std::exp(into.m[g] - m) : 0.0f, b = std::exp(from.m[g] - m);
    into.m[g] = m;
    into.l[g] = into.l[g] * a + from.l[g] * b;
    float* const o = into.row(g);
    const float* const p = from.row(g);
    for (int c = 0; c < into.dim_v; ++c) o[c] = o[c] * a + p[c] * b;
  }
}

/// out [G, dv] = o / l; zeros for a query that saw no entry.
inline void finish(const AttnState& s, float* out) {
  for (int g = 0; g < s.group; ++g) {
    const float inv = s.l[g] > 0 ? 1.0f / s.l[g] : 0.0f;
    for (int c = 0; c < s.dim_v; ++c) out[std::ptrdiff_t(g) * s.dim_v + c] = s.row(g)[c] * inv;
  }
}

/// What a model's layer does besides softmax over all entries.
struct LayerAttention {
  float scale = 1;     ///< multiplies q.k, usually 1/sqrt(dk)
  float soft_cap = 0;  ///< c > 0: logit = c * tanh(logit / c)
  Pos window = 0;      ///< > 0: a sliding window, just entries at the newest `window` positions are seen
  std::span<const float> sinks;  ///< [q_heads] a learnt logit without a value for each head; or empty
};

/// One query group's question to a store or a head view of n entries.
struct AttendArgs {
  const float* q = nullptr;     ///< [G, dk], in the form of the stored keys (rotated if they are)
  int group = 1;                ///< G
  float scale = 1;              ///< multiplies q.k, usually 1/sqrt(dk)
  float soft_cap = 0;           ///< c > 0: logit = c * tanh(logit / c), after scale and before bias
  Index first = 0;              ///< entries before it are not seen (a sliding window's edge, as a row)
  const float* bias = nullptr;  ///< [n] added to each entry's logit (log-weights of merged entries), or null
  std::span<const Index> only;  ///< where not empty: just these rows, ascending (what a retriever chose)
  float* logits = nullptr;      ///< [G, n] final logits if wanted; -infinity for entries not seen
  std::ptrdiff_t logits_stride = 0;  ///< elements from one query's logits to the next
};

}  // namespace kvist::inline KVIST_ABI
