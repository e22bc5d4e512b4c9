// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/tova.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

SmallLayer two_heads(const Row& a, const Row& b) {
  SmallLayer layer(Shape{1, 2, 2, 2, 2});
  layer.append_blank(Index(a.size()));
  layer.give_probs(0, {{a}});
  layer.give_probs(1, {{b}});
  return layer;
}

}  // namespace

TEST_CASE("TOVA drops what the newest query attends to least, for all heads alike", "[methods][TOVA]") {
  const auto policy = *methods::TOVA::make({});
  auto layer = two_heads({.40f, .05f, .10f, .25f, .05f, .15f}, {.20f, .05f, .30f, .05f, .10f, .30f});
  auto state = *policy.start(layer.shape);
  run_call(policy, state, layer, prompt_clock(4));
  CHECK(layer.pos[0] == std::vector<Pos>{0, 2, 3, 5});
  CHECK(layer.pos[1] == layer.pos[0]);
  const std::vector<float> mean{.30f, .20f, .15f, .225f};  // of those who stayed
  for (std::size_t i = 0; i < mean.size(); ++i) CHECK(state.layers[0].heads[0].scores[i] == Approx(mean[i]));
}

TEST_CASE("TOVA may drop the newest entry at once", "[methods][TOVA]") {
  const Row a{.30f, .30f, .20f, .15f, .05f}, b{.30f, .25f, .25f, .15f, .05f};
  auto policy = *methods::TOVA::make({});
  auto layer = two_heads(a, b);
  auto state = *policy.start(layer.shape);
  run_call(policy, state, layer, prompt_clock(4));
  CHECK(layer.pos[0] == std::vector<Pos>{0, 1, 2, 3});

  policy.settings.at_least.recent = 1;  // kvpress's form
  auto guarded = two_heads(a, b);
  auto other = *policy.start(guarded.shape);
  run_call(policy, other, guarded, prompt_clock(4));
  CHECK(guarded.pos[0] == std::vector<Pos>{0, 1, 2, 4});
}

TEST_CASE("TOVA does not care about the order of query heads", "[methods][TOVA]") {
  Random random(9);
  for (int round = 0; round < 20; ++round) {
    SmallLayer layer(Shape{1, 4, 2, 8, 8});
    layer.append_random(30, random);
    layer.give_random_evidence(1, random);
    SmallLayer swapped = layer;
    for (int h = 0; h < 2; ++h) {
      auto& q = swapped.queries[std::size_t(h)];
      std::rotate(q.begin(), q.begin() + 8, q.end());
      swapped.forget_evidence();
    }
    for (int h = 0; h < 2; ++h) {
      Evidence& e = swapped.seen[std::size_t(h)];
      e.queries = cube(swapped.queries[std::size_t(h)].data(), 2, 1, 8);
      e.first_query = 29;
      Evidence& f = layer.seen[std::size_t(h)];
      f = {};
      f.queries = cube(layer.queries[std::size_t(h)].data(), 2, 1, 8);
      f.first_query = 29;
    }
    const auto policy = *methods::TOVA::make({});
    auto a = *policy.start(layer.shape), b = a;
    run_call(policy, a, layer, prompt_clock(12));
    run_call(policy, b, swapped, prompt_clock(12));
    CHECK(layer.size() == 12);
    CHECK(layer.pos[0] == swapped.pos[0]);
    CHECK(layer.pos[0] == layer.pos[1]);
  }
}
