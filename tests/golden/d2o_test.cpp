// SPDX-License-Identifier: Apache-2.0
// D2O against its official cache class over recorded tensors: one KV head at a time (gate and threshold of the head), and
// over nine heads, where the official gate is one for all heads.
#include <kvist/cache/cache.hpp>
#include <kvist/methods/d2o.hpp>
#include <kvist/storage/store/dense.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

using Folding = methods::D2O::Folding;
/// D2O with equal layer budgets: reference values are of one layer.
using OneLayer = Policy<AttentionVariance, methods::SinksAndRecentPart, Folding, EverySteps>;
using OneCache = Cache<OneLayer, DenseStore<float>>;

/// The scores of the prompt as evidence: column sums of all queries over the keys, by the formula in f64.
std::vector<Evidence> prompt_evidence(const Shape& s, const Tensor& q, const Tensor& k,
                                      const std::vector<std::size_t>& kv_of, std::size_t n,
                                      std::vector<std::vector<float>>& memory, std::vector<float>& seen_by) {
  std::vector<Evidence> out(std::size_t(s.kv_heads));
  memory.assign(std::size_t(s.kv_heads), {});
  seen_by.resize(n);
  for (std::size_t i = 0; i < n; ++i) seen_by[i] = float(n - i);
  for (std::size_t h = 0; h < out.size(); ++h) {
    auto& sums = memory[h];
    sums.assign(std::size_t(s.group()) * n, 0.0f);
    for (std::size_t g = 0; g < std::size_t(s.group()); ++g) {
      std::vector<double> all(n, 0.0), p(n);
      for (std::size_t t = 0; t < n; ++t) {
        double top = -1e300, sum = 0;
        for (std::size_t j = 0; j <= t; ++j) {
          double dot = 0;
          for (std::size_t c = 0; c < 64; ++c)
            dot += double(q.at(h * std::size_t(s.group()) + g, t, c)) * double(k.at(kv_of[h], j, c));
          top = std::max(top, p[j] = dot / 8);
        }
        for (std::size_t j = 0; j <= t; ++j) sum += p[j] = std::exp(p[j] - top);
        for (std::size_t j = 0; j <= t; ++j) all[j] += p[j] / sum;
      }
      for (std::size_t j = 0; j < n; ++j) sums[g * n + j] = float(all[j]);
    }
    out[h].column_sums = cube(sums.data(), s.group(), 1, Index(n));
    out[h].seen_by = seen_by;
  }
  return out;
}

struct Case {
  std::string name;
  int layer;
  Index heavy, recent;
  float alpha, beta;
};

/// The cache after the prompt and the first decode steps; plans of each step.
struct Run {
  Shape shape;
  std::vector<std::size_t> kv_of;  // recorded KV head of each head
  OneCache cache;
  std::vector<Plan> plans;
  std::vector<std::vector<float>> outs;

  void go(const Tensor& q, const Tensor& k, const Tensor& v, Index budget, Index steps) {
    const std::size_t heads = std::size_t(shape.kv_heads);
    std::vector<std::vector<float>> memory;
    std::vector<float> seen_by;
    const auto rows_of = [&](std::size_t from, std::size_t n, const Tensor& x) {
      std::vector<float> out;
      for (std::size_t t = from; t < from + n; ++t)
        for (std::size_t h = 0; h < heads; ++h) {
          const Row r = x.row(kv_of[h], t);
          out.insert(out.end(), r.begin(), r.end());
        }
      return out;
    };
    REQUIRE(cache.append(0, 512, rows_of(0, 512, k).data(), rows_of(0, 512, v).data(), 0));
    const auto seen = prompt_evidence(shape, q, k, kv_of, 512, memory, seen_by);
    REQUIRE(cache.observe(0, seen, Clock{Phase::prefill, 0, 0, budget, true}));
    cache.on_plan = [&](const Plan& p) { plans.push_back(p); };
    Serial serial;
    for (Index step = 1; step <= steps; ++step) {
      const std::size_t t = std::size_t(511 + step);
      REQUIRE(cache.append(0, 1, rows_of(t, 1, k).data(), rows_of(t, 1, v).data(), Pos(t)));
      std::vector<float> query, out(std::size_t(shape.q_heads) * 64);
      for (std::size_t h = 0; h < std::size_t(shape.q_heads); ++h) {
        const Row r = q.row(h, t);
        query.insert(query.end(), r.begin(), r.end());
      }
      REQUIRE(cache.attend(0, query.data(), 0.125f, out.data(), serial));
      outs.push_back(out);
      REQUIRE(cache.step(0, Clock{Phase::decode, step, 0, budget, true}));
    }
  }
};

