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
