// SPDX-License-Identifier: Apache-2.0
// Policy<Parts...>: how parts are put together, what settings do, and what is refused.
#include <kvist/policy/budget/head/shared_heads.hpp>
#include <kvist/policy/budget/layer/ladder.hpp>
#include <kvist/policy/dispose/demote.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/accumulated_attention.hpp>
#include <kvist/policy/signal/key_norm.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

#include <limits>

using namespace kvist;
using namespace kvist::test;

namespace {

using ByNorm = Policy<KeyNorm>;
using Sums = Policy<AccumulatedAttention, EveryStep>;

/// Wants more queries than its wants() says.
struct Choosy : AccumulatedAttention {
  Wants wants() const { return {Needs::queries, {}, 8}; }
  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry>, PerHead&) const {
    if (c.seen.queries.w < 8) return Error{Errc::missing_evidence, "wants 8 queries", 8, c.seen.queries.w};
    return Done{};
  }
};

SmallLayer random_layer(const Shape& shape, Index n, std::uint64_t seed = 5) {
  SmallLayer layer(shape);
  Random random(seed);
  layer.append_random(n, random);
  layer.give_random_evidence(n, random);
  return layer;
}

template <class P>
Errc start_fault(const P& policy, const Shape& shape) {
  const auto state = policy.start(shape);
  REQUIRE(!state);
  return state.error().code;
}

/// observe and plan of layer 0 with this call; the Error of the first that fails.
template <class P>
Status ask(const P& policy, typename P::State& state, SmallLayer& layer, Clock now, std::vector<Plan>& out,
           Abilities can = {}, int index = 0) {
  const AnyLayer view = layer.view();
  now.size = layer.size();
  const LayerCall<AnyLayer> call{view, layer.seen, now, index, can};
  if (Status s = policy.observe(call, state); !s) return s;
  return policy.plan(call, state, out);
}

constexpr Shape shape{1, 4, 2, 6, 6};

}  // namespace

TEST_CASE("Parts come in any order, and missing roles get their defaults", "[policy][Policy]") {
  using A = Policy<EveryStep, KeyNorm, KeepEnds>;
  using B = Policy<KeepEnds, EveryStep, KeyNorm>;
  STATIC_REQUIRE(std::same_as<A::SignalPart, KeyNorm>);
  STATIC_REQUIRE(std::same_as<B::SchedulePart, EveryStep>);
  STATIC_REQUIRE(std::same_as<A::LayersPart, Uniform>);
  STATIC_REQUIRE(std::same_as<A::HeadsPart, EvenHeads>);
  STATIC_REQUIRE(std::same_as<A::SelectPart, TopK>);
  STATIC_REQUIRE(std::same_as<A::DisposePart, Drop>);
  STATIC_REQUIRE(std::same_as<A::PositionsPart, KeepPositions>);
  STATIC_REQUIRE(std::same_as<Policy<>::SignalPart, Recency>);
  STATIC_REQUIRE(std::same_as<Policy<>::SchedulePart, AfterPrefill>);
  STATIC_REQUIRE(!A::compact());
  STATIC_REQUIRE(Policy<CompactPositions>::compact());
  const A a(KeepEnds{2, 3}, EveryStep{});
  const B b(EveryStep{}, KeepEnds{2, 3});
  CHECK(a.guard.sinks == 2);
  CHECK(b.guard.recent == 3);
  CHECK(a.makes() == unsigned(drops));
  SmallLayer one = random_layer(shape, 30), two = one;
  auto sa = *a.start(shape);
  auto sb = *b.start(shape);
  run_call(a, sa, one, prompt_clock(12));
  run_call(b, sb, two, prompt_clock(12));
  CHECK(one.pos == two.pos);
  CHECK(one.size() == 12);
}

TEST_CASE("Options that fit no model are refused before the first token", "[policy][Policy]") {
  for (const Shape& bad : {Shape{0, 4, 2, 6, 6}, Shape{1, 3, 2, 6, 6}, Shape{1, 4, 0, 6, 6},
                           Shape{1, 4, 2, 0, 6}, Shape{1, 4, 2, 6, -1}})
    CHECK(start_fault(ByNorm(), bad) == Errc::bad_shape);
  const auto with = [](auto change) {
    ByNorm p;
    change(p.settings);
    return start_fault(p, shape);
  };
  CHECK(with([](PolicySettings& s) { s.at_least.sinks = -1; }) == Errc::bad_option);
  CHECK(with([](PolicySettings& s) { s.at_least.recent = -1; }) == Errc::bad_option);
  CHECK(with([](PolicySettings& s) { s.on_top = -1; }) == Errc::bad_option);
  CHECK(with([](PolicySettings& s) { s.skip_layers = {1}; }) == Errc::bad_option);
  CHECK(with([](PolicySettings& s) { s.skip_layers = {-1}; }) == Errc::bad_option);
  CHECK(with([](PolicySettings& s) { s.tolerance = -1; }) == Errc::bad_option);
  CHECK(with([](PolicySettings& s) { s.tolerance = std::numeric_limits<float>::quiet_NaN(); }) ==
        Errc::bad_option);
  CHECK(with([](PolicySettings& s) {
          s.schedule = {ChosenSchedule::Kind::every_steps, 0, 0};
        }) == Errc::bad_option);
  CHECK(with([](PolicySettings& s) {
          s.schedule = {ChosenSchedule::Kind::over_budget, 1, -1};
        }) == Errc::bad_option);
}

