// SPDX-License-Identifier: Apache-2.0
// CaM, ToMe and EMS, and merge= on methods that drop.
#include <kvist/methods/cam.hpp>
#include <kvist/methods/ems.hpp>
#include <kvist/methods/spec.hpp>
#include <kvist/methods/tome.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

Result<std::vector<Plan>> plan_of(const AnyPolicy& policy, SmallLayer& layer, Index budget) {
  auto state = policy.start(layer.shape);
  if (!state) return state.error();
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, layer.size(), budget, true}, 0};
  if (Status s = policy.observe(call, *state); !s) return s.error();
  std::vector<Plan> plans;
  if (Status s = policy.plan(call, *state, plans); !s) return s.error();
  for (std::size_t h = 0; h < plans[0].heads.size(); ++h)
    REQUIRE(check(plans[0].heads[h], layer.size(int(h))));
  return plans;
}
AnyPolicy policy_of(const std::string& text) {
  std::string fault;
  const auto spec = methods::parse_spec(text, fault);
  REQUIRE(spec);
  auto made = methods::make(*spec, fault);
  INFO(text << ": " << fault);
  REQUIRE(made);
  return made->policy;
}
SmallLayer random_layer(Index n, Random& random) {
  SmallLayer layer(Shape{1, 4, 2, 6, 4});
  layer.append_random(n, random);
  layer.give_random_evidence(n, random);
  return layer;
}

}  // namespace

TEST_CASE("EMS ranks by the larger of global and local attention, means aligned", "[methods][EMS]") {
  // s_glo = 8 4 2 1 1 .5, s_loc = .1 .1 .2 .4 .6 1.6 -> 1.454545 .727273 .363636 .4 .6 1.6
  const GlobalLocalAttention signal;
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(6);
  const AnyLayer view = layer.view();
  const Evidence none;
  const Clock now;
  Scratch scratch;
  const HeadContext<AnyHead> c{view.head(0), none, now, layer.shape, scratch};
  std::vector<GlobalLocalAttention::Entry> entries;
  const std::vector<float> global{8, 4, 2, 1, 1, .5f}, local{.1f, .1f, .2f, .4f, .6f, 1.6f};
  for (std::size_t i = 0; i < 6; ++i) entries.push_back({global[i], local[i]});
  std::vector<float> out(6);
  REQUIRE(signal.score(c, std::span<const GlobalLocalAttention::Entry>(entries), Nothing{}, out));
  const std::vector<double> want{1.454545, .727273, .363636, .4, .6, 1.6};
  for (std::size_t i = 0; i < 6; ++i) CHECK(double(out[i]) == Approx(want[i]).margin(1e-6));
}

TEST_CASE("EMS: centres are the budget; above 1 its threshold is pure eviction, far below all may merge",
          "[methods][EMS]") {
  Random random(1);
  SmallLayer layer = random_layer(60, random);
  for (const float threshold : {2.0f, -9.0f}) {
    const auto made = methods::EMS::make({8, threshold, 99});
    REQUIRE(made);
    const auto plans = plan_of(AnyPolicy(*made), layer, 20);
    REQUIRE(plans);
    for (const HeadPlan& p : (*plans)[0].heads) {
      CHECK(p.drop.size() == 40);
      CHECK(p.blend.size() == (threshold > 1 ? 0u : 40u));
    }
  }
  const auto made = methods::EMS::make({8, -9.0f, 0.5});  // ten of the losers, the best ones
  REQUIRE(made);
  const auto plans = plan_of(AnyPolicy(*made), layer, 20);
  REQUIRE(plans);
  for (const HeadPlan& p : (*plans)[0].heads) CHECK(p.blend.size() == 10);
  CHECK(methods::EMS::make({8, 0, -1}).error().code == Errc::bad_option);
}

TEST_CASE("ToMe meets its budget and counts the tokens", "[methods][ToMe]") {
  Random random(2);
  SmallLayer layer = random_layer(70, random);
  for (const Index budget : {10, 35, 69, 70}) {
    const auto made = methods::ToMe::make({16, 0, ChosenMass::Kind::count});
    REQUIRE(made);
    const auto plans = plan_of(AnyPolicy(*made), layer, budget);
    REQUIRE(plans);
    for (const HeadPlan& p : (*plans)[0].heads) {
      CHECK(Index(p.drop.size()) == 70 - budget);
      CHECK(p.blend.size() == p.drop.size());
      double tokens = double(budget) - double(p.self.size());
      for (const Self& s : p.self) tokens += std::exp(double(s.log_weight));
      CHECK(tokens == Approx(70).margin(1e-4));
    }
  }
  CHECK(methods::ToMe::make({1, 0, {}}).error().code == Errc::bad_option);
  CHECK(methods::ToMe::make({65536, 0, {}}));
  CHECK(methods::ToMe::make({65537, 0, {}}).error().code == Errc::bad_option);
  const auto free = methods::ToMe::make({16, 0.5f, {}});
  REQUIRE(free);
  CHECK(free->free_size());
  CHECK(plan_of(AnyPolicy(*free), layer, 0));
}

