// SPDX-License-Identifier: Apache-2.0
// SPECs as they take part in a comparison: a question that is seen stands on top of every policy's budget.
#include <eval/contestant.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

#include <kvist/methods/anchors.hpp>

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr Index context = 90, question = 12, budget = 40;
constexpr Shape shape{1, 4, 2, 8, 6};

kvist_eval::Contestant contestant(const std::string& text) {
  auto all = kvist_eval::contestants({text}, {"40"});
  REQUIRE(all);
  REQUIRE(all->size() == 1);
  return (*all)[0];
}

/// What a prompt that ends with a question leaves, after its one call or (methods that wait) a few steps.
SmallLayer left(const AnyPolicy& policy) {
  const RopeTable rope = RopeTable::standard(shape.dim_k, 10000, RopePairs::half_split);
  auto state = policy.start(shape);
  REQUIRE(state);
  SmallLayer layer(shape);
  Random random(3);
  layer.append_random(context + question, random);
  layer.give_random_evidence(context + question, random);
  // Evidence of as many queries as the policy wants, as an engine gives it.
  const Index w = policy.wants().last_queries;
  if (w != all_queries)
    for (std::size_t h = 0; h < layer.seen.size(); ++h) {
      Evidence& e = layer.seen[h];
      const Index all = e.queries.w, mine = std::min(w, all);
      for (Cube* c : {&e.queries, &e.probs}) {
        c->data += (all - mine) * c->stride_w;
        c->w = mine;
      }
      e.first_query += all - mine;
    }
  Clock now = prompt_clock(budget + question);
  now.size = layer.size();
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, layer.seen, now, 0, {}, &rope};
  REQUIRE(policy.observe(call, *state));
  std::vector<Plan> plans;
  Status went = policy.plan(call, *state, plans);
  INFO((went ? "" : went.error().what));
  REQUIRE(went);
  if (plans.empty()) {  // its layer budgets want all layers first: it plans right behind the prompt
    Clock step = step_clock(1, budget + question);
    step.size = layer.size();
    const LayerCall<AnyLayer> later{view, layer.seen, step, 0, {}, &rope};
    went = policy.plan(later, *state, plans);
    REQUIRE(went);
  }
  for (Plan& p : plans) {
    for (HeadPlan& h : p.heads)
      for (const Move& m : h.move) h.drop.push_back(m.src);
    layer.apply(p);
  }
  return layer;
}

Index newest_run(const std::vector<Pos>& pos) {
  Index n = 0;
  while (n < Index(pos.size()) && pos[pos.size() - 1 - std::size_t(n)] == context + question - 1 - n) ++n;
  return n;
}

}  // namespace

TEST_CASE("A question that is seen stays whole, and every policy has its budget besides",
          "[tool][contestant]") {
  for (const methods::Entry& e : kvist_eval::all_methods()) {
    if (!e.evicts) continue;
    INFO(e.info.name);
    auto made = contestant(e.info.name).make(question);
    REQUIRE(made);
    const SmallLayer layer = left(made->policy);
    Index kept = 0;
    for (const auto& pos : layer.pos) {
      CHECK(newest_run(pos) >= question);
      kept += Index(pos.size());
    }
    CHECK(kept == 2 * (budget + question));
  }
}

TEST_CASE("What a method splits is the budget without the question", "[tool][contestant]") {
  // H2O: half of 40 by attention, half the newest of the context, and the question.
  auto h2o = contestant("H2O").make(question);
  REQUIRE(h2o);
  const SmallLayer half = left(h2o->policy);
  for (const auto& pos : half.pos) {
    CHECK(pos.size() == std::size_t(budget + question));
    CHECK(newest_run(pos) >= budget / 2 + question);
    CHECK(pos[std::size_t(budget / 2 - 1)] < context - budget / 2);  // twenty that attention chose
  }
  // Explicit counts still add up to the budget.
  auto counts = contestant("H2O:heavy=30,recent=10").make(question);
  REQUIRE(counts);
  for (const auto& pos : left(counts->policy).pos) {
    CHECK(pos.size() == std::size_t(budget + question));
    CHECK(pos[29] < context - 10);
  }
  // Guards stand before the question.
  for (const char* const text :
       {"random:recent=7", "KeyNorm:recent=7", "SnapKV:recent=7", "oracle:recent=7"}) {
    INFO(text);
    auto made = contestant(text).make(question);
    REQUIRE(made);
    if (contestant(text).oracle) {
      auto masses = std::make_shared<ScoresByPosition>();
      masses->kv_heads = 2;
      masses->heads.assign(2, std::vector<float>(std::size_t(context + question), 0.0f));
      made->policy = AnyPolicy(methods::Oracle::make(masses, made->policy.settings()));
    }
    for (const auto& pos : left(made->policy).pos) {
      CHECK(newest_run(pos) >= 7 + question);
      CHECK(pos.size() == std::size_t(budget + question));
    }
  }
  // A window becomes the question: it is observed and guarded once.
  auto snap = contestant("SnapKV").make(question);
  REQUIRE(snap);
  CHECK(snap->policy.wants().last_queries == question);
  const SmallLayer window = left(snap->policy);
  CHECK(newest_run(window.pos[0]) < 2 * question);
}
