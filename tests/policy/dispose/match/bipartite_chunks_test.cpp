// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/match/bipartite_chunks.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Found {
  std::vector<Index> drop;
  std::vector<MergePair> pairs;
};
Found found(const BipartiteChunks& match, MergeHead& head) {
  Found f;
  REQUIRE(match.find(head.call(), f.drop, f.pairs));
  return f;
}

}  // namespace

TEST_CASE("The likest pairs of even and odd entries are folded", "[dispose][BipartiteChunks]") {
  // worked example: 0->1 .993884, 2->3 .995037, 4->5 .998618, 6->7 0; two of them go
  MergeHead head({{1, 0}, {.9f, .1f}, {0, 1}, {.1f, 1}, {1, 1}, {1, .9f}, {-1, 0}, {0, -1}},
                 {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}});
  head.budget = 6;
  const Found two = found({8, 0, true}, head);
  CHECK(two.drop == std::vector<Index>{2, 4});
  CHECK(same_pairs(two.pairs, {{2, 3, .995037f}, {4, 5, .998618f}}));
  const Found all = found({8, 0.5f, false}, head);  // by threshold
  CHECK(same_pairs(all.pairs, {{0, 1, .993884f}, {2, 3, .995037f}, {4, 5, .998618f}}));
}

TEST_CASE("A budget is met exactly, over as many passes as it takes, and guards take no part",
          "[dispose][BipartiteChunks]") {
  Random random(6);
  for (int trial = 0; trial < 60; ++trial) {
    MergeHead head = MergeHead::random(10 + Index(random.below(70)), 4, 2, random);
    head.guards = {Index(random.below(3)), Index(random.below(4))};
    const Index least = head.guards.sinks + head.guards.recent;
    head.budget = std::max<Index>(1, least + Index(random.below(std::uint64_t(head.n() - least))));
    const BipartiteChunks match{2 + Index(random.below(20)), 0, true};
    const Found f = found(match, head);
    CHECK(head.n() - Index(f.drop.size()) == head.budget);
    for (const Index i : f.drop) CHECK_FALSE(head.guards.holds(i, head.n()));
    for (const MergePair& p : f.pairs) {
      CHECK_FALSE(head.guards.holds(p.dst, head.n()));
      CHECK_FALSE(std::binary_search(f.drop.begin(), f.drop.end(), p.dst));
    }
  }
}

TEST_CASE("One pass respects chunks and folds even entries into odd ones only",
          "[dispose][BipartiteChunks]") {
  Random random(7);
  MergeHead head = MergeHead::random(64, 4, 2, random);
  head.budget = 40;
  for (const MergePair& p : found({8, 0, true}, head).pairs) {
    CHECK(p.src / 8 == p.dst / 8);
    CHECK(p.src % 2 == 0);
    CHECK(p.dst % 2 == 1);
  }
  head.budget = 64;
  CHECK(found({8, 0, true}, head).drop.empty());
}

TEST_CASE("Memory grows with the rows, not with the chunk, and the likest pairs are those of all comparisons",
          "[dispose][BipartiteChunks]") {
  Random random(8);
  MergeHead head = MergeHead::random(3000, 4, 2, random);
  head.budget = 2000;
  const Found f = found({1 << 16, 0, true}, head);
  CHECK(head.scratch.bytes() <= sizeof(float) * 3000 * (4 + 8));
  CHECK(f.drop.size() == 1000);
  const auto cosine = [&](Index a, Index b) {
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t c = 0; c < 4; ++c) {
      const double x = double(head.k[std::size_t(a)][c]), y = double(head.k[std::size_t(b)][c]);
      xy += x * y, xx += x * x, yy += y * y;
    }
    return xy / std::sqrt(xx * yy);
  };
  double least = 2;
  std::vector<double> best_of;  // of each even row
  for (const MergePair& p : f.pairs) least = std::min(least, double(p.similarity));
  for (Index i = 0; i < 3000; i += 2) {
    double best = -2;
    for (Index j = 1; j < 3000; j += 2) best = std::max(best, cosine(i, j));
    best_of.push_back(best);
  }
  for (const MergePair& p : f.pairs) {
    CHECK(double(p.similarity) == Approx(best_of[std::size_t(p.src / 2)]).margin(1e-5));
    CHECK(cosine(p.src, p.dst) == Approx(double(p.similarity)).margin(1e-5));
  }
  std::nth_element(best_of.begin(), best_of.begin() + 999, best_of.end(), std::greater<>());
  CHECK(least == Approx(best_of[999]).margin(1e-5));
}

TEST_CASE("Keys that are not finite are never compared: the least attended of them go, whatever the chunk",
          "[dispose][BipartiteChunks]") {
  Random random(9);
  MergeHead head = MergeHead::random(6000, 3, 2, random);
  for (auto& key : head.k) key[1] = std::numeric_limits<float>::quiet_NaN();
  head.budget = 5000;
  for (const Index chunk : {2, 64, 1 << 30}) {
    head.scratch = {};
    const Found f = found({chunk, 0, true}, head);
    CHECK(head.scratch.bytes() == 0);
    CHECK(f.pairs.empty());
    REQUIRE(f.drop.size() == 1000);
    float worst_kept = 2, best_gone = -1;
    for (Index i = 0; i < 6000; ++i)
      if (std::binary_search(f.drop.begin(), f.drop.end(), i))
        best_gone = std::max(best_gone, head.scores[std::size_t(i)]);
      else worst_kept = std::min(worst_kept, head.scores[std::size_t(i)]);
    CHECK(best_gone <= worst_kept);
  }
  for (std::size_t i = 0; i < 6000; i += 2)
    head.k[i][1] = 0;  // even rows are numbers again, and fold in pairs of chunks
  const Found f = found({64, 0, true}, head);
  CHECK(f.pairs.size() == 1000);
  for (const MergePair& p : f.pairs) CHECK((p.src % 2 == 0 && p.dst % 2 == 0));
}

TEST_CASE("Later passes see the mean of what was folded", "[dispose][BipartiteChunks]") {
  // pass one: 0 into 1, 2 into 3 (both pairs equal); their means are then neighbours, and 1 goes into 3
  MergeHead head({{1, 0}, {1, 0}, {1, .1f}, {1, .1f}, {-1, 0}, {0, -1}},
                 std::vector<std::vector<float>>(6, {0}));
  head.guards = {0, 2};
  head.budget = 3;
  const Found f = found({4, 0, true}, head);
  CHECK(f.drop == std::vector<Index>{0, 1, 2});
  for (const MergePair& p : f.pairs) CHECK(p.dst == 3);
}
