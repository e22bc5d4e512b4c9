// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/adakv.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/streaming_llm.hpp>
#include <kvist/policy/any_policy.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr Shape shape{1, 4, 2, 6, 6};

/// A prompt and a few steps; which positions stay, after each call.
template <class P, class State>
std::vector<std::vector<std::vector<Pos>>> run(const P& policy, State& state, Index steps,
                                               std::uint64_t seed = 5) {
  std::vector<std::vector<std::vector<Pos>>> out;
  SmallLayer layer(shape);
  Random random(seed);
  for (Index step = 0; step <= steps; ++step) {
    const Index count = step == 0 ? 50 : 1;
    layer.append_random(count, random);
    layer.give_random_evidence(count, random);
    run_call(policy, state, layer, step == 0 ? prompt_clock(20) : step_clock(step, 20));
    out.push_back(layer.pos);
  }
  return out;
}

}  // namespace

TEST_CASE("A policy chosen at run time decides as the one inside", "[policy][AnyPolicy]") {
  const auto h2o = *methods::H2O::make({});
  const auto ada =
      *methods::AdaKV::make({8, 5, PoolMode::max, 0.2, false, Reduce::mean, methods::Total::exact});
  const AnyPolicy any_h2o(h2o), any_ada(ada);
  auto a = *h2o.start(shape);
  auto b = *any_h2o.start(shape);
  CHECK(run(h2o, a, 12) == run(any_h2o, b, 12));
  auto c = *ada.start(shape);
  auto d = *any_ada.start(shape);
  CHECK(run(ada, c, 3) == run(any_ada, d, 3));
  CHECK(any_h2o.wants() == h2o.wants());
  CHECK(any_h2o.makes() == unsigned(drops));
  CHECK(any_h2o.due(step_clock(1, 20)));
  CHECK(!any_ada.due(step_clock(1, 20)));
  CHECK(!any_h2o.compact());
  CHECK(!any_h2o.in_order());
  CHECK(AnyPolicy(methods::StreamingLLM::compact({})).compact());
  for (int h = 0; h < 2; ++h) {
    const auto scores = any_h2o.scores(b, 0, h);
    const auto& same = a.layers[0].heads[std::size_t(h)].scores;
    CHECK(std::vector<float>(scores.begin(), scores.end()) == same);
  }
}

TEST_CASE("States of one policy are apart, clones too, and an empty one says so", "[policy][AnyPolicy]") {
  const AnyPolicy policy(*methods::H2O::make({}));
  const AnyPolicy copy = policy;  // shares the policy
  AnyPolicy::State none;
  CHECK(!none);
  CHECK(!none.clone());
  auto first = *policy.start(shape);
  auto second = *copy.start(shape);
  CHECK(bool(first));
  const auto alone = run(policy, first, 6);
  auto branch = first.clone();
  CHECK(run(copy, second, 6) == alone);  // as if the other did not exist
  const auto records = [&](AnyPolicy::State& s) {
    const auto x = policy.scores(s, 0, 0);
    return std::vector<float>(x.begin(), x.end());
  };
  const auto before = records(first);
  for (int h = 0; h < 2; ++h) policy.truncate(branch, 0, h, 5, 5);
  CHECK(records(branch).size() == 5);
  CHECK(records(first) == before);
}

TEST_CASE("Settings are read and replaced, and the policy itself stays as it was", "[policy][AnyPolicy]") {
  auto inner = *methods::H2O::make({});
  inner.settings.at_least = {3, 0};
  const AnyPolicy policy(inner);
  CHECK(policy.settings().at_least == Guards{3, 0});
  PolicySettings s = policy.settings();
  s.schedule.kind = ChosenSchedule::Kind::after_prefill;
  s.account_loss = true;
  const AnyPolicy other = policy.with(s);
  CHECK(!other.due(step_clock(1, 20)));
  CHECK(policy.due(step_clock(1, 20)));
  CHECK(other.settings().at_least == Guards{3, 0});
  CHECK(any(other.wants().prefill & Needs::rows));
  CHECK(!any(policy.wants().prefill & Needs::rows));
}

TEST_CASE("What the policy inside refuses is refused", "[policy][AnyPolicy]") {
  auto inner = *methods::H2O::make({});
  inner.settings.skip_layers = {7};
  const AnyPolicy policy(inner);
  const auto state = policy.start(shape);
  REQUIRE(!state);
  CHECK(state.error().code == Errc::bad_option);
  const AnyPolicy good(*methods::H2O::make({}));
  auto made = good.start(shape);
  REQUIRE(made);
  SmallLayer layer(shape);
  Random random(1);
  layer.append_random(5, random);  // without evidence
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, {}, prompt_clock(3), 0};
  CHECK(good.observe(call, *made).error().code == Errc::missing_evidence);
}
