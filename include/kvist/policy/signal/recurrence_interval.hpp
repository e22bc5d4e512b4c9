#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/signal/window_attention.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvist::inline KVIST_ABI {

/// Which formula turns recurrence records into a score (RecurrenceInterval).
enum class RecurrenceForm : std::uint8_t { code, paper };

/// Ranks entries by how long they have been silent compared with their own rhythm: an entry is hit by a
/// decode step that gives it a probability of at least `alpha`; it is worth keeping while its silence is
/// short against the longest gap between two of its hits.
///
/// With s = steps since the last hit and r = the longest gap, the paper's score is 2 sigmoid(-s / r) + 2
/// sigmoid(1 - r), the second term only where r > 0. The published code (form = code) has 2 sigmoid(-(1 + s /
/// (r + 1e-5))) for the first term, so that it ends at .537883 instead of 1 and the rhythm weighs more. Never
/// hit: 0 in both, so the tie rule decides among them. An entry counts as hit one step before it was made,
/// entries of the prompt at step 0: one that attends to itself has r = 1 from birth, as in the code. A new
/// prompt call starts the count of steps again; records of entries from before are moved back by the steps
/// that have passed, so that silences and gaps go on over turns (the published code forgets them). The source
/// has one query head per KV head; a group's probabilities become one by `reduce` (max: any head hits).
/// Source: Zhang et al. 2025, arXiv 2506.15969 (LazyEviction), its tracker and score.
///
/// Needs: probabilities of each step. State: two integers an entry, one a head. Cost: n*G compares a step, 2n
/// exponentials a plan.
struct RecurrenceInterval {
  static constexpr Role role = Role::signal;
  struct Entry {
    static constexpr Index unborn = std::numeric_limits<Index>::min();
    Index last = unborn;  ///< step of the last hit
    Index longest = 0;    ///< steps between two hits, the most so far; 0: never hit
  };
  struct PerHead {
    Index step = 0;  ///< of the last call
  };
  double alpha = 1e-4;
  RecurrenceForm form = RecurrenceForm::code;
  Reduce reduce = Reduce::max;

  Wants wants() const { return {Needs::none, Needs::probs, 0}; }

  /// For snapshots: steps are counted far from where they overflow.
  template <class V, class Record>
  void fields(V& v, Record& r, const Shape&) const {
    constexpr Index most = 1 << 29;
    if constexpr (requires { r.longest; }) {
      bool born = r.last != Entry::unborn;
      v.number(born, false, true);
      if (born) v.number(r.last, -most, most);
      v.number(r.longest, 0, most);
    } else {
      v.number(r.step, 0, most);
    }
  }

  Status validate(const Shape&) const {
    if (!(alpha >= 0)) return Error{Errc::bad_option, "alpha is a probability and can't be negative"};
    return Done{};
  }

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead& head) const {
    const Index n = c.now.step;
    if (c.now.phase == Phase::prefill) {
      for (Entry& e : entries) e.last = e.last == Entry::unborn ? 0 : e.last - head.step;
      head.step = 0;
      return Done{};
    }
    head.step = n;
    const Cube& probs = c.seen.probs;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      Entry& e = entries[i];
      // A hit that is not older than this step came from a token that was taken back.
      e.last = e.last == Entry::unborn ? n - 1 : std::min(e.last, n - 1);
      if (!(attention(probs, i) >= alpha)) continue;
      e.longest = std::max(e.longest, n - e.last);
      e.last = n;
    }
    return Done{};
  }

  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry> entries, const PerHead& head,
               std::span<float> out) const {
    for (std::size_t i = 0; i < entries.size(); ++i)
      out[i] = float(value(head.step - entries[i].last, entries[i].longest));
    return Done{};
  }

  /// The score of an entry that has been silent for `silence` steps and whose longest gap was `longest`.
  double value(Index silence, Index longest) const {
    const double s = silence, r = longest;
    const double rhythm = longest > 0 ? 2 / (1 + std::exp(r - 1)) : 0;
    if (form == RecurrenceForm::code) return 2 / (1 + std::exp(1 + s / (r + 1e-5))) + rhythm;
    if (longest == 0) return silence == 0 ? 1 : 0;  // the limit of r -> 0
    return 2 / (1 + std::exp(s / r)) + rhythm;
  }

 private:
  double attention(const Cube& probs, std::size_t i) const {
    double x = 0;
    for (int g = 0; g < probs.g; ++g) {
      const double p = double(probs.row(g, probs.w - 1)[i]);
      x = reduce == Reduce::max ? std::max(x, p) : x + p;
    }
    return reduce == Reduce::mean ? x / probs.g : x;
  }
};
static_assert(Signal<RecurrenceInterval>);

}  // namespace kvist::inline KVIST_ABI
