// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"
#include "support.hpp"

#include <kvist/kernels/hadamard.hpp>

#include <bit>
#include <cstring>
#include <limits>

using namespace kvist;
using namespace kvist::test;

TEST_CASE("Rows times the Hadamard matrix agree with f64, and bit for bit at every level",
          "[kernels][hadamard]") {
  constexpr double eps = 6e-8;
  for (int d = 1; d <= 1024; d *= 2) {
    constexpr Index rows = 5;
    auto x = normals(std::size_t(rows * d), std::uint64_t(d));
    x[0] = 0.0f, x[x.size() - 1] = -0.0f;
    std::vector<float> base;
    at_every_isa([&](kernels::Isa isa) {
      INFO(kernels::isa_name(isa) << " d " << d);
      std::vector<float> y(x);
      y.push_back(77.0f);
      kernels::hadamard(y.data(), rows, d);
      CHECK(y.back() == 77.0f);
      if (isa == kernels::Isa::base) base = y;
      CHECK(std::memcmp(y.data(), base.data(), y.size() * sizeof(float)) == 0);
      for (Index r = 0; r < rows; ++r) {
        double size = 0;
        for (int c = 0; c < d; ++c) size += std::fabs(double(x[std::size_t(r * d + c)]));
        for (int i = 0; i < d; ++i) {
          double want = 0;
          for (int j = 0; j < d; ++j) {
            const double v = double(x[std::size_t(r * d + j)]);
            want += std::popcount(unsigned(i & j)) % 2 == 0 ? v : -v;
          }
          const double root = std::sqrt(double(d)), steps = std::log2(double(d)) + 2;
          REQUIRE(std::fabs(double(y[std::size_t(r * d + i)]) - want / root) <= steps * eps * size / root);
        }
      }
      kernels::hadamard(y.data(), rows, d);
      for (std::size_t i = 0; i < x.size(); ++i)
        REQUIRE(std::fabs(y[i] - x[i]) <= 4e-6f * (1 + std::fabs(x[i])));
    });
  }
}

TEST_CASE("No rows are turned into nothing; an infinite number spoils its own row only",
          "[kernels][hadamard]") {
  at_every_isa([&](kernels::Isa) {
    kernels::hadamard(nullptr, 0, 64);
    std::vector<float> x(3 * 128, 1.0f);
    x[130] = std::numeric_limits<float>::infinity();
    kernels::hadamard(x.data(), 3, 128);
    for (int c = 0; c < 128; ++c) {
      const float want = c == 0 ? 128 / std::sqrt(128.0f) : 0.0f;
      REQUIRE(x[std::size_t(c)] == Approx(want));
      REQUIRE(!std::isfinite(x[std::size_t(128 + c)]));
      REQUIRE(x[std::size_t(256 + c)] == Approx(want));
    }
  });
}
