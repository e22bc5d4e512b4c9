// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"
#include "support.hpp"

#include <kvist/kernels/softmax.hpp>

#include <limits>

using namespace kvist;
using namespace kvist::test;

namespace {
constexpr float inf = std::numeric_limits<float>::infinity();
}

TEST_CASE("The exponential is within 2 ulp and exactly zero for minus infinity", "[kernels][softmax]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    std::vector<float> x, e;
    for (float v = -87.3f; v < 88.3f; v += 0.00731f) x.push_back(v);
    x.push_back(0.0f);
    e.resize(x.size());
    kernels::exp_of(x.data(), Index(x.size()), 0.0f, 1.0f, e.data());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(double(x[i]));
      const double ulp = double(std::nextafter(float(want), inf)) - double(float(want));
      worst = std::max(worst, std::fabs(double(e[i]) - want) / ulp);
    }
    INFO(worst);
    CHECK(worst <= 2.0);
    CHECK(e.back() == 1.0f);
    const float low[3] = {-inf, -200.0f, -88.0f};
    float out[3];
    kernels::exp_of(low, 3, 0.0f, 1.0f, out);
    for (const float v : out) CHECK(v == 0.0f);
  });
}

TEST_CASE("Softmax agrees with f64 and sums to one", "[kernels][softmax]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    for (const Index n : {1, 2, 15, 16, 17, 100, 1000}) {
      std::vector<float> x = normals(std::size_t(n), std::uint64_t(n)), p(x.size());
      for (float& v : x) v *= 5;
      if (n > 2) x[1] = -inf;
      kernels::softmax(x, p.data());
      double sum = 0, m = -1e300;
      for (const float v : x) m = std::max(m, double(v));
      for (const float v : x) sum += std::exp(double(v) - m);
      for (std::size_t i = 0; i < x.size(); ++i) {  // x - m is rounded to f32 first; l is a sum of n
        const double below = m - double(x[i]), want = std::exp(-below) / sum;
        CHECK(std::fabs(double(p[i]) - want) <= (1e-6 + (want > 0 ? 6e-8 * below : 0)) * want + 1e-37);
      }
      if (n > 2) CHECK(p[1] == 0.0f);
    }
    float none[3] = {-inf, -inf, -inf}, out[3] = {1, 1, 1};
    kernels::softmax(none, out);
    for (const float v : out) CHECK(v == 0.0f);
    kernels::softmax({none, std::size_t(0)}, out);
  });
}

TEST_CASE("Softmax of rows is softmax of each row", "[kernels][softmax]") {
  const auto x = normals(3 * 20, 5);
  std::vector<float> p(3 * 21, -1.0f), one(18);
  kernels::softmax_rows(x.data(), 3, 18, 20, p.data(), 21);
  for (int r = 0; r < 3; ++r) {
    kernels::softmax({x.data() + 20 * r, 18}, one.data());
    for (int i = 0; i < 18; ++i) CHECK(p[std::size_t(21 * r + i)] == one[std::size_t(i)]);
    CHECK(p[std::size_t(21 * r + 18)] == -1.0f);
  }
}

TEST_CASE("Online softmax in pieces equals one pass", "[kernels][softmax]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    const auto x = normals(100, 9);
    float m = -inf, l = 0, o[3] = {0, 0, 0};
    for (const Index at : {0, 40, 70}) {
      const Index n = at == 0 ? 40 : 30;
      std::vector<float> piece(x.begin() + at, x.begin() + at + n);
      if (at == 40) {  // an unseen piece in between changes nothing
        float unseen[2] = {-inf, -inf};
        kernels::online_softmax(unseen, 2, m, l, o, 3);
        CHECK(unseen[0] == 0.0f);
      }
      kernels::online_softmax(piece.data(), n, m, l, o, 3);
      for (Index i = 0; i < n; ++i)
        for (int c = 0; c < 3; ++c) o[c] += piece[std::size_t(i)] * float(c + 1);
    }
    double top = -1e300, sum = 0;
    for (const float v : x) top = std::max(top, double(v));
    for (const float v : x) sum += std::exp(double(v) - top);
    CHECK(double(m) == top);
    CHECK(l == Approx(sum).epsilon(1e-6));
    for (int c = 0; c < 3; ++c) CHECK(o[c] / l == Approx(c + 1).epsilon(1e-5));
  });
}

TEST_CASE("The soft cap follows tanh", "[kernels][softmax]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    std::vector<float> x;
    for (float v = -300; v <= 300; v += 0.37f) x.push_back(v);
    x.push_back(inf);
    std::vector<float> y = x;
    kernels::soft_cap(y.data(), Index(y.size()), 30.0f);
    for (std::size_t i = 0; i < x.size(); ++i)
      CHECK(std::fabs(double(y[i]) - 30 * std::tanh(double(x[i]) / 30)) <= 9e-6);
  });
}

TEST_CASE("Pairs get the rows' numbers added in order, and a count", "[kernels][softmax]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    for (const Index n : {0, 1, 7, 16, 33, 100})
      for (const Index rows : {0, 1, 4, 5})
        for (const bool counted : {false, true}) {
          const std::ptrdiff_t stride = n + 3;
          const auto x = normals(std::size_t(rows * stride + 1), std::uint64_t(n + rows));
          const auto second = normals(std::size_t(n + 1), 8);
          std::vector<float> pairs = normals(std::size_t(2 * n + 1), 9), want = pairs;
          for (Index i = 0; i < n; ++i) {
            for (Index r = 0; r < rows; ++r)
              want[std::size_t(2 * i)] += 0.3f * x[std::size_t(r * stride + i)];
            want[std::size_t(2 * i + 1)] += counted ? second[std::size_t(i)] : 1.0f;
          }
          kernels::add_to_pairs(x.data(), rows, stride, n, 0.3f, counted ? second.data() : nullptr,
                                pairs.data());
          for (std::size_t i = 0; i < want.size(); ++i) {  // some compilers round product and sum as one
            INFO("n " << n << " rows " << rows << " i " << i);
            CHECK(std::fabs(pairs[i] - want[i]) <= 2e-6f * (1 + std::fabs(want[i])));
          }
          CHECK(pairs.back() == want.back());
        }
    std::vector<float> x = normals(50, 3), e(50), inside(x);
    kernels::exp_of(x.data(), 50, 0.5f, 2.0f, e.data());
    kernels::exp_of(inside.data(), 50, 0.5f, 2.0f, inside.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(e[i] == Approx(2 * std::exp(double(x[i]) - 0.5)).epsilon(1e-6));
      CHECK(e[i] == inside[i]);
    }
  });
}
