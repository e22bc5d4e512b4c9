// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/spread_values.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

double always(int, int, Pos) { return 0.499; }
double never(int, int, Pos) { return 0.5; }

MergeHead example() {
  return MergeHead({{0}, {1}, {2}, {3}, {4}}, {{1, 0}, {4, 8}, {1, 1}, {2, 0}, {0, 2}},
                   {.3f, .1f, .2f, .1f, .3f});
}

}  // namespace

TEST_CASE("A value is spread over the next entries: the worked example of CaM", "[dispose][SpreadValues]") {
  SpreadValues spread;
  spread.targets = 2;
  spread.prompt = SpreadValues::Over::later;  // denominator over all later entries: P = .5
  spread.deterministic = true;
  const auto values = [](MergeHead& head, const SpreadValues& s) {
    const auto plan = plan_of(s, head, {1});
    REQUIRE(plan);
    REQUIRE(check(*plan, 5));
    const auto after = head.after(*plan);
    for (std::size_t i = 0; i < after.k.size(); ++i)
      CHECK(after.k[i][0] == double(head.k[std::size_t(after.rows[i])][0]));
    return after.v;
  };
  MergeHead head = example();
  const auto mean = values(head, spread);
  CHECK(mean[1][0] == Approx(2).margin(1e-6));
  CHECK(mean[1][1] == Approx(3).margin(1e-6));
  CHECK(mean[2][0] == Approx(3).margin(1e-6));
  CHECK(mean[2][1] == Approx(2).margin(1e-6));
  CHECK(mean[3] == std::vector<double>{0, 2});
  spread.deterministic = false;
  spread.draw = always;
  const auto drawn = values(head, spread);
  CHECK(drawn[1][0] == Approx(3).margin(1e-6));
  CHECK(drawn[1][1] == Approx(5).margin(1e-6));
  CHECK(drawn[2][0] == Approx(4).margin(1e-6));
  CHECK(drawn[2][1] == Approx(4).margin(1e-6));
  spread.draw = never;
  const auto plan = plan_of(spread, head, {1});
  REQUIRE(plan);
  CHECK(plan->blend.empty());                                                // plain eviction
  CHECK(SpreadValues::probability(.1, .15) == Approx(2 / 3.).margin(1e-6));  // against the mean of the two targets
}

TEST_CASE(
    "What is added in all is the share of the loser's value, keys never change, fewer targets take more",
    "[dispose][SpreadValues]") {
  Random random(1);
  for (int trial = 0; trial < 50; ++trial) {
    MergeHead head = MergeHead::random(8 + Index(random.below(20)), 2, 3, random);
    SpreadValues spread;
    spread.targets = 1 + Index(random.below(9));
    spread.deterministic = trial % 2 == 0;
    spread.seed = random.next();
    spread.prompt = SpreadValues::Over::targets;
    const Index src = Index(random.below(std::uint64_t(head.n())));
    const auto plan = plan_of(spread, head, {src});
    REQUIRE(plan);
    REQUIRE(check(*plan, head.n()));
    double shared = 0;
    for (const Blend& b : plan->blend) {
      CHECK(b.wk == 0);
      CHECK(b.dst > src);
      CHECK(b.dst <= src + spread.targets);
      shared += double(b.wv);
    }
    for (const Self& s : plan->self) CHECK((s.wk == 1 && s.wv == 1));
    if (src == head.n() - 1) CHECK(plan->blend.empty());
    else if (spread.deterministic) {
      double mean = 0;
      const Index end = std::min(head.n(), src + 1 + spread.targets);
      for (Index i = src + 1; i < end; ++i) mean += double(head.scores[std::size_t(i)]) / (end - src - 1);
      CHECK(shared ==
            Approx(SpreadValues::probability(double(head.scores[std::size_t(src)]), mean)).margin(1e-5));
    } else {
      CHECK((shared == Approx(1).margin(1e-5) || plan->blend.empty()));
    }
  }
}

TEST_CASE("Probabilities lie in 0 .. 1, whatever the scores", "[dispose][SpreadValues]") {
  const auto p = [](double mine, double x, double y) { return SpreadValues::probability(mine, (x + y) / 2); };
  CHECK(p(1, 1, 1) == 1);
  CHECK(p(9, 1, 1) == 1);
  CHECK(p(1, 0, 0) == 1);
  CHECK(p(0, 0, 0) == 0);
  CHECK(p(0, 1, 0) == 0);
  CHECK(p(std::nan(""), 1, 1) == 0);
  CHECK(p(1, -1, -1) == 0);
}

TEST_CASE("Draws depend on seed, layer, head and position alone", "[dispose][SpreadValues]") {
  Random random(2);
  MergeHead head = MergeHead::random(40, 2, 2, random);
  std::vector<Index> drop;
  for (Index i = 0; i < 30; ++i) drop.push_back(i);
  SpreadValues spread;
  const auto a = plan_of(spread, head, drop), b = plan_of(spread, head, drop);
  REQUIRE((a && b));
  CHECK(*a == *b);
  for (Pos& p : head.pos) p += 1;
  const auto moved = plan_of(spread, head, drop);
  REQUIRE(moved);
  CHECK(*a != *moved);
}

TEST_CASE("Losers that leave together are spread one after another, as if they left alone",
          "[dispose][SpreadValues]") {
  Random random(3);
  for (const auto over : {SpreadValues::Over::targets, SpreadValues::Over::later, SpreadValues::Over::largest}) {
    const Index n = 24;
    MergeHead head = MergeHead::random(n, 2, 3, random);
    SpreadValues spread;
    spread.targets = 5;
    spread.prompt = over;
    spread.deterministic = true;
    const std::vector<Index> drop{3, 4, 5, 6, 9, 10, 14, 15, 16, 17};
    const auto plan = plan_of(spread, head, drop);
    REQUIRE(plan);
    REQUIRE(check(*plan, n));
    const auto after = head.after(*plan);
    // the naive way: row by row, over values that change
    std::vector<std::vector<double>> v;
    for (const auto& r : head.v) v.emplace_back(r.begin(), r.end());
    double largest = 0;
    for (const Index i : after.rows) largest = std::max(largest, double(head.scores[std::size_t(i)]));
    for (const Index i : drop) {
      const Index end = std::min(n, i + 6);
      double near = 0, later = 0;
      for (Index j = i + 1; j < n; ++j) {
        later += double(head.scores[std::size_t(j)]) / (n - 1 - i);
        if (j < end) near += double(head.scores[std::size_t(j)]) / (end - i - 1);
      }
      const double against = over == SpreadValues::Over::targets ? near
                             : over == SpreadValues::Over::later ? later
                                                                 : largest;
      const double p = SpreadValues::probability(double(head.scores[std::size_t(i)]), against);
      for (Index j = i + 1; j < end; ++j)
        for (std::size_t c = 0; c < 3; ++c) v[std::size_t(j)][c] += p * v[std::size_t(i)][c] / (end - i - 1);
    }
    for (std::size_t i = 0; i < after.rows.size(); ++i)
      for (std::size_t c = 0; c < 3; ++c)
        CHECK(after.v[i][c] == Approx(v[std::size_t(after.rows[i])][c]).margin(1e-4));
  }
}
