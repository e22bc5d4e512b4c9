// SPDX-License-Identifier: Apache-2.0
// CAKE against its official code over a stack of eight recorded layers: preferences, budgets after each
// layer, kept sets, and decode steps with slots in the order of their positions.
#include <kvist/methods/cake.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;
using methods::CAKE;

namespace {

struct Case {
  std::string name;
  Index budget, window;
  double gamma, tau1, tau2;
  bool cascade;
};

const std::vector<std::string> stack{"02", "05", "08", "11", "14", "20", "26", "28"};

/// Recorded queries of one layer: all of them, or the last 32 of the prompt and the 16 after it.
struct Queries {
  Tensor q;
  bool all;
  explicit Queries(const std::string& layer) : all(layer == "02" || layer == "11" || layer == "20") {
    q = recorded(std::string("official/inputs/") + (all ? "q" : "qw") + layer);
  }
  std::size_t at(std::size_t token) const { return all ? token : token - 480; }
};

void compare(const Case& c) {
  const std::string at = "official/cake/" + c.name;
  const Tensor preference = recorded(at + "_pref"), budget = recorded(at + "_budget"),
               held = recorded(at + "_held"), kept = recorded(at + "_kept");
  std::optional<Tensor> rounds, scores;
  if (c.cascade) rounds = recorded(at + "_rounds");
  if (c.name == "c96_w32_g200_cascade") scores = recorded(at + "_score");

  const Shape shape{8, 9, 3, 64, 64};
  const auto policy = *CAKE::make({c.window, c.gamma, c.tau1, c.tau2, c.cascade, methods::Total::official});
  auto state = *policy.start(shape);
  std::vector<SmallLayer> layers(8, SmallLayer(shape));
  std::vector<Tensor> keys;
  std::vector<Queries> queries;
  for (std::size_t l = 0; l < 8; ++l) {
    keys.push_back(recorded("official/inputs/k" + stack[l]));
    queries.emplace_back(stack[l]);
    append_recorded(layers[l], keys[l], nullptr, 0, 512);
    give_recorded_queries(layers[l], queries[l].q, queries[l].at(512 - std::size_t(c.window)),
                          std::size_t(c.window));
    const AnyLayer view = layers[l].view();
    const LayerCall<AnyLayer> call{view, layers[l].seen, {Phase::prefill, 0, 512, c.budget, true}, int(l)};
    REQUIRE(policy.observe(call, state));
    const LayerStat& stat = state.layers[l].stat;
    CHECK(std::pow(stat.entropy, 1 / c.tau1) * std::pow(stat.variance, 1 / c.tau2) ==
          Approx(preference.at(l)).epsilon(1e-4));
    std::vector<Plan> plans;
    REQUIRE(policy.plan(call, state, plans));
    for (const Plan& p : plans) {
      layers[std::size_t(p.layer)].apply(p);
      policy.applied(p, state);
    }
    if (rounds)
      for (std::size_t i = 0; i <= l; ++i)
        CHECK(float(state.layers[i].budget - c.window) == rounds->at(l, i));
  }
  for (std::size_t l = 0; l < 8; ++l) {
    INFO(c.name << " layer " << stack[l]);
    CHECK(float(state.layers[l].budget - c.window) == budget.at(l));
    for (std::size_t h = 0; h < 3; ++h) {
      CHECK(float(layers[l].size(int(h)) - c.window) == held.at(l));
      CHECK(layers[l].pos[h] == kept.positions(l, h));
      if (!scores) continue;
      std::vector<float> mine = state.layers[l].heads[h].scores;
      mine.resize(mine.size() - std::size_t(c.window));
      std::sort(mine.begin(), mine.end(), std::greater<>());
      for (std::size_t i = 0; i < mine.size(); ++i)
        CHECK(mine[i] == Approx(scores->at(l, h, i)).epsilon(1e-3).margin(1e-7));
    }
  }

  if (!c.cascade) return;
  std::size_t exact = 0, events = 0;
  for (const std::size_t l : {0, 3, 5, 7}) {
    const std::string decode = at + "_decode_sorted_l" + stack[l];
    const Tensor steps = recorded(decode + "_kept"), margin = recorded(decode + "_margin");
    bool sure[3] = {true, true, true};  // until a near-tie falls the other way
    for (std::size_t h = 0; h < 3; ++h) CHECK(layers[l].pos[h] == steps.positions(0, h));
    for (std::size_t n = 1; n <= 16; ++n) {
      INFO(decode << " step " << n);
      append_recorded(layers[l], keys[l], nullptr, 511 + n, 1);
      layers[l].forget_evidence();
      for (int h = 0; h < 3; ++h) {
        std::vector<std::vector<Row>> rows_of;
        for (std::size_t g = 0; g < 3; ++g)
          rows_of.push_back(
              {attention_row(layers[l], h, queries[l].q.row(std::size_t(3 * h) + g, queries[l].at(511 + n)))});
        layers[l].give_probs(h, rows_of);
      }
      run_call(policy, state, layers[l], step_clock(Index(n), c.budget), int(l));
      for (std::size_t h = 0; h < 3; ++h) {
        ++events;
        if (!sure[h]) continue;
        if (layers[l].pos[h] == steps.positions(n, h)) {
          ++exact;
          continue;
        }
        CHECK(margin.at(n - 1, h) < 1e-6f);
        sure[h] = false;
      }
    }
  }
  CHECK(exact >= events * 9 / 10);
}

}  // namespace

TEST_CASE("CAKE's preferences, budgets and kept sets are those of its official code", "[golden][CAKE]") {
  if (!have_recorded("official/cake")) KVIST_SKIP("reference values");
  compare({"c96_w32_g200_cascade", 96, 32, 200, 1.6, .4, true});
  compare({"c96_w32_g200_once", 96, 32, 200, 1.6, .4, false});
  compare({"c160_w32_g5_cascade", 160, 32, 5, 1, 1, true});
  compare({"c128_w16_g200_cascade", 128, 16, 200, .9, 2.3, true});
}

TEST_CASE("Cascade shares out as the official code does", "[golden][Cascade]") {
  if (!have_recorded("official/cake")) KVIST_SKIP("reference values");
  struct Shares {
    const char* name;
    std::vector<double> preference;
    long long total;
    Index cap;
  };
  for (const Shares& s : {Shares{"1_2_3_0p5", {1, 2, 3, .5}, 12, 10}, Shares{"8_1_1_2", {8, 1, 1, 2}, 12, 8},
                          Shares{"5_5_90", {5, 5, 90}, 60, 20},
                          Shares{"0p1_0p2_0p3_9p4_0p01_3", {.1, .2, .3, 9.4, .01, 3}, 77, 30}}) {
    INFO(s.name);
    const Tensor want = recorded(std::string("official/cake/adjust_") + s.name);
    std::vector<Index> out(s.preference.size());
    const std::vector<Index> room(s.preference.size(), s.cap);
    Cascade{1, 1, true, false}.share(s.total, s.preference, room, out);
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(float(out[i]) == want.at(i));
  }
}
