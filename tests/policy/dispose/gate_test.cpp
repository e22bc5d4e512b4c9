// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/gate.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

MergeHead blank(Index n) {
  return MergeHead(std::vector<std::vector<float>>(std::size_t(n), {0}),
                   std::vector<std::vector<float>>(std::size_t(n), {0}));
}
const std::vector<MergePair> three{{2, 1, .980581f}, {4, 7, .707107f}, {5, 1, .993884f}};

template <class G>
std::vector<Index> passed(const G& gate, typename G::State& state, std::vector<MergePair> pairs,
                          MergeHead& head) {
  gate.filter(head.call(), state, pairs);
  std::vector<Index> out;
  for (const MergePair& p : pairs) out.push_back(p.src);
  return out;
}
template <class G>
std::vector<Index> passed(const G& gate, std::vector<MergePair> pairs, MergeHead& head) {
  typename G::State state;
  return passed(gate, state, std::move(pairs), head);
}

}  // namespace

TEST_CASE("A threshold passes what reaches it", "[dispose][gate]") {
  MergeHead head = blank(8);
  CHECK(passed(Always{}, three, head) == std::vector<Index>{2, 4, 5});
  CHECK(passed(Threshold{.98f}, three, head) == std::vector<Index>{2, 5});
  CHECK(passed(Threshold{.707107f}, three, head) == std::vector<Index>{2, 4, 5});
  CHECK(passed(Threshold{1.5f}, three, head).empty());
}

TEST_CASE("A moving threshold starts at the mean and follows it", "[dispose][gate][MovingThreshold]") {
  MergeHead head = blank(8);
  const MovingThreshold gate;
  MovingThreshold::State s;
  CHECK(passed(gate, s, three, head) == std::vector<Index>{2, 5});
  CHECK(s.next == Approx(.893857f).margin(1e-6));
  CHECK(passed(gate, s, three, head) == std::vector<Index>{2, 5});  // not carried out: as if never asked
  CHECK(s.next == Approx(.893857f).margin(1e-6));
  gate.commit(s);
  MovingThreshold::State other = s;
  CHECK(passed(gate, s, {{3, 1, .95f}}, head) == std::vector<Index>{3});
  CHECK(s.next == Approx(.921929f).margin(1e-6));
  CHECK(passed(gate, other, {{3, 1, .80f}}, head).empty());
  CHECK(other.next == Approx(.846929f).margin(1e-6));
  gate.commit(other);
  CHECK(passed(gate, other, {}, head).empty());  // nothing to match changes nothing
  gate.commit(other);
  CHECK(other.tau == Approx(.846929f).margin(1e-6));
}

TEST_CASE("With alpha and beta that add up to 1 the threshold stays between the means seen",
          "[dispose][gate][MovingThreshold]") {
  Random random(1);
  MergeHead head = blank(2);
  const MovingThreshold gate{.3f, .7f};
  MovingThreshold::State s;
  float low = 1, high = -1;
  for (int i = 0; i < 50; ++i) {
    const float u = float(2 * random.uniform() - 1);
    low = std::min(low, u), high = std::max(high, u);
    passed(gate, s, {{1, 0, u}}, head);
    gate.commit(s);
    CHECK(s.tau >= low - 1e-6f);
    CHECK(s.tau <= high + 1e-6f);
  }
}

TEST_CASE("The most similar matches pass, by count or by share, the lower rows of equal ones",
          "[dispose][gate]") {
  MergeHead head = blank(9);
  CHECK(passed(TopMatches{1, 2}, three, head) == std::vector<Index>{2, 5});
  CHECK(passed(TopMatches{0.5}, three, head) == std::vector<Index>{5});
  CHECK(passed(TopMatches{1, 0}, three, head).empty());
  CHECK(passed(TopMatches{}, three, head).size() == 3);
  CHECK(passed(TopMatches{1, 2}, {{1, 0, .5f}, {3, 0, .5f}, {4, 0, .5f}}, head) == std::vector<Index>{1, 3});
}

TEST_CASE("Of the losers the best scored pass, as a multiple of what stays", "[dispose][gate][BestLosers]") {
  MergeHead head = blank(8);
  head.scores = {9, 9, .2f, 9, .5f, .3f, 9, 9};
  head.budget = 2;
  CHECK(passed(BestLosers{1}, three, head) == std::vector<Index>{4, 5});
  CHECK(passed(BestLosers{.5}, three, head) == std::vector<Index>{4});
  CHECK(passed(BestLosers{0}, three, head).empty());
  CHECK(passed(BestLosers{9}, three, head).size() == 3);
  CHECK(passed(BothGates<BestLosers, Threshold>{{1}, {.9f}}, three, head) == std::vector<Index>{5});
}
