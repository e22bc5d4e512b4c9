// SPDX-License-Identifier: Apache-2.0
#include <kvist/cache/apply_in_place.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <numeric>

using namespace kvist;

namespace {

/// Eight rows of two channels, value 10 * row + channel, in pages of two in a scattered order, channel-major inside.
struct Engine {
  std::vector<std::int32_t> table{2, 0, 3, 1};
  std::vector<f16> k = std::vector<f16>(16);
  std::vector<float> v = std::vector<float>(16);
  std::vector<Pos> pos{0, 1, 2, 3, 14, 15, 16, 17};
  MutableRows<f16> keys() { return {k.data(), table.data(), 8, 2, 2, 4, 1, 2}; }
  MutableRows<float> values() { return {v.data(), nullptr, 8, 2, 0, 0, 2, 1}; }
  Engine() {
    for (Index i = 0; i < 8; ++i) {
      const float row[2] = {float(10 * i), float(10 * i + 1)};
      keys().write(i, row);
      values().write(i, row);
    }
  }
  float key(Index i, int c) {
    float out[2];
    keys().read(i, out);
    return out[c];
  }
};

}  // namespace

TEST_CASE("A plan is carried out in scattered pages as in one block", "[cache][apply_in_place]") {
  Engine e;
  HeadPlan p;
  p.drop = {1, 4, 5};
  p.blend = {{1, 2, .5f, .25f}};
  p.self = {{2, .5f, .75f, 0}};
  const auto kept = apply_in_place(p, e.keys(), e.values(), e.pos);
  REQUIRE(kept);
  CHECK(*kept == 5);
  const std::vector<Pos> pos(e.pos.begin(), e.pos.begin() + 5);
  CHECK(pos == std::vector<Pos>{0, 2, 3, 16, 17});
  CHECK(e.key(1, 0) == 15.0f);
  CHECK(e.key(1, 1) == 16.0f);
  CHECK(e.v[2] == 17.5f);
  CHECK(e.key(2, 0) == 30.0f);
  CHECK(e.key(4, 1) == 71.0f);
}

TEST_CASE("Weights are packed with their rows", "[cache][apply_in_place]") {
  Engine e;
  std::vector<float> weight(8, 0.0f);
  HeadPlan p;
  p.drop = {0};
  p.blend = {{0, 6, 0, .5f}};  // values alone
  p.self = {{6, 1, .5f, std::log(2.0f)}};
  REQUIRE(apply_in_place(p, e.keys(), e.values(), e.pos, weight));
  CHECK(weight[5] == std::log(2.0f));
  CHECK(e.key(5, 0) == 60.0f);
  CHECK(e.v[10] == 30.0f);
}

TEST_CASE("What cannot be carried out changes nothing", "[cache][apply_in_place]") {
  Engine e;
  const auto before = e.v;
  HeadPlan p;
  p.drop = {1};
  CHECK(apply_in_place(p, e.keys(), e.values(), e.pos, {}, 2).error().code == Errc::bad_shape);
  p.drop = {5};
  p.blend = {{5, 1, 1, 1}};
  p.self = {{1, 1, 1, 0}};
  CHECK(apply_in_place(p, e.keys(), e.values(), e.pos, {}, 2).error().code == Errc::bad_shape);
  p.blend = {{5, 6, 1, 1}};
  p.self = {{6, 1, 1, .5f}};
  CHECK(apply_in_place(p, e.keys(), e.values(), e.pos).error().code == Errc::unsupported);
  p = {};
  p.move = {{5, 1}};
  CHECK(apply_in_place(p, e.keys(), e.values(), e.pos).error().code == Errc::unsupported);
  CHECK(apply_in_place(p, e.keys(), e.values(), std::span(e.pos).first(7)).error().code == Errc::bad_shape);
  p = {};
  p.drop = {1};
  std::vector<float> few(4);
  CHECK(apply_in_place(p, e.keys(), e.values(), e.pos, few).error().code == Errc::bad_shape);
  CHECK(e.v == before);
}
