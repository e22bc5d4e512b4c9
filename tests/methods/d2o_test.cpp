// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/d2o.hpp>
#include <kvist/policy/any_policy.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<Index> budgets(SoftmaxOfVariance b, const std::vector<double>& v, Index n, Index mean) {
  std::vector<LayerStat> stats;
  for (const double x : v) stats.push_back({0, x, n, n});
  std::vector<Index> out(v.size());
  REQUIRE(b.allocate({int(v.size()), stats, {}, mean}, out));
  return out;
}

}  // namespace

TEST_CASE("Layers with flat attention get more: the worked numbers of D2O",
          "[methods][D2O][SoftmaxOfVariance]") {
  // v = .9, .2, .4, .5, rho = .4: ratios .259981 .523537 .428636 .387846, of 20 entries by halves 2, 5, 4, 3 heavy ones
  const std::vector<double> v{.9, .2, .4, .5};
  std::vector<double> ratio(4);
  SoftmaxOfVariance::shares(v, 4 * .4, ratio);
  CHECK(ratio[0] == Approx(.259981).margin(1e-6));
  CHECK(ratio[1] == Approx(.523537).margin(1e-6));
  CHECK(ratio[2] == Approx(.428636).margin(1e-6));
  CHECK(ratio[3] == Approx(.387846).margin(1e-6));
  CHECK(ratio[0] + ratio[1] + ratio[2] + ratio[3] == Approx(1.6).margin(1e-9));
  SoftmaxOfVariance official;
  official.exact = false;
  CHECK(budgets(official, v, 20, 8) == std::vector<Index>{4, 10, 8, 6});  // twice the heavy ones
  const auto exact = budgets({}, v, 20, 8);
  CHECK(exact == std::vector<Index>{5, 10, 9, 8});
  CHECK(budgets({}, {.3, .3, .3}, 50, 17) == std::vector<Index>{17, 17, 17});
}

TEST_CASE("Shares keep to the total, to the layers' sizes and to what each layer needs",
          "[methods][D2O][SoftmaxOfVariance]") {
  Random random(1);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<double> v;
    for (std::uint64_t i = 0; i < 1 + random.below(12); ++i) v.push_back(random.uniform());
    const Index n = 20 + Index(random.below(200)), mean = 1 + Index(random.below(std::uint64_t(n)));
    SoftmaxOfVariance b;
    b.floor = 1 + Index(random.below(std::uint64_t(mean)));
    long long sum = 0;
    for (const Index x : budgets(b, v, n, mean)) {
      sum += x;
      CHECK(x <= n);
      CHECK(x >= b.floor);
    }
    CHECK(sum == (long long)mean * (long long)v.size());
  }
}

TEST_CASE("The prompt stays whole until the first step, then all layers are cut to their shares and stay so",
          "[methods][D2O]") {
  auto policy = methods::D2O::make({});
  REQUIRE(policy);
  CHECK_FALSE(policy->due({Phase::prefill, 0, 100, 20, true}));
  const int layers = 3;
  Random random(2);
  std::vector<SmallLayer> all;
  auto state = policy->start(Shape{layers, 2, 2, 6, 4});
  REQUIRE(state);
  for (int l = 0; l < layers; ++l) {
    all.emplace_back(Shape{layers, 2, 2, 6, 4});
    all.back().append_random(60, random);
    all.back().give_random_evidence(60, random);
    for (float& s : all.back().sums[0]) s *= l == 1 ? 0.01f : 1.0f;  // a head of layer 1 hardly varies
    const AnyLayer view = all.back().view();
    const LayerCall<AnyLayer> call{view, all.back().seen, {Phase::prefill, 0, 60, 20, true}, l};
    REQUIRE(policy->observe(call, *state));
  }
  std::vector<Index> sizes;
  for (Index step = 1; step <= 4; ++step) {
    Index total = 0;
    for (int l = 0; l < layers; ++l) {
      SmallLayer& layer = all[std::size_t(l)];
      layer.append_random(1, random);
      layer.give_random_evidence(1, random);
      const AnyLayer view = layer.view();
      const LayerCall<AnyLayer> call{view, layer.seen, {Phase::decode, step, layer.size(), 20, true}, l};
      REQUIRE(policy->observe(call, *state));
      REQUIRE(policy->due(call.now));
      std::vector<Plan> plans;
      REQUIRE(policy->plan(call, *state, plans));
      REQUIRE(plans.size() == 1);
      for (int h = 0; h < 2; ++h) {
        const HeadPlan& p = plans[0].heads[std::size_t(h)];
        REQUIRE(check(p, layer.size(h), {4, plans[0].cost[std::size_t(h)].after / 2}));
        if (step > 1) CHECK(p.drop.size() == 1);
        CHECK(p.blend.size() <= p.drop.size());
      }
      policy->applied(plans[0], *state);
      layer.apply(plans[0]);
      total += layer.size(0) + layer.size(1);
      if (step == 1) sizes.push_back(layer.size());
      else CHECK(layer.size() == sizes[std::size_t(l)]);
    }
    CHECK(total == 3 * 2 * 20);
  }
}

