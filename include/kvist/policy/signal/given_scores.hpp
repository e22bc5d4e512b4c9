#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <memory>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// Scores of a prompt's entries that somebody else computed, [layers][kv_heads][prompt entries] by position; entries
/// beyond them rank last.
struct ScoresByPosition {
  int kv_heads = 0;
  std::vector<std::vector<float>> heads;  ///< [layers * kv_heads][positions]
};

/// Ranks entries by scores from outside: recorded scores, or an oracle that has seen the continuation.
///
/// Needs: `table`. State: none. Cost: n. Fails with: missing_evidence where the table lacks the head.
struct GivenScores {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  std::shared_ptr<const ScoresByPosition> table;

  Wants wants() const { return {}; }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    const std::size_t at = std::size_t(c.layer * c.shape.kv_heads + c.index);
    if (!table || table->kv_heads != c.shape.kv_heads || at >= table->heads.size())
      return Error{Errc::missing_evidence, "no scores were given for this layer and head", (long long)at,
                   table ? (long long)table->heads.size() : 0};
    const std::vector<float>& scores = table->heads[at];
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t p = std::size_t(c.head.pos[i]);
      out[i] = p < scores.size() ? scores[p] : -std::numeric_limits<float>::infinity();
    }
    return Done{};
  }
};
static_assert(Signal<GivenScores>);

}  // namespace kvist::inline KVIST_ABI
