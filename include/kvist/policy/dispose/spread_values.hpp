#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/policy/dispose/merge_call.hpp>

namespace kvist::inline KVIST_ABI {

/// A loser's value is spread evenly over the `targets` entries that follow it, with a probability that is its score against
/// others'; its key is dropped. Keys never change, so positions do not mix.
///
/// Losers leave one after another, the oldest first: what one has spread over a later loser is spread on with that one's value.
/// P = min(a_i / b, 1), b being the mean score of the targets, of all later entries, or the largest of those that stay (P = 1
/// where b is 0 and a_i is not, 0 where both are). Then v_j += v_i / |J| for the targets j with probability P, drawn from
/// (seed, layer, head, position); `deterministic` adds P v_i / |J| instead: the mean over draws. Values only grow: expectation
/// keeps the output only where the targets' scores are like the loser's. Against the targets' mean, a prompt of which much
/// leaves at once would pile up most of its values in the first that stay; so prompts have a denominator of their own.
/// Source: Zhang et al. 2024, ICML, "CaM: Cache Merging for Memory-efficient LLMs Inference"; zyxxmu/cam: streaming path
/// (mean of the targets), decode path (mean of all later ones), prefill path (largest that stays). Its decode path spreads an
/// entry one step before it disappears, so that it counts twice, and takes 1/32 whatever the number of targets: neither is
/// done here.
///
/// Needs: values; a signal that scores by attention. Cost: dv for each loser and entry that it reaches; losers * kept numbers.
struct SpreadValues {
  static constexpr Role role = Role::disposition;
  static constexpr unsigned makes = drops | blends;
  enum class Over : std::uint8_t { targets, later, largest };
  Index targets = 16;
  bool deterministic = false;
  Over over = Over::targets;    ///< in decode
  Over prompt = Over::largest;  ///< where a prompt is cut
  std::uint64_t seed = 1;
  /// Draws for tests against recorded ones: uniform in [0, 1) by (layer, head, position); null: by the seed.
  double (*draw)(int layer, int head, Pos pos) = nullptr;

  template <Head H>
  Status dispose(const HeadContext<H>& c, std::span<const float> scores, HeadPlan& plan) const {
    if (plan.drop.empty()) return Done{};
    const Index n = c.size(), reach = std::clamp<Index>(targets, 0, n);
    const Over kind = c.now.phase == Phase::prefill ? prompt : over;
    std::vector<Index> place(std::size_t(n), 0), kept;  // of rows that stay; -1: a loser
    double largest = 0;
    for (const Index i : plan.drop) place[std::size_t(i)] = -1;
    for (Index i = 0; i < n; ++i) {
      if (place[std::size_t(i)] < 0) continue;
      place[std::size_t(i)] = Index(kept.size());
      kept.push_back(i);
      largest = std::max(largest, double(scores[std::size_t(i)]));
    }
    // Backwards: `sum` is what a unit of value given to each of the next rows becomes in the rows that stay.
    std::vector<double> sum(kept.size(), 0.0);
    const Index ring = reach + 1;
    std::vector<std::vector<double>> shares(static_cast<std::size_t>(ring));  // of the losers among the next rows
    const auto add = [&](Index row, double by) {
      if (row < c.shared_rows) return;
      if (place[std::size_t(row)] >= 0) {
        sum[std::size_t(place[std::size_t(row)])] += by;
        return;
      }
      const std::vector<double>& f = shares[std::size_t(row % ring)];
      for (std::size_t k = 0; k < f.size(); ++k) sum[k] += by * f[k];
    };
    double next = 0, later = 0;  // scores of the next rows, and of all behind
    for (Index i = n - 1; i >= 0 && reach > 0; --i) {
      if (i + 1 < n)
        add(i + 1, 1), next += double(scores[std::size_t(i) + 1]), later += double(scores[std::size_t(i) + 1]);
      if (i + 1 + reach < n) {
        add(i + 1 + reach, -1);
        next -= double(scores[std::size_t(i + 1 + reach)]);
      }
      if (place[std::size_t(i)] >= 0) continue;
      const Index count = std::min(reach, n - 1 - i);
      std::vector<double>& mine = shares[std::size_t(i % ring)];
      mine.assign(sum.size(), 0.0);
      if (count == 0) continue;
      const double against = kind == Over::largest ? largest
                             : kind == Over::later ? later / double(n - 1 - i)
                                                   : next / count;
      const double p = probability(double(scores[std::size_t(i)]), against);
      const double share = deterministic                                               ? p
                           : uniform(c.layer, c.index, c.head.pos[std::size_t(i)]) < p ? 1.0
                                                                                       : 0.0;
      if (!(share > 0)) continue;
      for (std::size_t k = sum.size(); k-- > 0;) {
        mine[k] = std::max(0.0, share / count * sum[k]);
        if (mine[k] > least) plan.blend.push_back({i, kept[k], 0.0f, float(mine[k])});
      }
    }
    std::reverse(plan.blend.begin(), plan.blend.end());
    std::vector<char> touched(std::size_t(n), 0);
    for (const Blend& b : plan.blend) touched[std::size_t(b.dst)] = 1;
    const auto weights = log_weight_of(c.head);
    for (const Index dst : kept)
      if (touched[std::size_t(dst)])
        plan.self.push_back({dst, 1.0f, 1.0f, weights.empty() ? 0.0f : weights[std::size_t(dst)]});
    return Done{};
  }

  /// Of spreading an entry, given its score and what it is compared with.
  static double probability(double score, double against) {
    const double ratio = score / against;
    return std::isnan(ratio) ? 0 : std::clamp(ratio, 0.0, 1.0);
  }

 private:
  static constexpr double least = 1e-6;  // what is smaller is not carried on

  double uniform(int layer, int head, Pos pos) const {
    if (draw != nullptr) return draw(layer, head, pos);
    return Random(mix_seed(mix_seed(seed, std::uint64_t(layer) << 20 | std::uint64_t(head)), std::uint64_t(pos)))
        .uniform();
  }
};
static_assert(Disposition<SpreadValues>);

}  // namespace kvist::inline KVIST_ABI
