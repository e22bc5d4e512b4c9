// SPDX-License-Identifier: Apache-2.0
// Merges put together from parts: what every composition keeps to, and what is exact.
#include <kvist/policy/dispose/match/bipartite_chunks.hpp>
#include <kvist/policy/dispose/match/runs.hpp>
#include <kvist/policy/dispose/merge.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<double> random_query(int d, Random& r) {
  std::vector<double> q;
  for (int c = 0; c < d; ++c) q.push_back(6 * r.uniform() - 3);
  return q;
}
std::vector<Index> random_losers(Index n, double share, Random& r) {
  std::vector<Index> out;
  for (Index i = 0; i < n; ++i)
    if (r.uniform() < share) out.push_back(i);
  if (Index(out.size()) == n) out.pop_back();
  return out;
}

/// Well-formed; who is in no blend keeps its bits; everything is a number.
template <class M>
void keeps_the_rules(const M& merge, std::uint64_t seed) {
  Random random(seed);
  MergeHead head = MergeHead::random(24, 6, 4, random, 3);
  head.guards = {1, 2};
  head.budget = 12;
  std::vector<float> queries;
  for (int i = 0; i < 12; ++i) queries.push_back(float(2 * random.uniform() - 1));
  head.seen.queries = cube(queries.data(), 2, 1, 6);
  head.seen.first_query = 24;
  std::vector<Index> losers = random_losers(24, 0.5, random);
  std::erase_if(losers, [&](Index i) { return head.guards.holds(i, 24); });
  const auto plan = plan_of(merge, head, M::sizes ? std::vector<Index>{} : losers);
  REQUIRE(plan);
  REQUIRE(check(*plan, 24, head.guards));
  if (!M::sizes) CHECK(plan->drop == losers);
  else CHECK(plan->drop.size() == 12);
  const auto before = head.before(), after = head.after(*plan);
  for (std::size_t i = 0; i < after.rows.size(); ++i) {
    const Index row = after.rows[i];
    const bool blended =
        std::any_of(plan->self.begin(), plan->self.end(), [&](const Self& s) { return s.dst == row; });
    for (const double x : after.k[i]) CHECK(std::isfinite(x));
    if (!blended) {
      CHECK(after.k[i] == before.k[std::size_t(row)]);
      CHECK(after.v[i] == before.v[std::size_t(row)]);
      CHECK(after.log_weight[i] == 0);
    }
  }
  double counts = 0;  // tokens that the survivors stand for: all but those that were dropped outright
  for (const Index row : after.rows) counts += double(head.records[std::size_t(row)].count);
  CHECK(counts == Approx(24.0 - double(plan->drop.size() - plan->blend.size())));
}

template <class Match>
void with_every_gate(const Match& match) {
  keeps_the_rules(Merge<Match, Always>{match, {}, {}, {}, {}}, 1);
  keeps_the_rules(Merge<Match, Threshold>{match, {0.5f}, {}, {}, {}}, 2);
  keeps_the_rules(Merge<Match, MovingThreshold>{match, {}, {}, {}, {}}, 3);
  keeps_the_rules(Merge<Match, TopMatches>{match, {0.5}, {}, {}, {}}, 4);
  keeps_the_rules(Merge<Match, BestLosers>{match, {0.25}, {}, {}, {}}, 5);
  keeps_the_rules(Merge<Match, BothGates<BestLosers, Threshold>>{match, {{1}, {0.1f}}, {}, {}, {}}, 6);
}
template <class Weights, class Target>
void with_every_mass(const Weights& weights, const Target& target) {
  keeps_the_rules(Merge<NearestKept, Always, Weights, Target, NoMass>{{}, {}, weights, target, {}}, 7);
  keeps_the_rules(Merge<NearestKept, Always, Weights, Target, LogCount>{{}, {}, weights, target, {}}, 8);
  keeps_the_rules(Merge<NearestKept, Always, Weights, Target, LogVotes>{{}, {}, weights, target, {}}, 9);
  keeps_the_rules(Merge<NearestKept, Always, Weights, Target, FittedMass>{{}, {}, weights, target, {}}, 10);
}
template <class Weights>
void with_every_target(const Weights& weights) {
  with_every_mass(weights, NewCentroid{});
  with_every_mass(weights, UpdatedAnchor{});
  with_every_mass(weights, ValuesOnly{});
}

}  // namespace

