// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/budget/layer/cascade.hpp>
#include <kvist/policy/policy.hpp>

#include <numeric>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

using Is = std::vector<Index>;

/// Budgets after each layer, for preferences that arrive one by one.
std::vector<Is> rounds(const std::vector<double>& preference, Index mean, int layers, Index size,
                       Cascade cascade = {}, Guards guards = {}) {
  std::vector<LayerStat> seen;
  std::vector<Is> out;
  for (const double p : preference) {
    seen.push_back({p, 1, size});
    out.emplace_back(seen.size());
    REQUIRE(cascade.allocate({layers, seen, guards, mean}, out.back()));
  }
  return out;
}

/// Scores and preferences from tables: what a test wants a layer to say.
struct Tables {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  struct PerHead {
    double preference = 0;
  };
  std::vector<std::vector<float>> scores;
  std::vector<double> preference;

  Wants wants() const { return {}; }
  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry>, PerHead& head) const {
    head.preference = preference[std::size_t(c.layer)];
    return Done{};
  }
  LayerStat layer_stat(std::span<const PerHead> heads) const { return {heads[0].preference, 1, 0}; }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    for (Index i = 0; i < c.size(); ++i)
      out[std::size_t(i)] = scores[std::size_t(c.layer)][std::size_t(c.head.pos[std::size_t(i)])];
    return Done{};
  }
};

}  // namespace

TEST_CASE("Cascade settles the shares of all layers after each", "[policy][Cascade]") {
  CHECK(rounds({1, 2, 3, .5}, 3, 4, 10) == std::vector<Is>{{10}, {4, 8}, {2, 4, 6}, {2, 4, 6, 0}});
  CHECK(rounds({8, 1, 1, 2}, 3, 4, 8) == std::vector<Is>{{8}, {8, 4}, {8, 3, 1}, {8, 1, 1, 2}});
  CHECK(rounds({2.1, 5.9, .5}, 2, 4, 20) == std::vector<Is>{{8}, {3, 5}, {2, 6, 0}});
}

TEST_CASE("Cascade counts guards outside the shares", "[policy][Cascade]") {
  CHECK(rounds({1, 2, 3, .5}, 3 + 32, 4, 10 + 32, {}, {2, 30}) ==
        std::vector<Is>{{42}, {36, 40}, {34, 36, 38}, {34, 36, 38, 32}});
  std::vector<LayerStat> seen{{1, 1, 50}};
  Is out(1);
  const Status s = Cascade{}.allocate({4, seen, {2, 30}, 31}, out);
  REQUIRE(!s);
  CHECK(s.error() == Error{Errc::bad_budget, s.error().what, 32, 31});
}

TEST_CASE("Cascade leaves a prompt within the budget whole", "[policy][Cascade]") {
  CHECK(rounds({1, 9}, 10, 2, 10) == std::vector<Is>{{10}, {10, 10}});
  CHECK(rounds({1, 9}, 10, 2, 3, {}, {0, 32}) == std::vector<Is>{{10}, {10, 10}});
}

TEST_CASE("Cascade's shares are scale-free, equal for equal layers, and exact in sum", "[policy][Cascade]") {
  CHECK(rounds({2, 2, 2}, 7, 3, 100).back() == Is{7, 7, 7});
  CHECK(rounds({0, 0, 0}, 7, 3, 100).back() == Is{7, 7, 7});
  CHECK(rounds({1e-200, 2e-200, 3e-200, .5e-200}, 3, 4, 10).back() == Is{2, 4, 6, 0});
  Random random(11);
  for (int trial = 0; trial < 300; ++trial) {
    const int layers = 1 + int(random.below(12));
    const Index size = 2 + Index(random.below(90)), mean = 1 + Index(random.below(std::uint64_t(size - 1)));
    std::vector<double> p;
    for (int l = 0; l < layers; ++l) p.push_back(std::exp(8 * random.uniform()));
    const Is out = rounds(p, mean, layers, size).back();
    CHECK(std::accumulate(out.begin(), out.end(), 0) == mean * layers);
    for (const Index b : out) CHECK((b >= 0 && b <= size));
    // the official rounding never goes above the total
    const Is official = rounds(p, mean, layers, size, {1, 1, true, false}).back();
    CHECK(std::accumulate(official.begin(), official.end(), 0) <= mean * layers);
  }
}

