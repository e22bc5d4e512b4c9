// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/matmul.hpp>
#include <kvist/reference/thread_pool.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/small_model.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

const TensorType all_types[] = {TensorType::f32,  TensorType::f16,  TensorType::bf16, TensorType::q4_0,
                                TensorType::q4_1, TensorType::q5_0, TensorType::q5_1, TensorType::q8_0,
                                TensorType::q4_k, TensorType::q5_k, TensorType::q6_k};

struct Stored {
  std::string bytes;
  WeightMatrix w;
  std::vector<float> values;
  Stored(TensorType type, Index rows, Index cols, std::uint64_t seed) {
    Random random(seed);
    bytes = random_blocks(type, std::size_t(rows) * std::size_t(cols), random);
    w = {type, reinterpret_cast<const std::byte*>(bytes.data()), rows, cols};
    values.resize(std::size_t(rows) * std::size_t(cols));
    REQUIRE(dequantize(type, {w.data, w.bytes()}, values));
  }
};

std::vector<float> numbers(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> x(n);
  for (float& v : x) v = float(random.uniform() * 2 - 1);
  return x;
}

/// Largest error of y over the largest that rounding can explain, eps * sum |w x| (+ bias).
double excess(const Stored& s, const std::vector<float>& x, Index n, const std::vector<float>& y,
              const float* bias) {
  double worst = 0;
  const std::size_t cols = std::size_t(s.w.cols), rows = std::size_t(s.w.rows);
  for (std::size_t t = 0; t < std::size_t(n); ++t)
    for (std::size_t r = 0; r < rows; ++r) {
      double want = bias ? double(bias[r]) : 0.0, size = std::fabs(want);
      for (std::size_t c = 0; c < cols; ++c) {
        const double term = double(s.values[r * cols + c]) * double(x[t * cols + c]);
        want += term;
        size += std::fabs(term);
      }
      const double error = std::fabs(double(y[t * rows + r]) - want);
      if (!(error <= 1e30)) return 1e30;  // NaN, too
      worst = std::max(worst, error / (size * double(std::numeric_limits<float>::epsilon()) + 1e-30));
    }
  return worst;
}

}  // namespace

TEST_CASE("Matmul equals the f64 product of the expanded weights, for every type and number of tokens",
          "[reference][Matmul]") {
  ThreadPool pool(2);
  Matmul matmul;
  for (const TensorType type : all_types)
    for (const Index rows : {1, 33, 100})
      for (const Index blocks : {1, 3}) {
        const Index cols = blocks * std::max<Index>(32, Index(block_elements(type)));
        const Stored s(type, rows, cols, 11);
        for (const Index n : {1, 2, 3, 4, 5, 13, 30}) {
          INFO(type_name(type) << " " << rows << " x " << cols << ", " << n << " tokens");
          const std::vector<float> x = numbers(std::size_t(n) * std::size_t(cols), 5),
                                   bias = numbers(std::size_t(rows), 6);
          std::vector<float> y(std::size_t(n) * std::size_t(rows), 99.0f);
          const Product p[] = {{&s.w, y.data(), bias.data()}};
          matmul(p, x.data(), n, pool);
          CHECK(excess(s, x, n, y, bias.data()) < 2.0 + std::sqrt(double(cols)));
        }
      }
}

TEST_CASE("Matmul takes rows of any length where the type allows it", "[reference][Matmul]") {
  Serial serial;
  Matmul matmul;
  for (const TensorType type : {TensorType::f32, TensorType::f16, TensorType::bf16})
    for (const Index cols : {1, 7, 31, 50, 1025, 2100})
      for (const Index n : {1, 4, 9}) {
        INFO(type_name(type) << " " << cols << " columns, " << n << " tokens");
        const Stored s(type, 5, cols, 3);
        const std::vector<float> x = numbers(std::size_t(n) * std::size_t(cols), 5);
        std::vector<float> y(std::size_t(n) * 5, 99.0f);
        const Product p[] = {{&s.w, y.data(), nullptr}};
        matmul(p, x.data(), n, serial);
        CHECK(excess(s, x, n, y, nullptr) < 2.0 + std::sqrt(double(cols)));
      }
}

TEST_CASE(
    "Matmul does several products of the same tokens in one job, the same bits for any number of threads",
    "[reference][Matmul]") {
  const Stored a(TensorType::q4_1, 700, 576, 1), b(TensorType::q8_0, 130, 576, 2),
      c(TensorType::f16, 1000, 576, 3);
  for (const Index n : {1, 4, 40}) {
    const std::vector<float> x = numbers(std::size_t(n) * 576, 5);
    const auto run = [&](int threads) {
      ThreadPool pool(threads);
      Matmul matmul;
      std::vector<float> y(std::size_t(n) * (700 + 130 + 1000));
      float* const yb = y.data() + n * 700;
      float* const yc = yb + n * 130;
      const Product p[] = {{&a.w, y.data(), nullptr}, {&b.w, yb, nullptr}, {&c.w, yc, nullptr}};
      for (int again = 0; again < 3; ++again) matmul(p, x.data(), n, pool);
      return y;
    };
    const std::vector<float> one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(5));
    CHECK(excess(a, x, n, {one.begin(), one.begin() + n * 700}, nullptr) < 30);
    CHECK(excess(c, x, n, {one.begin() + n * 830, one.end()}, nullptr) < 30);
  }
}

TEST_CASE("Weights are expanded in registers to the bits that dequantising gives", "[reference][Matmul]") {
  // With a unit vector as input each output is one weight, times 1, plus zeros.
  Serial serial;
  Matmul matmul;
  for (const TensorType type : {TensorType::f32, TensorType::f16, TensorType::q8_0, TensorType::q4_0,
                                TensorType::q4_1, TensorType::q5_1, TensorType::bf16}) {
    INFO(type_name(type));
    const Stored s(type, 9, 64, 8);
    bool same = true;
    for (std::size_t c = 0; c < 64; ++c) {
      std::vector<float> x(64, 0.0f), y(9);
      x[c] = 1;
      const Product p[] = {{&s.w, y.data(), nullptr}};
      matmul(p, x.data(), 1, serial);
      for (std::size_t r = 0; r < 9; ++r) same = same && y[r] == s.values[r * 64 + c];
    }
    CHECK(same);
  }
}
