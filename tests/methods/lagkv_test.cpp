// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/lagkv.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;
using methods::LagKV;

namespace {

std::vector<float> scores(const LagRelative& signal, SmallLayer& layer, int h = 0) {
  const AnyLayer view = layer.view();
  Scratch scratch;
  const Clock now = prompt_clock(5);
  static const Evidence none{};
  const AnyContext c{view.head(h), none, now, layer.shape, scratch, nullptr, 0, h};
  std::vector<float> out(std::size_t(layer.size(h)));
  REQUIRE(signal.score(c, {}, {}, out));
  return out;
}

/// The definition, in f64: scores of the ranked partitions before they become ranks.
std::vector<double> unevenness(const SmallLayer& layer, Index sinks, Index lag) {
  const Index n = layer.size(), parts = (n - sinks) / lag;
  std::vector<double> out;
  for (Index p = 0; p + 1 < parts; ++p) {
    std::vector<double> both(std::size_t(lag), 0.0);
    for (const auto* x : {&layer.k[0], &layer.v[0]}) {
      const int d = x == &layer.k[0] ? layer.shape.dim_k : layer.shape.dim_v;
      const auto at = [&](Index row, int c) { return double((*x)[std::size_t(row * d + c)]); };
      std::vector<double> e;
      double total = 0;
      for (Index i = 0; i < lag; ++i) {
        std::vector<double> y;
        for (int c = 0; c < d; ++c) {
          double low = 1e30, high = -1e30;
          for (Index j = 0; j < lag; ++j) {
            low = std::min(low, at(sinks + (p + 1) * lag + j, c));
            high = std::max(high, at(sinks + (p + 1) * lag + j, c));
          }
          y.push_back((at(sinks + p * lag + i, c) - low) / (high - low));
        }
        double mean = 0, square = 0;
        for (const double v : y) mean += v / d;
        for (const double v : y) square += (v - mean) * (v - mean);
        e.push_back(std::exp(std::sqrt(square / (d - 1))));
        total += e.back();
      }
      for (Index i = 0; i < lag; ++i) both[std::size_t(i)] += e[std::size_t(i)] / total / 2;
    }
    out.insert(out.end(), both.begin(), both.end());
  }
  return out;
}

}  // namespace

TEST_CASE("LagKV ranks rows by their unevenness in the next partition's range", "[methods][LagKV]") {
  // Range of the next partition: channel 0 in [0, 2], channel 1 in [0, 4], values alike.
  SmallLayer layer = SmallLayer::one_head();
  const std::vector<Row> rows_of{{9, 9}, {1, 2}, {2, 0}, {1, 0}, {0, 4}, {2, 0}, {1, 3}, {5, 5}};
  for (std::size_t i = 0; i < rows_of.size(); ++i) layer.append(0, rows_of[i], rows_of[i], Pos(i));
  // scaled rows (.5, .5), (1, 0), (.5, 0): deviations 0, .707107, .353553
  const std::vector<float> s = scores({1, 3}, layer);
  CHECK(s[0] == 1.0f);
  CHECK(s[1] == 0.0f);
  CHECK(s[2] == Approx(2.0f / 3));
  CHECK(s[3] == Approx(1.0f / 3));
  for (std::size_t i = 4; i < 8; ++i) CHECK(s[i] == Approx(1.0f).margin(1e-6));
  for (std::size_t i = 5; i < 8; ++i) CHECK(s[i] > s[i - 1]);

  const auto policy = *LagKV::make({1, 3});
  auto state = *policy.start(layer.shape);
  run_call(policy, state, layer, prompt_clock(6));
  CHECK(layer.pos[0] == std::vector<Pos>{0, 2, 4, 5, 6, 7});
}

TEST_CASE("LagKV's ranks are those of the formula in f64", "[methods][LagKV]") {
  Random random(17);
  for (const Index lag : {1, 5, 16, 40}) {
    for (const Index n : {83, 84, 85, 130}) {
      SmallLayer layer(Shape{1, 1, 1, 16, 24});
      layer.append_random(n, random);
      const std::vector<float> got = scores({3, lag}, layer);
      const std::vector<double> want = unevenness(layer, 3, lag);
      if (lag > 1)
        for (std::size_t a = 0; a < want.size(); ++a)
          for (std::size_t b = 0; b < want.size(); ++b)
            if (a / std::size_t(lag) == b / std::size_t(lag) && want[a] > want[b] * (1 + 1e-5))
              CHECK(got[3 + a] > got[3 + b]);
      for (std::size_t a = 0; a < want.size(); ++a) CHECK(got[3 + a] <= 1 - 1.0f / float(lag));
      for (std::size_t i = 3 + want.size(); i < got.size(); ++i) CHECK(got[i] > 1 - 1.6e-5f);
    }
  }
}

TEST_CASE("LagKV takes equal shares of each ranked partition", "[methods][LagKV]") {
  Random random(19);
  const auto policy = *LagKV::make({4, 16});
  SmallLayer layer(Shape{1, 4, 2, 8, 8});
  layer.append_random(4 + 6 * 16 + 5, random);
  auto state = *policy.start(layer.shape);
  run_call(policy, state, layer, prompt_clock(4 + 5 * 4 + 16 + 5));
  for (const auto& pos : layer.pos) {
    REQUIRE(pos.size() == 45);
    for (Pos p = 0; p < 5; ++p)
      CHECK(std::count_if(pos.begin(), pos.end(), [&](Pos x) { return x >= 4 && (x - 4) / 16 == p; }) == 4);
    CHECK(std::count_if(pos.begin(), pos.end(), [](Pos x) { return x >= 84; }) == 21);
    CHECK(pos[3] == 3);
  }
}

TEST_CASE("LagKV is recency where there is no second partition, or no room for the last",
          "[methods][LagKV]") {
  Random random(23);
  const auto policy = *LagKV::make({4, 16});
  for (const Index n : {1, 4, 5, 20, 35, 36, 90}) {
    SmallLayer layer(Shape{1, 1, 1, 4, 4});
    layer.append_random(n, random);
    auto state = *policy.start(layer.shape);
    run_call(policy, state, layer, prompt_clock(10));
    std::vector<Pos> want;
    for (Pos p = 0; p < n; ++p)
      if (p < 4 || p >= n - 6) want.push_back(p);
    CHECK(layer.pos[0] == want);
  }
}

TEST_CASE("LagKV counts a channel without range as nothing, and refuses options out of range",
          "[methods][LagKV]") {
  SmallLayer layer(Shape{1, 1, 1, 3, 3});
  for (Pos p = 0; p < 12; ++p) layer.append(0, {1, 1, 1}, {float(p % 3), 0, 0}, p);
  for (const float x : scores({0, 3}, layer)) CHECK((x >= 0 && x <= 1));
  const Shape shape{1, 1, 1, 2, 2};
  CHECK((*LagKV::make({-1, 16})).start(shape).error().code == Errc::bad_option);
  CHECK((*LagKV::make({4, 0})).start(shape).error().code == Errc::bad_option);
  CHECK((*LagKV::make({4, 4096})).start(shape).error().code == Errc::bad_option);
}