TEST_CASE("CaM keeps both ends, changes values only, and repeats", "[methods][CaM]") {
  Random random(3);
  SmallLayer layer = random_layer(50, random);
  for (const bool deterministic : {false, true}) {
    methods::CaMOptions o;
    o.deterministic = deterministic;
    o.targets = 4;
    const auto made = methods::CaM::make(o);
    REQUIRE(made);
    const auto plans = plan_of(AnyPolicy(*made), layer, 21), again = plan_of(AnyPolicy(*made), layer, 21);
    REQUIRE((plans && again));
    CHECK((*plans)[0].heads == (*again)[0].heads);
    for (const HeadPlan& p : (*plans)[0].heads) {
      CHECK(p.drop.front() == 10);
      CHECK(p.drop.back() == 38);
      CHECK(p.drop.size() == 29);
      if (deterministic) CHECK(!p.blend.empty());
      for (const Blend& b : p.blend) CHECK((b.wk == 0 && b.wv > 0 && b.dst >= 39 && b.dst < 43));
    }
  }
  methods::CaMOptions o;
  o.targets = 0;
  CHECK(methods::CaM::make(o).error().code == Errc::bad_option);
  using methods::HalfSinksHalfRecent;
  CHECK(HalfSinksHalfRecent{}.resolve(21) == Guards{10, 11});
  CHECK(HalfSinksHalfRecent{3, -1}.resolve(20) == Guards{3, 17});
  CHECK(HalfSinksHalfRecent{-1, 5}.resolve(20) == Guards{15, 5});
}

TEST_CASE("Options as large as can be said keep to the budget", "[methods][merge]") {
  Random random(6);
  SmallLayer layer = random_layer(40, random);
  for (const char* const text :
       {"CaM:targets=2147483647,deterministic=yes", "KVMerger:recent=500000000,top=500000000",
        "EMS:merged=1e300,window=4", "KVMerger:sigma=1e30", "D2O:heavy=2147483647,recent=2147483647"}) {
    INFO(text);
    const auto plans = plan_of(policy_of(text), layer, 12);
    if (!plans) CHECK(plans.error().code == Errc::bad_budget);
    else if (!plans->empty()) CHECK((*plans)[0].cost[0].after + (*plans)[0].cost[1].after == 24);
  }
}

TEST_CASE("merge= folds what a method drops, and the same entries stay", "[methods][merge]") {
  Random random(4);
  SmallLayer layer(Shape{1, 4, 2, 6, 4});
  layer.append_random(60, random);
  for (auto& k : layer.k)  // neighbours are alike
    for (std::size_t i = 6; i < k.size(); ++i) k[i] = 0.9f * k[i - 6] + 0.4f * k[i];
  layer.give_random_evidence(60, random);
  for (const char* const method : {"SnapKV:window=8", "H2O", "KeyNorm", "AdaKV:window=8"}) {
    const std::string with =
        std::string(method) + (std::string(method).find(':') == std::string::npos ? ":" : ",");
    const auto plain = plan_of(policy_of(method), layer, 20);
    REQUIRE(plain);
    for (const char* const kind : {"nearest", "runs", "values"}) {
      const AnyPolicy policy = policy_of(with + "merge=" + kind);
      CHECK(policy.makes() == (drops | blends));
      const auto merged = plan_of(policy, layer, 20);
      INFO(method << " " << kind);
      REQUIRE(merged);
      std::size_t folded = 0;
      for (std::size_t h = 0; h < 2; ++h) {
        CHECK((*merged)[0].heads[h].drop == (*plain)[0].heads[h].drop);
        folded += (*merged)[0].heads[h].blend.size();
        for (const Blend& b : (*merged)[0].heads[h].blend)
          if (std::string(kind) == "values") CHECK(b.wk == 0);
      }
      CHECK(folded > 0);
    }
    const auto stands_in = plan_of(policy_of(with + "merge=compensate"), layer, 20);
    REQUIRE(stands_in);
    Index kept = 0, plain_kept = 0;
    for (std::size_t h = 0; h < 2; ++h) {
      kept += (*stands_in)[0].cost[h].after;
      plain_kept += (*plain)[0].cost[h].after;
      CHECK((*stands_in)[0].heads[h].self.size() == 1);
    }
    CHECK(kept == plain_kept);
    CHECK(policy_of(with + "merge=none").makes() == drops);
  }
}

