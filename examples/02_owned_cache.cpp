// SPDX-License-Identifier: Apache-2.0
// How does a small engine let kvist own the cache?
//
// H2O over exact f16 rows: each step appends a token's key and value, attends with its queries, and lets the policy drop
// what it no longer wants. The cache never holds more than its budget.
#include <kvist/kvist.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  const kvist::Shape shape{.layers = 2, .q_heads = 4, .kv_heads = 2, .dim_k = 32, .dim_v = 32};
  const kvist::Index budget = 24;

  using Store = kvist::DenseStore<kvist::f16>;
  using Policy = kvist::methods::H2O::Type;
  auto policy = kvist::methods::H2O::make({});
  if (!policy) return std::puts(policy.error().what), 1;
  auto cache = kvist::Cache<Policy, Store>::make(shape, *policy, [&](int, int) {
    std::vector<Store> tiers;
    tiers.emplace_back(shape.dim_k, shape.dim_v);
    return tiers;
  });
  if (!cache) return std::puts(cache.error().what), 1;
  cache->reserve(budget + 1);

  kvist::Random random(1);
  std::vector<float> k(2 * 32), v(2 * 32), q(4 * 32), out(4 * 32);
  kvist::Serial executor;
  for (kvist::Index step = 1; step <= 200; ++step) {
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (auto* x : {&k, &v, &q})
        for (float& e : *x) e = float(2 * random.uniform() - 1);
      if (auto s = cache->append(layer, 1, k.data(), v.data(), step - 1); !s)
        return std::puts(s.error().what), 1;
      if (auto s = cache->attend(layer, q.data(), 1 / std::sqrt(32.0f), out.data(), executor); !s)
        return std::puts(s.error().what), 1;
      if (auto s = cache->step(layer, {.phase = kvist::Phase::decode, .step = step, .budget = budget}); !s)
        return std::puts(s.error().what), 1;
    }
  }
  std::printf("after 200 tokens each head holds %d entries; the cache takes %zu bytes\n", cache->size(0, 0),
              cache->bytes());
  return cache->size(0, 0) == budget ? 0 : 1;
}
