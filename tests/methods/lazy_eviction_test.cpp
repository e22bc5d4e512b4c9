// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/lazy_eviction.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;
using methods::LazyEviction;
using methods::LazyEvictionOptions;

namespace {

LazyEvictionOptions options(Index window, double alpha, RecurrenceForm form = RecurrenceForm::code) {
  return {window, alpha, form, Reduce::max};
}

struct Run {
  LazyEviction::Type policy;
  LazyEviction::Type::State state;
  SmallLayer layer = SmallLayer::one_head();
  Index budget;
  Index n = 0;
  std::vector<float> scores;

  Run(const LazyEvictionOptions& o, Index prompt, Index b)
      : policy(*LazyEviction::make(o)), state(*policy.start(Shape{1, 1, 1, 2, 2})), budget(b) {
    layer.append_blank(prompt);
    run_call(policy, state, layer, prompt_clock(budget));
  }
  void step(const Row& row) {
    layer.append_blank(1);
    layer.give_probs(0, {{row}});
    // the scores of the plan, before its losers leave
    const AnyLayer view = layer.view();
    const Clock now = step_clock(++n, budget);
    const LayerCall<AnyLayer> call{view, layer.seen, now, 0};
    REQUIRE(policy.observe(call, state));
    if (!policy.due(now)) return;
    std::vector<Plan> plans;
    REQUIRE(policy.plan(call, state, plans));
    scores = state.layers[0].heads[0].scores;
    layer.apply(plans[0]);
    policy.applied(plans[0], state);
  }
  std::vector<Index> last() const {
    std::vector<Index> out;
    for (const auto& e : state.layers[0].heads[0].entries) out.push_back(e.last);
    return out;
  }
  std::vector<Index> longest() const {
    std::vector<Index> out;
    for (const auto& e : state.layers[0].heads[0].entries) out.push_back(e.longest);
    return out;
  }
};

void check_scores(const std::vector<float>& got, const std::vector<float>& want) {
  REQUIRE(got.size() >= want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).margin(1e-6));
}

using Is = std::vector<Index>;
using Ps = std::vector<Pos>;

}  // namespace

TEST_CASE("LazyEviction keeps what is hit again within its own gap", "[methods][LazyEviction]") {
  Run r(options(2, .2), 3, 4);
  r.step({.5f, .1f, .1f, .3f});
  CHECK(r.layer.pos[0] == Ps{0, 1, 2, 3});
  CHECK(r.last() == Is{1, 0, 0, 1});
  CHECK(r.longest() == Is{1, 0, 0, 1});

  r.step({.1f, .1f, .5f, .1f, .2f});
  check_scores(r.scores, {1.238408f, 0, 1.075766f, 1.238408f, 1.537883f});
  CHECK(r.layer.pos[0] == Ps{0, 2, 3, 4});
  CHECK(r.last() == Is{1, 2, 1, 2});
  CHECK(r.longest() == Is{1, 2, 1, 1});

  r.step({.1f, .1f, .5f, .1f, .2f});
  CHECK(r.layer.pos[0] == Ps{0, 2, 3, 4, 5});
  CHECK(r.last() == Is{1, 2, 3, 2, 3});
  CHECK(r.longest() == Is{1, 2, 2, 1, 1});

  r.step({.05f, .45f, .1f, .1f, .2f, .1f});
  check_scores(r.scores, {1.035973f, 1.075766f, .902735f, 1.094854f});
  CHECK(r.layer.pos[0] == Ps{2, 4, 5, 6});
  CHECK(r.last() == Is{4, 2, 4, 3});
  CHECK(r.longest() == Is{2, 1, 1, 0});

  r.step({.1f, .5f, .1f, .1f, .2f});
  CHECK(r.last() == Is{4, 5, 4, 3, 5});
  CHECK(r.longest() == Is{2, 3, 1, 0, 1});

  r.step({.5f, .1f, .1f, .1f, .1f, .1f});
  check_scores(r.scores, {1.075766f, .655623f, 1.094854f, 0});
  CHECK(r.layer.pos[0] == Ps{2, 5, 7, 8});
}