TEST_CASE("Every matching goes with every gate", "[dispose][Merge]") {
  with_every_gate(NearestKept{});
  with_every_gate(NearestKept{NearestKept::By::key_and_value});
  with_every_gate(NearestKept{NearestKept::By::position});
  with_every_gate(RunsOfKept{});
  AdjacentRuns runs;
  runs.by_budget = true;
  with_every_gate(runs);
  with_every_gate(BipartiteChunks{});
}

TEST_CASE("Every weight goes with every target and every mass", "[dispose][Merge]") {
  with_every_target(CountMean{});
  with_every_target(ByScore{});
  with_every_target(BySimilarity{});
  with_every_target(BySimilarity{BySimilarity::Form::exponential});
  with_every_target(ByValueShare{});
  with_every_target(Gaussian{});
}

TEST_CASE("Duplicated keys and values merge without any change of the output when the mass is log n",
          "[dispose][Merge]") {
  Random random(11);
  const auto unchanged = [&](const auto& merge) {
    for (int trial = 0; trial < 20; ++trial) {
      MergeHead distinct = MergeHead::random(6, 5, 3, random);
      std::vector<std::vector<float>> k, v;
      std::vector<float> s;
      std::vector<Index> drop;
      std::vector<char> seen(6, 0);
      for (Index i = 0; i < 30; ++i) {  // copies of the six, in any order; the first of each stays
        const std::size_t of = i < 6 ? std::size_t(i) : std::size_t(random.below(6));
        k.push_back(distinct.k[of]);
        v.push_back(distinct.v[of]);
        s.push_back(float(random.uniform()));
        if (seen[of]) drop.push_back(i);
        seen[of] = 1;
      }
      MergeHead head(k, v, s);
      const auto plan = plan_of(merge, head, drop);
      REQUIRE(plan);
      CHECK(plan->blend.size() == drop.size());
      const auto before = head.before(), after = head.after(*plan);
      for (std::size_t i = 0; i < after.rows.size(); ++i)  // equal rows: nothing moves
        for (std::size_t c = 0; c < 5; ++c)
          CHECK(after.k[i][c] == Approx(before.k[std::size_t(after.rows[i])][c]).margin(1e-6));
      for (int q = 0; q < 5; ++q) {
        const auto query = random_query(5, random);
        const auto a = attention_of(before, query), b = attention_of(after, query);
        for (std::size_t c = 0; c < a.size(); ++c) CHECK(b[c] == Approx(a[c]).margin(2e-6));
      }
    }
  };
  unchanged(Merge<NearestKept>{});
  unchanged(Merge<NearestKept, Threshold, ByScore, NewCentroid, LogCount>{{}, {.99f}, {}, {}, {}});
  unchanged(Merge<NearestKept, Always, Gaussian, NewCentroid, LogVotes>{});
  unchanged(Merge<NearestKept, Always, BySimilarity, UpdatedAnchor, LogCount>{
      {}, {}, {BySimilarity::Form::exponential}, {}, {}});
  unchanged(Merge<NearestKept, Always, ByValueShare, ValuesOnly, LogCount>{});
}

