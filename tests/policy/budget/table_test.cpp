// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/budget/head/table.hpp>
#include <kvist/policy/budget/layer/table.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/key_norm.hpp>
#include <kvist/policy/signal/window_attention.hpp>

#include <limits>
#include <numeric>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

using Is = std::vector<Index>;

Is layers_of(const LayerTable& table, Index mean, Index least = 0) {
  Is out(table.table.size());
  const std::vector<LayerStat> seen(out.size());
  REQUIRE(table.allocate({int(out.size()), seen, {}, mean, least}, out));
  return out;
}
Is heads_of(const HeadTable& table, std::size_t heads, Index mean, Guards guards = {}, int layer = 0) {
  Is out(heads);
  REQUIRE(table.allocate({{}, guards, mean, layer}, out));
  return out;
}

}  // namespace

TEST_CASE("Shares of layers are scaled to the whole budget, to the entry", "[policy][LayerTable]") {
  CHECK(layers_of({{4, 2, 1, 1}}, 8) == Is{16, 8, 4, 4});
  CHECK(layers_of({{.5, .25, .125, .125}}, 8) == Is{16, 8, 4, 4});
  CHECK(layers_of({{5, 3, 3}}, 4) == Is{6, 3, 3});  // 5.45, 3.27, 3.27
  CHECK(layers_of({{1, 1, 1, 1}}, 7) == Is{7, 7, 7, 7});
  CHECK(layers_of({{1, 0}}, 5) == Is{10, 0});
  CHECK(layers_of({{8, 1, 1}}, 8, 4) == Is{16, 4, 4});       // 19.2, 2.4, 2.4 without guards
  CHECK(layers_of({{8, 3, 1, 0}}, 5, 4) == Is{8, 4, 4, 4});  // the second falls below when the last two are raised
  CHECK(layers_of({{3, 1}}, 6, 6) == Is{6, 6});              // guards take all
  CHECK(layers_of({{9, 0, 2}, true}, 4) == Is{9, 0, 2});  // entries as they are
}

TEST_CASE("Shares of heads are scaled to the layer's budget, to the entry, by one row or by a row a layer",
          "[policy][HeadTable]") {
  CHECK(heads_of({{3, 1}}, 2, 10) == Is{15, 5});
  CHECK(heads_of({{1, 1, 1}}, 3, 5) == Is{5, 5, 5});
  CHECK(heads_of({{3, 1}}, 2, 10, {2, 6}) == Is{12, 8});
  CHECK(heads_of({{3, 1, 1, 4}}, 2, 10, {}, 0) == Is{15, 5});
  CHECK(heads_of({{3, 1, 1, 4}}, 2, 10, {}, 1) == Is{4, 16});
  CHECK(heads_of({{12, 7}, true}, 2, 10, {2, 4}) == Is{12, 7});
}

TEST_CASE("Tables hand out the whole budget and keep guards, whatever is in them", "[policy][LayerTable]") {
  Random random(3);
  for (int trial = 0; trial < 200; ++trial) {
    LayerTable table;
    const std::size_t n = 1 + random.below(40);
    for (std::size_t l = 0; l < n; ++l)
      table.table.push_back(random.below(4) == 0 ? 0 : random.uniform() * 9);
    table.table[random.below(n)] = 1;
    const Index mean = 1 + Index(random.below(300)), least = Index(random.below(std::uint64_t(mean) + 1));
    const Is out = layers_of(table, mean, least);
    CHECK(std::accumulate(out.begin(), out.end(), 0LL) == (long long)mean * (long long)n);
    for (const Index b : out) CHECK(b >= least);
  }
}

TEST_CASE("Tables of another size, of no numbers, or of more entries than the budget are Errors",
          "[policy][LayerTable][HeadTable]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Shape shape{3, 2, 2, 4, 4};
  const auto layers = [&](LayerTable t) {
    Policy<KeyNorm, LayerTable> policy(t);
    policy.settings.skip_layers = {1};
    const auto state = policy.start(shape);
    return state ? Errc{} : state.error().code;
  };
  CHECK(layers({{1, 2}}) == Errc{});
  CHECK(layers({{1, 2, 3}}) == Errc::bad_option);  // the skipped layer has no share
  CHECK(layers({}) == Errc::bad_option);
  CHECK(layers({{1, -1}}) == Errc::bad_option);
  CHECK(layers({{1, nan}}) == Errc::bad_option);
  CHECK(layers({{0, 0}}) == Errc::bad_option);
  CHECK(layers({{1, 2.5}, true}) == Errc::bad_option);
  const auto heads = [&](HeadTable t) {
    const auto state = Policy<KeyNorm, HeadTable>(t).start(shape);
    return state ? Errc{} : state.error().code;
  };
  CHECK(heads({{1, 2}}) == Errc{});
  CHECK(heads({{1, 2, 3, 4, 5, 6}}) == Errc{});
  CHECK(heads({{1, 2, 3}}) == Errc::bad_option);
  CHECK(heads({{1, 2, 3, 4, 0, 0}}) == Errc::bad_option);

  Is out(2);
  const std::vector<LayerStat> seen(2);
  CHECK(LayerTable{{9, 8}, true}.allocate({2, seen, {}, 8, 0}, out).error().code == Errc::bad_budget);
  CHECK(HeadTable{{9, 8}, true}.allocate({{}, {}, 8, 0}, out).error().code == Errc::bad_budget);
  CHECK(HeadTable{{9, 4}, true}.allocate({{}, {1, 4}, 8, 0}, out).error().code == Errc::bad_budget);
}

TEST_CASE("SnapKV's signal goes with tables for layers and heads", "[policy][LayerTable][HeadTable]") {
  const Shape shape{2, 4, 2, 6, 6};
  const Policy<WindowAttention, LayerTable, HeadTable, KeepEnds> policy(
      WindowAttention{4, 5, PoolMode::avg, Reduce::mean, false}, LayerTable{{3, 1}}, HeadTable{{1, 1, 2, 1}},
      KeepEnds{0, 4});
  auto state = policy.start(shape);
  REQUIRE(state);
  Random random(7);
  const std::vector<Is> want{{18, 18}, {8, 4}};  // 36 and 12 of a layer's two heads
  for (int l = 0; l < 2; ++l) {
    SmallLayer layer(shape);
    layer.append_random(60, random);
    layer.give_random_evidence(4, random);
    run_call(policy, *state, layer, prompt_clock(12), l);
    for (int h = 0; h < 2; ++h) {
      CHECK(layer.size(h) == want[std::size_t(l)][std::size_t(h)]);
      CHECK(layer.pos[std::size_t(h)].back() == 59);
      CHECK(layer.pos[std::size_t(h)][std::size_t(layer.size(h)) - 4] == 56);
    }
  }
}
