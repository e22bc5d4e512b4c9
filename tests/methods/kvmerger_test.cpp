// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/kvmerger.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

/// A layer with keys that drift, so that neighbours are alike, faster in later heads.
SmallLayer drifting(int kv_heads, Index n, Random& random) {
  SmallLayer layer(Shape{1, kv_heads, kv_heads, 6, 4});
  layer.append_random(n, random);
  for (int h = 0; h < kv_heads; ++h)
    for (std::size_t i = 6; i < layer.k[std::size_t(h)].size(); ++i)
      layer.k[std::size_t(h)][i] =
          0.9f * layer.k[std::size_t(h)][i - 6] + 0.2f * float(h + 1) * layer.k[std::size_t(h)][i];
  layer.give_random_evidence(n, random);
  return layer;
}

Result<std::vector<Plan>> plan_of(const methods::KVMergerOptions& o, SmallLayer& layer, Index budget,
                                  PolicySettings settings = {}) {
  auto policy = methods::KVMerger::make(o);
  if (!policy) return policy.error();
  policy->settings = settings;
  auto state = policy->start(layer.shape);
  if (!state) return state.error();
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, layer.size(), budget, true}, 0};
  if (Status s = policy->observe(call, *state); !s) return s.error();
  std::vector<Plan> plans;
  if (Status s = policy->plan(call, *state, plans); !s) return s.error();
  for (std::size_t h = 0; h < plans[0].heads.size(); ++h)
    REQUIRE(check(plans[0].heads[h], layer.size(int(h)), {settings.at_least.sinks, settings.at_least.recent}));
  return plans;
}

}  // namespace

TEST_CASE("A threshold decides how many entries stay, and needs no budget", "[methods][KVMerger]") {
  Random random(1);
  SmallLayer layer = drifting(2, 80, random);
  Index last = 0;
  for (const float threshold : {-1.0f, 0.3f, 0.6f, 0.9f, 0.99f, 1.0f}) {
    methods::KVMergerOptions o;
    o.threshold = threshold;
    const auto plans = plan_of(o, layer, 0);
    REQUIRE(plans);
    Index kept = 0;
    for (const HeadCost& c : (*plans)[0].cost) kept += c.after;
    CHECK(kept >= last);
    last = kept;
    for (const HeadPlan& p : (*plans)[0].heads)
      for (const Index i : p.drop) CHECK(i < 80 - 14);  // 0.17 of 80 are the newest
  }
  CHECK(last == 160);
}

TEST_CASE("A budget bisects the threshold, one for all heads of a layer, and is met over them",
          "[methods][KVMerger]") {
  Random random(2);
  for (const Index budget : {15, 24, 40, 60}) {
    SmallLayer layer = drifting(3, 80, random);
    const auto plans = plan_of({}, layer, budget);
    REQUIRE(plans);
    Index kept = 0;
    float weakest_joined = 2, strongest_apart = -2;
    for (std::size_t h = 0; h < 3; ++h) {
      kept += (*plans)[0].cost[h].after;
      for (const Blend& b : (*plans)[0].heads[h].blend) CHECK(std::abs(b.wk) <= 1);
      std::vector<char> joined(80, 0);
      for (const Blend& b : (*plans)[0].heads[h].blend)
        for (Index i = std::min(b.src, b.dst); i < std::max(b.src, b.dst); ++i) joined[std::size_t(i)] = 1;
      std::vector<Index> order(80);
      for (Index i = 0; i < 80; ++i) order[std::size_t(i)] = i;
      const float* sums = layer.sums[h].data();
      std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return sums[a] > sums[b]; });
      std::vector<char> alone(80, 0);
      for (Index i = 80 - Index(std::round(budget * 0.23)); i < 80; ++i) alone[std::size_t(i)] = 1;
      for (Index i = 0; i < Index(std::round(budget * 0.06)); ++i)
        alone[std::size_t(order[std::size_t(i)])] = 1;
      for (Index i = 0; i + 1 < 80; ++i) {
        if (alone[std::size_t(i)] || alone[std::size_t(i) + 1]) {
          CHECK_FALSE(joined[std::size_t(i)]);
          continue;
        }
        const float* const k = layer.k[h].data() + i * 6;
        const float cosine = detail::cosine({k, 6}, {k + 6, 6});
        if (joined[std::size_t(i)]) weakest_joined = std::min(weakest_joined, cosine);
        else strongest_apart = std::max(strongest_apart, cosine);
      }
    }
    CHECK(kept == 3 * budget);
    CHECK(weakest_joined >= strongest_apart - 1e-6f);
  }
}