TEST_CASE("Equal keys with different values are exact with their mean and log n", "[dispose][Merge]") {
  // K = [1,.5]x3, [.2,-1]; V = [1,0] [0,3] [2,3] [4,-2]; q = [.3,.8]
  MergeHead head({{1, .5f}, {1, .5f}, {1, .5f}, {.2f, -1}}, {{1, 0}, {0, 3}, {2, 3}, {4, -2}});
  const std::vector<double> q{.3, .8};
  const auto full = attention_of(head.before(), q);
  CHECK(full[0] == Approx(1.322411).margin(1e-6));
  CHECK(full[1] == Approx(1.570119).margin(1e-6));
  const auto plan = plan_of(Merge<NearestKept>{}, head, {1, 2});
  REQUIRE(plan);
  const auto merged = attention_of(head.after(*plan), q);
  CHECK(merged[0] == Approx(1.322411).margin(1e-6));
  CHECK(merged[1] == Approx(1.570119).margin(1e-6));
  MergeHead again({{1, .5f}, {1, .5f}, {1, .5f}, {.2f, -1}}, {{1, 0}, {0, 3}, {2, 3}, {4, -2}});
  const auto light = plan_of(Merge<NearestKept, Always, CountMean, NewCentroid, NoMass>{}, again, {1, 2});
  REQUIRE(light);
  const auto without = attention_of(again.after(*light), q);
  CHECK(without[0] == Approx(1.796115).margin(1e-6));
  CHECK(without[1] == Approx(.938514).margin(1e-6));
}

TEST_CASE("Runs with Gaussian weights: the worked example of KVMerger", "[dispose][Merge]") {
  const auto make = [] {
    return MergeHead({{2, 0, 0, 0},
                      {0, 1, 0, 0},
                      {0, 1, .5f, 0},
                      {0, 2, .5f, 0},
                      {1, 0, 0, 1},
                      {1, 0, .2f, .8f},
                      {0, 0, 3, 0},
                      {0, .5f, 3, 0}},
                     {{1, 0}, {0, 1}, {0, 2}, {1, 1}, {2, 0}, {4, 0}, {0, 3}, {3, 3}},
                     {5, .5f, .4f, .9f, .3f, .6f, .2f, .1f});
  };
  AdjacentRuns runs;
  runs.recent.value = runs.top.value = 1;
  MergeHead head = make();
  const auto plan =
      plan_of(Merge<AdjacentRuns, Always, Gaussian, NewCentroid, NoMass>{runs, {}, {}, {}, {}}, head, {});
  REQUIRE(plan);
  const auto light = head.after(*plan);
  CHECK(light.rows == std::vector<Index>{0, 3, 5, 6, 7});
  const auto near = [](const std::vector<double>& got, const std::vector<double>& want) {
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).margin(1e-6));
  };
  near(light.k[1], {0, 1.338351, .335001, 0});
  near(light.v[1], {.338351, 1.331651});
  near(light.k[2], {1, 0, .100080, .899920});
  near(light.v[2], {3.000800, 0});
  const std::vector<double> q{.5, 1, .5, .25};
  near(attention_of(head.before(), q), {1.357690, 1.433196});
  near(attention_of(light, q), {1.482371, 1.719477});
  MergeHead weighted = make();
  const auto heavy = plan_of(
      Merge<AdjacentRuns, Always, Gaussian, NewCentroid, LogCount>{runs, {}, {}, {}, {}}, weighted, {});
  REQUIRE(heavy);
  near(attention_of(weighted.after(*heavy), q), {1.316496, 1.454912});
  CHECK(weighted.records[3].count == 3);
  CHECK(weighted.records[5].count == 2);
  MergeHead mean = make();
  Gaussian by_distance;
  by_distance.rule = Gaussian::Rule::mean_distance;
  const auto third = plan_of(
      Merge<AdjacentRuns, Always, Gaussian, NewCentroid, NoMass>{runs, {}, by_distance, {}, {}}, mean, {});
  REQUIRE(third);
  near(mean.after(*third).k[1], {0, 1.822404, .466508, 0});
  near(mean.after(*third).v[1], {.822404, 1.110611});
  Gaussian printed;
  printed.rule = Gaussian::Rule::fixed_point;
  MergeHead last = make();
  const auto fourth =
      plan_of(Merge<AdjacentRuns, Always, Gaussian, NewCentroid, NoMass>{runs, {}, printed, {}, {}}, last, {});
  REQUIRE(fourth);
  near(last.after(*fourth).k[1], {0, 1.999863, .499993, 0});
}

