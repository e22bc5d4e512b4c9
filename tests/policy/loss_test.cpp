// SPDX-License-Identifier: Apache-2.0
// What a plan says that it costs, against the change of the attention output by the formula in f64.
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/snapkv.hpp>
#include <kvist/policy/any_policy.hpp>
#include <kvist/policy/dispose/spread_values.hpp>
#include <kvist/policy/select/choose_none.hpp>
#include <kvist/reference/attention.hpp>

#include "support/recorded.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Truth {
  double mass = 0, change = 0;
};

/// Mean mass on the dropped rows and the largest |o - o'| over the last `w` queries of head h, in f64.
Truth truth(const SmallLayer& layer, int h, const std::vector<Index>& drop, Index w) {
  const std::size_t i = std::size_t(h), n = std::size_t(layer.size(h));
  const int dk = layer.shape.dim_k, dv = layer.shape.dim_v, group = layer.shape.group();
  const Cube& queries = layer.seen[i].queries;
  Truth t;
  for (int g = 0; g < group; ++g)
    for (Index q = queries.w - w; q < queries.w; ++q) {
      const auto x = queries.row(g, q);
      std::vector<double> p(n, 0.0), before(std::size_t(dv), 0.0), after = before;
      double top = -1e300, sum = 0, kept = 0, mass = 0;
      const std::size_t visible = n - std::size_t(queries.w - 1 - q);
      for (std::size_t j = 0; j < visible; ++j) {
        for (int c = 0; c < dk; ++c)
          p[j] += double(x[std::size_t(c)]) * double(layer.k[i][j * std::size_t(dk) + std::size_t(c)]);
        top = std::max(top, p[j] /= std::sqrt(double(dk)));
      }
      for (std::size_t j = 0; j < visible; ++j) sum += p[j] = std::exp(p[j] - top);
      for (std::size_t j = 0; j < visible; ++j) {
        const bool gone = std::binary_search(drop.begin(), drop.end(), Index(j));
        (gone ? mass : kept) += p[j];
        for (int c = 0; c < dv; ++c) {
          const double v = p[j] * double(layer.v[i][j * std::size_t(dv) + std::size_t(c)]);
          before[std::size_t(c)] += v / sum;
          if (!gone) after[std::size_t(c)] += v;
        }
      }
      double squares = 0;
      for (std::size_t c = 0; c < before.size(); ++c) squares += std::pow(before[c] - after[c] / kept, 2);
      t.mass += mass / sum / (double(group) * w);
      t.change = std::max(t.change, std::sqrt(squares));
    }
  return t;
}

template <class P>
std::vector<Plan> plan_of(const P& policy, SmallLayer& layer, Clock now) {
  auto state = policy.start(layer.shape);
  REQUIRE(state);
  return run_call(policy, *state, layer, now);
}

/// Checks cost against truth for every head of a layer.
void check_costs(SmallLayer& layer, const Plan& plan) {
  for (int h = 0; h < layer.shape.kv_heads; ++h) {
    const HeadCost& cost = plan.cost[std::size_t(h)];
    const Truth t = truth(layer, h, plan.heads[std::size_t(h)].drop,
                          std::min<Index>(32, layer.seen[std::size_t(h)].queries.w));
    INFO("head " << h << ": change " << t.change << ", bound " << cost.bound << ", mass " << t.mass);
    CHECK(double(cost.bound) >= t.change - 1e-12);  // the formula's own rounding
    CHECK(double(cost.mass) == Approx(t.mass).epsilon(1e-4).margin(1e-6));
  }
}

using Accounting = Policy<WindowAttention, KeepEnds>;
Accounting accounting(Index window = 8) {
  Accounting p(WindowAttention{window, 1, PoolMode::none, Reduce::mean, false}, KeepEnds{0, window});
  p.settings.account_loss = true;
  return p;
}

}  // namespace

