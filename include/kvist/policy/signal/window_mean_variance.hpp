#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/window_rows.hpp>
#include <kvist/policy/signal/adapt/pool.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {

/// The last `window` queries of the prompt rank the entries before them by mean + gamma * variance of their
/// attention, pooled over neighbours, mean over the query group: what is attended to by some of them counts
/// more than what all look at a little. During decode the newest query's attention to the entries before the
/// last `window` ranks, pooled alike.
///
/// The variance is that of a sample (divisor w - 1, 0 for one query). Rows are normalised over all entries
/// before the window's columns are cut off. Entries of the window get more than any vote can reach; they are
/// meant to be guarded. Of the layer it says the dispersion, - sum a log(a + 1e-10), and the shift, the sum
/// of the variances, over all entries before the window, queries and heads.
/// Source: Qin et al. 2025, arXiv 2503.12491 (CAKE); official code antgroup/cakekv,
/// cake/model/modify_llama.py.
///
/// Needs: the window's queries or probabilities, the probabilities of each step. State: one float an entry,
/// two a head.
/// Cost: G*window*n*dk multiply-adds and G*window*n logarithms a prompt, n*G a step.
struct WindowMeanVariance {
  static constexpr Role role = Role::signal;
  struct Entry {
    float score = 0;  ///< of the prompt
  };
  struct PerHead {
    double entropy = 0, variance = 0;
    Pos newest = -1;  ///< position of the last query that they come from
  };
  Index window = 32;
  float gamma = 200;
  int kernel = 5;

  Wants wants() const { return {Needs::rows, Needs::probs, window}; }

  /// For snapshots.
  template <class V, class Record>
  void fields(V& v, Record& r, const Shape&) const {
    if constexpr (requires { r.newest; })
      v.block(&r.entropy, 1), v.block(&r.variance, 1), v.number(r.newest, -1, 1 << 30);
    else v.block(&r.score, 1);
  }

  Status validate(const Shape&) const {
    if (window < 2)
      return Error{Errc::bad_option, "a variance over the window wants at least two queries", 2, window};
    if (!std::isfinite(gamma) || gamma < 0)
      return Error{Errc::bad_option, "gamma weighs the variance and can't be negative"};
    return check_pool(kernel);
  }

  /// A call of the prompt: scores, and what they say of the head.
  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead& head) const {
    if (c.now.phase != Phase::prefill) return Done{};
    head = {};
    const Index n = c.size(), w = std::min(detail::window_size(c, window), n);
    if (n == 0) return Done{};
    if (w == 0)
      return Error{Errc::missing_evidence, "window attention wants the last queries of the prompt", window, 0};
    head.newest = c.head.pos[std::size_t(n - 1)];
    const std::size_t context = std::size_t(n - w);
    const int group = c.seen.probs ? c.seen.probs.g : c.seen.queries.g;
    auto row = c.scratch.floats(std::size_t(n));
    auto mean = c.scratch.floats(context);
    auto square = c.scratch.floats(context);
    auto pooled = c.scratch.floats(context);
    for (std::size_t j = 0; j < entries.size(); ++j) entries[j].score = j < context ? 0 : 1 + gamma;
    for (int g = 0; g < group; ++g) {
      std::fill(mean.begin(), mean.end(), 0.0f);
      std::fill(square.begin(), square.end(), 0.0f);
      for (Index i = 0; i < w; ++i) {
        detail::window_row(c, g, w, i, row);
        head.entropy += fold(row.first(context), i, mean, square);
      }
      for (std::size_t j = 0; j < context; ++j) {
        const float variance = w > 1 ? square[j] / float(w - 1) : 0.0f;
        head.variance += double(variance);
        mean[j] += gamma * variance;
      }
      pool(mean, kernel, PoolMode::avg, pooled);
      for (std::size_t j = 0; j < context; ++j) entries[j].score += pooled[j] / float(group);
    }
    return Done{};
  }

  /// What a prompt said of the head is forgotten with its last query; decode steps leave nothing behind.
  void truncate(PerHead& head, Pos pos) const {
    if (head.newest >= pos) head = {};
  }

  LayerStat layer_stat(std::span<const PerHead> heads) const {
    LayerStat stat;
    for (const PerHead& h : heads) {
      stat.entropy += h.entropy;
      stat.variance += h.variance;
    }
    return stat;
  }

  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry> entries, const PerHead&,
               std::span<float> out) const {
    if (c.now.phase == Phase::prefill) {
      for (std::size_t i = 0; i < entries.size(); ++i) out[i] = entries[i].score;
      return Done{};
    }
    if (detail::window_size(c, 1) == 0)
      return Error{Errc::missing_evidence, "a decode step is ranked by its own attention", 1, 0};
    const std::size_t context = std::size_t(std::max<Index>(0, c.size() - window));
    const int group = c.seen.probs ? c.seen.probs.g : c.seen.queries.g;
    auto row = c.scratch.floats(std::size_t(c.size()));
    auto pooled = c.scratch.floats(context);
    std::fill(out.begin(), out.begin() + std::ptrdiff_t(context), 0.0f);
    std::fill(out.begin() + std::ptrdiff_t(context), out.end(), 1 + gamma);
    for (int g = 0; g < group; ++g) {
      detail::window_row(c, g, 1, 0, row);
      pool(row.first(context), kernel, PoolMode::avg, pooled);
      for (std::size_t j = 0; j < context; ++j) out[j] += pooled[j] / float(group);
    }
    return Done{};
  }

 private:
  /// Adds query i's row to running means and squared distances (Welford); returns the row's entropy.
  static double fold(std::span<const float> row, Index i, std::span<float> mean, std::span<float> square) {
    const float share = 1.0f / float(i + 1);
    double entropy = 0;
    for (std::size_t j = 0; j < row.size(); ++j) {
      const float a = row[j], from_old = a - mean[j];
      mean[j] += from_old * share;
      square[j] += from_old * (a - mean[j]);
      entropy -= double(a * std::log(a + 1e-10f));
    }
    return entropy;
  }
};
static_assert(Signal<WindowMeanVariance>);

}  // namespace kvist::inline KVIST_ABI
