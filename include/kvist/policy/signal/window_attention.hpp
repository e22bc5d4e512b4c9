#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/window_rows.hpp>
#include <kvist/policy/signal/adapt/pool.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// How the scores of a query group become one.
enum class Reduce : std::uint8_t { mean, max, sum };

/// The last `window` queries of the prompt vote for the entries before them: the mean over the window of their attention,
/// pooled over neighbours, reduced over the query group. Entries of the window itself get the group's size, more than any
/// vote can reach; they are meant to be guarded (recent >= window).
///
/// Rows are normalised over all entries before the window's columns are cut off, and cut off before pooling. Where fewer
/// than `window` queries were seen, those vote.
/// Source: Li et al. 2024, arXiv 2404.14469 (SnapKV), section 4; official code FasterDecoding/SnapKV, snapkv_utils.py.
///
/// Needs: the window's queries (or probabilities). State: none. Cost: G*window*n*dk multiply-adds a plan.
struct WindowAttention {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  Index window = 32;
  int kernel = 5;
  PoolMode mode = PoolMode::avg;
  Reduce reduce = Reduce::mean;
  bool reduce_after =
      false;  ///< pool each query head, then reduce; else reduce first (the two agree for mean and avg)

  Wants wants() const { return {Needs::rows, Needs::rows, window}; }

  Status validate(const Shape&) const {
    if (window < 1)
      return Error{Errc::bad_option, "the observation window holds at least one query", 1, window};
    return check_pool(kernel);
  }

  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    const Index n = c.size(), w = std::min(detail::window_size(c, window), n);
    const std::size_t context = std::size_t(n - w);
    if (w == 0)
      return Error{Errc::missing_evidence, "window attention wants the last queries of the prompt", window, 0};
    const int group = c.seen.probs ? c.seen.probs.g : c.seen.queries.g;
    auto row = c.scratch.floats(std::size_t(n));
    auto votes = c.scratch.floats(context);
    auto pooled = c.scratch.floats(context);
    std::fill(out.begin(), out.end(), 0.0f);
    for (int g = 0; g < group; ++g) {
      std::fill(votes.begin(), votes.end(), 0.0f);
      for (Index i = 0; i < w; ++i) {
        detail::window_row(c, g, w, i, row);
        for (std::size_t j = 0; j < context; ++j) votes[j] += row[j];
      }
      for (float& v : votes) v /= float(w);
      if (reduce_after) pool(votes, kernel, mode, pooled);
      fold(reduce_after ? std::span<const float>(pooled) : std::span<const float>(votes), group, g == 0, out);
    }
    if (!reduce_after) {
      std::copy_n(out.begin(), context, votes.begin());
      pool(votes, kernel, mode, out.first(context));
    }
    std::fill(out.begin() + std::ptrdiff_t(context), out.end(), float(group));
    return Done{};
  }

 private:
  void fold(std::span<const float> x, int group, bool first, std::span<float> out) const {
    for (std::size_t j = 0; j < x.size(); ++j) {
      if (reduce == Reduce::max) out[j] = first ? x[j] : std::max(out[j], x[j]);
      else out[j] += reduce == Reduce::mean ? x[j] / float(group) : x[j];
    }
  }
};
static_assert(Signal<WindowAttention>);

}  // namespace kvist::inline KVIST_ABI
