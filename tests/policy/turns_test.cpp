// SPDX-License-Identifier: Apache-2.0
// Several turns over one state: what goes on, and what counts from the new prompt (policy/README.md).
#include <kvist/methods/all.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

/// A conversation over one layer: turns of a prompt, steps between them.
template <class P>
struct Talk {
  P policy;
  typename P::State state;
  SmallLayer layer;
  Random random{11};
  Index budget = 24, step = 0;

  Talk(P p, const Shape& shape) : policy(std::move(p)), state(*policy.start(shape)), layer(shape) {}

  std::vector<Plan> turn(Index n) {
    step = 0;
    layer.append_random(n, random);
    layer.give_random_evidence(n, random);
    return run_call(policy, state, layer, prompt_clock(budget));
  }
  void steps(Index n) {
    for (Index i = 0; i < n; ++i) {
      layer.append_random(1, random);
      layer.give_random_evidence(1, random);
      run_call(policy, state, layer, step_clock(++step, budget));
    }
  }
  const auto& entries(int h = 0) const { return state.layers[0].heads[std::size_t(h)].entries; }
};
template <class P>
Talk(P, const Shape&) -> Talk<P>;

constexpr Shape shape{1, 4, 2, 6, 6};

}  // namespace

TEST_CASE("Attention that entries received goes on adding up over turns", "[policy][turns]") {
  Talk talk(*methods::H2O::make({}), shape);
  talk.turn(40);
  talk.steps(5);
  const auto before = talk.entries();
  const std::vector<Pos> held = talk.layer.pos[0];
  talk.budget = 200;  // nothing leaves: the same rows after the next prompt
  talk.turn(30);
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(talk.layer.pos[0][i] == held[i]);
    CHECK(talk.entries()[i].sum > before[i].sum);
    CHECK(talk.entries()[i].seen == before[i].seen + 30);
  }
}

TEST_CASE("A new prompt's end is an event again, and all that is held competes", "[policy][turns]") {
  Talk talk(*methods::SnapKV::make({8, 5, PoolMode::avg, Reduce::mean, false}), shape);
  talk.turn(60);
  CHECK(talk.layer.size() == 24);
  talk.steps(10);  // AfterPrefill: they stay until the next prompt
  CHECK(talk.layer.size() == 34);
  const std::vector<Pos> held = talk.layer.pos[0];
  const auto plans = talk.turn(50);
  REQUIRE(plans.size() == 1);
  CHECK(talk.layer.size() == 24);
  // The observed window is that of the new prompt, and old entries stay by its votes alone.
  for (Index i = 0; i < 8; ++i) CHECK(talk.layer.pos[0][std::size_t(23 - i)] == 119 - i);
  Index old = 0;
  for (const Pos p : talk.layer.pos[0]) old += std::binary_search(held.begin(), held.end(), p);
  CHECK(old > 0);
}

TEST_CASE("The grid of steps counts from the newest prompt", "[policy][turns]") {
  using Grid = Policy<Recency, KeepEnds, EverySteps>;
  Talk talk(Grid(KeepEnds{2, 0}, EverySteps{4, false}), shape);
  talk.turn(20);
  talk.steps(6);
  CHECK(talk.layer.size() == 24 + 2);  // planned at step 4, two since
  talk.turn(3);
  talk.steps(3);
  CHECK(talk.layer.size() == 32);
  talk.steps(1);
  CHECK(talk.layer.size() == 24);
}

TEST_CASE("What a prompt says of a layer is that of the newest prompt", "[policy][turns]") {
  using Said = Policy<WindowMeanVariance, KeepEnds>;
  const Said policy(WindowMeanVariance{4, 200, 5}, KeepEnds{0, 4});
  Talk talk(policy, shape);
  talk.turn(40);
  const LayerStat first = talk.state.layers[0].stat;
  talk.steps(3);
  CHECK(talk.state.layers[0].stat.entropy == first.entropy);
  const SmallLayer held = talk.layer;
  talk.turn(40);
  const LayerStat second = talk.state.layers[0].stat;
  CHECK(second.entropy != first.entropy);
  // Records from before do not matter: a state that knew nothing decides alike.
  Talk fresh(policy, shape), known(policy, shape);
  for (Talk<Said>* t : {&fresh, &known}) {
    t->layer = held;
    for (auto& head : t->state.layers[0].heads) head.entries.resize(std::size_t(held.size()));
  }
  for (auto& head : known.state.layers[0].heads) {
    head.own = {5, 7, 42};
    for (std::size_t i = 0; i < head.entries.size(); ++i) head.entries[i].score = float(i);
  }
  fresh.turn(40);
  known.turn(40);
  CHECK(known.layer.pos == fresh.layer.pos);
  CHECK(known.state.layers[0].stat.entropy == fresh.state.layers[0].stat.entropy);
}