TEST_CASE("The bound is never below the change of the output, over random layers", "[policy][loss]") {
  Random random(1);
  for (int trial = 0; trial < 60; ++trial) {
    const int group = 1 + int(random.below(4)), kv_heads = 1 + int(random.below(3));
    SmallLayer layer(Shape{1, group * kv_heads, kv_heads, 1 + int(random.below(24)), 1 + int(random.below(24))});
    layer.append_random(12 + Index(random.below(80)), random);
    if (trial % 3 == 0)  // keys and values that are not centred, and a few large ones
      for (std::size_t h = 0; h < layer.k.size(); ++h) {
        for (float& x : layer.v[h]) x = x * 3 + 5;
        for (std::size_t i = 0; i < layer.k[h].size(); i += 11) layer.k[h][i] *= 40;
      }
    layer.give_random_evidence(1 + Index(random.below(12)), random);
    if (trial % 2)
      for (Evidence& e : layer.seen) e.probs = {};  // from queries; else from given probabilities
    SmallLayer before = layer;
    before.queries = layer.queries;
    for (std::size_t h = 0; h < before.seen.size(); ++h) {
      before.seen[h].queries.data = before.queries[h].data();
      before.seen[h].probs = {};
    }
    const auto plans = plan_of(accounting(1), layer, prompt_clock(1 + Index(random.below(30))));
    REQUIRE(plans.size() == 1);
    check_costs(before, plans[0]);
  }
}

TEST_CASE("The bound holds on recorded layers of a model", "[policy][loss]") {
  if (!have_recorded("official/inputs")) KVIST_SKIP("the recorded tensors");
  for (const char* at : {"11", "20"}) {
    const Tensor k = recorded(std::string("official/inputs/k") + at),
                 v = recorded(std::string("official/inputs/v") + at),
                 q = recorded(std::string("official/inputs/q") + at);
    for (const Index budget : {32, 64, 128, 256}) {
      SmallLayer layer(Shape{1, 9, 3, 64, 64});
      append_recorded(layer, k, &v, 0, 512);
      give_recorded_queries(layer, q, 480, 32);
      SmallLayer before = layer;
      for (std::size_t h = 0; h < 3; ++h) before.seen[h].queries.data = before.queries[h].data();
      const auto plans = plan_of(accounting(32), layer, prompt_clock(budget));
      check_costs(before, plans[0]);
      for (std::size_t h = 0; h < 3; ++h) {  // and it is below what single norms alone would give
        double longest = 0;
        for (std::size_t i = 0; i < 512; ++i) {
          double squares = 0;
          for (std::size_t c = 0; c < 64; ++c) squares += std::pow(double(before.v[h][i * 64 + c]), 2);
          longest = std::max(longest, std::sqrt(squares));
        }
        CHECK(double(plans[0].cost[h].bound) < 2 * longest);
      }
    }
  }
}

TEST_CASE("A tolerance chooses the fewest entries whose bound holds", "[policy][loss]") {
  Random random(3);
  for (const float tolerance : {0.01f, 0.1f, 0.5f, 2.0f}) {
    SmallLayer layer(Shape{1, 4, 2, 8, 8});
    layer.append_random(80, random);
    layer.give_random_evidence(8, random);
    for (Evidence& e : layer.seen) e.probs = {};
    auto policy = accounting(8);
    policy.settings.tolerance = tolerance;
    SmallLayer before = layer;
    for (std::size_t h = 0; h < 2; ++h) before.seen[h].queries.data = before.queries[h].data();
    const auto plans = plan_of(policy, layer, prompt_clock(0));
    for (int h = 0; h < 2; ++h) {
      const HeadCost& c = plans[0].cost[std::size_t(h)];
      INFO("tolerance " << tolerance << ", kept " << c.after << ", bound " << c.bound);
      CHECK(c.bound <= tolerance);
      CHECK(truth(before, h, plans[0].heads[std::size_t(h)].drop, 8).change <= double(tolerance));
      if (c.after > 8) {  // one entry less breaks it
        SmallLayer again = before;
        for (std::size_t i = 0; i < 2; ++i) again.seen[i].queries.data = again.queries[i].data();
        const auto fewer = plan_of(accounting(8), again, prompt_clock(c.after - 1));
        CHECK(fewer[0].cost[std::size_t(h)].bound > tolerance);
      }
    }
  }
}

