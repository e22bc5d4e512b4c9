// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/cake.hpp>

#include <numeric>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;
using methods::CAKE;
using methods::CAKEOptions;

namespace {

SmallLayer worked_layer() {
  SmallLayer layer = SmallLayer::one_head(2);
  layer.append_blank(8);
  layer.give_probs(0, {{{.40f, .10f, .05f, .05f, .10f, .30f, 0, 0},
                        {.10f, .10f, .35f, .05f, .10f, .10f, .20f, 0},
                        {.10f, .10f, .05f, .05f, .10f, .20f, .20f, .20f}},
                       {{.20f, .20f, .10f, .10f, .10f, .30f, 0, 0},
                        {.20f, .20f, .10f, .10f, .10f, .15f, .15f, 0},
                        {.20f, .20f, .10f, .10f, .10f, .10f, .10f, .10f}}});
  return layer;
}

std::vector<float> scores(const WindowMeanVariance& signal, SmallLayer layer,
                          WindowMeanVariance::PerHead& head, Clock now = prompt_clock(5)) {
  const AnyLayer view = layer.view();
  Scratch scratch;
  const AnyContext c{view.head(0), layer.seen[0], now, layer.shape, scratch};
  std::vector<WindowMeanVariance::Entry> entries(std::size_t(layer.size()));
  std::vector<float> out(entries.size());
  REQUIRE(signal.observe(c, entries, head));
  REQUIRE(signal.score(c, entries, head, out));
  return out;
}

void check_close(const std::vector<float>& got, const std::vector<float>& want) {
  REQUIRE(got.size() >= want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(2e-5));
}

CAKEOptions options(Index window, double gamma = 200, double tau1 = 1, double tau2 = 1, bool cascade = true) {
  return {window, gamma, tau1, tau2, cascade, methods::Total::exact};
}

/// A prompt of several layers through a policy, and decode steps after it.
struct Model {
  CAKE::Type policy;
  CAKE::Type::State state;
  std::vector<SmallLayer> layers;
  Index budget;
  Index n = 0;
  Index most = 0;  ///< entries per head held at any time, all layers together

  Model(const CAKEOptions& o, const Shape& shape, Index b)
      : policy(*CAKE::make(o)), state(*policy.start(shape)), budget(b) {
    layers.assign(std::size_t(shape.layers), SmallLayer(shape));
  }
  void call(int l, const Clock& now) {
    SmallLayer& mine = layers[std::size_t(l)];
    const AnyLayer view = mine.view();
    const LayerCall<AnyLayer> at{view, mine.seen, now, l};
    REQUIRE(policy.observe(at, state));
    most = std::max(most, held());
    std::vector<Plan> plans;
    REQUIRE(policy.due(now));
    REQUIRE(policy.plan(at, state, plans));
    for (const Plan& p : plans) {
      layers[std::size_t(p.layer)].apply(p);
      policy.applied(p, state);
    }
  }
  void prompt(Index tokens, Index window, Random& random) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      layers[l].append_random(tokens, random);
      for (std::size_t i = 0; i < layers[l].k[0].size(); ++i) layers[l].k[0][i] *= float(l + 1);
      layers[l].give_random_evidence(window, random);
      call(int(l), prompt_clock(budget));
    }
  }
  void step(Random& random) {
    ++n;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      layers[l].append_random(1, random);
      layers[l].give_random_evidence(1, random);
      call(int(l), step_clock(n, budget));
    }
  }
  Index held() const {
    Index sum = 0;
    for (const SmallLayer& l : layers) sum += l.size();
    return sum;
  }
};

}  // namespace

TEST_CASE("CAKE's indicator is mean plus gamma times variance, pooled", "[methods][CAKE]") {
  WindowMeanVariance::PerHead head;
  check_close(scores({3, 0, 1}, worked_layer(), head), {.2f, .15f, .125f, .075f, .1f});
  check_close(scores({3, 5, 1}, worked_layer(), head), {.275f, .15f, .2f, .075f, .1f});
  check_close(scores({3, 200, 1}, worked_layer(), head), {3.2f, .15f, 3.125f, .075f, .1f});
  check_close(scores({3, 0, 5}, worked_layer(), head), {.095f, .11f, .13f, .09f, .06f});
  check_close(scores({3, 200, 5}, worked_layer(), head), {1.295f, 1.31f, 1.33f, .69f, .66f});
}

TEST_CASE("CAKE's layer preference comes from entropy and variance of all heads", "[methods][CAKE]") {
  WindowMeanVariance::PerHead head;
  const WindowMeanVariance signal{3, 200, 5};
  (void)scores(signal, worked_layer(), head);
  CHECK(head.entropy == Approx(7.328607).epsilon(1e-6));
  CHECK(head.variance == Approx(.06).epsilon(1e-6));
  const LayerStat one = signal.layer_stat(std::vector<WindowMeanVariance::PerHead>{head});
  const auto preference = [&](double tau1, double tau2) {
    return std::pow(one.entropy, 1 / tau1) * std::pow(one.variance, 1 / tau2);
  };
  CHECK(preference(1, 1) == Approx(.439716).epsilon(1e-5));
  CHECK(preference(1.6, .4) == Approx(.003062080).epsilon(1e-5));
  CHECK(preference(.9, 2.3) == Approx(2.690893).epsilon(1e-5));
  const LayerStat two = signal.layer_stat(std::vector<WindowMeanVariance::PerHead>{head, head});
  CHECK(two.entropy == Approx(2 * 7.328607).epsilon(1e-6));
  CHECK(two.variance == Approx(.12).epsilon(1e-6));
}