TEST_CASE("A call that does not fit the sequence is an Error, and nothing is planned", "[policy][Policy]") {
  const Sums policy;
  auto state = *policy.start(shape);
  SmallLayer layer = random_layer(shape, 20);
  std::vector<Plan> plans;
  const auto code = [&](auto change) {
    SmallLayer mine = layer;
    for (std::size_t h = 0; h < 2; ++h) {
      mine.seen[h].column_sums.data = mine.sums[h].data();
      mine.seen[h].seen_by = mine.seen_by[h];
      mine.seen[h].probs = {};
      mine.seen[h].queries = {};
      mine.seen[h].max_query = {};
    }
    change(mine);
    auto fresh = *policy.start(shape);
    const Status s = ask(policy, fresh, mine, prompt_clock(10), plans);
    REQUIRE(!s);
    return s.error().code;
  };
  CHECK(code([](SmallLayer& l) { l.seen.pop_back(); }) == Errc::missing_evidence);
  CHECK(code([](SmallLayer& l) { l.seen[1].column_sums = {}; }) == Errc::missing_evidence);
  CHECK(code([](SmallLayer& l) { l.seen[1].column_sums.g = 1; }) == Errc::bad_shape);
  CHECK(code([](SmallLayer& l) { l.seen[0].column_sums.n = 19; }) == Errc::bad_shape);
  CHECK(code([](SmallLayer& l) { l.seen[0].seen_by = l.seen[0].seen_by.subspan(1); }) == Errc::bad_shape);
  CHECK(code([](SmallLayer& l) { l.pos[0].push_back(99); }) == Errc::bad_shape);
  CHECK(ask(policy, state, layer, prompt_clock(10), plans, {}, 1).error().code == Errc::bad_shape);
  CHECK(ask(policy, state, layer, prompt_clock(10), plans, {}, -1).error().code == Errc::bad_shape);
  SmallLayer narrow = random_layer(Shape{1, 2, 1, 6, 6}, 20);
  CHECK(ask(policy, state, narrow, prompt_clock(10), plans).error().code == Errc::bad_shape);
  // Entries that the policy was never shown.
  REQUIRE(ask(policy, state, layer, prompt_clock(10), plans));
  plans.clear();
  SmallLayer longer = layer;
  Random random(1);
  longer.append_random(1, random);
  longer.forget_evidence();
  const AnyLayer view = longer.view();
  const LayerCall<AnyLayer> unseen{view, longer.seen, prompt_clock(10), 0};
  CHECK(!policy.plan(unseen, state, plans));
  CHECK(plans.empty());
}

TEST_CASE("Without a budget nothing is dropped, and guards must fit in it", "[policy][Policy]") {
  ByNorm policy;
  policy.settings.at_least = {4, 5};
  SmallLayer layer = random_layer(shape, 30);
  std::vector<Plan> plans;
  for (const Index budget : {0, -3, 8}) {
    auto state = *policy.start(shape);
    const Status s = ask(policy, state, layer, prompt_clock(budget), plans);
    REQUIRE(!s);
    CHECK(s.error().code == Errc::bad_budget);
    CHECK(plans.empty());
  }
  auto state = *policy.start(shape);
  REQUIRE(ask(policy, state, layer, prompt_clock(9), plans));
  for (const HeadPlan& h : plans[0].heads) {
    const auto stay = survivors(h, 30);
    CHECK(stay == std::vector<Index>{0, 1, 2, 3, 25, 26, 27, 28, 29});
  }
}

