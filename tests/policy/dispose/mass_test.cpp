// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/mass.hpp>
#include <kvist/policy/dispose/weights.hpp>

#include "support/catch.hpp"
#include "support/merge_head.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

template <class M>
double mass_of(const M& mass, MergeHead& head, const std::vector<float>& wk) {
  std::vector<MergePair> members;
  for (std::size_t i = 1; i < wk.size(); ++i) members.push_back({Index(i), 0, 0});
  return double(mass.log_weight(head.call(), {0, members}, wk));
}
/// Queries [G][d] as the evidence of one step, of a token after all entries.
void give_queries(MergeHead& head, std::vector<float>& memory, const std::vector<std::vector<float>>& q) {
  memory.clear();
  for (const auto& row : q) memory.insert(memory.end(), row.begin(), row.end());
  head.seen.queries = cube(memory.data(), int(q.size()), 1, Index(q[0].size()));
  head.seen.first_query = Pos(head.n());
}

}  // namespace

TEST_CASE("log n counts tokens, votes add up weights, and none changes nothing", "[dispose][mass]") {
  MergeHead head({{1}, {1}, {1}}, {{0}, {0}, {0}});
  head.records[1].count = 4;
  CHECK(mass_of(LogCount{}, head, {1, 0, 0}) == Approx(std::log(6)));
  CHECK(mass_of(NoMass{}, head, {1, 0, 0}) == 0);
  CHECK(mass_of(LogVotes{}, head, {1, 0, 0}) == Approx(std::log(3)));
  head.log_weight = {.5f, 1, -2};
  CHECK(mass_of(NoMass{}, head, {1, 0, 0}) == Approx(.5));
  CHECK(mass_of(LogVotes{}, head, {1, 0, 0}) == Approx(std::log(std::exp(.5) + std::exp(1) + std::exp(-2))));
  CHECK(mass_of(ChosenMass{ChosenMass::Kind::count}, head, {1, 0, 0}) == Approx(std::log(6)));
  CHECK(mass_of(ChosenMass{}, head, {1, 0, 0}) == Approx(.5));
  CHECK_FALSE(NoMass{}.counts());
  CHECK(LogCount{}.counts());
}

TEST_CASE("A fitted mass keeps the output of a single query, whatever the keys",
          "[dispose][mass][FittedMass]") {
  // example of the parts' algebra: q = [1,1], votes e 1, c 2; the kept entry first
  MergeHead head({{.6f, .4f}, {.4f, .2f}, {.1f, -.3f}}, {{0, 2}, {1, 0}, {1, 1}});
  head.log_weight = {std::log(2.0f), 0, 0};
  std::vector<float> memory;
  give_queries(head, memory, {{1, 1}});
  head.scores = {4.056230f, 1.528465f, 0};  // e^(z + b)
  const std::vector<MergePair> members{{1, 0, 0}};
  std::vector<float> w(2);
  ByScore{}.weigh(head.call(), {0, members}, w);
  const double b = double(FittedMass{}.log_weight(head.call(), {0, members}, w));
  CHECK(b == Approx(1.090334).margin(2e-6));
  HeadPlan plan;
  plan.drop = {1};
  plan.self = {{0, w[0], w[0], float(b)}};
  plan.blend = {{1, 0, w[1], w[1]}};
  const auto after = head.after(plan);
  CHECK(after.k[0][0] == Approx(.545262).margin(1e-6));
  CHECK(after.k[0][1] == Approx(.345262).margin(1e-6));
  const auto here = attention_of(after, {1, 1}), there = attention_of(after, {1, -1});
  CHECK(here[0] == Approx(.371402).margin(1e-6));
  CHECK(here[1] == Approx(1.391730).margin(1e-6));
  CHECK(there[0] == Approx(.476404).margin(2e-6));
  CHECK(there[1] == Approx(1.326295).margin(2e-6));
}

TEST_CASE("A fitted mass of the plain mean, query by query", "[dispose][mass][FittedMass]") {
  MergeHead head({{.6f, .4f}, {.4f, .2f}}, {{0, 2}, {1, 0}});
  head.log_weight = {std::log(2.0f), 0};
  std::vector<float> memory;
  const std::vector<float> wk{2 / 3.f, 1 / 3.f};
  give_queries(head, memory, {{1, 1}});
  CHECK(mass_of(FittedMass{}, head, wk) == Approx(1.107204).margin(2e-6));
  give_queries(head, memory, {{-.5f, 2}});
  CHECK(mass_of(FittedMass{}, head, wk) == Approx(1.103489).margin(2e-6));
  give_queries(head, memory, {{1, 1}, {-.5f, 2}});
  CHECK(mass_of(FittedMass{}, head, wk) == Approx((1.107204 + 1.103489) / 2).margin(2e-6));
  head.seen.first_query = 0;  // a query that did not see the members tells nothing: votes
  CHECK(mass_of(FittedMass{}, head, wk) == Approx(std::log(3)).margin(1e-6));
  head.seen = {};
  CHECK(mass_of(FittedMass{}, head, wk) == Approx(std::log(3)).margin(1e-6));
  CHECK(FittedMass{}.wants() == Wants{Needs::queries, Needs::queries, 32});
}

TEST_CASE("log n never weighs more than the members did", "[dispose][mass]") {
  // dropped keys [1,0] [1.2,.1] [.8,-.1] [-1,0], q [1,0]: mass 6.618044 true, 5.696476 with log 4
  MergeHead head({{1, 0}, {1.2f, .1f}, {.8f, -.1f}, {-1, 0}}, {{1, 0}, {2, 0}, {3, 0}, {0, 1}});
  double truth = 0, mean = 0;
  for (const auto& k : head.k) truth += std::exp(double(k[0]) / std::sqrt(2.0)), mean += double(k[0]) / 4;
  CHECK(truth == Approx(6.618044).margin(1e-6));
  const double b = mass_of(LogCount{}, head, {.25f, .25f, .25f, .25f});
  CHECK(std::exp(b + mean / std::sqrt(2.0)) == Approx(5.696476).margin(1e-5));
}