TEST_CASE("CAKE keeps what the indicator ranks first and the window", "[methods][CAKE]") {
  for (const auto& [gamma, kept] : {std::pair{0.0, std::vector<Pos>{1, 2, 5, 6, 7}}, {200.0, {1, 2, 5, 6, 7}}}) {
    const auto policy = *CAKE::make(options(3, gamma));
    auto state = *policy.start(Shape{1, 2, 1, 2, 2});
    SmallLayer layer = worked_layer();
    run_call(policy, state, layer, prompt_clock(5));
    CHECK(layer.pos[0] == kept);
  }
}

TEST_CASE("A decode step of CAKE ranks by its own attention, pooled, before the window", "[methods][CAKE]") {
  SmallLayer layer = SmallLayer::one_head(2);
  layer.append_blank(8);
  layer.give_probs(0, {{{.10f, .20f, .05f, .05f, .30f, .10f, .10f, .10f}},
                       {{.30f, .00f, .15f, .05f, .10f, .20f, .10f, .10f}}});
  WindowMeanVariance::PerHead head;
  const std::vector<float> got = scores({2, 200, 5}, layer, head, step_clock(1, 5));
  // group mean before pooling .2 .1 .1 .05 .2 .15; sums of five, zeros outside
  check_close(got, {.08f, .09f, .13f, .12f, .10f, .08f});
  CHECK(got[6] > 1);
}

TEST_CASE("CAKE spends its budget over layers and never more", "[methods][CAKE]") {
  Random random(21);
  for (const bool cascade : {true, false}) {
    for (const Index budget : {12, 20, 55, 60, 80}) {
      const Shape shape{5, 6, 2, 8, 8};
      Model model(options(8, 200, 1.6, .4, cascade), shape, budget);
      model.prompt(60, 8, random);
      CHECK(model.held() <= 5 * std::min<Index>(budget, 60));
      if (!cascade) CHECK(model.held() == 5 * std::min<Index>(budget, 60));
      if (cascade && budget < 55) CHECK(model.most <= 5 * budget + 60);
      for (const SmallLayer& l : model.layers)
        for (int h = 0; h < 2; ++h) {
          const auto& pos = l.pos[std::size_t(h)];
          REQUIRE(pos.size() >= 8);
          CHECK(std::is_sorted(pos.begin(), pos.end()));
          for (std::size_t i = 0; i < 8; ++i) CHECK(pos[pos.size() - 1 - i] == Pos(59 - i));
        }
      std::vector<Index> recorded;
      for (const auto& l : model.state.layers) recorded.push_back(l.budget);
      CHECK(std::accumulate(recorded.begin(), recorded.end(), 0) == 5 * budget);
      for (int n = 0; n < 30; ++n) model.step(random);
      CHECK(model.held() <= 5 * budget);
      for (std::size_t l = 0; l < 5; ++l) {
        CHECK(model.state.layers[l].budget == recorded[l]);
        CHECK(model.layers[l].size() == std::min(recorded[l], 90));
        CHECK(model.layers[l].pos[0].back() == 89);
      }
    }
  }
}

TEST_CASE("CAKE takes prompts of one token and shorter than its window", "[methods][CAKE]") {
  Random random(2);
  for (const Index n : {1, 2, 7, 8, 9}) {
    Model model(options(8), Shape{2, 3, 1, 4, 4}, 16);
    model.prompt(n, 8, random);
    CHECK(model.held() == 2 * n);
    for (int i = 0; i < 20; ++i) model.step(random);
    CHECK(model.held() == 32);
  }
}

TEST_CASE("CAKE refuses a window of one, temperatures below zero, and a budget below its window",
          "[methods][CAKE]") {
  CHECK((*CAKE::make(options(1))).start(Shape{1, 1, 1, 2, 2}).error().code == Errc::bad_option);
  CHECK((*CAKE::make(options(4, -1))).start(Shape{1, 1, 1, 2, 2}).error().code == Errc::bad_option);
  CHECK(CAKE::make(options(4, 200, 0)).error().code == Errc::bad_option);
  CHECK(CAKE::make(options(4, 200, 1, -1)).error().code == Errc::bad_option);
  Random random(1);
  SmallLayer layer(Shape{1, 1, 1, 2, 2});
  layer.append_random(20, random);
  layer.give_random_evidence(8, random);
  const auto policy = *CAKE::make(options(8));
  auto state = *policy.start(layer.shape);
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, 20, 7, true}, 0};
  REQUIRE(policy.observe(call, state));
  std::vector<Plan> plans;
  const Status s = policy.plan(call, state, plans);
  REQUIRE(!s);
  CHECK(s.error() == Error{Errc::bad_budget, s.error().what, 8, 7});
  CHECK(plans.empty());
}
