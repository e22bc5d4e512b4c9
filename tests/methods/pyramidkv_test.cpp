// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/pyramidkv.hpp>

#include <numeric>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

/// Entries per head in every layer, window included.
std::vector<Index> ladder(int layers, Index budget, Index window, int beta, Index n, bool exact) {
  std::vector<Index> out;
  for (int l = 0; l < layers; ++l) {
    const std::vector<LayerStat> seen(std::size_t(l) + 1, LayerStat{0, 0, n});
    std::vector<Index> budgets(seen.size());
    REQUIRE(Ladder{beta, exact}.allocate({layers, seen, {0, window}, budget}, budgets));
    out.push_back(budgets.back());
  }
  return out;
}

}  // namespace

TEST_CASE("A ladder falls by equal steps", "[policy][Ladder]") {
  for (const bool exact : {false, true}) {
    CHECK(ladder(4, 20, 4, 4, 100, exact) == std::vector<Index>{32, 24, 16, 8});
    CHECK(ladder(4, 20, 4, 4, 34, exact) == std::vector<Index>{32, 24, 16, 8});
  }
  // The series alone at T = 30, where the first layer keeps all there is: 68 entries instead of 64. (A prompt of less than
  // twice the context budget does not come to it: the official code then gives every layer the same.)
  CHECK(Ladder{4, false}.context(4, 16, 26) == std::vector<Index>{26, 20, 14, 8});
  CHECK(Ladder{4, true}.context(4, 16, 26) == std::vector<Index>{26, 19, 13, 6});
  CHECK(ladder(4, 20, 4, 4, 30, false) == std::vector<Index>(4, 20));
  const auto official = ladder(32, 2048, 8, 20, 16000, false);
  CHECK(official.front() == 3978 + 8);
  CHECK(official.back() == 103 + 8);
  CHECK(std::accumulate(official.begin(), official.end(), 0) - 32 * 8 == 65296);
  const auto exact = ladder(32, 2048, 8, 20, 16000, true);
  CHECK(std::accumulate(exact.begin(), exact.end(), 0) == 32 * 2048);
}

TEST_CASE("A ladder meets its total, never rises, and fits the prompt", "[policy][Ladder]") {
  for (const int layers : {1, 2, 5, 30})
    for (const Index budget : {8, 20, 100, 333})
      for (const int beta : {1, 2, 7, 20})
        for (const Index n : {200, 400, 1000}) {
          if (n <= budget) continue;
          const auto b = ladder(layers, budget, 8, beta, n, true);
          CHECK(std::accumulate(b.begin(), b.end(), 0) == layers * budget);
          CHECK(std::is_sorted(b.rbegin(), b.rend()));
          CHECK(b.front() <= n);
          CHECK(b.back() >= 8);
          if (beta == 1) CHECK(b == std::vector<Index>(std::size_t(layers), budget));
          const auto o = ladder(layers, budget, 8, beta, n, false);
          const int excess = std::accumulate(o.begin(), o.end(), 0) - layers * budget;
          CHECK(excess >= 0);
          CHECK(2 * excess <= layers * (layers - 1));
        }
}

TEST_CASE("PyramidKV keeps more in shallow layers", "[methods][PyramidKV]") {
  const auto policy = *methods::PyramidKV::make({4, 4, 3, PoolMode::max, Reduce::mean, methods::Total::exact});
  const Shape shape{4, 4, 2, 8, 8};
  auto state = *policy.start(shape);
  Random random(11);
  const std::vector<Index> want{32, 24, 16, 8};
  for (int l = 0; l < 4; ++l) {
    SmallLayer layer(shape);
    layer.append_random(100, random);
    layer.give_random_evidence(4, random);
    run_call(policy, state, layer, prompt_clock(20), l);
    for (int h = 0; h < 2; ++h) CHECK(layer.size(h) == want[std::size_t(l)]);
  }
}
