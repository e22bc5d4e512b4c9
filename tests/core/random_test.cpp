// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <support/catch.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <set>

using kvist::Random;

TEST_CASE("Random gives the numbers of splitmix64", "[core][Random]") {
  // Seed 0 and 1234567: the values that Vigna's splitmix64.c prints.
  Random zero(0);
  CHECK(zero.next() == 0xe220a8397b1dcdafu);
  CHECK(zero.next() == 0x6e789e6aa1b965f4u);
  CHECK(zero.next() == 0x06c45d188009454fu);
  Random other(1234567);
  CHECK(other.next() == 6457827717110365317u);
  CHECK(other.next() == 3203168211198807973u);
  CHECK(other.next() == 9817491932198370423u);
}

TEST_CASE("Seed 42 starts with the uniform numbers written down for it", "[core][Random]") {
  Random random(42);
  for (const double want : {.741565, .159910, .278601, .344191, .038030, .868228, .218405, .800632}) {
    CHECK(std::round(random.uniform() * 1e6) == std::round(want * 1e6));
  }
}

TEST_CASE("uniform stays in [0, 1) and below stays in [0, n), both evenly", "[core][Random]") {
  Random random(7);
  double sum = 0;
  std::array<int, 10> seen{};
  constexpr int draws = 100000;
  for (int i = 0; i < draws; ++i) {
    const double x = random.uniform();
    REQUIRE(x >= 0);
    REQUIRE(x < 1);
    sum += x;
    const std::uint64_t k = random.below(10);
    REQUIRE(k < 10);
    ++seen[std::size_t(k)];
  }
  // Five standard deviations: 1/sqrt(12 n) for the mean, sqrt(0.09 n) for a count.
  CHECK(std::fabs(sum / draws - 0.5) < 5 / std::sqrt(12.0 * draws));
  for (const int count : seen) CHECK(std::abs(count - draws / 10) < 5 * std::sqrt(0.09 * draws));
  CHECK(random.below(1) == 0);
}

TEST_CASE("Seeds mixed of two numbers differ for every pair and its reverse", "[core][Random]") {
  std::set<std::uint64_t> seen;
  for (std::uint64_t a = 0; a < 64; ++a) {
    for (std::uint64_t b = 0; b < 64; ++b) seen.insert(kvist::mix_seed(a, b));
  }
  CHECK(seen.size() == 64 * 64);
}
