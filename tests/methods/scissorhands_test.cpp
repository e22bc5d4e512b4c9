// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/scissorhands.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("Scissorhands drops a batch of the entries that were missed most often",
          "[methods][Scissorhands]") {
  const auto policy = *methods::Scissorhands::make({4, 2, 1, 2});
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(6);
  const std::vector<Row> history{{.30f, .05f, .20f, .25f, .10f, .10f},
                                 {.20f, .05f, .05f, .40f, .20f, .10f},
                                 {.10f, .20f, .05f, .30f, .15f, .20f},
                                 {.25f, .05f, .05f, .25f, .20f, .20f}};
  for (std::size_t i = 0; i < history.size(); ++i) {
    layer.forget_evidence();
    layer.give_probs(0, {{history[i]}});
    const auto plans = run_call(policy, state, layer, step_clock(Index(i) + 1, i + 1 < history.size() ? 6 : 4));
    REQUIRE(plans.size() == 1);
    if (i + 1 < history.size()) CHECK(plans[0].empty());
  }
  CHECK(layer.pos[0] == std::vector<Pos>{0, 3, 4, 5});
  const std::vector<float> importance{3 / 4.f, 4 / 4.f, 2 / 4.f, 2 / 4.f};
  for (std::size_t i = 0; i < 4; ++i) CHECK(state.layers[0].heads[0].scores[i] == Approx(importance[i]));
}

TEST_CASE("An event of Scissorhands removes exactly its batch, and never the newest",
          "[methods][Scissorhands]") {
  const auto policy = *methods::Scissorhands::make({16, 3, 1, 5});
  const Shape shape{1, 2, 2, 4, 4};
  auto state = *policy.start(shape);
  SmallLayer layer(shape);
  Random random(14);
  Index events = 0;
  for (Index step = 1; step <= 60; ++step) {
    layer.append_random(1, random);
    layer.give_random_evidence(1, random);
    const Index before = layer.size();
    run_call(policy, state, layer, step_clock(step, 20));
    CHECK((layer.size() == before || layer.size() == before - 5));
    CHECK(layer.size() <= 20);
    events += layer.size() < before;
    for (Index i = 0; i < std::min<Index>(3, layer.size()); ++i)
      CHECK(layer.pos[1][std::size_t(layer.size(1) - 1 - i)] == step - 1 - i);
  }
  CHECK(events == 8);  // at 21, then every 5 steps
}

TEST_CASE("A flat row hits every entry, and what is always hit outlives the others",
          "[methods][Scissorhands]") {
  const auto policy = *methods::Scissorhands::make({8, 1, 1, 1});
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(7);
  layer.give_probs(0, {{Row(7, 1.0f / 7)}});
  run_call(policy, state, layer, step_clock(1, 7));
  for (const auto& e : state.layers[0].heads[0].entries) CHECK(e.hits[0] == 1);
  layer.append_blank(1);
  Row row(8, .01f);
  row[2] = .93f;
  layer.forget_evidence();
  layer.give_probs(0, {{row}});
  run_call(policy, state, layer, step_clock(2, 2));
  CHECK(layer.pos[0] == std::vector<Pos>{2, 7});
}
