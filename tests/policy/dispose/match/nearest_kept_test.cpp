// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/match/nearest_kept.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<MergePair> pairs_of(MergeHead& head, std::vector<Index> drop, NearestKept match = {}) {
  std::vector<MergePair> out;
  REQUIRE(match.find(head.call(), drop, out));
  return out;
}

}  // namespace

TEST_CASE("Each loser finds the kept entry with the most similar key", "[dispose][NearestKept]") {
  // the worked example of D2O: 2 and 5 go to 1, 4 to 7
  MergeHead head({{1, 0, 0}, {0, 1, 0}, {0, 1, .2f}, {3, 4, 0}, {0, 0, 1}, {.1f, .9f, 0}, {0, 2, 1}, {1, 0, 1}},
                 std::vector<std::vector<float>>(8, {0, 0}));
  CHECK(same_pairs(pairs_of(head, {2, 4, 5}), {{2, 1, .980581f}, {4, 7, .707107f}, {5, 1, .993884f}}));
}

TEST_CASE("Of equally similar entries the lower row is taken, and shared rows are never a target",
          "[dispose][NearestKept]") {
  MergeHead head({{1, 0}, {2, 0}, {3, 0}, {0, 1}}, std::vector<std::vector<float>>(4, {0}));
  CHECK(same_pairs(pairs_of(head, {2}), {{2, 0, 1}}));
  head.shared_rows = 1;
  CHECK(same_pairs(pairs_of(head, {2}), {{2, 1, 1}}));
  head.shared_rows = 4;
  CHECK(pairs_of(head, {2}).empty());
}

TEST_CASE("Keys and values together: opposite rows are not alike", "[dispose][NearestKept]") {
  // EMS: k [.9,.1] vs [1,0], v [1,.9] vs [1,1] -> .992510; two negative cosines (their product .693375) count as 0
  NearestKept both{NearestKept::By::key_and_value};
  MergeHead alike({{1, 0}, {.9f, .1f}}, {{1, 1}, {1, .9f}});
  CHECK(same_pairs(pairs_of(alike, {1}, both), {{1, 0, .992510f}}));
  MergeHead opposite({{1, 0}, {-1, .2f}}, {{1, 1}, {0, -1}});
  CHECK(same_pairs(pairs_of(opposite, {1}, both), {{1, 0, 0}}));
}

TEST_CASE("By position the nearer entry is taken, the older one of two", "[dispose][NearestKept]") {
  // Elastic Cache: anchors {2, 5} beside the ends; 1 and 3 go to 2, 4 and 6 to 5, where only they are kept
  MergeHead head({{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}}, std::vector<std::vector<float>>(8, {0}));
  head.pos = {0, 1, 2, 3, 4, 5, 6, 9};
  CHECK(same_pairs(pairs_of(head, {0, 1, 3, 4, 6, 7}, {NearestKept::By::position}),
                   {{0, 2, -2}, {1, 2, -1}, {3, 2, -1}, {4, 5, -1}, {6, 5, -1}, {7, 5, -4}}));
  CHECK(same_pairs(pairs_of(head, {1, 3}, {NearestKept::By::position}), {{1, 0, -1}, {3, 2, -1}}));
}

TEST_CASE("Rows that are no numbers are matched with nobody", "[dispose][NearestKept]") {
  const float nan = std::nanf("");
  MergeHead head({{nan, 0}, {1, 0}, {nan, 1}, {1, .5f}}, std::vector<std::vector<float>>(4, {0}));
  const auto pairs = pairs_of(head, {2, 3});
  REQUIRE(pairs.size() == 1);
  CHECK(pairs[0].src == 3);
  CHECK(pairs[0].dst == 1);
}

TEST_CASE("Matches are those of a naive search, for any number of losers", "[dispose][NearestKept]") {
  Random random(1);
  for (const Index n : {2, 9, 40, 77}) {
    MergeHead head = MergeHead::random(n, 5, 3, random);
    std::vector<Index> drop;
    for (Index i = 0; i < n; ++i)
      if (random.uniform() < 0.6) drop.push_back(i);
    if (Index(drop.size()) == n) drop.pop_back();
    const auto pairs = pairs_of(head, drop);
    REQUIRE(pairs.size() == drop.size());
    for (const MergePair& p : pairs) {
      double best = -2, mine = -2;
      for (Index j = 0; j < n; ++j) {
        if (std::binary_search(drop.begin(), drop.end(), j)) continue;
        double dot = 0, a = 0, b = 0;
        for (std::size_t c = 0; c < 5; ++c) {
          dot += double(head.k[std::size_t(p.src)][c]) * double(head.k[std::size_t(j)][c]);
          a += std::pow(double(head.k[std::size_t(p.src)][c]), 2),
              b += std::pow(double(head.k[std::size_t(j)][c]), 2);
        }
        best = std::max(best, dot / std::sqrt(a * b));
        if (j == p.dst) mine = dot / std::sqrt(a * b);
      }
      CHECK(mine >= best - 1e-6);
      CHECK(double(p.similarity) == Approx(mine).margin(1e-5));
    }
  }
}
