// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"
#include "support.hpp"

#include <kvist/kernels/rows.hpp>

#include <bit>
#include <limits>

using namespace kvist;
using namespace kvist::test;

namespace {

struct Size {
  Index n;
  int d, group;
};
constexpr Size sizes[] = {{0, 64, 4},  {1, 1, 1},   {1, 64, 3},   {5, 7, 2},    {16, 128, 4}, {17, 64, 8},
                          {33, 80, 5}, {64, 96, 1}, {130, 64, 3}, {67, 129, 7}, {16, 576, 6}};

// |got - want| <= factor * eps * sum of |terms|: the family's tolerance for sums
void check_sum(float got, double want, double magnitude, double factor = 4) {
  CHECK(std::fabs(double(got) - want) <= factor * 6e-8 * magnitude + 1e-30);
}

template <Scalar T>
void check_type() {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    for (const Size s : sizes) {
      for (const Layout layout : layouts) {
        INFO("n " << s.n << " d " << s.d << " G " << s.group << " layout " << int(layout));
        const std::size_t n = std::size_t(s.n), d = std::size_t(s.d), G = std::size_t(s.group);
        const OwnRows<T> own(normals(n * d, 1), s.n, s.d, layout);
        const Rows<T>& x = own.view;
        const auto q = normals(G * d, 2), w = normals(G * (n + 3), 3);
        const double root = std::sqrt(double(s.d)) + 4;

        std::vector<float> out(G * (n + 1), -1.0f);
        kernels::dot_group(x, q.data(), s.group, 0.5f, out.data(), s.n + 1);
        for (int g = 0; g < s.group; ++g) {
          for (Index i = 0; i < s.n; ++i) {
            double want = 0, size = 0;
            for (int c = 0; c < s.d; ++c) {
              const double term = double(q[std::size_t(g) * d + std::size_t(c)]) * double(x.at(i, c));
              want += term;
              size += std::fabs(term);
            }
            check_sum(out[std::size_t(g) * (n + 1) + std::size_t(i)], 0.5 * want, size, root);
          }
          CHECK(out[std::size_t(g) * (n + 1) + n] == -1.0f);  // nothing is written behind the entries
        }
        std::vector<float> one(n + 1, -1.0f);
        kernels::dot(x, q.data(), 0.5f, one.data());
        for (std::size_t i = 0; i < n; ++i) CHECK(one[i] == Approx(out[i]).epsilon(1e-4).margin(1e-4));
        CHECK(one[n] == -1.0f);

        std::vector<float> o(G * d + 1, 2.0f);
        kernels::axpy_group(x, w.data(), s.n + 3, s.group, o.data());
        for (int g = 0; g < s.group; ++g)
          for (int c = 0; c < s.d; ++c) {
            double want = 2, size = 2;
            for (Index i = 0; i < s.n; ++i) {
              const double term = double(w[std::size_t(g) * (n + 3) + std::size_t(i)]) * double(x.at(i, c));
              want += term;
              size += std::fabs(term);
            }
            check_sum(o[std::size_t(g) * d + std::size_t(c)], want, size, std::sqrt(double(s.n)) + 4);
          }
        CHECK(o[G * d] == 2.0f);

        std::vector<float> l2(n + 1, -1.0f), l1(n + 1, -1.0f), rows(n * d + 1, -1.0f), sums(d + 1, 1.0f);
        kernels::norms(x, l2.data());
        kernels::norms1(x, l1.data());
        kernels::to_f32(x, rows.data());
        kernels::sum_rows(x, sums.data());
        for (Index i = 0; i < s.n; ++i) {
          double squares = 0, absolute = 0;
          for (int c = 0; c < s.d; ++c) {
            squares += double(x.at(i, c)) * double(x.at(i, c));
            absolute += std::fabs(double(x.at(i, c)));
            CHECK(rows[std::size_t(i) * d + std::size_t(c)] == x.at(i, c));
          }
          check_sum(l2[std::size_t(i)], std::sqrt(squares), std::sqrt(squares), root);
          check_sum(l1[std::size_t(i)], absolute, absolute, root);
        }
        for (int c = 0; c < s.d; ++c) {
          double want = 1, size = 1;
          for (Index i = 0; i < s.n; ++i) {
            want += double(x.at(i, c));
            size += std::fabs(double(x.at(i, c)));
          }
          check_sum(sums[std::size_t(c)], want, size, std::sqrt(double(s.n)) + 4);
        }
        std::vector<float> dots(n + 1, -1.0f), squares(n + 1, -1.0f);
        kernels::neighbour_dots(x, dots.data(), squares.data());
        for (Index i = 0; i < s.n; ++i) {
          double square = 0, dot = 0, size = 0;
          for (int c = 0; c < s.d; ++c) {
            square += double(x.at(i, c)) * double(x.at(i, c));
            if (i + 1 == s.n) continue;
            dot += double(x.at(i, c)) * double(x.at(i + 1, c));
            size += std::fabs(double(x.at(i, c)) * double(x.at(i + 1, c)));
          }
          check_sum(squares[std::size_t(i)], square, square, root);
          if (i + 1 < s.n) check_sum(dots[std::size_t(i)], dot, size, root);
        }
        CHECK(squares[n] == -1.0f);
        CHECK(dots[n > 0 ? n - 1 : 0] == -1.0f);  // the last row has no neighbour
        CHECK(l2[n] == -1.0f);
        CHECK(l1[n] == -1.0f);
        CHECK(rows[n * d] == -1.0f);
        CHECK(sums[d] == 1.0f);
      }
    }
  });
}

}  // namespace