TEST_CASE("Guards are the larger of the part's and the settings', and what is on top comes besides",
          "[policy][Policy]") {
  const auto kept = [&](Guards part, Guards at_least, Index on_top, Index budget) {
    Policy<KeyNorm, KeepEnds> policy(KeepEnds{part.sinks, part.recent});
    policy.settings.at_least = at_least;
    policy.settings.on_top = on_top;
    SmallLayer layer = random_layer(Shape{1, 1, 1, 6, 6}, 40);
    auto state = *policy.start(layer.shape);
    std::vector<Plan> plans;
    REQUIRE(ask(policy, state, layer, prompt_clock(budget), plans));
    return survivors(plans[0].heads[0], 40);
  };
  using Is = std::vector<Index>;
  CHECK(kept({3, 1}, {1, 2}, 0, 5) == Is{0, 1, 2, 38, 39});
  CHECK(kept({1, 2}, {3, 1}, 0, 5) == Is{0, 1, 2, 38, 39});
  CHECK(kept({3, 1}, {1, 2}, 4, 9) == Is{0, 1, 2, 34, 35, 36, 37, 38, 39});
  // A guard that is a share sees the budget without what is on top.
  Policy<KeyNorm, KeepRecentShare> half;
  half.settings.on_top = 6;
  SmallLayer layer = random_layer(Shape{1, 1, 1, 6, 6}, 40);
  auto state = *half.start(layer.shape);
  std::vector<Plan> plans;
  REQUIRE(ask(half, state, layer, prompt_clock(16), plans));
  const auto stay = survivors(plans[0].heads[0], 40);
  REQUIRE(stay.size() == 16);
  CHECK(stay[5] == 29);  // 5 by score, 5 recent before the 6 on top
  CHECK(stay[4] < 29);
}

TEST_CASE("Skipped layers stay whole and outside the budget", "[policy][Policy]") {
  const Shape deep{4, 2, 1, 6, 6};
  Policy<KeyNorm, Ladder> policy(Ladder{4, true});
  policy.settings.skip_layers = {0, 2};
  auto state = *policy.start(deep);
  std::vector<Index> sizes;
  for (int l = 0; l < 4; ++l) {
    SmallLayer layer = random_layer(deep, 60, std::uint64_t(l) + 1);
    run_call(policy, state, layer, prompt_clock(10), l);
    sizes.push_back(layer.size());
  }
  CHECK(sizes[0] == 60);
  CHECK(sizes[2] == 60);
  CHECK(sizes[1] + sizes[3] == 20);
  CHECK(sizes[1] > sizes[3]);
}

TEST_CASE("A chosen schedule stands in the place of the part's", "[policy][Policy]") {
  Sums policy;
  CHECK(policy.due(step_clock(3, 10)));
  policy.settings.schedule.kind = ChosenSchedule::Kind::after_prefill;
  CHECK(!policy.due(step_clock(3, 10)));
  CHECK(policy.due(prompt_clock(10)));
  policy.settings.schedule = {ChosenSchedule::Kind::every_steps, 3, 0};
  CHECK(policy.due(step_clock(3, 10)));
  CHECK(!policy.due(step_clock(4, 10)));
}

TEST_CASE("What waits for more than the budget looks at the layer's own share", "[policy][Policy]") {
  const Shape deep{2, 1, 1, 4, 4};
  Policy<Recency, Ladder, OverBudget> policy(Ladder{4, true}, OverBudget{2});
  auto state = *policy.start(deep);
  std::vector<SmallLayer> layers(2, SmallLayer(deep));
  Random random(9);
  const auto call = [&](Index count, Clock now) {
    for (int l = 0; l < 2; ++l) {
      layers[std::size_t(l)].append_random(count, random);
      run_call(policy, state, layers[std::size_t(l)], now, l);
    }
  };
  call(50, prompt_clock(20));
  const Index high = layers[0].size(), low = layers[1].size();
  CHECK(high + low == 40);
  CHECK(high > low);
  call(1, step_clock(1, 20));
  call(1, step_clock(2, 20));
  CHECK(layers[1].size() == low + 2);  // as many above the share as `slack` lets
  call(1, step_clock(3, 20));
  CHECK(layers[0].size() == high);
  CHECK(layers[1].size() == low);
}

TEST_CASE("Plans state entries and bytes before and after, as the view stores them", "[policy][Policy]") {
  const Index n = 20;
  const std::vector<f16> k(20 * 6, to_f16(1)), v(20 * 4, to_f16(1));
  std::vector<Pos> pos;
  for (Index i = 0; i < n; ++i) pos.push_back(i);
  using H = HeadView<Rows<f16>>;
  const std::vector<H> heads{{rows(k.data(), n, 6), rows(v.data(), n, 4), pos}};
  const KvView<H> view{heads};
  const ByNorm policy;
  auto state = *policy.start(Shape{1, 1, 1, 6, 4});
  const LayerCall<KvView<H>> call{view, {}, {Phase::prefill, 0, n, 8, true}, 0};
  REQUIRE(policy.observe(call, state));
  std::vector<Plan> plans;
  REQUIRE(policy.plan(call, state, plans));
  const HeadCost& c = plans[0].cost[0];
  CHECK(c.before == 20);
  CHECK(c.after == 8);
  CHECK(c.bytes_before == 20 * 10 * 2);
  CHECK(c.bytes_after == 8 * 10 * 2);
  CHECK(std::isnan(c.mass));  // not asked for
  CHECK(std::isnan(c.bound));
}

