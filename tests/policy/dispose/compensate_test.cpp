// SPDX-License-Identifier: Apache-2.0
#include <kvist/cache/cache.hpp>
#include <kvist/policy/budget/head/shared_heads.hpp>
#include <kvist/policy/budget/layer/ladder.hpp>
#include <kvist/policy/dispose/compensate.hpp>
#include <kvist/policy/signal/key_norm.hpp>
#include <kvist/storage/store/dense.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

template <class P>
Cache<P, DenseStore<float>> cache_of(P policy, const Shape& shape) {
  auto made = Cache<P, DenseStore<float>>::make(shape, std::move(policy), [&](int, int) {
    std::vector<DenseStore<float>> one;
    one.emplace_back(shape.dim_k, shape.dim_v);
    return one;
  });
  REQUIRE(made);
  return *std::move(made);
}
std::vector<float> random_row(int d, Random& r) {
  std::vector<float> out;
  for (int c = 0; c < d; ++c) out.push_back(float(2 * r.uniform() - 1));
  return out;
}

}  // namespace

TEST_CASE("One entry stands in for all that went: the worked numbers", "[dispose][Compensate]") {
  // q = [1,0]; dropped [1,0] [1.2,.1] [.8,-.1] [-1,0] with v [1,0] [2,0] [3,0] [0,1]; kept [2,0], v [0,5]
  const auto make = [] {
    return MergeHead({{1, 0}, {1.2f, .1f}, {.8f, -.1f}, {-1, 0}, {2, 0}},
                     {{1, 0}, {2, 0}, {3, 0}, {0, 1}, {0, 5}});
  };
  const std::vector<double> q{1, 0};
  MergeHead head = make();
  const auto near = [](const std::vector<double>& got, double x, double y) {
    CHECK(got[0] == Approx(x).margin(1e-6));
    CHECK(got[1] == Approx(y).margin(1e-6));
  };
  near(attention_of(head.before(), q), 1.116593, 1.962421);
  const auto plan = plan_of(Compensate{}, head, {0, 1, 2, 3});
  REQUIRE(plan);
  REQUIRE(check(*plan, 5));
  CHECK(plan->drop == std::vector<Index>{0, 1, 2});
  const auto after = head.after(*plan);
  near(after.k[0], .5, 0);
  near(after.v[0], 1.5, .25);
  CHECK(after.log_weight[0] == Approx(std::log(4)));
  near(attention_of(after, q), .871045, 2.241691);
  MergeHead again = make();
  Compensate light;
  light.weighted = false;
  const auto without = plan_of(light, again, {0, 1, 2, 3});
  REQUIRE(without);
  near(attention_of(again.after(*without), q), .385775, 3.778379);
  MergeHead gone = make();
  HeadPlan drops;
  drops.drop = {0, 1, 2, 3};
  near(attention_of(gone.after(drops), q), 0, 5);
}

TEST_CASE("It takes a place of the budget, and its means follow a stream", "[dispose][Compensate]") {
  const Shape shape{1, 1, 1, 3, 2};
  auto cache = cache_of(Policy<Recency, KeepEnds, EveryStep, Compensate>(KeepEnds{2, 0}), shape);
  Random random(1);
  std::vector<std::vector<float>> k, v;
  Serial serial;
  std::vector<float> out(2);
  for (Index t = 0; t < 40; ++t) {
    k.push_back(random_row(3, random));
    v.push_back(random_row(2, random));
    REQUIRE(cache.append(0, 1, k.back().data(), v.back().data(), t));
    const auto q = random_row(3, random);
    REQUIRE(cache.attend(0, q.data(), 0.5f, out.data(), serial));
    REQUIRE(cache.step(0, Clock{Phase::decode, t + 1, 0, 10, true}));
    CHECK(cache.size(0, 0) == std::min<Index>(t + 1, 10));
    if (t < 10) continue;
    // two sinks, one for tokens 2 .. t - 7, the newest seven
    const Index stands_for = t + 1 - 9;
    std::vector<float> hk(30), hv(20);
    cache.read(0, 0, 0, 10, hk.data(), hv.data());
    for (std::size_t c = 0; c < 3; ++c) {
      double mean = 0;
      for (Index i = 2; i < 2 + stands_for; ++i) mean += double(k[std::size_t(i)][c]) / stands_for;
      CHECK(double(hk[6 + c]) == Approx(mean).margin(1e-5));
    }
    const auto weights = cache.bias(0, 0);
    REQUIRE(weights.size() == 10);
    CHECK(weights[2] == Approx(std::log(double(stands_for))).margin(1e-5));
    for (const std::size_t i : {0u, 1u, 3u, 9u}) CHECK(weights[i] == 0);
    const auto& pos = cache.head(0, 0).tier(0).pos;
    CHECK(pos[1] == 1);
    CHECK(pos[3] == t - 6);
  }
}

