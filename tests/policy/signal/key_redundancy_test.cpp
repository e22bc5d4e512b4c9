// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/signal/key_redundancy.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<float> similarities(const KeyRedundancy& signal, SmallLayer& layer) {
  const AnyLayer view = layer.view();
  Scratch scratch;
  const Clock now = prompt_clock(5);
  const AnyContext c{view.head(0), layer.seen[0], now, layer.shape, scratch};
  std::vector<float> out(std::size_t(layer.size()));
  signal.similarities(c, out);
  return out;
}

}  // namespace

TEST_CASE("KeyRedundancy spares the newest of like keys, and the first by the code's rule",
          "[policy][KeyRedundancy]") {
  SmallLayer layer = SmallLayer::one_head();
  const std::vector<Row> keys{{1, 0}, {1, .1f}, {0, 1}, {.98f, .05f}, {-1, 0}, {.1f, 1}, {1, 1}, {0, -1}};
  for (std::size_t i = 0; i < keys.size(); ++i) layer.append(0, keys[i], {0, 0}, Pos(i));
  const std::vector<float> want{.350044f,  .246349f, .106575f,  .236389f,
                                -.475044f, .043512f, -.176777f, -.356575f};
  const std::vector<float> code = similarities({.5f, true}, layer), plain = similarities({.5f, false}, layer);
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(code[i] == Approx(want[i]).margin(1e-6));
  CHECK(plain[0] == Approx(.225044).margin(1e-6));
  for (std::size_t i = 1; i < want.size(); ++i) CHECK(plain[i] == code[i]);
}

TEST_CASE("KeyRedundancy agrees with the formula in f64 for any size", "[policy][KeyRedundancy]") {
  Random random(31);
  for (const Index n : {1, 2, 7, 8, 9, 63, 130}) {
    for (const int d : {2, 5, 16, 64}) {
      SmallLayer layer(Shape{1, 1, 1, d, 2});
      layer.append_random(n, random);
      const std::vector<float> got = similarities({.3f, true}, layer);
      const auto key = [&](Index i, int c) { return double(layer.k[0][std::size_t(i * d + c)]); };
      std::vector<double> want(std::size_t(n), 0.0);
      for (Index i = 0; i < n; ++i) {
        std::vector<double> row(std::size_t(n), 0.0);
        Index spared = 0;
        for (Index j = 0; j < n; ++j) {
          double dot = 0, a = 0, b = 0;
          for (int c = 0; c < d; ++c) {
            dot += key(i, c) * key(j, c);
            a += key(i, c) * key(i, c);
            b += key(j, c) * key(j, c);
          }
          if (i != j) row[std::size_t(j)] = dot / std::sqrt(a * b);
          if (row[std::size_t(j)] > .3) spared = j;
        }
        row[std::size_t(spared)] = 0;
        for (Index j = 0; j < n; ++j) want[std::size_t(j)] += row[std::size_t(j)] / n;
      }
      for (std::size_t j = 0; j < want.size(); ++j) CHECK(double(got[j]) == Approx(want[j]).margin(2e-6));
    }
  }
}
