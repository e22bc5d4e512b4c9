#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/merge_call.hpp>

namespace kvist::inline KVIST_ABI {

// Targets of a merge: what the weights are applied to. From w [1 + m] come the absolute weights of keys and of values, the
// entry that stays first; `raw_keys` says that keys must not have been rotated.

/// Keys and values become the weighted mean of all members, the entry that stays being one of them.
///
/// Rotated keys of different positions are averaged as they are: pairs of channels that turn fast cancel in part, slow ones
/// hardly do. With raw keys (a view that holds them) content alone is averaged, and the result stands at the one position
/// of the entry that stays; `raw_keys` refuses anything else.
struct NewCentroid {
  bool raw_keys = false;
  void apply(const MergeCall&, const MergeGroup&, std::span<const float> w, std::span<float> wk,
             std::span<float> wv) const {
    std::copy(w.begin(), w.end(), wk.begin());
    std::copy(w.begin(), w.end(), wv.begin());
  }
};

/// The entry that stays keeps its norm and is turned towards the others: keys are averaged as directions, values as they
/// are. So a merge neither weakens nor strengthens the entry's logits by cancellation.
/// Source: arXiv 2412.08521 (EMS), which keeps norms of keys apart. Rotated keys: as NewCentroid.
struct UpdatedAnchor {
  bool raw_keys = false;
  void apply(const MergeCall& c, const MergeGroup& g, std::span<const float> w, std::span<float> wk,
             std::span<float> wv) const {
    std::copy(w.begin(), w.end(), wv.begin());
    auto sum = c.scratch->floats(std::size_t(c.dim_k));
    std::fill(sum.begin(), sum.end(), 0.0f);
    const double own = std::sqrt(double(detail::squared_norm(c.key(g.dst))));
    for (Index i = 0; i < g.size(); ++i) {
      const auto key = c.key(g.row(i));
      const double norm = std::sqrt(double(detail::squared_norm(key)));
      wk[std::size_t(i)] = norm > 0 ? float(double(w[std::size_t(i)]) / norm) : 0.0f;
      for (std::size_t k = 0; k < key.size(); ++k) sum[k] += wk[std::size_t(i)] * key[k];
    }
    const double length = std::sqrt(double(detail::squared_norm(sum)));
    if (!(length > 1e-6) || !(own > 0)) {  // opposite directions: the key stays
      std::fill(wk.begin(), wk.end(), 0.0f);
      wk[0] = 1;
      return;
    }
    for (float& x : wk) x = float(double(x) * own / length);
  }
};

/// Values are blended, keys stay as they are: nothing is mixed that depends on positions.
/// Source: NVIDIA/kvpress, merging_press.py.
struct ValuesOnly {
  static constexpr bool raw_keys = false;
  void apply(const MergeCall&, const MergeGroup&, std::span<const float> w, std::span<float> wk,
             std::span<float> wv) const {
    std::fill(wk.begin(), wk.end(), 0.0f);
    wk[0] = 1;
    std::copy(w.begin(), w.end(), wv.begin());
  }
};

}  // namespace kvist::inline KVIST_ABI
