// SPDX-License-Identifier: Apache-2.0
#include <kvist/kernels/pool.hpp>

#include "../support/catch.hpp"
#include "support.hpp"

#include <algorithm>
#include <limits>

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<float> slow(const std::vector<float>& x, int kernel, bool max) {
  const Index n = Index(x.size()), r = kernel / 2;
  std::vector<float> out;
  for (Index i = 0; i < n; ++i) {
    const auto first = x.begin() + std::max<Index>(0, i - r);
    const auto last = x.begin() + Index(std::min<long long>(n, (long long)i + r + 1));
    float sum = 0;
    for (auto it = first; it != last; ++it) sum += *it;
    out.push_back(max ? *std::max_element(first, last) : sum / float(kernel));
  }
  return out;
}

}  // namespace

TEST_CASE("Pools are the plain loops' to the bit, at every instruction set", "[kernels][pool]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    for (const Index n : {0, 1, 2, 6, 7, 8, 31, 64, 100, 257, 1000})
      for (const int kernel : {1, 3, 5, 7, 13, 63, 999, std::numeric_limits<int>::max()}) {
        INFO("n " << n << " kernel " << kernel);
        const auto x = normals(std::size_t(n), std::uint64_t(n + kernel % 100));
        std::vector<float> max(std::size_t(n) + 1, -7.0f), avg = max;
        kernels::max_pool(x, kernel, max.data());
        kernels::avg_pool(x, kernel, avg.data());
        CHECK(max.back() == -7.0f);
        CHECK(avg.back() == -7.0f);
        max.pop_back();
        avg.pop_back();
        CHECK(max == slow(x, kernel, true));
        CHECK(avg == slow(x, kernel, false));
      }
  });
}

TEST_CASE("Infinite scores are pooled as numbers", "[kernels][pool]") {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x(100, 1.0f), out(100);
  x[50] = inf;
  x[20] = -inf;
  at_every_isa([&](kernels::Isa) {
    kernels::max_pool(x, 3, out.data());
    CHECK(out == slow(x, 3, true));
    kernels::avg_pool(x, 3, out.data());
    CHECK(out == slow(x, 3, false));
  });
}