TEST_CASE("One count for all heads meets the tolerance of the head that needs most", "[policy][loss]") {
  Random random(4);
  SmallLayer layer(Shape{1, 4, 2, 8, 8});
  layer.append_random(60, random);
  for (float& x : layer.v[1]) x *= 10;
  layer.give_random_evidence(8, random);
  auto policy = accounting(8);
  policy.settings.tolerance = 0.3f;
  auto state = policy.start(layer.shape);
  REQUIRE(state);
  const AnyLayer view = layer.view();
  Abilities can;
  can.equal_counts = true;
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, 60, 0, true}, 0, can};
  REQUIRE(policy.observe(call, *state));
  std::vector<Plan> plans;
  REQUIRE(policy.plan(call, *state, plans));
  CHECK(plans[0].cost[0].after == plans[0].cost[1].after);
  CHECK(plans[0].cost[0].bound <= 0.3f);
  CHECK(plans[0].cost[1].bound <= 0.3f);
  can.grain = Grain::sequence;
  const LayerCall<AnyLayer> sequence{view, layer.seen, {Phase::prefill, 0, 60, 0, true}, 0, can};
  CHECK(policy.plan(sequence, *state, plans).error().code == Errc::unsupported);
}

TEST_CASE("A tolerance without evidence is an Error, and a loss without evidence is unknown",
          "[policy][loss]") {
  SmallLayer layer = SmallLayer::one_head(1, 4);
  Random random(5);
  layer.append_random(40, random);
  Policy<> plain;
  const auto plans = plan_of(plain, layer, prompt_clock(10));
  REQUIRE(plans[0].heads[0].drop.size() == 30);
  CHECK(std::isnan(plans[0].cost[0].mass));
  CHECK(std::isnan(plans[0].cost[0].bound));
  CHECK(plans[0].cost[0].before == 40);
  CHECK(plans[0].cost[0].after == 10);
  CHECK(plans[0].cost[0].bytes_before == 40 * 8 * sizeof(float));
  CHECK(plans[0].cost[0].bytes_after == 10 * 8 * sizeof(float));

  plain.settings.tolerance = 0.1f;
  CHECK(covers(plain.wants().prefill, Needs::rows));
  CHECK(covers(plain.wants().step, Needs::rows));
  auto state = plain.start(layer.shape);
  REQUIRE(state);
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, {}, prompt_clock(0), 0};
  std::vector<Plan> out;
  CHECK(plain.observe(call, *state).error().code == Errc::missing_evidence);
  CHECK(plain.plan(call, *state, out).error().code == Errc::missing_evidence);
  plain.settings.tolerance = -1;
  CHECK(plain.start(layer.shape).error().code == Errc::bad_option);
  plain.settings.tolerance = std::numeric_limits<float>::quiet_NaN();
  CHECK(plain.start(layer.shape).error().code == Errc::bad_option);
}

TEST_CASE("Accounting adds to what a policy wants by itself", "[policy][loss]") {
  auto h2o = *methods::H2O::make({});
  h2o.settings.account_loss = true;
  CHECK(covers(h2o.wants().prefill, Needs::column_sums | Needs::rows));
  CHECK(covers(h2o.wants().step, Needs::probs | Needs::rows));
  CHECK(h2o.wants().last_queries == 32);
  auto snap = *methods::SnapKV::make({});
  snap.signal.window = 64;
  snap.settings.account_loss = true;
  CHECK(snap.wants().last_queries == 64);
}

TEST_CASE("Nothing given up costs nothing", "[policy][loss]") {
  SmallLayer layer = SmallLayer::one_head(2, 4);
  Random random(6);
  layer.append_random(10, random);
  layer.give_random_evidence(4, random);
  const auto plans = plan_of(accounting(1), layer, prompt_clock(10));
  CHECK(plans[0].cost[0].mass == 0);
  CHECK(plans[0].cost[0].bound == 0);
}

TEST_CASE("One choice for the sequence states sizes, and that the loss is unknown", "[policy][loss]") {
  SmallLayer layer(Shape{2, 2, 2, 4, 4});
  Random random(7);
  layer.append_random(20, random);
  layer.give_random_evidence(4, random);
  auto policy = accounting(1);
  auto state = policy.start(layer.shape);
  REQUIRE(state);
  const AnyLayer view = layer.view();
  Abilities can;
  can.grain = Grain::sequence;
  std::vector<Plan> plans;
  for (int l = 0; l < 2; ++l) {
    const LayerCall<AnyLayer> call{view, layer.seen, prompt_clock(5), l, can};
    REQUIRE(policy.observe(call, *state));
    REQUIRE(policy.plan(call, *state, plans));
  }
  REQUIRE(plans.size() == 2);
  for (const Plan& p : plans)
    for (const HeadCost& c : p.cost) {
      CHECK(c.after == 5);
      CHECK(c.bytes_after == 5 * 8 * sizeof(float));
      CHECK(std::isnan(c.bound));
    }
}