TEST_CASE("merge=values is kvpress's formula", "[methods][merge]") {
  Random random(5);
  SmallLayer layer(Shape{1, 1, 1, 5, 3});
  layer.append_random(30, random);
  const auto plans = plan_of(policy_of("KeyNorm:merge=values"), layer, 10);
  REQUIRE(plans);
  const HeadPlan& p = (*plans)[0].heads[0];
  // each loser to its most similar survivor; w = max(u, 0) |v_e| / (|v_e| + |v_c| + 1e-6); v_c = (v_c + sum w v_e) / (1 + sum w)
  const auto k = [&](Index i, std::size_t c) { return double(layer.k[0][std::size_t(i) * 5 + c]); };
  const auto v = [&](Index i, std::size_t c) { return double(layer.v[0][std::size_t(i) * 3 + c]); };
  const auto norm = [&](auto& row, Index i, std::size_t d) {
    double s = 0;
    for (std::size_t c = 0; c < d; ++c) s += row(i, c) * row(i, c);
    return std::sqrt(s);
  };
  std::vector<std::vector<double>> want(30);
  std::vector<double> weight(30, 1.0);
  for (Index i = 0; i < 30; ++i) want[std::size_t(i)] = {v(i, 0), v(i, 1), v(i, 2)};
  for (const Index src : p.drop) {
    Index best = -1;
    double most = -2;
    for (Index i = 0; i < 30; ++i) {
      if (std::binary_search(p.drop.begin(), p.drop.end(), i)) continue;
      double dot = 0;
      for (std::size_t c = 0; c < 5; ++c) dot += k(src, c) * k(i, c);
      if (const double u = dot / norm(k, src, 5) / norm(k, i, 5); u > most) most = u, best = i;
    }
    if (most < 0) continue;
    const double w = most * norm(v, src, 3) / (norm(v, src, 3) + norm(v, best, 3) + 1e-6);
    weight[std::size_t(best)] += w;
    for (std::size_t c = 0; c < 3; ++c) want[std::size_t(best)][c] += w * v(src, c);
  }
  for (const Self& s : p.self) {
    CHECK(s.wk == 1);
    CHECK(s.log_weight == 0);
    for (std::size_t c = 0; c < 3; ++c) {
      double got = double(s.wv) * v(s.dst, c);
      for (const Blend& b : p.blend)
        if (b.dst == s.dst) got += double(b.wv) * v(b.src, c);
      CHECK(got == Approx(want[std::size_t(s.dst)][c] / weight[std::size_t(s.dst)]).margin(1e-5));
    }
  }
}

TEST_CASE("merge= is listed where it has a place, and there alone", "[methods][merge]") {
  int listed = 0, unlisted = 0;
  for (const methods::Entry& e : methods::registry()) {
    if (!e.evicts) continue;
    const bool lists =
        std::any_of(e.options.begin(), e.options.end(), [](const auto& o) { return o.name == "merge"; });
    ++(lists ? listed : unlisted);
    INFO(e.info.name);
    const auto state = policy_of(e.info.name + std::string(":merge=nearest")).start(Shape{3, 2, 2, 8, 8});
    CHECK(bool(state) == lists);
  }
  CHECK(listed > 10);
  CHECK(unlisted == 7);
}

TEST_CASE("merge= says where it has no place", "[methods][merge]") {
  const Shape shape{2, 2, 2, 8, 8};
  for (const char* const text :
       {"MiKV:merge=nearest", "D2O:merge=runs", "KVMerger:merge=values", "CaM:merge=compensate"}) {
    INFO(text);
    CHECK(policy_of(text).start(shape).error().code == Errc::bad_option);
  }
  CHECK(policy_of("CAKE:merge=nearest").start(shape).error().code == Errc::unsupported);
  std::string fault;
  const auto wrong = methods::make(*methods::parse_spec("SnapKV:merge=all", fault), fault);
  REQUIRE(!wrong);
  CHECK(fault.find("none, nearest, runs, values, compensate") != std::string::npos);
  const auto both = methods::make(*methods::parse_spec("KVMerger:threshold=0.5,budget=20%", fault), fault);
  REQUIRE(!both);
  CHECK(both.error().code == Errc::bad_option);
  CHECK(policy_of("KVMerger:threshold=0.5").free_size());
  CHECK_FALSE(policy_of("KVMerger:recent=0.1,top=20").free_size());
}