Run run_of(const Shape& shape, std::vector<std::size_t> kv_of, const Case& c) {
  OneLayer policy(methods::SinksAndRecentPart{4, c.heavy, c.recent},
                  Folding{{}, {c.alpha, c.beta}, {}, {}, {}}, EverySteps{1, false});
  auto made = OneCache::make(shape, policy, [](int, int) {
    std::vector<DenseStore<float>> one;
    one.emplace_back(64, 64);
    return one;
  });
  REQUIRE(made);
  return {shape, std::move(kv_of), *std::move(made), {}, {}};
}

/// What a plan did, by position: `before` are the head's positions at that time.
struct Fold {
  Pos src, dst;
  float u;
};
std::vector<Fold> folds(const HeadPlan& p, const std::vector<Pos>& before) {
  std::vector<Fold> out;
  for (const Blend& b : p.blend) {
    float self = 0;
    for (const Self& s : p.self)
      if (s.dst == b.dst) self = s.wk;
    out.push_back({before[std::size_t(b.src)], before[std::size_t(b.dst)], b.wk / self});  // raw weights: u / (1 + m)
  }
  return out;
}

}  // namespace

TEST_CASE("D2O of one KV head at a time evicts, matches, gates and merges as its official code",
          "[golden][D2O]") {
  if (!have_recorded("official/d2o")) KVIST_SKIP("reference values");
  const Case c{"kvhead_l11", 11, 51, 51, 0.5f, 0.5f};
  const std::string at = "official/d2o/" + c.name;
  const Tensor q = recorded("official/inputs/q11"), k = recorded("official/inputs/k11"),
               v = recorded("official/inputs/v11");
  const Tensor kept = recorded(at + "_kept"), evicted = recorded(at + "_evicted0"),
               target = recorded(at + "_target0"), u = recorded(at + "_u0"),
               merged = recorded(at + "_merged0"), k0 = recorded(at + "_k0"), v0 = recorded(at + "_v0"),
               tau = recorded(at + "_tau"), step_evicted = recorded(at + "_step_evicted"),
               step_target = recorded(at + "_step_target"), step_u = recorded(at + "_step_u"),
               step_merged = recorded(at + "_step_merged"), k_end = recorded(at + "_k_end");
  Run run = run_of(Shape{1, 9, 3, 64, 64}, {0, 1, 2}, c);
  std::vector<std::vector<std::vector<Pos>>> before(1);  // [step][head]
  std::vector<float> first_k(102 * 64), first_v(102 * 64);
  // positions before each plan: those held after the last one and the new token
  run.go(q, k, v, 102, 16);
  REQUIRE(run.plans.size() == 16);
  std::size_t gates = 0, unlike = 0;
  for (std::size_t h = 0; h < 3; ++h) {
    INFO("head " << h);
    std::vector<Pos> held;
    for (Pos i = 0; i < 513; ++i) held.push_back(i);
    for (std::size_t step = 0; step < 16; ++step) {
      const HeadPlan& p = run.plans[step].heads[h];
      const auto made = folds(p, held);
      if (step == 0) {
        REQUIRE(p.drop.size() == 411);
        std::size_t b = 0;
        for (std::size_t i = 0; i < 411; ++i) {
          const Pos src = held[std::size_t(p.drop[i])];
          CHECK(float(src) == evicted.at(h, i));
          const bool did = b < made.size() && made[b].src == src;
          if (did) {
            unlike += float(made[b].dst) != target.at(h, i) ||
                      std::abs(made[b].u - u.at(h, i)) > 1e-4f * (1 + std::abs(u.at(h, i)));
            ++b;
          }
          gates += did != (merged.at(h, i) != 0);
        }
      } else {
        REQUIRE(p.drop.size() == 1);
        CHECK(float(held[std::size_t(p.drop[0])]) == step_evicted.at(h, step - 1));
        CHECK((made.size() == 1) == (step_merged.at(h, step - 1) != 0));
        if (made.size() == 1) {
          CHECK(float(made[0].dst) == step_target.at(h, step - 1));
          CHECK(made[0].u == Approx(step_u.at(h, step - 1)).margin(1e-4));
        }
      }
      std::vector<Pos> next;
      for (std::size_t i = 0; i < held.size(); ++i)
        if (!std::binary_search(p.drop.begin(), p.drop.end(), Index(i))) next.push_back(held[i]);
      const Row row = kept.row(h, step);
      CHECK(next == [&] {
        std::vector<Pos> want;
        for (const float x : row)
          if (x >= 0) want.push_back(Pos(x));
        return want;
      }());
      held = next;
      held.push_back(Pos(513 + step));
    }
  }
  INFO(gates << " gates and " << unlike << " targets or weights differ");
  CHECK(gates == 0);
  CHECK(unlike == 0);
  // merged rows of KV head 1 at the end
  std::vector<float> end_k(102 * 64);
  run.cache.read(0, 1, 0, 102, end_k.data(), nullptr);
  double worst = 0;
  for (std::size_t i = 0; i < 102; ++i)
    for (std::size_t e = 0; e < 16; ++e)
      worst = std::max(worst, std::abs(double(end_k[i * 64 + e]) - double(k_end.at(i, e))));
  INFO("keys at the end differ by at most " << worst);
  CHECK(worst <= 1e-3);

  Run first = run_of(Shape{1, 9, 3, 64, 64}, {0, 1, 2}, c);
  first.go(q, k, v, 102, 1);
  first.cache.read(0, 1, 0, 102, first_k.data(), first_v.data());
  worst = 0;
  for (std::size_t i = 0; i < 102; ++i)
    for (std::size_t e = 0; e < 64; ++e)
      worst = std::max({worst, std::abs(double(first_k[i * 64 + e]) - double(k0.at(i, e))),
                        std::abs(double(first_v[i * 64 + e]) - double(v0.at(i, e)))});
  INFO("rows after the first merge differ by at most " << worst);
  CHECK(worst <= 1e-4);
}