TEST_CASE("Recurrence goes on over turns: steps are counted back, gaps stay", "[policy][turns]") {
  methods::LazyEvictionOptions o;
  o.window = 50;
  o.alpha = 0;  // every step hits every entry
  Talk talk(*methods::LazyEviction::make(o), shape);
  talk.turn(10);
  talk.steps(7);
  const auto before = talk.entries();
  talk.turn(6);
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(talk.entries()[i].last == before[i].last - 7);
    CHECK(talk.entries()[i].longest == before[i].longest);
  }
  talk.steps(1);
  for (std::size_t i = 0; i < before.size(); ++i) CHECK(talk.entries()[i].last == 1);
}

TEST_CASE("Statistics of queries and remembered queries go on over turns", "[policy][turns]") {
  const RopeTable rope = RopeTable::standard(6, 10000, RopePairs::half_split);
  const auto expected = *methods::ExpectedAttentionEviction::make({});
  auto state = *expected.start(shape);
  SmallLayer layer(shape);
  Random random(4);
  for (const Index n : {30, 20}) {
    layer.append_random(n, random);
    layer.give_random_evidence(n, random);
    run_call(expected, state, layer, prompt_clock(24), 0, {}, &rope);
  }
  CHECK(state.layers[0].heads[0].own.queries.count() == 30 - 4 + 20);  // its four sinks ask nothing
  CHECK(state.layers[0].heads[0].own.start == 0);

  Talk talk(*methods::RKV::make({}), shape);
  talk.turn(12);
  talk.steps(3);
  talk.turn(2);
  const auto& queries = talk.state.layers[0].heads[0].own.queries;
  CHECK(queries.size() == 8);  // its window, over both turns and the steps between them
  CHECK(queries.position(0) == 9);
  CHECK(queries.position(7) == 16);
}

TEST_CASE("Shares of layers are settled anew by each prompt and hold for the steps after it",
          "[policy][turns]") {
  const Shape deep{4, 4, 2, 6, 6};
  const auto policy = *methods::PyramidKV::make({4, 4, 3, PoolMode::max, Reduce::mean, methods::Total::exact});
  auto state = *policy.start(deep);
  std::vector<SmallLayer> layers(4, SmallLayer(deep));
  Random random(6);
  const auto turn = [&](Index n, Index budget) {
    std::vector<Index> sizes;
    for (int l = 0; l < 4; ++l) {
      SmallLayer& mine = layers[std::size_t(l)];
      mine.append_random(n, random);
      mine.give_random_evidence(n, random);
      run_call(policy, state, mine, prompt_clock(budget), l);
      sizes.push_back(mine.size());
    }
    return sizes;
  };
  const auto first = turn(100, 20), second = turn(100, 40);
  for (std::size_t l = 1; l < 4; ++l) {
    CHECK(first[l] < first[l - 1]);
    CHECK(second[l] < second[l - 1]);
  }
  CHECK(first[0] + first[1] + first[2] + first[3] == 4 * 20);
  CHECK(second[0] + second[1] + second[2] + second[3] == 4 * 40);
}

TEST_CASE("Shares that wait for the first step are settled anew behind each prompt, at an equal budget, too",
          "[policy][turns]") {
  const Shape deep{3, 1, 1, 4, 4};
  const auto policy = *methods::D2O::make({});
  auto state = *policy.start(deep);
  std::vector<SmallLayer> layers(3, SmallLayer(deep));
  Random random(8);
  const auto turn = [&](const std::vector<double>& variance) {
    std::vector<Index> sizes;
    for (int l = 0; l < 3; ++l) {
      SmallLayer& mine = layers[std::size_t(l)];
      mine.append_random(60, random);
      mine.give_random_evidence(60, random);
      run_call(policy, state, mine, prompt_clock(20), l);
      state.layers[std::size_t(l)].stat.variance = variance[std::size_t(l)];
    }
    for (Index step = 1; step <= 2; ++step) {
      sizes.clear();
      for (int l = 0; l < 3; ++l) {
        SmallLayer& mine = layers[std::size_t(l)];
        mine.append_random(1, random);
        mine.give_random_evidence(1, random);
        run_call(policy, state, mine, step_clock(step, 20), l);
        sizes.push_back(mine.size());
      }
    }
    return sizes;
  };
  const auto first = turn({0, 1, 1}), second = turn({1, 1, 0});
  CHECK(first[0] > first[1]);
  CHECK(second == std::vector<Index>{first[2], first[1], first[0]});
}
