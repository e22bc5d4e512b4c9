#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/policy/dispose/merge_call.hpp>

namespace kvist::inline KVIST_ABI {

/// A loser's value is spread evenly over the next `targets` entries that stay, with a probability that is its score against
/// theirs; its key is dropped. Keys never change, so positions do not mix.
///
/// P = min(a_i / mean a_j, 1), j over the targets, or (`over` later) over all later entries that stay; P = 1 where that mean
/// is 0 and a_i is not, 0 where both are. Then v_j += v_i / |J| with probability P, drawn from (seed, layer, head, position);
/// `deterministic` adds P v_i / |J| instead: the mean over draws. Values only grow: expectation keeps the output only where
/// the targets' scores are like the loser's.
/// Source: Zhang et al. 2024, ICML, "CaM: Cache Merging for Memory-efficient LLMs Inference"; zyxxmu/cam. Its decode path
/// spreads an entry one step before it disappears, so that it counts twice, and takes 1/32 whatever the number of targets:
/// neither is done here.
///
/// Needs: values; a signal that scores by attention. Cost: targets * dv a loser.
struct SpreadValues {
  static constexpr Role role = Role::disposition;
  static constexpr unsigned makes = drops | blends;
  enum class Over : std::uint8_t { targets, later };
  Index targets = 16;
  bool deterministic = false;
  Over over = Over::targets;
  std::uint64_t seed = 1;
  /// Draws for tests against recorded ones: uniform in [0, 1) by (layer, head, position); null: by the seed.
  double (*draw)(int layer, int head, Pos pos) = nullptr;

  template <Head H>
  Status dispose(const HeadContext<H>& c, std::span<const float> scores, HeadPlan& plan) const {
    if (plan.drop.empty()) return Done{};
    std::vector<Index> kept;
    std::size_t d = 0;
    for (Index i = 0; i < c.size(); ++i) {
      if (d < plan.drop.size() && plan.drop[d] == i) ++d;
      else kept.push_back(i);
    }
    for (const Index src : plan.drop) {
      auto to = std::lower_bound(kept.begin(), kept.end(), std::max(src, c.shared_rows));
      const std::span<const Index> later(to, kept.end());
      const std::span<const Index> near =
          later.first(std::min(later.size(), std::size_t(std::max<Index>(targets, 0))));
      if (near.empty()) continue;
      const double p = probability(scores, src, over == Over::later ? later : near);
      const bool drawn = !deterministic && uniform(c.layer, c.index, c.head.pos[std::size_t(src)]) < p;
      const double share = deterministic ? p : drawn ? 1.0 : 0.0;
      if (!(share > 0)) continue;
      for (const Index dst : near) plan.blend.push_back({src, dst, 0.0f, float(share / double(near.size()))});
    }
    std::vector<Index> touched;
    for (const Blend& b : plan.blend) touched.push_back(b.dst);
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    const auto weights = log_weight_of(c.head);
    for (const Index dst : touched)
      plan.self.push_back({dst, 1.0f, 1.0f, weights.empty() ? 0.0f : weights[std::size_t(dst)]});
    return Done{};
  }

  /// Of spreading row src, given the rows that its score is compared with.
  static double probability(std::span<const float> scores, Index src, std::span<const Index> with) {
    double mean = 0;
    for (const Index j : with) mean += double(scores[std::size_t(j)]) / double(with.size());
    const double ratio = double(scores[std::size_t(src)]) / mean;
    if (std::isnan(ratio)) return 0;
    return std::clamp(ratio, 0.0, 1.0);
  }

 private:
  double uniform(int layer, int head, Pos pos) const {
    if (draw != nullptr) return draw(layer, head, pos);
    return Random(mix_seed(mix_seed(seed, std::uint64_t(layer) << 20 | std::uint64_t(head)), std::uint64_t(pos)))
        .uniform();
  }
};

}  // namespace kvist::inline KVIST_ABI