TEST_CASE("heavy and recent: a proportion together, a count alone", "[methods][D2O]") {
  using methods::SinksAndRecentPart;
  CHECK(SinksAndRecentPart{4, -1, -1}.resolve(21) == Guards{4, 10});
  CHECK(SinksAndRecentPart{4, 10, 30}.resolve(20) == Guards{4, 15});
  CHECK(SinksAndRecentPart{4, -1, 7}.resolve(20) == Guards{4, 7});
  CHECK(SinksAndRecentPart{4, 12, -1}.resolve(20) == Guards{4, 8});
  CHECK(SinksAndRecentPart{4, 10, 30}.validate(40));
  CHECK(SinksAndRecentPart{4, 10, 30}.validate(41).error().code == Errc::bad_budget);
  methods::D2OOptions o;
  o.alpha = 1.5f;
  CHECK(methods::D2O::make(o).error().code == Errc::bad_option);
  o = {};
  o.heavy = -2;
  CHECK(methods::D2O::make(o).error().code == Errc::bad_option);
}

namespace {

/// A policy over three layers of one head after a prompt of 60, whose layers told the variances given.
struct Three {
  methods::D2O::Type policy;
  methods::D2O::Type::State state;
  std::vector<SmallLayer> layers;
  Random random{9};
  Index step = 0;

  static constexpr Shape shape{3, 1, 1, 4, 4};
  explicit Three(const methods::D2OOptions& o = {})
      : policy(*methods::D2O::make(o)), state(*policy.start(shape)), layers(3, SmallLayer(shape)) {}

  void prompt(Index n, const std::vector<double>& variance, Index budget) {
    step = 0;
    for (int l = 0; l < 3; ++l) {
      SmallLayer& layer = layers[std::size_t(l)];
      layer.append_random(n, random);
      layer.give_random_evidence(n, random);
      run_call(policy, state, layer, prompt_clock(budget), l);
      state.layers[std::size_t(l)].stat.variance = variance[std::size_t(l)];
    }
  }
  std::vector<Index> one_step(Index budget) {
    ++step;
    std::vector<Index> sizes;
    for (int l = 0; l < 3; ++l) {
      SmallLayer& layer = layers[std::size_t(l)];
      layer.append_random(1, random);
      layer.give_random_evidence(1, random);
      run_call(policy, state, layer, step_clock(step, budget), l);
      sizes.push_back(layer.size());
    }
    return sizes;
  }
};

}  // namespace

TEST_CASE("Every budget that the guards fit in goes well, whatever a layer's share",
          "[methods][D2O][budget]") {
  for (const methods::Total total : {methods::Total::exact, methods::Total::official})
    for (const auto& [heavy, recent] : {std::pair<Index, Index>{-1, -1}, {-1, 3}, {3, 9}}) {
      methods::D2OOptions o;
      o.total = total, o.heavy = heavy, o.recent = recent;
      if (heavy > 0) o.sinks = 1;
      Three three(o);
      three.prompt(60, {1, 0, 0}, 12);  // layer 0's share: 5.6
      const std::vector<Index> sizes = three.one_step(12);
      for (const Index n : sizes) CHECK(n < 20);
      CHECK(sizes[0] < sizes[1]);
      if (total == methods::Total::exact) CHECK(sizes[0] + sizes[1] + sizes[2] == 3 * 12);
    }
  Three tight;
  tight.prompt(60, {1, 0, 0}, 7);  // four sinks and three of seven newest: nothing else fits anywhere
  CHECK(tight.one_step(7) == std::vector<Index>{7, 7, 7});
}

TEST_CASE("A budget for the whole model refuses schedules that never plan in steps",
          "[methods][D2O][schedule]") {
  auto policy = *methods::D2O::make({});
  using Kind = ChosenSchedule::Kind;
  for (const Kind kind : {Kind::after_prefill, Kind::per_chunk}) {
    policy.settings.schedule.kind = kind;
    const auto refused = policy.start(Three::shape);
    REQUIRE(!refused);
    CHECK(refused.error().code == Errc::unsupported);
  }
  policy.settings.tolerance = 0.5f;  // no budget is shared out
  CHECK(policy.start(Three::shape));
  policy.settings.tolerance = 0;
  for (const Kind kind : {Kind::own, Kind::every_step, Kind::every_steps, Kind::over_budget}) {
    policy.settings.schedule.kind = kind;
    CHECK(policy.start(Three::shape));
  }
  using Late = Policy<AttentionVariance, SoftmaxOfVariance>;  // after the prompt, as nothing else is said
  CHECK(Late().start(Three::shape).error().code == Errc::unsupported);
}
