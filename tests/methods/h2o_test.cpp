// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/h2o.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<float> sums_of(const methods::H2O::Type::State& st) {
  std::vector<float> out;
  for (const auto& e : st.layers[0].heads[0].entries) out.push_back(e.sum);
  return out;
}

void check_close(const std::vector<float>& got, const std::vector<float>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(1e-6));
}

const std::vector<Row> prompt{{1}, {.6f, .4f}, {.5f, .1f, .4f}, {.2f, .1f, .5f, .2f}, {.1f, .1f, .3f, .1f, .4f}};

}  // namespace

TEST_CASE("H2O keeps heavy and recent entries and loses them for good", "[methods][H2O]") {
  const auto policy = *methods::H2O::make({});  // budget 4: two heavy, two recent
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(5);
  layer.give_sums(0, {prompt});
  run_call(policy, state, layer, prompt_clock(4));
  CHECK(layer.pos[0] == std::vector<Pos>{0, 2, 3, 4});
  check_close(sums_of(state), {2.4f, 1.2f, .3f, .4f});

  const std::vector<Row> steps{{.10f, .05f, .45f, .10f, .30f}, {.05f, .05f, .70f, .10f, .10f}};
  const std::vector<std::vector<Pos>> kept{{0, 2, 4, 5}, {0, 2, 5, 6}};
  const std::vector<std::vector<float>> sums{{2.5f, 1.25f, .5f, .3f}, {2.55f, 1.30f, .40f, .10f}};
  for (std::size_t i = 0; i < steps.size(); ++i) {
    layer.append_blank(1);
    layer.pos[0].back() = Pos(5 + i);
    layer.forget_evidence();
    layer.give_probs(0, {{steps[i]}});
    run_call(policy, state, layer, step_clock(Index(i) + 1, 4));
    CHECK(layer.pos[0] == kept[i]);
    check_close(sums_of(state), sums[i]);
  }
}

TEST_CASE("H2O can divide by the queries that could see an entry", "[methods][H2O]") {
  methods::H2OOptions options;
  options.normalise = true;
  const auto policy = *methods::H2O::make(options);
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(5);
  layer.give_sums(0, {prompt});
  const auto plans = run_call(policy, state, layer, prompt_clock(4));
  REQUIRE(plans.size() == 1);
  CHECK(layer.pos[0] == std::vector<Pos>{0, 2, 3, 4});
  check_close(state.layers[0].heads[0].scores, {.48f, .40f, .15f, .40f});
}

TEST_CASE("H2O's column sums add up to the number of queries after the prompt", "[methods][H2O]") {
  const auto policy = *methods::H2O::make({});
  const Shape shape{1, 6, 2, 8, 8};
  auto state = *policy.start(shape);
  SmallLayer layer(shape);
  Random random(3);
  layer.append_random(40, random);
  layer.give_random_evidence(40, random);
  run_call(policy, state, layer, prompt_clock(40));
  for (const auto& head : state.layers[0].heads) {
    double sum = 0;
    for (const auto& e : head.entries) sum += double(e.sum);
    CHECK(sum == Approx(40).epsilon(1e-5));
  }
}

TEST_CASE("H2O without heavy entries is a sliding window", "[methods][H2O]") {
  methods::H2OOptions options;
  options.heavy = 0;
  const auto policy = *methods::H2O::make(options);
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(5);
  layer.give_sums(0, {prompt});
  run_call(policy, state, layer, prompt_clock(3));
  CHECK(layer.pos[0] == std::vector<Pos>{2, 3, 4});
}

TEST_CASE("H2O refuses heavy and recent that do not fill the budget", "[methods][H2O]") {
  methods::H2OOptions options;
  options.heavy = 2;
  options.recent = 3;
  const auto policy = *methods::H2O::make(options);
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(8);
  layer.give_sums(0, {std::vector<Row>(8, Row(8, .125f))});
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, 8, 4, true}, 0};
  REQUIRE(policy.observe(call, state));
  std::vector<Plan> plans;
  const Status s = policy.plan(call, state, plans);
  REQUIRE(!s);
  CHECK(s.error().code == Errc::bad_budget);
  CHECK(s.error().want == 4);
  CHECK(s.error().got == 5);
  CHECK(plans.empty());
}