TEST_CASE("Entries that move to another tier are stated apart, and the bytes of that tier are unknown",
          "[policy][Policy]") {
  const Policy<KeyNorm, Demote> policy;
  SmallLayer layer = random_layer(Shape{1, 2, 2, 6, 4}, 20);
  auto state = *policy.start(layer.shape);
  std::vector<Plan> plans;
  REQUIRE(ask(policy, state, layer, prompt_clock(8), plans));
  for (const HeadCost& c : plans[0].cost) {
    CHECK(c.before == 20);
    CHECK(c.after == 8);
    CHECK(c.moved == 12);
    CHECK(c.bytes_before == 20 * 10 * sizeof(float));
    CHECK(!c.bytes_after);
  }
  plans.clear();
  REQUIRE(ask(policy, state, layer, prompt_clock(20), plans));  // nothing moves
  CHECK(plans[0].cost[0].moved == 0);
  CHECK(plans[0].cost[0].bytes_after == 20 * 10 * sizeof(float));
}

TEST_CASE("What a policy wants is its signal's, and more where losses are counted", "[policy][Policy]") {
  ByNorm policy;
  CHECK(policy.wants() == Wants{});
  policy.settings.account_loss = true;
  CHECK(any(policy.wants().prefill & Needs::rows));
  CHECK(policy.wants().last_queries == 32);
  Sums sums;
  sums.settings.tolerance = 0.1f;
  CHECK(any(sums.wants().prefill & Needs::column_sums));
  CHECK(any(sums.wants().prefill & Needs::rows));
}

TEST_CASE("A signal that refuses its evidence leaves the state as it was", "[policy][Policy]") {
  const Policy<Choosy> policy;
  auto state = *policy.start(shape);
  SmallLayer layer = random_layer(shape, 30);
  Random random(1);
  layer.give_random_evidence(2, random);
  std::vector<Plan> plans;
  const Status refused = ask(policy, state, layer, prompt_clock(12), plans);
  REQUIRE(!refused);
  CHECK(refused.error().code == Errc::missing_evidence);
  CHECK(state.layers[0].tokens == 0);
  CHECK(state.layers[0].stat.tokens == 0);
  for (const auto& head : state.layers[0].heads) CHECK(head.entries.empty());
  // Asked again with what it wants, all entries count once.
  layer.give_random_evidence(8, random);
  REQUIRE(ask(policy, state, layer, prompt_clock(12), plans));
  CHECK(state.layers[0].tokens == 30);
}

TEST_CASE("Records leave with entries that are taken back or dropped, and not with others",
          "[policy][Policy]") {
  const Sums policy;
  auto state = *policy.start(shape);
  SmallLayer layer = random_layer(shape, 30);
  run_call(policy, state, layer, prompt_clock(12));
  CHECK(state.layers[0].heads[0].entries.size() == 12);
  const float newest = state.layers[0].heads[0].entries[8].sum;
  for (int h = 0; h < 2; ++h) policy.truncate(state, 0, h, 9, layer.pos[std::size_t(h)][9]);
  CHECK(state.layers[0].heads[1].entries.size() == 9);
  CHECK(state.layers[0].heads[0].scores.size() == 9);
  CHECK(state.layers[0].heads[0].entries[8].sum == newest);
  policy.applied(Plan{0, {HeadPlan{{0, 8}, {}, {}, {}}, HeadPlan{}}, {}}, state);
  CHECK(state.layers[0].heads[0].entries.size() == 7);
  CHECK(state.layers[0].heads[1].entries.size() == 9);
}

TEST_CASE("Entries that went without the policy being told are an Error", "[policy][Policy]") {
  const Sums policy;
  auto state = *policy.start(shape);
  SmallLayer layer = random_layer(shape, 30);
  run_call(policy, state, layer, prompt_clock(12));
  SmallLayer fewer = random_layer(shape, 10);
  std::vector<Plan> plans;
  const Status refused = ask(policy, state, fewer, prompt_clock(8), plans);
  REQUIRE(!refused);
  CHECK(refused.error().code == Errc::bad_shape);
  CHECK(plans.empty());
  for (const auto& head : state.layers[0].heads) CHECK(head.entries.size() == 12);
}
