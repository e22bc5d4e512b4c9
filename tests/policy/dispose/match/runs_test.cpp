// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/match/runs.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Found {
  std::vector<Index> drop;
  std::vector<MergePair> pairs;
};
template <class M>
Found found(const M& match, MergeHead& head, std::vector<Index> drop = {}) {
  Found f{std::move(drop), {}};
  REQUIRE(match.find(head.call(), f.drop, f.pairs));
  return f;
}

/// The worked example of KVMerger: token 0 is protected by attention, 7 as the newest.
MergeHead example() {
  return MergeHead({{2, 0, 0, 0},
                    {0, 1, 0, 0},
                    {0, 1, .5f, 0},
                    {0, 2, .5f, 0},
                    {1, 0, 0, 1},
                    {1, 0, .2f, .8f},
                    {0, 0, 3, 0},
                    {0, .5f, 3, 0}},
                   {{1, 0}, {0, 1}, {0, 2}, {1, 1}, {2, 0}, {4, 0}, {0, 3}, {3, 3}},
                   {5, .5f, .4f, .9f, .3f, .6f, .2f, .1f});
}

}  // namespace

TEST_CASE("Runs of alike neighbours, with the most attended member as pivot", "[dispose][AdjacentRuns]") {
  MergeHead head = example();
  AdjacentRuns runs;
  runs.recent.value = runs.top.value = 1;
  const Found f = found(runs, head);
  // sets {0} {1,2,3} {4,5} {6} {7}; pivots 0, 3, 5, 6, 7
  CHECK(f.drop == std::vector<Index>{1, 2, 4});
  CHECK(same_pairs(f.pairs, {{1, 3, .894427f}, {2, 3, .976187f}, {4, 5, .981981f}}));
}

TEST_CASE("A threshold of 1 leaves all alone, one below -1 joins all", "[dispose][AdjacentRuns]") {
  Random random(2);
  MergeHead head = MergeHead::random(30, 4, 2, random);
  AdjacentRuns runs;
  runs.threshold = 1;
  CHECK(found(runs, head).drop.empty());
  runs.threshold = -1.01f;
  CHECK(found(runs, head).drop.size() == 29);
}

TEST_CASE(
    "Runs are contiguous, protected rows stand alone, and a higher threshold never leaves fewer entries",
    "[dispose][AdjacentRuns]") {
  Random random(3);
  for (int trial = 0; trial < 40; ++trial) {
    MergeHead head = MergeHead::random(20 + Index(random.below(60)), 3, 2, random, 2 + Index(random.below(3)));
    head.guards = {Index(random.below(3)), Index(random.below(5))};
    AdjacentRuns runs;
    runs.recent.value = double(random.below(8));
    runs.top.value = 0.1;
    std::size_t last = std::size_t(head.n());
    for (const float threshold : {-1.01f, -0.5f, 0.0f, 0.5f, 0.9f, 0.999f}) {
      runs.threshold = threshold;
      const Found f = found(runs, head);
      CHECK(f.pairs.size() == f.drop.size());
      CHECK(f.drop.size() <= last);
      last = f.drop.size();
      for (const MergePair& p : f.pairs)  // everything between a member and its pivot is in the run, too
        for (Index i = std::min(p.src, p.dst); i <= std::max(p.src, p.dst); ++i)
          CHECK((i == p.dst || std::any_of(f.pairs.begin(), f.pairs.end(),
                                           [&](const MergePair& q) { return q.src == i && q.dst == p.dst; })));
      for (const Index i : f.drop) {
        CHECK_FALSE(head.guards.holds(i, head.n()));
        CHECK(i < head.n() - Index(runs.recent.value));
      }
    }
  }
}

TEST_CASE("A budget is met exactly, by the strongest links", "[dispose][AdjacentRuns]") {
  Random random(4);
  for (int trial = 0; trial < 40; ++trial) {
    MergeHead head = MergeHead::random(40, 3, 2, random);
    head.budget = 12 + Index(random.below(28));
    AdjacentRuns runs;
    runs.by_budget = true;
    runs.recent.value = 4;
    const Found f = found(runs, head);
    CHECK(head.n() - Index(f.drop.size()) == head.budget);
    // as with a threshold between the weakest link that joins and the strongest that does not
    std::vector<float> links;
    runs.strengths(head.call(), links);
    std::sort(links.rbegin(), links.rend());
    AdjacentRuns same = runs;
    same.by_budget = false;
    const std::size_t taken = std::size_t(head.n() - head.budget);
    same.threshold = taken == 0 ? 1.0f : (links[taken - 1] + links[taken]) / 2;
    CHECK(found(same, head).drop == f.drop);
  }
}