TEST_CASE("LazyEviction's paper form ranks differently from its code", "[methods][LazyEviction]") {
  Run r(options(2, .2, RecurrenceForm::paper), 3, 4);
  r.step({.5f, .1f, .1f, .3f});
  r.step({.1f, .1f, .5f, .1f, .2f});
  CHECK(r.layer.pos[0] == Ps{0, 2, 3, 4});
  r.step({.1f, .1f, .5f, .1f, .2f});
  r.step({.05f, .45f, .1f, .1f, .2f, .1f});
  check_scores(r.scores, {1.094852f, 1.537883f, 1.292964f, 1.238406f});
  CHECK(r.layer.pos[0] == Ps{2, 3, 5, 6});
}

TEST_CASE("LazyEviction's prompt stays whole until the first step of the grid", "[methods][LazyEviction]") {
  Run r(options(5, .3), 40, 12);
  CHECK(r.layer.size() == 40);
  Index longest = 0;
  for (Index n = 1; n <= 60; ++n) {
    Row row(std::size_t(r.layer.size() + 1), .01f);
    row[std::size_t(n % (r.layer.size() + 1))] = .9f;
    const std::vector<Pos> before = r.layer.pos[0];
    r.step(row);
    longest = std::max(longest, r.layer.size());
    if (n % 5 == 0) {
      CHECK(r.layer.size() == 12);
      for (Index i = 0; i < 5; ++i) CHECK(r.layer.pos[0][std::size_t(11 - i)] == 39 + n - i);
      CHECK(std::is_sorted(r.layer.pos[0].begin(), r.layer.pos[0].end()));
    } else {
      CHECK(r.layer.size() == Index(before.size()) + 1);
    }
    for (const auto& e : r.state.layers[0].heads[0].entries) {
      CHECK(e.last <= n);
      CHECK(e.longest <= n);
    }
  }
  CHECK(longest <= 40 + 5);
}

TEST_CASE("LazyEviction without hits leaves its records, and keeps the oldest of equals",
          "[methods][LazyEviction]") {
  Run never(options(3, 1.5), 6, 6);
  for (Index n = 1; n <= 3; ++n) never.step(Row(std::size_t(never.layer.size() + 1), .1f));
  CHECK(never.layer.pos[0] == Ps{0, 1, 2, 6, 7, 8});
  CHECK(never.longest() == Is{0, 0, 0, 0, 0, 0});
  CHECK(never.last() == Is{0, 0, 0, 0, 1, 2});

  Run always(options(3, 0), 6, 6);
  for (Index n = 1; n <= 3; ++n) always.step(Row(std::size_t(always.layer.size() + 1), .1f));
  CHECK(always.layer.pos[0] == Ps{0, 1, 2, 6, 7, 8});
  CHECK(always.longest() == Is{1, 1, 1, 1, 1, 1});
  CHECK(always.last() == Is{3, 3, 3, 3, 3, 3});
}

TEST_CASE("A head of several queries is hit by any of them, or by their mean", "[methods][LazyEviction]") {
  for (const auto& [reduce, hit] :
       {std::pair{Reduce::max, 1}, std::pair{Reduce::mean, 0}, std::pair{Reduce::sum, 1}}) {
    LazyEvictionOptions o = options(4, .25);
    o.reduce = reduce;
    const auto policy = *LazyEviction::make(o);
    auto state = *policy.start(Shape{1, 3, 1, 2, 2});
    SmallLayer layer = SmallLayer::one_head(3);
    layer.append_blank(2);
    run_call(policy, state, layer, prompt_clock(8));
    layer.append_blank(1);
    layer.give_probs(0, {{{.3f, .6f, .1f}}, {{.1f, .8f, .1f}}, {{.2f, .7f, .1f}}});
    run_call(policy, state, layer, step_clock(1, 8));
    CHECK(state.layers[0].heads[0].entries[0].longest == hit);
    CHECK(state.layers[0].heads[0].entries[1].longest == 1);
  }
}

