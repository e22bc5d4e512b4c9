// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"
#include "support.hpp"

#include <kvist/kernels/select.hpp>

#include <limits>
#include <numeric>

using namespace kvist;
using namespace kvist::test;

namespace {

// the definition: a stable sort by score, the best k of it
std::vector<Index> slow_top(std::vector<float> x, Index k) {
  for (float& v : x)
    if (v != v) v = -std::numeric_limits<float>::infinity();
  std::vector<Index> all(x.size());
  std::iota(all.begin(), all.end(), 0);
  std::stable_sort(all.begin(), all.end(),
                   [&](Index a, Index b) { return x[std::size_t(a)] > x[std::size_t(b)]; });
  all.resize(std::size_t(std::min(k, Index(x.size()))));
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

TEST_CASE("select_top takes the best k, lower indices of equal scores, ascending", "[kernels][select]") {
  std::vector<Index> out;
  kernels::select_top(std::vector<float>{1, 3, 3, 2, 3}, 2, out);
  CHECK(out == std::vector<Index>{1, 2});
  kernels::select_top(std::vector<float>{1, 3, 3, 2, 3}, 4, out);
  CHECK(out == std::vector<Index>{1, 2, 3, 4});
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  kernels::select_top(std::vector<float>{nan, -inf, 0, nan, -1}, 3, out);
  CHECK(out == std::vector<Index>{0, 2, 4});
  kernels::select_top(std::vector<float>{0.0f, -0.0f, 0.0f}, 2, out);
  CHECK(out == std::vector<Index>{0, 1});
}

TEST_CASE("Orders and repetitions that could mislead a sample change nothing", "[kernels][select]") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  at_every_isa([&](kernels::Isa) {
    for (const Index n : {2048, 2049, 16383, 16384, 40000}) {
      for (int kind = 0; kind < 14; ++kind) {
        std::vector<float> x(static_cast<std::size_t>(n));
        const auto noise = normals(x.size(), std::uint64_t(kind));
        for (std::size_t i = 0; i < x.size(); ++i) {
          const float at = float(i);
          x[i] = kind == 0    ? at
                 : kind == 1  ? -at
                 : kind == 2  ? 3.0f  // all alike
                 : kind == 3  ? float(i % 2)
                 : kind == 4  ? float(i % 16)  // the period of a stride
                 : kind == 5  ? (i % 64 == 63 ? at : -at)
                 : kind == 6  ? (i < 40 ? 1e9f + at : noise[i])
                 : kind == 7  ? (i + 40 > x.size() ? -1e9f + at : noise[i])
                 : kind == 8  ? (i % 1000 == 7 ? nan : -inf)
                 : kind == 9  ? nan
                 : kind == 10 ? (i % 3 == 0 ? inf : noise[i])
                 : kind == 11 ? noise[i] * 1e-42f  // below the smallest normal number
                 : kind == 12 ? std::floor(noise[i])
                              : (i % 2 == 0 ? 0.0f : -0.0f);
        }
        for (const Index k : {Index(1), Index(2), Index(17), n / 8, n / 2, n - n / 8, n - 2, n - 1}) {
          INFO("n " << n << " k " << k << " kind " << kind);
          std::vector<Index> top, rest;
          kernels::select_top(x, k, top);
          kernels::select_rest(x, k, rest);
          const auto want = slow_top(x, k);
          const bool same = top == want;
          CHECK(same);
          std::vector<Index> others;
          std::size_t w = 0;
          for (Index i = 0; i < n; ++i) {
            if (w < want.size() && want[w] == i) ++w;
            else others.push_back(i);
          }
          const bool complement = rest == others;
          CHECK(complement);
        }
      }
    }
  });
}

TEST_CASE("Long lists are selected from alike, on the stack and beyond it", "[kernels][select]") {
  for (const Index n : {131072, 300000}) {
    std::vector<float> x = normals(std::size_t(n), 4);
    for (std::size_t i = 0; i < x.size(); i += 3) x[i] = std::round(x[i] * 8);
    for (const Index k : {Index(5), n / 8, n / 2, n - 1}) {
      std::vector<Index> top, base;
      kernels::select_top(x, k, top);
      const bool same = top == slow_top(x, k);
      CHECK(same);
      kernels::force_isa(kernels::Isa::base);
      kernels::select_top(x, k, base);
      kernels::unforce_isa();
      CHECK((base == top));
    }
  }
}

TEST_CASE("Indices may count from elsewhere", "[kernels][select]") {
  std::vector<Index> out;
  kernels::select_top(std::vector<float>{1, 5, 3}, 2, out, 100);
  CHECK(out == std::vector<Index>{101, 102});
  kernels::select_rest(std::vector<float>{1, 5, 3}, 2, out, 100);
  CHECK(out == std::vector<Index>{100});
  kernels::select_bottom(std::vector<float>{1, 1, 1}, 3, out, 7);
  CHECK(out == std::vector<Index>{7, 8, 9});
  kernels::select_bottom(std::vector<float>{1, 1, 1}, 0, out, 7);
  CHECK(out.empty());
}

TEST_CASE("select_top equals a stable sort; rest and bottom are its complement", "[kernels][select]") {
  at_every_isa([&](kernels::Isa) {
    for (const Index n : {0, 1, 2, 16, 31, 100, 1000, 5000, 20000}) {
      for (const int kind : {0, 1, 2, 3, 4}) {
        std::vector<float> x = normals(std::size_t(n), std::uint64_t(n + kind));
        for (std::size_t i = 0; i < x.size(); ++i) {
          if (kind == 1) x[i] = std::round(x[i] * 2);  // many ties
          if (kind == 2) x[i] = std::exp(x[i] * 8);    // heavy tail, as probabilities
          if (kind == 3) x[i] = i % 7 == 0 ? std::numeric_limits<float>::quiet_NaN() : x[i];
          if (kind == 4) x[i] = i % 3 == 0 ? std::numeric_limits<float>::infinity() : 1.0f;
        }
        for (const Index k : {Index(0), Index(1), n / 7, n / 2, n - 1, n, n + 5}) {
          if (k < 0) continue;
          INFO("n " << n << " k " << k << " kind " << kind);
          std::vector<Index> top, rest, bottom;
          kernels::select_top(x, k, top);
          kernels::select_rest(x, k, rest);
          kernels::select_bottom(x, n - std::min(k, n), bottom);
          const bool same = top == slow_top(x, k);
          CHECK(same);
          CHECK(rest == bottom);
          std::vector<Index> both = top;
          both.insert(both.end(), rest.begin(), rest.end());
          std::sort(both.begin(), both.end());
          bool all = Index(both.size()) == n;
          for (std::size_t i = 0; all && i < both.size(); ++i) all = both[i] == Index(i);
          CHECK(all);
          CHECK(std::is_sorted(rest.begin(), rest.end()));
        }
      }
    }
  });
}
