// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/target.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Written {
  std::vector<float> wk, wv;
};
template <class T>
Written written(const T& target, MergeHead& head, std::vector<float> w) {
  std::vector<MergePair> members;
  for (std::size_t i = 1; i < w.size(); ++i) members.push_back({Index(i), 0, 0});
  Written out{std::vector<float>(w.size()), std::vector<float>(w.size())};
  target.apply(head.call(), {0, members}, w, out.wk, out.wv);
  return out;
}

}  // namespace

TEST_CASE("A centroid is the weighted mean of keys and values", "[dispose][target]") {
  MergeHead head({{1, 0}, {0, 1}}, {{1}, {2}});
  const Written w = written(NewCentroid{}, head, {.25f, .75f});
  CHECK(w.wk == std::vector<float>{.25f, .75f});
  CHECK(w.wv == std::vector<float>{.25f, .75f});
}

TEST_CASE("With values only the key stays as it is", "[dispose][target]") {
  MergeHead head({{1, 0}, {0, 1}}, {{1}, {2}});
  const Written w = written(ValuesOnly{}, head, {.25f, .75f});
  CHECK(w.wk == std::vector<float>{1, 0});
  CHECK(w.wv == std::vector<float>{.25f, .75f});
}

TEST_CASE("An updated anchor keeps its norm and turns towards the members' directions", "[dispose][target]") {
  Random random(1);
  for (int trial = 0; trial < 30; ++trial) {
    MergeHead head = MergeHead::random(3, 4, 2, random);
    for (float& x : head.k[1]) x *= 50;  // a long key counts by its direction alone
    const Written w = written(UpdatedAnchor{}, head, {.5f, .3f, .2f});
    double norm = 0, own = 0;
    std::vector<double> sum(4, 0.0), direction(4, 0.0);
    for (std::size_t i = 0; i < 3; ++i) {
      double squares = 0;
      for (const float x : head.k[i]) squares += double(x) * double(x);
      for (std::size_t c = 0; c < 4; ++c) {
        sum[c] += double(w.wk[i]) * double(head.k[i][c]);
        direction[c] += std::vector<double>{.5, .3, .2}[i] * double(head.k[i][c]) / std::sqrt(squares);
      }
      if (i == 0) own = std::sqrt(squares);
    }
    double dot = 0, length = 0;
    for (std::size_t c = 0; c < 4; ++c)
      norm += sum[c] * sum[c], dot += sum[c] * direction[c], length += direction[c] * direction[c];
    CHECK(std::sqrt(norm) == Approx(own).epsilon(1e-5));
    CHECK(dot / std::sqrt(norm * length) == Approx(1).margin(1e-5));
    CHECK(w.wv == std::vector<float>{.5f, .3f, .2f});
  }
  MergeHead opposite({{1, 0}, {-2, 0}}, {{1}, {2}});  // directions cancel: the key stays
  CHECK(written(UpdatedAnchor{}, opposite, {.5f, .5f}).wk == std::vector<float>{1, 0});
  MergeHead zero({{0, 0}, {1, 0}}, {{1}, {2}});
  CHECK(written(UpdatedAnchor{}, zero, {.5f, .5f}).wk == std::vector<float>{1, 0});
}