TEST_CASE("Within the budget nothing is merged; guards stay alone", "[methods][KVMerger]") {
  Random random(3);
  SmallLayer layer = drifting(2, 40, random);
  const auto whole = plan_of({}, layer, 40);
  REQUIRE(whole);
  CHECK((*whole)[0].empty());
  PolicySettings settings;
  settings.at_least = {4, 6};
  const auto guarded = plan_of({}, layer, 12, settings);
  REQUIRE(guarded);
  for (const HeadPlan& p : (*guarded)[0].heads) {
    for (const Self& s : p.self) CHECK((s.dst >= 4 && s.dst < 34));
    for (const Blend& b : p.blend) CHECK(b.src >= 4);
  }
  settings.at_least = {8, 6};
  const auto tight = plan_of({}, layer, 12, settings);
  REQUIRE(!tight);
  CHECK(tight.error().code == Errc::bad_budget);
}

TEST_CASE("Counts that do not fit in the budget are an Error, shares give way", "[methods][KVMerger]") {
  Random random(8);
  SmallLayer layer = drifting(2, 40, random);
  methods::KVMergerOptions o;
  o.recent = 8, o.top = 5;
  const auto tight = plan_of(o, layer, 12);
  REQUIRE(!tight);
  CHECK(tight.error().code == Errc::bad_budget);
  const auto fits = plan_of(o, layer, 13);
  REQUIRE(fits);
  CHECK((*fits)[0].cost[0].after + (*fits)[0].cost[1].after == 26);
  for (const HeadPlan& p : (*fits)[0].heads)
    for (const Index i : p.drop) CHECK(i < 32);
  o.recent = .6, o.top = .5;
  const auto shares = plan_of(o, layer, 12);
  REQUIRE(shares);
  CHECK((*shares)[0].cost[0].after + (*shares)[0].cost[1].after == 24);
}

TEST_CASE("The bound counts what merging changes; a tolerance chooses the fewest entries",
          "[methods][KVMerger]") {
  Random random(4);
  SmallLayer layer = drifting(2, 60, random);
  for (Evidence& e : layer.seen) e.probs = {};
  PolicySettings settings;
  settings.account_loss = true;
  const auto few = plan_of({}, layer, 20, settings), many = plan_of({}, layer, 50, settings);
  REQUIRE((few && many));
  for (std::size_t h = 0; h < 2; ++h) {
    CHECK((*few)[0].cost[h].bound > (*many)[0].cost[h].bound);
    CHECK((*few)[0].cost[h].mass == 0);  // all that went was folded
  }
  settings = {};
  settings.tolerance = 0.2f;
  const auto tolerant = plan_of({}, layer, 0, settings);
  REQUIRE(tolerant);
  for (const HeadCost& c : (*tolerant)[0].cost) {
    CHECK(c.bound <= 0.2f);
    CHECK(c.after < 60);
  }
  methods::KVMergerOptions o;
  o.threshold = 0.75f;
  const auto both = plan_of(o, layer, 0, settings);
  REQUIRE(!both);
  CHECK(both.error().code == Errc::bad_option);
}

TEST_CASE("What engines cannot apply is refused", "[methods][KVMerger]") {
  Random random(5);
  SmallLayer layer = drifting(2, 30, random);
  auto policy = methods::KVMerger::make({});
  REQUIRE(policy);
  auto state = policy->start(layer.shape);
  REQUIRE(state);
  const AnyLayer view = layer.view();
  Abilities pages, counts, no_blends;
  pages.page = 4;
  counts.equal_counts = true;
  no_blends.makes = drops;
  for (const Abilities& can : {pages, counts, no_blends}) {
    const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, 30, 10, true}, 0, can};
    REQUIRE(policy->observe(call, *state));
    std::vector<Plan> plans;
    const Status s = policy->plan(call, *state, plans);
    REQUIRE(!s);
    CHECK(s.error().code == Errc::unsupported);
    CHECK(plans.empty());
  }
  Abilities shared;
  shared.shared_rows = 9;
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, 30, 14, true}, 0, shared};
  std::vector<Plan> plans;
  REQUIRE(policy->plan(call, *state, plans));
  for (const HeadPlan& p : plans[0].heads) {
    for (const Index i : p.drop) CHECK(i >= 9);
    for (const Self& s : p.self) CHECK(s.dst >= 9);
  }
}

TEST_CASE("Bad options are Errors", "[methods][KVMerger]") {
  for (const auto& o :
       {methods::KVMergerOptions{1.5f, 5, -1, -1, {}}, methods::KVMergerOptions{.5f, -2, -1, -1, {}},
        methods::KVMergerOptions{.5f, 5, -3, -1, {}}, methods::KVMergerOptions{.5f, 5, -1, 1e12, {}}}) {
    const auto made = methods::KVMerger::make(o);
    REQUIRE(!made);
    CHECK(made.error().code == Errc::bad_option);
  }
}
