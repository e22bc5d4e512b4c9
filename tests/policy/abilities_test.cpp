// SPDX-License-Identifier: Apache-2.0
// What an engine can apply is never exceeded: grain, pages, equal counts, shared prefixes; and what engines do with plans.
#include <kvist/cache/apply_in_place.hpp>
#include <kvist/methods/adakv.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/policy/any_policy.hpp>
#include <kvist/policy/budget/layer/ladder.hpp>
#include <kvist/policy/signal/given_scores.hpp>
#include <kvist/policy/signal/key_norm.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

/// Folds each loser into the entry after it.
struct FoldForward {
  static constexpr Role role = Role::disposition;
  static constexpr unsigned makes = drops | blends;
  Index first_dst = 0;
  template <Head H>
  Status dispose(const HeadContext<H>&, std::span<const float>, HeadPlan& plan) const {
    if (plan.drop.empty()) return Done{};
    const Index dst = first_dst;
    for (const Index i : plan.drop) plan.blend.push_back({i, dst, 0.1f, 0.1f});
    plan.self = {{dst, 0.5f, 0.5f, 0}};
    return Done{};
  }
};

/// Half of the budget's share to the first head, the rest to the others.
struct Lopsided {
  static constexpr Role role = Role::head_budget;
  static constexpr bool even = false;
  Status allocate(const HeadBudgetCall& call, std::span<Index> out) const {
    for (std::size_t h = 0; h < out.size(); ++h)
      out[h] = h == 0 ? call.mean - 4 : call.mean + 4 / Index(out.size() - 1);
    return Done{};
  }
};

/// n random entries in every head of `layers` layers.
std::vector<SmallLayer> random_layers(int layers, int kv_heads, Index n) {
  std::vector<SmallLayer> out;
  Random random(11);
  for (int l = 0; l < layers; ++l) {
    out.emplace_back(Shape{layers, kv_heads, kv_heads, 4, 4});
    out.back().append_random(n, random);
  }
  return out;
}

/// Observes and plans all layers; the first Error ends it.
template <class P>
Status plan_all(const P& policy, std::vector<SmallLayer>& all, Index budget, Abilities can,
                std::vector<Plan>& out) {
  auto state = policy.start(all[0].shape);
  REQUIRE(state);
  for (int l = 0; l < int(all.size()); ++l) {
    const AnyLayer view = all[std::size_t(l)].view();
    const LayerCall<AnyLayer> call{
        view, {}, {Phase::prefill, 0, all[std::size_t(l)].size(), budget, true}, l, can};
    if (Status s = policy.observe(call, *state); !s) return s;
    if (Status s = policy.plan(call, *state, out); !s) return s;
  }
  return Done{};
}

using ByNorm = Policy<KeyNorm>;

}  // namespace

TEST_CASE("With the layer as grain all heads of a layer keep the same rows", "[policy][Abilities]") {
  auto all = random_layers(2, 3, 40);
  std::vector<Plan> apart, together;
  Abilities can;
  REQUIRE(plan_all(ByNorm(), all, 10, can, apart));
  can.grain = Grain::layer;
  REQUIRE(plan_all(ByNorm(), all, 10, can, together));
  CHECK(apart[0].heads[0] != apart[0].heads[1]);
  for (const Plan& p : together) {
    CHECK(p.heads[0] == p.heads[1]);
    CHECK(p.heads[0] == p.heads[2]);
    CHECK(p.heads[0].drop.size() == 30);
  }
  CHECK(together[0].heads[0] != together[1].heads[0]);
}

TEST_CASE("With the sequence as grain all layers keep the same rows, planned with the last layer",
          "[policy][Abilities]") {
  auto all = random_layers(3, 2, 40);
  Abilities can;
  can.grain = Grain::sequence;
  std::vector<Plan> plans;
  REQUIRE(plan_all(ByNorm(), all, 10, can, plans));
  REQUIRE(plans.size() == 3);
  for (int l = 0; l < 3; ++l) {
    CHECK(plans[std::size_t(l)].layer == l);
    for (const HeadPlan& h : plans[std::size_t(l)].heads) CHECK(h == plans[0].heads[0]);
  }
  CHECK(plans[0].heads[0].drop.size() == 30);
}