namespace {

/// The largest |o - o'| of head h over its queries that saw everything a plan blends, o' being attention over what the plan
/// leaves, in f64; and the mean mass on what goes and is folded into none.
Truth blended_truth(const SmallLayer& layer, int h, const HeadPlan& plan, Index w) {
  const std::size_t i = std::size_t(h), n = std::size_t(layer.size(h));
  const std::size_t dk = std::size_t(layer.shape.dim_k), dv = std::size_t(layer.shape.dim_v);
  std::vector<double> k(layer.k[i].begin(), layer.k[i].end()), v(layer.v[i].begin(), layer.v[i].end()),
      weight(n, 0.0);
  std::vector<char> folded(n, 0);
  Index newest = -1;
  for (const Self& s : plan.self) {
    for (std::size_t c = 0; c < dk; ++c) k[std::size_t(s.dst) * dk + c] *= double(s.wk);
    for (std::size_t c = 0; c < dv; ++c) v[std::size_t(s.dst) * dv + c] *= double(s.wv);
    weight[std::size_t(s.dst)] = double(s.log_weight);
    newest = std::max(newest, s.dst);
  }
  for (const Blend& b : plan.blend) {
    for (std::size_t c = 0; c < dk; ++c)
      k[std::size_t(b.dst) * dk + c] += double(b.wk) * double(layer.k[i][std::size_t(b.src) * dk + c]);
    for (std::size_t c = 0; c < dv; ++c)
      v[std::size_t(b.dst) * dv + c] += double(b.wv) * double(layer.v[i][std::size_t(b.src) * dv + c]);
    folded[std::size_t(b.src)] = 1;
    newest = std::max(newest, b.src);
  }
  const Cube& queries = layer.seen[i].queries;
  Truth t;
  int counted = 0;
  for (int g = 0; g < layer.shape.group(); ++g)
    for (Index q = queries.w - w; q < queries.w; ++q) {
      const std::size_t visible = n - std::size_t(queries.w - 1 - q);
      if (Index(visible) <= newest) continue;
      ++counted;
      const auto x = queries.row(g, q);
      const auto attend = [&](const auto& keys, const auto& values, bool after, double& mass) {
        std::vector<double> p(visible, 0.0), out(dv, 0.0);
        double sum = 0;
        for (std::size_t j = 0; j < visible; ++j) {
          const bool gone = std::binary_search(plan.drop.begin(), plan.drop.end(), Index(j));
          if (after && gone) continue;
          double z = after ? weight[j] : 0.0;
          for (std::size_t c = 0; c < dk; ++c)
            z += double(x[c]) * double(keys[j * dk + c]) / std::sqrt(double(dk));
          sum += p[j] = std::exp(z);
        }
        for (std::size_t j = 0; j < visible; ++j) {
          for (std::size_t c = 0; c < dv; ++c) out[c] += p[j] / sum * double(values[j * dv + c]);
          if (!after && !folded[j] && std::binary_search(plan.drop.begin(), plan.drop.end(), Index(j)))
            mass += p[j] / sum;
        }
        return out;
      };
      double unused = 0;
      const auto before = attend(layer.k[i], layer.v[i], false, t.mass), after = attend(k, v, true, unused);
      double squares = 0;
      for (std::size_t c = 0; c < dv; ++c) squares += std::pow(before[c] - after[c], 2);
      t.change = std::max(t.change, std::sqrt(squares));
    }
  t.mass /= std::max(counted, 1);
  return t;
}

/// Plans of a policy over random layers keep their bounds, with queries and with probabilities alone.
template <class P>
void blends_keep_the_bound(P policy, std::uint64_t seed) {
  policy.settings.account_loss = true;
  Random random(seed);
  int known = 0, blends = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const int group = 1 + int(random.below(3)), kv_heads = 1 + int(random.below(2));
    SmallLayer layer(Shape{1, group * kv_heads, kv_heads, 2 + int(random.below(12)), 1 + int(random.below(8))});
    layer.append_random(20 + Index(random.below(60)), random);
    if (trial % 3 == 0)  // neighbours alike
      for (auto& k : layer.k)
        for (std::size_t c = std::size_t(layer.shape.dim_k); c < k.size(); ++c)
          k[c] = 0.9f * k[c - std::size_t(layer.shape.dim_k)] + 0.3f * k[c];
    layer.give_random_evidence(6, random);
    SmallLayer before = layer;
    for (std::size_t h = 0; h < before.seen.size(); ++h)
      before.seen[h].queries.data = before.queries[h].data();
    if (trial % 2)
      for (Evidence& e : layer.seen) e.queries = {};  // probabilities alone show sums of 1 only
    const auto plans = plan_of(policy, layer, prompt_clock(10 + Index(random.below(10))));
    for (int h = 0; h < kv_heads; ++h) {
      const HeadPlan& p = plans[0].heads[std::size_t(h)];
      const HeadCost& cost = plans[0].cost[std::size_t(h)];
      const Truth t = blended_truth(before, h, p, 6);
      INFO("trial " << trial << " head " << h << ": change " << t.change << ", bound " << cost.bound
                    << ", mass " << t.mass);
      if (std::isnan(cost.bound)) continue;
      ++known;
      blends += int(p.blend.size());
      CHECK(double(cost.bound) >= t.change - 1e-9);
      CHECK(double(cost.mass) == Approx(t.mass).epsilon(1e-3).margin(1e-5));
    }
  }
  CHECK(known > 20);
  CHECK(blends > 0);
}

}  // namespace