TEST_CASE("The nearest kept entry and a moving threshold: the worked example of D2O", "[dispose][Merge]") {
  const auto make = [] {
    return MergeHead(
        {{1, 0, 0}, {0, 1, 0}, {0, 1, .2f}, {3, 4, 0}, {0, 0, 1}, {.1f, .9f, 0}, {0, 2, 1}, {1, 0, 1}},
        {{1, 0}, {2, 0}, {0, 2}, {1, 1}, {0, 4}, {4, 0}, {3, 1}, {1, 3}});
  };
  using D2O = Merge<NearestKept, MovingThreshold, BySimilarity, NewCentroid, NoMass>;
  MergeHead head = make();
  const auto code = plan_of(D2O{}, head, {2, 4, 5});
  REQUIRE(code);
  CHECK(code->blend.size() == 2);  // 4 is dropped
  const auto near = [](const std::vector<double>& got, const std::vector<double>& want) {
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).margin(1e-6));
  };
  near(head.after(*code).k[1], {.033129, .958359, .065372});
  near(head.after(*code).v[1], {1.991845, .653720});
  MergeHead again = make();
  const auto paper = plan_of(D2O{{}, {}, {BySimilarity::Form::exponential}, {}, {}}, again, {2, 4, 5});
  REQUIRE(paper);
  near(again.after(*paper).k[1], {.033412, .966588, .065941});
  near(again.after(*paper).v[1], {2.008831, .659413});
  // a token equal to a kept key leaves it unchanged in the form that adds up to 1
  MergeHead equal({{1, 2, 0}, {1, 2, 0}}, {{3, 1}, {3, 1}});
  const auto same = plan_of(D2O{{}, {}, {BySimilarity::Form::exponential}, {}, {}}, equal, {1});
  REQUIRE(same);
  near(equal.after(*same).k[0], {1, 2, 0});
}

TEST_CASE("Bipartite chunks with counts: the worked example", "[dispose][Merge]") {
  MergeHead head({{1, 0}, {.9f, .1f}, {0, 1}, {.1f, 1}, {1, 1}, {1, .9f}, {-1, 0}, {0, -1}},
                 {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}});
  head.budget = 6;
  const std::vector<double> q{1, .5};
  CHECK(attention_of(head.before(), q)[0] == Approx(3.096188).margin(1e-6));
  const auto plan = plan_of(Merge<BipartiteChunks>{{8, 0, true}, {}, {}, {}, {}}, head, {});
  REQUIRE(plan);
  const auto after = head.after(*plan);
  CHECK(after.rows == std::vector<Index>{0, 1, 3, 5, 6, 7});
  const std::vector<double> want_k{1, 0, .9, .1, .05, 1, 1, .95, -1, 0, 0, -1}, want_v{0, 1, 2.5, 4.5, 6, 7};
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(after.k[i][0] == Approx(want_k[2 * i]).margin(1e-6));
    CHECK(after.k[i][1] == Approx(want_k[2 * i + 1]).margin(1e-6));
    CHECK(after.v[i][0] == Approx(want_v[i]).margin(1e-6));
  }
  CHECK(attention_of(after, q)[0] == Approx(3.096032).margin(1e-6));
  auto light = after;
  std::fill(light.log_weight.begin(), light.log_weight.end(), 0.0);
  CHECK(attention_of(light, q)[0] == Approx(2.769025).margin(1e-6));
}

