#pragma once
// SPDX-License-Identifier: Apache-2.0
// A cache that the library owns, made from a SPEC and driven by random numbers as an engine would: a prompt with every
// kind of evidence, decode steps, the same ones for the same seed.
#include "coded_rows.hpp"

#include <kvist/cache/cache.hpp>
#include <kvist/methods/spec.hpp>
#include <kvist/methods/stores.hpp>

#include <string>
#include <vector>

namespace kvist::test {

using AnyCache = Cache<AnyPolicy, AnyStore>;

class DrivenCache {
 public:
  static inline const RopeTable rope = RopeTable::standard(32, 10000, RopePairs::half_split);

  static Result<AnyCache> empty(const std::string& spec, const Shape& shape) {
    std::string fault;
    const auto parsed = methods::parse_spec(spec, fault);
    if (!parsed) return parsed.error();
    const auto made = methods::make(*parsed, fault);
    if (!made) return made.error();
    const auto stores = made->stores ? made->stores : methods::ExactF32::make({}).value();
    return AnyCache::make(
        shape, made->policy, [&](int l, int h) { return stores(shape, l, h); }, &rope);
  }

  DrivenCache(AnyCache c, Index budget, std::uint64_t seed)
      : cache(std::move(c)), shape_(cache.shape()), budget_(budget), numbers_(seed) {}

  AnyCache cache;

  /// n tokens as one prompt.
  Status prompt(Index n) {
    const int d = shape_.dim_k, heads = shape_.kv_heads, group = shape_.group();
    const Pos first = cache.next_position();
    for (int l = 0; l < shape_.layers; ++l) {
      const auto k = numbers_.rows(n, heads * d), v = numbers_.rows(n, heads * shape_.dim_v);
      if (Status s = cache.append(l, n, k.data(), v.data(), first); !s) return s;
      std::vector<Evidence> seen;
      std::vector<std::vector<float>> held;
      const auto keep = [&](std::vector<float> x) { return held.emplace_back(std::move(x)).data(); };
      for (int h = 0; h < heads; ++h) {
        const Index size = cache.head(l, h).tier(0).store.size();  // what the policy plans over
        std::vector<float> sums(std::size_t(group) * std::size_t(size)), most(std::size_t(group * d), 1.5f);
        for (float& x : sums) x = float(numbers_.random.uniform());
        Evidence e;
        e.queries = cube(keep(numbers_.rows(group * n, d)), group, n, d);
        e.column_sums = cube(keep(std::move(sums)), group, 1, size);
        e.seen_by = {keep(std::vector<float>(std::size_t(size), 1.0f)), std::size_t(size)};
        e.max_query = cube(keep(std::move(most)), group, 1, d);
        e.first_query = first;
        seen.push_back(e);
      }
      if (Status s = cache.observe(l, seen, {Phase::prefill, 0, n, budget_, true}); !s) return s;
    }
    step_ = 0;
    return Done{};
  }

  /// n decode steps; the outputs of all layers follow one another in `out`.
  Status steps(Index n) { return steps(n, serial_); }
  template <Executor E>
  Status steps(Index n, E& executor) {
    const int d = shape_.dim_k;
    for (Index t = 0; t < n; ++t) {
      ++step_;
      const Pos pos = cache.next_position();
      for (int l = 0; l < shape_.layers; ++l) {
        const auto k = numbers_.rows(1, shape_.kv_heads * d),
                   v = numbers_.rows(1, shape_.kv_heads * shape_.dim_v), q = numbers_.rows(shape_.q_heads, d);
        if (Status s = cache.append(l, 1, k.data(), v.data(), pos); !s) return s;
        const std::size_t at = out.size();
        out.resize(at + std::size_t(shape_.q_heads * shape_.dim_v));
        if (Status s = cache.attend(l, q.data(), 0.2f, out.data() + at, executor); !s) return s;
        if (Status s = cache.step(l, {Phase::decode, step_, 0, budget_, true}); !s) return s;
      }
    }
    return Done{};
  }

  /// This run with another cache in the place of its own: it goes on with the same numbers.
  DrivenCache with(AnyCache c) const {
    DrivenCache other(std::move(c), budget_, 0);
    other.numbers_ = numbers_;
    other.step_ = step_;
    return other;
  }

  std::vector<float> out;

 private:
  Shape shape_;
  Index budget_ = 0, step_ = 0;
  Numbers numbers_;
  Serial serial_;
};

}  // namespace kvist::test