TEST_CASE("The bound covers blends, over random layers", "[policy][loss][merge]") {
  for (const Fold fold : {Fold::nearest, Fold::runs, Fold::values, Fold::compensate}) {
    INFO("fold " << int(fold));
    auto policy = accounting(6);
    policy.settings.merge = fold;
    blends_keep_the_bound(policy, 20 + std::uint64_t(fold));
  }
  SpreadValues spread;
  spread.deterministic = true;
  blends_keep_the_bound(Policy<WindowAttention, KeepEnds, SpreadValues>(
                            WindowAttention{6, 1, PoolMode::none, Reduce::mean, false}, KeepEnds{0, 6}, spread),
                        30);
  AdjacentRuns runs;
  runs.by_budget = true;
  runs.recent.value = 6;
  using KeysOnly = Policy<ChooseNone, Merge<AdjacentRuns, Always, Gaussian, NewCentroid, NoMass>>;
  blends_keep_the_bound(
      KeysOnly(Merge<AdjacentRuns, Always, Gaussian, NewCentroid, NoMass>{runs, {}, {}, {}, {}}), 31);
}

TEST_CASE("Merging equal rows costs nothing, where dropping them does", "[policy][loss][merge]") {
  Random random(8);
  SmallLayer layer(Shape{1, 2, 1, 6, 4});
  layer.append_random(12, random);
  for (Index t = 12; t < 40; ++t) {  // copies
    const std::size_t of = std::size_t(random.below(12));
    layer.append(
        0, Row(layer.k[0].begin() + std::ptrdiff_t(of * 6), layer.k[0].begin() + std::ptrdiff_t(of * 6 + 6)),
        Row(layer.v[0].begin() + std::ptrdiff_t(of * 4), layer.v[0].begin() + std::ptrdiff_t(of * 4 + 4)), t);
  }
  layer.append_random(4, random);
  layer.give_random_evidence(4, random);
  Policy<Recency, KeepEnds> policy(KeepEnds{12, 4});  // the first of each copy and the newest stay
  policy.settings.account_loss = true;
  SmallLayer again = layer;
  for (std::size_t h = 0; h < 1; ++h) {
    again.seen[h].queries.data = again.queries[h].data();
    again.seen[h].probs.data = again.probs[h].data();
  }
  const auto dropped = plan_of(policy, layer, prompt_clock(16));
  policy.settings.merge = Fold::nearest;
  const auto merged = plan_of(policy, again, prompt_clock(16));
  REQUIRE(merged[0].heads[0].blend.size() == 28);
  CHECK(merged[0].cost[0].bound < 1e-3f);
  CHECK(merged[0].cost[0].mass == 0);
  CHECK(dropped[0].cost[0].bound > 0.05f);
}
