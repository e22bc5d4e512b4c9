// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/view/rope.hpp>

#include "support/catch.hpp"

#include <complex>

using namespace kvist;

namespace {

std::vector<float> random_row(int d, std::uint64_t seed) {
  Random r(seed);
  std::vector<float> x;
  for (int c = 0; c < d; ++c) x.push_back(float(2 * r.uniform() - 1));
  return x;
}

}  // namespace

TEST_CASE("The standard table's frequencies are powers of its base", "[view][RopeTable]") {
  const RopeTable t = RopeTable::standard(8, 10000, RopePairs::half_split);
  REQUIRE(t.frequency.size() == 4);
  CHECK(t.frequency[0] == 1.0);
  CHECK(t.frequency[1] == Approx(0.1));
  CHECK(t.frequency[2] == Approx(0.01));
  CHECK(t.frequency[3] == Approx(0.001));
  CHECK(t.rotary_dims() == 8);
  CHECK(t.channels(1) == std::pair{1, 5});
  CHECK(RopeTable::standard(8, 10000, RopePairs::neighbours).channels(1) == std::pair{2, 3});
}

TEST_CASE("Pairs turn as complex numbers, in both pairings; channels beyond the rotary ones stay",
          "[view][RopeTable]") {
  for (const RopePairs pairs : {RopePairs::half_split, RopePairs::neighbours})
    for (const int rotary : {2, 6, 12}) {
      RopeTable t = RopeTable::standard(rotary, 500000, pairs);
      for (const float scale : {1.0f, 1.25f}) {
        t.scale = scale;
        for (const double p : {0.0, 1.0, 37.0, 4000.0, -5.0}) {
          const auto before = random_row(12, 5);
          auto x = before;
          t.rotate(x, p);
          for (int f = 0; f < rotary / 2; ++f) {
            const auto [i, j] =
                pairs == RopePairs::half_split ? std::pair{f, f + rotary / 2} : std::pair{2 * f, 2 * f + 1};
            const std::complex<double> want =
                double(scale) *
                std::complex<double>(double(before[std::size_t(i)]), double(before[std::size_t(j)])) *
                std::polar(1.0, p * std::pow(500000.0, -2.0 * f / rotary));
            CHECK(double(x[std::size_t(i)]) == Approx(want.real()).margin(1e-6));
            CHECK(double(x[std::size_t(j)]) == Approx(want.imag()).margin(1e-6));
          }
          for (int c = rotary; c < 12; ++c) CHECK(x[std::size_t(c)] == before[std::size_t(c)]);
        }
      }
    }
}

TEST_CASE("A shift in one step is the rotation of the new position, and a turn back undoes one",
          "[view][RopeTable]") {
  for (const RopePairs pairs : {RopePairs::half_split, RopePairs::neighbours}) {
    RopeTable t = RopeTable::standard(16, 10000, pairs);
    t.scale = 1.1f;
    for (const auto& [from, to] : {std::pair{900, 20}, {5, 6}, {3000, 2999}, {0, 1000}}) {
      const auto raw = random_row(20, 9);
      auto shifted = raw, direct = raw;
      t.rotate(shifted, from);
      t.rotate(shifted, to - from, false);
      t.rotate(direct, to);
      for (std::size_t c = 0; c < raw.size(); ++c) CHECK(shifted[c] == Approx(direct[c]).margin(2e-6));
      t.rotate(direct, -to, false);
      for (std::size_t c = 0; c < raw.size(); ++c)
        CHECK(direct[c] == Approx(c < 16 ? 1.1f * raw[c] : raw[c]).margin(2e-6));
    }
  }
}

TEST_CASE("Logits depend on distances only", "[view][RopeTable]") {
  const RopeTable t = RopeTable::standard(16, 10000, RopePairs::neighbours);
  const auto logit = [&](int q_pos, int k_pos) {
    auto q = random_row(16, 1), k = random_row(16, 2);
    t.rotate(q, q_pos);
    t.rotate(k, k_pos);
    double sum = 0;
    for (std::size_t c = 0; c < 16; ++c) sum += double(q[c]) * double(k[c]);
    return sum;
  };
  CHECK(logit(12, 5) == Approx(logit(1012, 1005)).margin(1e-5));
  CHECK(std::abs(logit(12, 5) - logit(12, 11)) > 1e-2);
}