TEST_CASE("Where protected entries leave too few links they give way, and the guards alone stay",
          "[dispose][AdjacentRuns]") {
  Random random(5);
  for (const Index budget : {8, 9, 11, 15, 20, 30}) {
    MergeHead head = MergeHead::random(40, 3, 2, random);
    head.guards = {3, 5};
    head.budget = budget;
    AdjacentRuns runs;
    runs.by_budget = true;
    runs.recent.value = .3;
    runs.top.value = .25;
    const Found f = found(runs, head);
    INFO("budget " << budget);
    CHECK(head.n() - Index(f.drop.size()) == budget);
    for (const Index i : f.drop) CHECK_FALSE(head.guards.holds(i, 40));
    CHECK(std::is_sorted(f.drop.begin(), f.drop.end()));
    for (const MergePair& p : f.pairs) CHECK_FALSE(std::binary_search(f.drop.begin(), f.drop.end(), p.dst));
  }
}

TEST_CASE("Counts never give way: they hold, or the budget is refused", "[dispose][AdjacentRuns]") {
  Random random(6);
  for (int trial = 0; trial < 20; ++trial) {
    for (const Index budget : {19, 20, 21, 26}) {
      MergeHead head = MergeHead::random(40, 3, 2, random);
      head.guards = {3, 5};
      head.budget = budget;
      AdjacentRuns runs;
      runs.by_budget = true;
      runs.recent.value = 9;
      runs.top.value = 8;
      INFO("budget " << budget);
      if (budget < 20) {
        Found f;
        const Status tight = runs.find(head.call(), f.drop, f.pairs);
        REQUIRE(!tight);
        CHECK(tight.error().code == Errc::bad_budget);
        CHECK(tight.error().want == 20);
        continue;
      }
      const Found f = found(runs, head);
      CHECK(head.n() - Index(f.drop.size()) == budget);
      std::vector<Index> order(40);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
        return head.scores[std::size_t(a)] > head.scores[std::size_t(b)];
      });
      std::vector<Index> alone(order.begin(), order.begin() + 8);
      for (const Index i : {0, 1, 2, 31, 32, 33, 34, 35, 36, 37, 38, 39}) alone.push_back(i);
      for (const Index i : alone) {
        CHECK_FALSE(std::binary_search(f.drop.begin(), f.drop.end(), i));
        for (const MergePair& p : f.pairs) CHECK(p.dst != i);
      }
    }
  }
}

TEST_CASE("Equal links join from the first on, and none or one entry is left alone",
          "[dispose][AdjacentRuns]") {
  MergeHead head(std::vector<std::vector<float>>(10, {1, 1}), std::vector<std::vector<float>>(10, {0}));
  head.budget = 7;
  AdjacentRuns runs;
  runs.by_budget = true;
  CHECK(found(runs, head).drop == std::vector<Index>{1, 2, 3});
  MergeHead one({{1, 0}}, {{1}});
  CHECK(found(AdjacentRuns{}, one).drop.empty());
  one.budget = 0;
  CHECK(found(runs, one).drop.empty());
}

TEST_CASE("Losers go to the kept neighbours, parted at the weakest link", "[dispose][RunsOfKept]") {
  // links 0.8, 0.6, 0.96, 1, 0: between kept 0 and 4 the weakest is that of 1 and 2
  MergeHead head({{1, 0}, {.8f, .6f}, {0, 1}, {-.28f, .96f}, {-.28f, .96f}, {.96f, .28f}},
                 std::vector<std::vector<float>>(6, {0}));
  const Found f = found(RunsOfKept{}, head, {1, 2, 3, 5});
  CHECK(same_pairs(f.pairs, {{1, 0, .8f}, {2, 4, .96f}, {3, 4, 1}, {5, 4, 0}}));
  CHECK(f.drop == std::vector<Index>{1, 2, 3, 5});  // as they were
}

TEST_CASE("A loser without a kept neighbour on one side goes to the other, and never into shared rows",
          "[dispose][RunsOfKept]") {
  MergeHead head({{1, 0}, {1, 1}, {0, 1}, {1, 0}}, std::vector<std::vector<float>>(4, {0}));
  CHECK(same_pairs(found(RunsOfKept{}, head, {0, 1}).pairs, {{0, 2, .707107f}, {1, 2, .707107f}}));
  CHECK(same_pairs(found(RunsOfKept{}, head, {2, 3}).pairs, {{2, 1, .707107f}, {3, 1, 0}}));
  head.shared_rows = 2;
  CHECK(same_pairs(found(RunsOfKept{}, head, {2}).pairs, {{2, 3, 0}}));
  head.shared_rows = 4;
  CHECK(found(RunsOfKept{}, head, {2}).pairs.empty());
}