TEST_CASE("Heads that share one choice share the budget evenly, also where all scores tie",
          "[policy][Abilities]") {
  const auto policy =
      methods::AdaKV::make({2, 1, PoolMode::none, 0.2, false, Reduce::mean, methods::Total::exact});
  REQUIRE(policy);
  SmallLayer layer(Shape{1, 6, 3, 4, 4});
  layer.append_blank(40);
  Random random(3);
  layer.give_random_evidence(2, random);
  Abilities can;
  can.makes = drops;
  can.grain = Grain::layer;
  const AnyLayer view = layer.view();
  for (const Index budget : {3, 10, 25}) {
    auto state = policy->start(layer.shape);
    REQUIRE(state);
    const LayerCall<AnyLayer> call{view, layer.seen, prompt_clock(budget), 0, can};
    REQUIRE(policy->observe(call, *state));
    std::vector<Plan> plans;
    REQUIRE(policy->plan(call, *state, plans));
    for (const HeadPlan& h : plans[0].heads) {
      CHECK(h == plans[0].heads[0]);
      CHECK(40 - Index(h.drop.size()) == budget);
    }
  }
}

TEST_CASE("With the sequence as grain guards are checked, slack is left, and all layers get the mean",
          "[policy][Abilities]") {
  Abilities can;
  can.grain = Grain::sequence;
  std::vector<Plan> plans;
  auto all = random_layers(3, 2, 120);
  const Status tight =
      plan_all(Policy<KeyNorm, methods::HeavyAndRecent>(methods::HeavyAndRecent{40, 8}), all, 96, can, plans);
  REQUIRE(!tight);
  CHECK(tight.error().code == Errc::bad_budget);
  CHECK(plans.empty());

  using Waits = Policy<KeyNorm, Ladder, OverBudget>;
  for (const Index n : {13, 14}) {
    plans.clear();
    auto some = random_layers(3, 2, n);
    REQUIRE(plan_all(Waits(Ladder{4, true}, OverBudget{3}), some, 10, can, plans));
    REQUIRE(plans.size() == 3);
    for (const Plan& p : plans)
      for (const HeadPlan& h : p.heads) CHECK(h.drop.size() == (n == 14 ? 4u : 0u));
  }

  std::vector<Plan> ladder, uniform;
  REQUIRE(plan_all(Policy<KeyNorm, Ladder, Lopsided>(Ladder{4, true}), all, 24, can, ladder));
  REQUIRE(plan_all(ByNorm(), all, 24, can, uniform));
  for (std::size_t l = 0; l < 3; ++l) CHECK(ladder[l].heads == uniform[l].heads);
}

TEST_CASE("With pages whole pages leave, and guarded ones stay", "[policy][Abilities]") {
  for (const Index n : {40, 43, 47}) {
    auto all = random_layers(1, 2, n);
    Policy<KeyNorm> policy;
    policy.settings.at_least = {3, 5};
    Abilities can;
    can.page = 4;
    std::vector<Plan> plans;
    REQUIRE(plan_all(policy, all, 21, can, plans));
    for (const HeadPlan& h : plans[0].heads) {
      REQUIRE(check(h, n, {3, 5}));
      CHECK(n - Index(h.drop.size()) <= 21);
      CHECK(n - Index(h.drop.size()) > 21 - 4);
      for (const Range& r : ranges(h)) {
        CHECK(r.first % 4 == 0);
        CHECK(r.count % 4 == 0);
      }
      CHECK(Index(free_pages(h, n, 4).size()) * 4 == Index(h.drop.size()));
    }
    plans.clear();
    const Status tight = plan_all(policy, all, 9, can, plans);  // fits 3 + 5 entries, not the pages they lie in
    REQUIRE(!tight);
    CHECK(tight.error().code == Errc::bad_budget);
    CHECK(plans.empty());
  }
}

