#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/merge_call.hpp>

namespace kvist::inline KVIST_ABI {

// Weights of a merge: how much each member of a group counts, the entry that stays first; out [1 + m]. They add up to 1
// unless a part says otherwise.

/// Each member counts as often as the tokens it stands for: the mean over tokens, in whatever order they were merged.
/// Source: Bolya et al. 2023, arXiv 2210.09461 (ToMe), size-weighted averaging.
struct CountMean {
  void weigh(const MergeCall& c, const MergeGroup& g, std::span<float> out) const {
    double sum = 0;
    for (Index i = 0; i < g.size(); ++i) sum += double(out[std::size_t(i)] = c.count(g.row(i)));
    for (float& w : out) w = float(double(w) / sum);
  }
};

/// Each member counts by its score; where all scores are 0 (or one is no positive number) by its count.
/// Source: arXiv 2412.08521 (EMS), as far as it is published.
struct ByScore {
  void weigh(const MergeCall& c, const MergeGroup& g, std::span<float> out) const {
    double sum = 0;
    bool usable = true;
    for (Index i = 0; i < g.size(); ++i) {
      const float s = c.score(g.row(i));
      usable = usable && s >= 0 && std::isfinite(s);
      sum += double(out[std::size_t(i)] = s);
    }
    if (!usable || !(sum > 0) || !std::isfinite(sum)) return CountMean{}.weigh(c, g, out);
    for (float& w : out) w = float(double(w) / sum);
  }
};

/// Members count by their similarity u to the entry that stays.
///
///   raw         w_i = u_i / (1 + m), self 1 / (1 + m): does not add up to 1, so that merged rows shrink. Official code of D2O
///   exponential w_i = e^u_i / (e + sum e^u), self e / (e + sum e^u)
///   half        w_i = max((u_i + 1) / 2, 1e-6) / (1 + sum), self 1 / (1 + sum). KVCache-Factory, mode "weighted"
/// Source: Wan et al. 2025, arXiv 2406.13035, AIoT-MLSys-Lab/D2O (raw), its paper as others describe it (exponential);
/// Zefan-Cai/KVCache-Factory, merge_kv (half).
struct BySimilarity {
  enum class Form : std::uint8_t { raw, exponential, half };
  Form form = Form::raw;
  void weigh(const MergeCall&, const MergeGroup& g, std::span<float> out) const {
    const auto of = [&](float u) {
      return form == Form::raw    ? double(u)
             : form == Form::half ? std::max((double(u) + 1) / 2, 1e-6)
                                  : std::exp(double(u));
    };
    double sum = form == Form::exponential ? std::exp(1.0) : 1.0;
    out[0] = float(sum);
    for (std::size_t i = 0; i < g.members.size(); ++i) {
      const double w = of(g.members[i].similarity);
      out[i + 1] = float(w);
      sum += form == Form::raw ? 1.0 : w;
    }
    for (float& w : out) w = float(double(w) / sum);
  }
};

/// Members count by their similarity u, cut at 0, times their share of the two values' norms:
/// w_i = max(u_i, 0) |v_i| / (|v_i| + |v_self| + 1e-6), self 1, divided by 1 + sum.
/// Source: NVIDIA/kvpress, merging_press.py.
struct ByValueShare {
  void weigh(const MergeCall& c, const MergeGroup& g, std::span<float> out) const {
    auto v = c.scratch->floats(std::size_t(c.dim_v));
    const auto norm = [&](Index row) {
      c.value(row, v);
      return std::sqrt(double(detail::squared_norm(v)));
    };
    const double self = norm(g.dst);
    double sum = 1;
    out[0] = 1;
    for (std::size_t i = 0; i < g.members.size(); ++i) {
      const double mine = norm(g.members[i].src);
      const double w = std::max(double(g.members[i].similarity), 0.0) * mine / (mine + self + 1e-6);
      sum += w;
      out[i + 1] = float(w);
    }
    for (float& w : out) w = float(double(w) / sum);
  }
};

/// Members count by a Gaussian of the distance of their key to that of the entry that stays (the pivot):
/// g_i = exp(-|k_p - k_i|^2 / (2 sigma^2)), divided by the sum. Where all keys are equal, all count alike.
///
///   fixed        sigma as given
///   mean_distance sigma = sum |k_p - k_i| / (sqrt(2) |S|)
///   fixed_point  sigma = sum g_i / (sqrt(2) |S|), as it is printed: g itself depends on sigma, so this is the fixed point
///                reached from 1; never above 0.7071, it returns the pivot where keys are apart. For study.
/// Source: arXiv 2407.08454 (KVMerger); its ablation finds a fixed sigma of 5 best, which the printed rule cannot give, so
/// that the mean distance is what may have been meant.
struct Gaussian {
  enum class Rule : std::uint8_t { fixed, mean_distance, fixed_point };
  float sigma = 5;
  Rule rule = Rule::fixed;

  void weigh(const MergeCall& c, const MergeGroup& g, std::span<float> out) const {
    auto far = c.scratch->floats(out.size());  // squared distances
    const auto pivot = c.key(g.dst);
    double sum = 0;
    for (Index i = 0; i < g.size(); ++i) {
      const auto key = c.key(g.row(i));
      double squares = 0;
      for (std::size_t k = 0; k < key.size(); ++k)
        squares += (double(key[k]) - double(pivot[k])) * (double(key[k]) - double(pivot[k]));
      far[std::size_t(i)] = float(squares);
      sum += std::sqrt(squares);
    }
    const double n = double(g.size());
    if (sum == 0) return std::fill(out.begin(), out.end(), float(1 / n));
    double s = rule == Rule::mean_distance ? sum / (std::sqrt(2.0) * n) : double(sigma);
    if (rule == Rule::fixed_point) s = fixed_point(far.first(out.size()));
    double all = 0;
    for (std::size_t i = 0; i < out.size(); ++i)
      all += double(out[i] = float(std::exp(-double(far[i]) / (2 * s * s))));
    for (float& w : out) w = float(double(w) / all);
  }

  /// sigma = sum of exp(-d / (2 sigma^2)) over the squared distances d, divided by sqrt(2) times their number.
  static double fixed_point(std::span<const float> squared) {
    const double n = double(squared.size());
    double s = 1;
    for (int i = 0; i < 1000; ++i) {
      double sum = 0;
      for (const float d : squared) sum += std::exp(-double(d) / (2 * s * s));
      const double next = sum / (std::sqrt(2.0) * n);
      if (std::abs(next - s) < 1e-12) return next;
      s = next;
    }
    return s;
  }
};

}  // namespace kvist::inline KVIST_ABI
