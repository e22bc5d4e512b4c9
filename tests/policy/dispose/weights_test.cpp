// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/weights.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

/// Weights of a group: those of `dst`, then of the members.
template <class W>
std::vector<float> weights_of(const W& w, MergeHead& head, Index dst, const std::vector<MergePair>& members) {
  std::vector<float> out(members.size() + 1);
  w.weigh(head.call(), {dst, members}, out);
  return out;
}
void near(const std::vector<float>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(double(got[i]) == Approx(want[i]).margin(1e-6));
}
/// Keys of the set {1, 2, 3} of KVMerger's example: squared distances to the last are 1.25, 1, 0.
MergeHead set_of_three() {
  return MergeHead({{0, 1, 0, 0}, {0, 1, .5f, 0}, {0, 2, .5f, 0}}, std::vector<std::vector<float>>(3, {0}));
}
const std::vector<MergePair> two{{0, 2, 0}, {1, 2, 0}};

}  // namespace

TEST_CASE("Gaussian weights by the three readings of sigma", "[dispose][weights][Gaussian]") {
  MergeHead head = set_of_three();
  near(weights_of(Gaussian{}, head, 2, two), {.338351, .329997, .331651});
  near(weights_of(Gaussian{5, Gaussian::Rule::mean_distance}, head, 2, two), {.822404, .066985, .110611});
  near(weights_of(Gaussian{5, Gaussian::Rule::fixed_point}, head, 2, two), {.999863, .000013, .000124});
  const float far[] = {1.25f, 1, 0}, close[] = {.01f, .02f, 0};
  CHECK(Gaussian::fixed_point(far) == Approx(.235734).margin(1e-6));
  CHECK(Gaussian::fixed_point(close) == Approx(.699951).margin(1e-6));
  MergeHead pair({{1, 0, 0, 1}, {1, 0, .2f, .8f}}, {{0}, {0}});
  near(weights_of(Gaussian{}, pair, 1, {{0, 1, 0}}), {.500400, .499600});
  MergeHead equal(std::vector<std::vector<float>>(3, {1, 2}), std::vector<std::vector<float>>(3, {0}));
  for (const auto rule : {Gaussian::Rule::fixed, Gaussian::Rule::mean_distance, Gaussian::Rule::fixed_point})
    near(weights_of(Gaussian{5, rule}, equal, 2, two), {1 / 3., 1 / 3., 1 / 3.});
}

TEST_CASE("Similarity weights as D2O's code and its paper have them", "[dispose][weights][BySimilarity]") {
  MergeHead head = set_of_three();
  const std::vector<MergePair> members{{0, 2, .980581f}, {1, 2, .993884f}};
  near(weights_of(BySimilarity{}, head, 2, members), {1 / 3., .980581 / 3, .993884 / 3});
  near(weights_of(BySimilarity{BySimilarity::Form::exponential}, head, 2, members), {.336172, .329706, .334122});
  near(weights_of(BySimilarity{BySimilarity::Form::half}, head, 2, {{0, 2, 1}, {1, 2, -1}}),
       {1 / 2.000001, 1 / 2.000001, 1e-6 / 2.000001});
}

TEST_CASE("Values' norms share a merge: one member, u = 1 and equal norms give a third",
          "[dispose][weights]") {
  MergeHead head({{1}, {1}}, {{3, 4}, {0, 5}});
  near(weights_of(ByValueShare{}, head, 0, {{1, 0, 1}}), {2 / 3., 1 / 3.});
  near(weights_of(ByValueShare{}, head, 0, {{1, 0, -.5f}}), {1, 0});
  MergeHead uneven({{1}, {1}}, {{3, 0}, {0, 9}});
  near(weights_of(ByValueShare{}, uneven, 0, {{1, 0, .8f}}), {1 / 1.6, .6 / 1.6});
}

TEST_CASE("Counts weigh tokens, so that the order of merges does not matter",
          "[dispose][weights][CountMean]") {
  // 3:1 of [1,0] and [0,1] is [.75,.25]
  MergeHead head({{1, 0}, {0, 1}}, {{0}, {0}});
  head.records[0].count = 3;
  near(weights_of(CountMean{}, head, 0, {{1, 0, 0}}), {.75, .25});
}

TEST_CASE("Scores weigh members; where none is positive, counts do", "[dispose][weights][ByScore]") {
  MergeHead head = set_of_three();
  head.scores = {1, 3, 4};
  near(weights_of(ByScore{}, head, 2, two), {.5, .125, .375});
  head.scores = {0, 0, 0};
  near(weights_of(ByScore{}, head, 2, two), {1 / 3., 1 / 3., 1 / 3.});
  head.scores = {-1, 2, 3};
  near(weights_of(ByScore{}, head, 2, two), {1 / 3., 1 / 3., 1 / 3.});
}

TEST_CASE("All weights but D2O's raw ones add up to 1, for any group", "[dispose][weights]") {
  Random random(3);
  for (int trial = 0; trial < 50; ++trial) {
    MergeHead head = MergeHead::random(2 + Index(random.below(9)), 4, 3, random);
    std::vector<MergePair> members;
    for (Index i = 1; i < head.n(); ++i) members.push_back({i, 0, float(2 * random.uniform() - 1)});
    const auto sum = [&](const auto& w) {
      double s = 0;
      for (const float x : weights_of(w, head, 0, members)) s += double(x);
      return s;
    };
    CHECK(sum(CountMean{}) == Approx(1).margin(1e-6));
    CHECK(sum(ByScore{}) == Approx(1).margin(1e-6));
    CHECK(sum(BySimilarity{BySimilarity::Form::exponential}) == Approx(1).margin(1e-6));
    CHECK(sum(BySimilarity{BySimilarity::Form::half}) == Approx(1).margin(1e-6));
    CHECK(sum(ByValueShare{}) == Approx(1).margin(1e-6));
    CHECK(sum(Gaussian{}) == Approx(1).margin(1e-6));
    CHECK(sum(Gaussian{5, Gaussian::Rule::mean_distance}) == Approx(1).margin(1e-6));
  }
}