TEST_CASE("Cascade spends what one round of the official rule loses", "[policy][Cascade]") {
  // shares 51, 14, 8, 0 of 76: the 26 over the room go 9, 9, 8 to the others, the 3 left by rounding one each
  CHECK(rounds({70, 20, 12, .5}, 19, 4, 25, {1, 1, true, false}).back() == Is{25, 24, 18, 9});
  // shares 43, 31, 0, 0 of 76
  CHECK(rounds({60, 44, .5, .5}, 19, 4, 25, {1, 1, true, false}).back() == Is{25, 25, 13, 13});
  // shares 50, 24, 0, 0: the 25 over make 33, 8, 8, the second round cuts 8 that are then lost, or given to
  // the others
  CHECK(rounds({60, 29, .5, .5}, 19, 4, 25, {1, 1, true, false}).back() == Is{25, 25, 9, 9});
  CHECK(rounds({60, 29, .5, .5}, 19, 4, 25).back() == Is{25, 25, 13, 13});
}

TEST_CASE("Temperatures bend Cascade's preferences", "[policy][Cascade]") {
  const Cascade cascade{1.6, .4, true, true};
  std::vector<LayerStat> seen{{7.328607, .06, 100}, {7.328607, .12, 100}};
  Is out(2);
  REQUIRE(cascade.allocate({2, seen, {}, 50}, out));
  // 2^2.5 : 1
  CHECK(out == Is{16, 84});
}

TEST_CASE("A cascade's earlier layers are cut again, to subsets of what they kept", "[policy][Cascade]") {
  Tables tables;
  tables.scores = {{.1f, .9f, .3f, .8f, .2f, .7f, .4f, .6f, .5f, .05f}};
  Random random(4);
  for (int l = 1; l < 4; ++l) {
    tables.scores.emplace_back();
    for (int i = 0; i < 10; ++i) tables.scores.back().push_back(float(random.uniform()));
  }
  tables.preference = {1, 2, 3, .5};
  const Shape shape{4, 1, 1, 2, 2};
  const auto prompt = [&](bool cascade) {
    const Policy<Tables, Cascade> policy(tables, Cascade{1, 1, cascade, true});
    auto state = *policy.start(shape);
    std::vector<SmallLayer> layers(4, SmallLayer(shape));
    std::vector<std::vector<Pos>> first;  // what layer 0 holds after each layer
    for (int l = 0; l < 4; ++l) {
      SmallLayer& mine = layers[std::size_t(l)];
      mine.append_blank(10);
      const AnyLayer view = mine.view();
      const LayerCall<AnyLayer> call{view, {}, {Phase::prefill, 0, 10, 3, true}, l};
      REQUIRE(policy.observe(call, state));
      std::vector<Plan> plans;
      REQUIRE(policy.plan(call, state, plans));
      for (const Plan& p : plans) {
        layers[std::size_t(p.layer)].apply(p);
        policy.applied(p, state);
      }
      first.push_back(layers[0].pos[0]);
    }
    std::vector<std::vector<Pos>> last;
    for (const SmallLayer& l : layers) last.push_back(l.pos[0]);
    return std::pair{first, last};
  };
  const auto [first, last] = prompt(true);
  CHECK(first == std::vector<std::vector<Pos>>{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 3, 5, 7}, {1, 3}, {1, 3}});
  CHECK(last[1].size() == 4);
  CHECK(last[2].size() == 6);
  CHECK(last[3].empty());
  const auto [whole, once] = prompt(false);
  CHECK(whole[2].size() == 10);
  CHECK(once == last);  // shares only fell
}