TEST_CASE("Equal counts refuse budgets of heads' own", "[policy][Abilities]") {
  auto all = random_layers(1, 2, 30);
  Abilities can;
  std::vector<Plan> plans;
  REQUIRE(plan_all(Policy<KeyNorm, Lopsided>(), all, 10, can, plans));
  CHECK(plans[0].heads[0].drop.size() == 24);
  CHECK(plans[0].heads[1].drop.size() == 16);
  plans.clear();
  can.equal_counts = true;
  CHECK(plan_all(Policy<KeyNorm, Lopsided>(), all, 10, can, plans).error().code == Errc::unsupported);
  CHECK(plans.empty());
  REQUIRE(plan_all(ByNorm(), all, 10, can, plans));
}

TEST_CASE("A shared prefix is never dropped, freed, moved or written", "[policy][Abilities]") {
  auto all = random_layers(1, 2, 40);
  Abilities can;
  can.shared_rows = 12;
  std::vector<Plan> plans;
  REQUIRE(plan_all(ByNorm(), all, 20, can, plans));
  for (const HeadPlan& h : plans[0].heads) {
    CHECK(h.drop.size() == 20);
    CHECK(h.drop.front() >= 12);
    for (const Index p : free_pages(h, 40, 4, can.shared_rows)) CHECK(p >= 3);
    for (const RowMove& m : pack_moves(h, 40)) CHECK(m.to >= 12);
  }
  // In whole pages as well, and where the prefix ends inside a page, that page stays.
  can.page = 8;
  plans.clear();
  REQUIRE(plan_all(ByNorm(), all, 24, can, plans));
  for (const HeadPlan& h : plans[0].heads) CHECK(h.drop.front() >= 16);

  // A budget below the prefix is an Error before anything has changed.
  can = {};
  can.shared_rows = 21;
  plans.clear();
  const Status s = plan_all(ByNorm(), all, 20, can, plans);
  REQUIRE(!s);
  CHECK(s.error().code == Errc::bad_budget);
  CHECK(plans.empty());

  // A blend into the prefix would write it.
  can.shared_rows = 4;
  CHECK(plan_all(Policy<KeyNorm, FoldForward>(FoldForward{2}), all, 20, can, plans).error().code ==
        Errc::unsupported);
  CHECK(plans.empty());
}

TEST_CASE("A policy that makes what the engine cannot apply is refused", "[policy][Abilities]") {
  auto all = random_layers(1, 2, 30);
  Policy<Recency, FoldForward> policy(FoldForward{29});
  Abilities can;
  std::vector<Plan> plans;
  REQUIRE(plan_all(policy, all, 10, can, plans));
  CHECK(plans[0].heads[0].blend.size() == 20);
  plans.clear();
  can.makes = drops;
  const Status s = plan_all(policy, all, 10, can, plans);
  REQUIRE(!s);
  CHECK(s.error().code == Errc::unsupported);
  can.makes = drops | blends;
  can.grain = Grain::layer;
  CHECK(plan_all(policy, all, 10, can, plans).error().code == Errc::unsupported);
  can = {};
  can.page = 0;
  CHECK(plan_all(policy, all, 10, can, plans).error().code == Errc::bad_option);
  CHECK(plans.empty());
}

TEST_CASE("Plans carried out in an engine's memory leave the survivors, their order and their positions",
          "[policy][Abilities][apply_in_place]") {
  auto all = random_layers(1, 2, 37);
  Abilities can;
  can.shared_rows = 5;
  std::vector<Plan> plans;
  REQUIRE(plan_all(ByNorm(), all, 20, can, plans));
  for (std::size_t h = 0; h < 2; ++h) {
    const HeadPlan& plan = plans[0].heads[h];
    std::vector<float> k = all[0].k[h], v = all[0].v[h];
    std::vector<Pos> pos = all[0].pos[h];
    const auto kept = apply_in_place(plan, MutableRows<float>{k.data(), nullptr, 37, 4, 0, 0, 4, 1},
                                     MutableRows<float>{v.data(), nullptr, 37, 4, 0, 0, 4, 1}, pos, {}, 5);
    REQUIRE(kept);
    CHECK(*kept == 20);
    SmallLayer want = all[0];
    want.apply(plans[0]);
    k.resize(want.k[h].size());
    v.resize(want.v[h].size());
    pos.resize(want.pos[h].size());
    CHECK(k == want.k[h]);
    CHECK(v == want.v[h]);
    CHECK(pos == want.pos[h]);
  }
}