TEST_CASE("Two rounds of means by count are one round of the mean of all", "[dispose][Merge]") {
  Random random(12);
  for (int trial = 0; trial < 20; ++trial) {
    MergeHead head = MergeHead::random(4, 3, 2, random);
    const auto once = head;
    // 1 into 0 and 3 into 2, then 2 into 0
    HeadPlan first, second;
    first.drop = {1, 3};
    const auto round = [&](MergeHead& h, std::vector<MergePair> pairs, HeadPlan& plan) {
      for (const MergePair& p : pairs) {
        std::vector<float> w(2);
        CountMean{}.weigh(h.call(), {p.dst, std::span(&p, 1)}, w);
        plan.self.push_back({p.dst, w[0], w[0], 0});
        plan.blend.push_back({p.src, p.dst, w[1], w[1]});
        h.records[std::size_t(p.dst)].count += h.records[std::size_t(p.src)].count;
      }
    };
    round(head, {{1, 0, 0}, {3, 2, 0}}, first);
    const auto half = head.after(first);
    MergeHead rest({{float(half.k[0][0]), float(half.k[0][1]), float(half.k[0][2])},
                    {float(half.k[1][0]), float(half.k[1][1]), float(half.k[1][2])}},
                   {{float(half.v[0][0]), float(half.v[0][1])}, {float(half.v[1][0]), float(half.v[1][1])}});
    rest.records[0].count = rest.records[1].count = 2;
    second.drop = {1};
    round(rest, {{1, 0, 0}}, second);
    const auto whole = rest.after(second);
    for (std::size_t c = 0; c < 3; ++c) {
      double mean = 0;
      for (const auto& k : once.k) mean += double(k[c]) / 4;
      CHECK(whole.k[0][c] == Approx(mean).margin(1e-6));
    }
    CHECK(rest.records[0].count == 4);
  }
}

TEST_CASE("A threshold above 1 is plain eviction", "[dispose][Merge]") {
  Random random(13);
  MergeHead head = MergeHead::random(20, 4, 3, random);
  const auto losers = random_losers(20, 0.5, random);
  const auto plan = plan_of(
      Merge<NearestKept, Threshold, ByValueShare, ValuesOnly, NoMass>{{}, {1.01f}, {}, {}, {}}, head, losers);
  REQUIRE(plan);
  HeadPlan plain;
  plain.drop = losers;
  CHECK(*plan == plain);
}

TEST_CASE("Merges of raw keys refuse rotated ones, and average raw ones", "[dispose][Merge]") {
  Random random(14);
  MergeHead head = MergeHead::random(6, 4, 3, random);
  const Merge<NearestKept, Always, CountMean, NewCentroid, LogCount> raw{{}, {}, {}, {true}, {}};
  const auto refused = plan_of(raw, head, {2});
  REQUIRE(!refused);
  CHECK(refused.error().code == Errc::unsupported);
  const auto plan = plan_of(raw, head, {2}, KeyForm::raw);
  REQUIRE(plan);
  CHECK(plan->blend.size() == 1);
}

TEST_CASE("Rows that are no numbers are dropped, not folded", "[dispose][Merge]") {
  Random random(15);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    MergeHead head = MergeHead::random(12, 4, 3, random);
    head.k[3][1] = head.k[7][0] = bad;
    const auto plan = plan_of(Merge<NearestKept>{}, head, {3, 5, 8});
    REQUIRE(plan);
    REQUIRE(check(*plan, 12));
    for (const Blend& b : plan->blend) {
      CHECK(b.src != 3);
      CHECK(b.dst != 7);
    }
    AdjacentRuns runs;
    runs.by_budget = true;
    head.budget = 4;
    const auto sized = plan_of(Merge<AdjacentRuns>{runs, {}, {}, {}, {}}, head, {});
    REQUIRE(sized);
    REQUIRE(check(*sized, 12));
    CHECK(sized->drop.size() == 8);
    const auto chunks = plan_of(Merge<BipartiteChunks>{}, head, {});
    REQUIRE(chunks);
    REQUIRE(check(*chunks, 12));
    CHECK(chunks->drop.size() == 8);
  }
}

TEST_CASE("Nothing to lose is nothing to do", "[dispose][Merge]") {
  Random random(16);
  MergeHead head = MergeHead::random(5, 4, 3, random);
  const auto plan = plan_of(Merge<NearestKept>{}, head, {});
  REQUIRE(plan);
  CHECK(plan->empty());
  const auto sized = plan_of(Merge<BipartiteChunks>{}, head, {});
  REQUIRE(sized);
  CHECK(sized->empty());
}