TEST_CASE("It goes with any ranking, and equal rows change nothing", "[dispose][Compensate]") {
  const Shape shape{1, 2, 1, 3, 2};
  auto cache = cache_of(Policy<KeyNorm, Compensate>(), shape);
  std::vector<float> k, v;
  Random random(2);
  const auto common = random_row(3, random), value = random_row(2, random);
  for (Index t = 0; t < 20; ++t) {  // long keys go, and all of them are alike
    const auto row = t % 2 == 0 ? std::vector<float>{.1f, .01f * float(t), .1f} : common;
    for (const float x : row) k.push_back(t % 2 == 0 ? x : 3 * x);
    const auto r = t % 2 == 0 ? random_row(2, random) : value;
    v.insert(v.end(), r.begin(), r.end());
  }
  REQUIRE(cache.append(0, 20, k.data(), v.data(), 0));
  const auto q = random_row(6, random);
  std::vector<float> before(4), after(4);
  Serial serial;
  REQUIRE(cache.attend(0, q.data(), 0.5f, before.data(), serial));
  REQUIRE(cache.observe(0, {}, Clock{Phase::prefill, 0, 0, 12, true}));
  CHECK(cache.size(0, 0) == 12);
  REQUIRE(cache.attend(0, q.data(), 0.5f, after.data(), serial));
  for (std::size_t i = 0; i < 4; ++i) CHECK(after[i] == Approx(before[i]).margin(1e-5));
}

TEST_CASE("Guards that leave it no place are an Error", "[dispose][Compensate]") {
  const Shape shape{1, 1, 1, 2, 2};
  auto cache = cache_of(Policy<Recency, KeepEnds, Compensate>(KeepEnds{3, 5}), shape);
  std::vector<float> rows(40, 1.0f);
  REQUIRE(cache.append(0, 20, rows.data(), rows.data(), 0));
  const Status s = cache.observe(0, {}, Clock{Phase::prefill, 0, 0, 8, true});
  REQUIRE(!s);
  CHECK(s.error().code == Errc::bad_budget);
  REQUIRE(cache.observe(0, {}, Clock{Phase::prefill, 0, 0, 9, true}));
  CHECK(cache.size(0, 0) == 9);
}

TEST_CASE("Its place counts in the budgets of heads and layers, however little is left to a flat one",
          "[dispose][Compensate][budget]") {
  const Shape shape{1, 2, 2, 2, 2};
  Policy<KeyNorm, SharedHeads, KeepEnds> policy(KeepEnds{0, 4});
  policy.settings.merge = Fold::compensate;
  auto cache = cache_of(policy, shape);
  std::vector<float> k, v(80, 1.0f);
  for (Index t = 0; t < 20; ++t)
    for (const float x : {100.0f, 0.01f * float(t)})
      k.insert(k.end(), {x, x});  // all of head 0 ranks below head 1
  REQUIRE(cache.append(0, 20, k.data(), v.data(), 0));
  REQUIRE(cache.observe(0, {}, Clock{Phase::prefill, 0, 0, 6, true}));
  CHECK(cache.size(0, 0) == 5);  // four newest, and the one that stands in
  CHECK(cache.size(0, 1) == 7);

  const Shape deep{4, 1, 1, 2, 2};
  Policy<KeyNorm, Ladder, KeepEnds> ladder(KeepEnds{0, 4});
  ladder.settings.merge = Fold::compensate;
  auto layers = cache_of(ladder, deep);
  Index sum = 0;
  for (int l = 0; l < 4; ++l) {
    REQUIRE(layers.append(l, 20, k.data(), v.data(), 0));
    REQUIRE(layers.observe(l, {}, Clock{Phase::prefill, 0, 0, 6, true}));
    CHECK(layers.size(l, 0) >= 5);
    sum += layers.size(l, 0);
  }
  CHECK(sum == 24);
}