TEST_CASE(
    "D2O over nine heads: evicted sets, targets and similarities are the official ones; its gate is one for "
    "all heads",
    "[golden][D2O]") {
  if (!have_recorded("official/d2o")) KVIST_SKIP("reference values");
  for (const Case& c : {Case{"l11", 11, 51, 51, 0.5f, 0.5f}, Case{"l20", 20, 41, 82, 0.3f, 0.7f}}) {
    const std::string at = "official/d2o/" + c.name, l = std::to_string(c.layer);
    const Tensor q = recorded("official/inputs/q" + l), k = recorded("official/inputs/k" + l),
                 v = recorded("official/inputs/v" + l);
    const Tensor evicted = recorded(at + "_evicted0"), target = recorded(at + "_target0"),
                 u = recorded(at + "_u0"), merged = recorded(at + "_merged0"), tau = recorded(at + "_tau"),
                 out = recorded(at + "_out");
    std::vector<std::size_t> kv_of;
    for (std::size_t h = 0; h < 9; ++h) kv_of.push_back(h / 3);
    Run run = run_of(Shape{1, 9, 9, 64, 64}, kv_of, c);
    run.go(q, k, v, c.heavy + c.recent, 1);
    REQUIRE(run.plans.size() == 1);
    const std::size_t n = evicted.dim(1);
    double mean = 0;
    std::vector<double> by_rank(n, 0.0);
    for (std::size_t h = 0; h < 9; ++h)
      for (std::size_t i = 0; i < n; ++i) {
        mean += double(u.at(h, i)) / double(9 * n);
        by_rank[i] += double(u.at(h, i)) / 9;
      }
    CHECK(mean == Approx(double(tau.at(0))).margin(1e-5));
    std::size_t other_gate = 0, pairs = 0;
    for (std::size_t h = 0; h < 9; ++h) {
      INFO(c.name << " head " << h);
      const HeadPlan& p = run.plans[0].heads[h];
      REQUIRE(p.drop.size() == n);
      double own = 0;  // this library's threshold: of the head alone
      for (std::size_t i = 0; i < n; ++i) own += double(u.at(h, i)) / double(n);
      std::size_t b = 0;
      std::vector<Pos> held;
      for (Pos i = 0; i < 513; ++i) held.push_back(i);
      const auto made = folds(p, held);
      for (std::size_t i = 0; i < n; ++i) {
        CHECK(float(p.drop[i]) == evicted.at(h, i));
        const bool did = b < made.size() && made[b].src == p.drop[i];
        if (std::abs(double(u.at(h, i)) - own) > 1e-5) CHECK(did == (double(u.at(h, i)) >= own));
        if (did) {
          CHECK(float(made[b].dst) == target.at(h, i));
          CHECK(made[b].u == Approx(u.at(h, i)).margin(1e-4));
          ++b;
        }
        other_gate += did != (merged.at(i) != 0);
        ++pairs;
      }
      for (std::size_t e = 0; e < 64; ++e)  // the first step attends to the whole prompt
        CHECK(run.outs[0][h * 64 + e] == Approx(out.at(0, h, e)).margin(2e-5));
    }
    std::size_t official = 0;
    for (std::size_t i = 0; i < n; ++i) official += (by_rank[i] >= mean) == (merged.at(i) != 0);
    CHECK(official >= n - 1);  // the published gate, from the same similarities
    CHECK(other_gate > 0);     // which is not ours
    // layer 11: 1,303 of 3,699 entries, layer 20: 1,160 of 3,510
    CHECK(double(other_gate) / double(pairs) == Approx(c.layer == 11 ? .352 : .330).margin(.005));
  }
}

