// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/compare.hpp>
#include <support/catch.hpp>

#include <vector>

using namespace kvist;

TEST_CASE("Divergence and log-probabilities follow their formulas", "[reference][compare]") {
  // p = softmax(0, log 2, log 5) = (1, 2, 5) / 8, q uniform
  const std::vector<float> p{0, std::log(2.0f), std::log(5.0f)}, q{3, 3, 3};
  const auto a = compare::summarise(p), b = compare::summarise(q);
  CHECK(a.logsumexp == Approx(std::log(8.0)));
  CHECK(a.top == 2);
  CHECK(b.top == 0);  // of equal logits the lowest
  CHECK(compare::log_probability(p, a, 1) == Approx(std::log(2.0 / 8)));
  const double want =
      (1 * std::log(1.0 / 8) + 2 * std::log(2.0 / 8) + 5 * std::log(5.0 / 8)) / 8 - std::log(1.0 / 3);
  CHECK(compare::divergence(p, a, q, b) == Approx(want));
  CHECK(compare::divergence(p, a, p, a) == 0.0);
}

TEST_CASE("Logits of any size do not overflow", "[reference][compare]") {
  const std::vector<float> big{1e4f, 1e4f}, low{-1e30f, 0};
  CHECK(compare::summarise(big).logsumexp == Approx(1e4 + std::log(2.0)));
  CHECK(compare::summarise(low).logsumexp == Approx(0).margin(1e-12));
}

TEST_CASE("Divergence agrees with a plain loop in f64 on random rows", "[reference][compare]") {
  Random random(5);
  for (const std::size_t n : {1u, 7u, 1000u}) {
    std::vector<float> x(n), y(n);
    for (auto& v : x) v = float(8 * random.uniform());
    for (auto& v : y) v = float(8 * random.uniform());
    double zx = 0, zy = 0, want = 0;
    for (const float v : x) zx += std::exp(double(v));
    for (const float v : y) zy += std::exp(double(v));
    for (std::size_t i = 0; i < n; ++i)
      want += std::exp(double(x[i])) / zx * (double(x[i]) - std::log(zx) - double(y[i]) + std::log(zy));
    CHECK(compare::divergence(x, compare::summarise(x), y, compare::summarise(y)) == Approx(want).margin(1e-12));
  }
}

TEST_CASE("The bootstrap interval holds the mean, narrows with more windows, and is the same for one seed",
          "[reference][compare]") {
  Random random(1);
  std::vector<double> few(8), many(512);
  for (auto& v : few) v = random.uniform();
  for (auto& v : many) v = random.uniform();
  const auto a = compare::bootstrap_mean(few), b = compare::bootstrap_mean(many);
  CHECK(a.lo < compare::mean(few));
  CHECK(a.hi > compare::mean(few));
  CHECK(b.hi - b.lo < 0.3 * (a.hi - a.lo));
  // uniform: sd of a mean of 512 is 0.01276, 95 % are 3.92 of them
  CHECK(b.hi - b.lo == Approx(3.92 * 0.01276).epsilon(0.15));
  CHECK(compare::bootstrap_mean(few).lo == a.lo);
  CHECK(compare::bootstrap_mean(few, 2).lo != a.lo);
  const std::vector<double> one{0.25};
  CHECK(compare::bootstrap_mean(one).lo == 0.25);
  CHECK(compare::bootstrap_mean(one).hi == 0.25);
  CHECK(compare::bootstrap_mean({}).hi == 0);
}

TEST_CASE("A paired ratio is the ratio of means, and pairing makes it sharp", "[reference][compare]") {
  std::vector<double> b{1, 5, 2, 9, 3, 4, 7, 8}, a;
  for (const double x : b) a.push_back(0.5 * x);
  const auto r = compare::paired_ratio(a, b);
  CHECK(r.ratio == Approx(0.5));
  CHECK(r.lo == Approx(0.5));
  CHECK(r.hi == Approx(0.5));
  CHECK(r.won == 8);
  CHECK(r.n == 8);
  a[0] = 2;
  CHECK(compare::paired_ratio(a, b).won == 7);
  CHECK(compare::paired_ratio(a, b).ratio == Approx((0.5 * 38 + 2) / 39));
  const std::vector<double> zeros(8, 0.0);
  CHECK(std::isnan(compare::paired_ratio(a, zeros).ratio));
}

TEST_CASE("Wilson's interval has its known values", "[reference][compare]") {
  const auto a = compare::wilson(62, 64);  // 0.97 (0.89 .. 0.99)
  CHECK(a.lo == Approx(0.893).margin(0.001));
  CHECK(a.hi == Approx(0.991).margin(0.001));
  CHECK(compare::wilson(0, 90).lo == 0);
  CHECK(compare::wilson(0, 90).hi == Approx(0.0409).margin(0.0005));
  CHECK(compare::wilson(0, 0).hi == 1);
  CHECK(compare::wilson(10, 10).hi == 1);
}

TEST_CASE("McNemar's exact test has its known values", "[reference][compare]") {
  CHECK(compare::mcnemar(13, 0) == Approx(2.44e-4).epsilon(0.01));
  CHECK(compare::mcnemar(10, 7) == Approx(0.629).epsilon(0.01));
  CHECK(compare::mcnemar(5, 5) == 1);
  CHECK(compare::mcnemar(0, 0) == 1);
}