TEST_CASE("A new turn moves LazyEviction's records back by the steps that passed",
          "[methods][LazyEviction]") {
  Run r(options(50, .5), 2, 100);
  r.step({.9f, .05f, .05f});
  r.step({.1f, .1f, .1f, .1f});
  r.step({.1f, .1f, .1f, .1f, .1f});
  CHECK(r.last() == Is{1, 0, 0, 1, 2});
  r.layer.append_blank(2);
  r.layer.forget_evidence();
  run_call(r.policy, r.state, r.layer, prompt_clock(100));
  CHECK(r.last() == Is{-2, -3, -3, -2, -1, 0, 0});
  CHECK(r.longest() == Is{1, 0, 0, 0, 0, 0, 0});
  r.n = 0;
  r.step({.9f, 0, 0, 0, 0, 0, 0, .1f});
  CHECK(r.last() == Is{1, -3, -3, -2, -1, 0, 0, 0});
  CHECK(r.longest() == Is{3, 0, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("LazyEviction follows a budget that changes, at its next step of the grid",
          "[methods][LazyEviction]") {
  Run r(options(5, .3), 40, 20);
  const auto steps_to = [&](Index last) {
    while (r.n < last) r.step(Row(std::size_t(r.layer.size() + 1), .01f));
  };
  steps_to(5);
  CHECK(r.layer.size() == 20);
  r.budget = 11;
  steps_to(9);
  CHECK(r.layer.size() == 24);
  steps_to(10);
  CHECK(r.layer.size() == 11);
  r.budget = 15;  // larger again: it grows into it
  steps_to(15);
  CHECK(r.layer.size() == 15);
  steps_to(20);
  CHECK(r.layer.size() == 15);
}

TEST_CASE("A generation shorter than LazyEviction's window is never cut; a chosen schedule cuts it",
          "[methods][LazyEviction]") {
  Run never(options(30, .3), 60, 40);
  for (Index n = 1; n < 30; ++n) never.step(Row(std::size_t(never.layer.size() + 1), .01f));
  CHECK(never.layer.size() == 89);
  never.step(Row(90, .01f));
  CHECK(never.layer.size() == 40);

  Run sooner(options(30, .3), 60, 40);
  sooner.policy.settings.schedule = {ChosenSchedule::Kind::every_steps, 10, 0};
  for (Index n = 1; n <= 10; ++n) sooner.step(Row(std::size_t(sooner.layer.size() + 1), .01f));
  CHECK(sooner.layer.size() == 40);
}

TEST_CASE("LazyEviction refuses a window that does not fit and options out of range",
          "[methods][LazyEviction]") {
  CHECK(LazyEviction::make(options(0, .1)).error().code == Errc::bad_option);
  CHECK((*LazyEviction::make(options(4, -1))).start(Shape{1, 1, 1, 2, 2}).error().code == Errc::bad_option);
  Run r(options(4, .1), 9, 3);
  for (Index n = 1; n <= 3; ++n) r.step(Row(std::size_t(r.layer.size() + 1), .1f));
  r.layer.append_blank(1);
  r.layer.give_probs(0, {{Row(13, .1f)}});
  const AnyLayer view = r.layer.view();
  const LayerCall<AnyLayer> call{view, r.layer.seen, step_clock(4, 3), 0};
  REQUIRE(r.policy.observe(call, r.state));
  std::vector<Plan> plans;
  const Status s = r.policy.plan(call, r.state, plans);
  REQUIRE(!s);
  CHECK(s.error() == Error{Errc::bad_budget, s.error().what, 4, 3});
}