TEST_CASE("D2O's layer shares are those of its official code's formula", "[golden][D2O]") {
  if (!have_recorded("official/d2o")) KVIST_SKIP("reference values");
  const Tensor want_v = recorded("official/d2o/budgets_v"),
               want_ratio = recorded("official/d2o/budgets_ratio");
  const Shape shape{3, 9, 9, 64, 64};
  std::vector<std::size_t> kv_of;
  for (std::size_t h = 0; h < 9; ++h) kv_of.push_back(h / 3);
  auto policy = methods::D2O::make({});
  REQUIRE(policy);
  auto state = policy->start(shape);
  REQUIRE(state);
  std::vector<double> variance;
  int at = 0;
  for (const char* const l : {"02", "11", "20"}) {
    const Tensor q = recorded(std::string("official/inputs/q") + l),
                 k = recorded(std::string("official/inputs/k") + l);
    std::vector<std::vector<float>> memory;
    std::vector<float> seen_by;
    const auto seen = prompt_evidence(shape, q, k, kv_of, 512, memory, seen_by);
    SmallLayer layer(shape);
    layer.append_blank(512);
    const AnyLayer view = layer.view();
    const LayerCall<AnyLayer> call{view, seen, {Phase::prefill, 0, 512, 102, true}, at};
    REQUIRE(policy->observe(call, *state));
    variance.push_back(state->layers[std::size_t(at)].stat.variance);
    CHECK(variance.back() == Approx(double(want_v.at(std::size_t(at)))).epsilon(1e-4));
    ++at;
  }
  std::vector<double> ratio(3);
  SoftmaxOfVariance::shares(variance, 3 * .2, ratio);
  for (std::size_t i = 0; i < 3; ++i) CHECK(ratio[i] == Approx(double(want_ratio.at(i))).epsilon(1e-4));
}
