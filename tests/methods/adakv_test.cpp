// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/adakv.hpp>

#include <numeric>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<Index> budgets(const std::vector<Row>& scores, Index base, double floor, bool exact,
                           bool normalise = false) {
  std::vector<std::span<const float>> table(scores.begin(), scores.end());
  std::vector<Index> out(scores.size());
  REQUIRE(SharedHeads{floor, normalise, exact}.allocate({table, {}, base, 0}, out));
  return out;
}

const std::vector<Row> two{{.9f, .8f, .7f, .6f, .5f, .4f}, {.55f, .10f, .09f, .08f, .07f, .06f}};

}  // namespace

TEST_CASE("Heads share a budget by their best scores, with a floor", "[policy][SharedHeads]") {
  CHECK(budgets(two, 3, 0, false) == std::vector<Index>{5, 1});
  CHECK(budgets(two, 3, .2, false) == std::vector<Index>{4, 1});  // the official rounding loses one
  CHECK(budgets(two, 3, .5, false) == std::vector<Index>{4, 2});  // 3.5 -> 4, 1.5 -> 2
  CHECK(budgets(two, 3, 1, false) == std::vector<Index>{3, 3});
  CHECK(budgets(two, 3, 0, true) == std::vector<Index>{5, 1});
  CHECK(budgets(two, 3, .2, true) == std::vector<Index>{5, 1});  // shares 4.6 and 1.4
  CHECK(budgets(two, 3, .5, true) == std::vector<Index>{4, 2});
  CHECK(budgets(two, 3, 1, true) == std::vector<Index>{3, 3});
}

TEST_CASE("The official rounding drifts where the sheet says so", "[policy][SharedHeads]") {
  Row high(8), low(8);
  for (std::size_t i = 0; i < 8; ++i) high[i] = float(20 - i), low[i] = i == 0 ? 13.5f : float(1 - int(i));
  CHECK(budgets({high, low}, 4, .2, false) == std::vector<Index>{6, 1});  // counts 7 and 1: 7, not 8
  CHECK(budgets({high, low}, 4, .2, true) == std::vector<Index>{6, 2});
  low[0] = 1;
  CHECK(budgets({high, low}, 4, .2, false) == std::vector<Index>{6, 0});  // counts 8 and 0
  CHECK(budgets({high, low}, 4, .2, true) == std::vector<Index>{7, 1});
}

TEST_CASE("Shared budgets follow their laws", "[policy][SharedHeads]") {
  Random random(12);
  for (int round = 0; round < 200; ++round) {
    const std::size_t heads = 1 + random.below(5), n = 4 + random.below(60);
    const Index base = Index(1 + random.below(n));
    const double floor = double(random.below(11)) / 10;
    std::vector<Row> scores(heads, Row(n));
    for (Row& r : scores)
      for (float& x : r) x = float(random.below(20)) / 20;  // many ties
    const auto b = budgets(scores, base, floor, true);
    CHECK(std::accumulate(b.begin(), b.end(), 0) == Index(heads) * base);
    for (const Index x : b) {
      CHECK(x >= Index(base * floor));
      CHECK(x <= Index(n));
    }
    auto scaled = scores;
    for (Row& r : scaled)
      for (float& x : r) x *= 4;
    CHECK(budgets(scaled, base, floor, true) == b);
    for (float& x : scaled[0]) x *= 4;  // this head alone gains
    CHECK(budgets(scaled, base, floor, true)[0] >= b[0]);
  }
}

TEST_CASE("AdaKV's heads hold what they were given, and the layer's total is met", "[methods][AdaKV]") {
  const auto policy =
      *methods::AdaKV::make({8, 3, PoolMode::max, .2, false, Reduce::mean, methods::Total::exact});
  const Shape shape{1, 6, 3, 8, 8};
  auto state = *policy.start(shape);
  Random random(13);
  SmallLayer layer(shape);
  layer.append_random(120, random);
  for (float& x : layer.k[0]) x *= 6;  // one sharp head
  layer.give_random_evidence(8, random);
  run_call(policy, state, layer, prompt_clock(30));
  CHECK(layer.size(0) + layer.size(1) + layer.size(2) == 90);
  CHECK(layer.size(0) != layer.size(1));
  for (int h = 0; h < 3; ++h)
    for (Index i = 0; i < 8; ++i)
      CHECK(layer.pos[std::size_t(h)][std::size_t(layer.size(h) - 1 - i)] == 119 - i);
}

TEST_CASE("AdaKV refuses a floor that is no share", "[methods][AdaKV]") {
  methods::AdaKVOptions o;
  for (const double floor : {-.1, 1.1, double(NAN)}) {
    o.floor = floor;
    const auto made = methods::AdaKV::make(o);
    REQUIRE(!made);
    CHECK(made.error().code == Errc::bad_option);
  }
}