TEST_CASE("Row kernels on f32 agree with f64 loops at every instruction set and layout", "[kernels][rows]") {
  check_type<float>();
}
TEST_CASE("Row kernels on f16 agree with f64 loops at every instruction set and layout", "[kernels][rows]") {
  check_type<f16>();
}
TEST_CASE("Row kernels on bf16 agree with f64 loops at every instruction set and layout", "[kernels][rows]") {
  check_type<bf16>();
}

TEST_CASE("Conversions give the bits of the scalar definition at every instruction set", "[kernels][rows]") {
  std::vector<float> x = normals(1003, 7);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float special :
       {0.0f, -0.0f, 65504.0f, 65519.9f, 65520.0f, -7e4f, 6e-8f, 2.9802322e-8f, 2.9802326e-8f, 6.1e-5f,
        -1e-10f, inf, -inf, 3.4e38f, 1.00048828125f, 1.00146484375f})
    x.push_back(special);
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    std::vector<f16> h(x.size());
    std::vector<bf16> b(x.size());
    kernels::from_f32(x.data(), std::ptrdiff_t(x.size()), h.data());
    kernels::from_f32(x.data(), std::ptrdiff_t(x.size()), b.data());
    bool same = true;
    for (std::size_t i = 0; i < x.size(); ++i) same = same && h[i] == to_f16(x[i]) && b[i] == to_bf16(x[i]);
    CHECK(same);

    std::vector<f16> every(65536);
    std::vector<float> wide(65536);
    for (unsigned i = 0; i < 65536; ++i) every[i].bits = std::uint16_t(i);
    kernels::widen(every.data(), 65536, wide.data());
    bool all = true;
    for (unsigned i = 0; i < 65536; ++i) {
      const float want = to_f32(every[i]);
      all = all && (want != want ? wide[i] != wide[i]
                                 : std::bit_cast<std::uint32_t>(wide[i]) == std::bit_cast<std::uint32_t>(want));
    }
    CHECK(all);

    const float nan[3] = {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(), 1};
    f16 h3[3];
    bf16 b3[3];
    kernels::from_f32(nan, 3, h3);
    kernels::from_f32(nan, 3, b3);
    for (int i = 0; i < 2; ++i) CHECK((to_f32(h3[i]) != to_f32(h3[i]) && to_f32(b3[i]) != to_f32(b3[i])));
    CHECK(to_f32(h3[2]) == 1.0f);
  });
}
