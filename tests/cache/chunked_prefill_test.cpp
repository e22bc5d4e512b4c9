// SPDX-License-Identifier: Apache-2.0
// A prompt in calls of C tokens with eviction in between never needs room for more than budget and call.
#include <kvist/cache/cache.hpp>
#include <kvist/core/random.hpp>
#include <kvist/methods/registry.hpp>
#include <kvist/methods/spec.hpp>
#include <kvist/storage/any_store.hpp>
#include <kvist/storage/store/dense.hpp>

#include "support/catch.hpp"

using namespace kvist;

namespace {

using AnyCache = Cache<AnyPolicy, AnyStore>;
constexpr Shape shape{3, 4, 2, 16, 16};
const RopeTable rope = RopeTable::standard(16, 10000, RopePairs::half_split);

AnyCache cache_of(const std::string& text, Index room) {
  std::string fault;
  const auto spec = methods::parse_spec(text, fault);
  INFO(text << ": " << fault);
  REQUIRE(spec);
  const auto made = methods::make(*spec, fault);
  INFO(fault);
  REQUIRE(made);
  auto cache = AnyCache::make(
      shape, made->policy,
      [&](int, int) {
        std::vector<AnyStore> tiers;
        const bool moves = (made->policy.makes() & unsigned(Makes::moves)) != 0;
        for (int t = 0; t < (moves ? 2 : 1); ++t)
          tiers.emplace_back(DenseStore<f16>(shape.dim_k, shape.dim_v));
        return tiers;
      },
      &rope);
  REQUIRE(cache);
  if (room > 0) cache->reserve(room);
  return *std::move(cache);
}

struct Peak {
  Index head = 0;         ///< entries of the fullest head at any time
  Index all = 0;          ///< of all heads together
  std::size_t bytes = 0;  ///< of the cache
};

/// A prompt of n random tokens in calls of `chunk`; evidence is made of random numbers.
Peak feed(AnyCache& cache, Index n, Index chunk, Index budget) {
  Random random(5);
  const auto noise = [&](std::size_t count, bool positive) {
    std::vector<float> x(count);
    for (float& e : x) e = float(positive ? random.uniform() : 2 * random.uniform() - 1);
    return x;
  };
  Peak peak;
  const auto note = [&] {
    Index all = 0;
    for (int l = 0; l < shape.layers; ++l)
      for (int h = 0; h < shape.kv_heads; ++h) {
        peak.head = std::max(peak.head, cache.size(l, h));
        all += cache.size(l, h);
      }
    peak.all = std::max(peak.all, all);
  };
  for (Pos first = 0; first < n; first += chunk) {
    const Index count = std::min(chunk, n - first);
    for (int l = 0; l < shape.layers; ++l) {
      const std::size_t numbers = std::size_t(count * shape.kv_heads * shape.dim_k);
      const auto k = noise(numbers, false), v = noise(numbers, false);
      REQUIRE(cache.append(l, count, k.data(), v.data(), first));
      note();
      std::vector<std::vector<float>> queries, sums, most, by;
      std::vector<Evidence> seen(2);
      for (std::size_t h = 0; h < 2; ++h) {
        const std::size_t held = std::size_t(cache.head(l, int(h)).tier(0).store.size());
        queries.push_back(noise(2 * std::size_t(count) * 16, false));
        sums.push_back(noise(2 * held, true));
        by.emplace_back(held, float(count));
        most.push_back(noise(2 * 16, true));
        Evidence& e = seen[h];
        e.queries = cube(queries.back().data(), 2, count, 16);
        e.column_sums = cube(sums.back().data(), 2, 1, Index(held));
        e.seen_by = by.back();
        e.max_query = cube(most.back().data(), 2, 1, 16);
        e.first_query = first;
      }
      const Status went = cache.observe(l, seen, {Phase::prefill, 0, 0, budget, first + count == n});
      INFO((went ? "" : went.error().what));
      REQUIRE(went);
      note();
    }
  }
  peak.bytes = cache.bytes_peak();
  return peak;
}

constexpr Index T = 1024, C = 64, B = 128;

/// Bytes of a cache whose heads have room for just n entries each (and as many positions).
std::size_t bytes_for(Index n) { return cache_of("full", n).bytes(); }

}  // namespace

TEST_CASE("Evicting between the calls of a prompt holds at most budget and call, for every method",
          "[cache][chunked]") {
  for (const methods::Entry& e : methods::registry()) {
    if (!e.evicts) continue;
    const std::string name = e.info.name;
    INFO(name);
    if (name == "D2O") {  // its layer budgets want all layers first: it never plans inside a prompt, and says so
      std::string fault;
      const auto made = methods::make(*methods::parse_spec("D2O:schedule=per_chunk", fault), fault);
      REQUIRE(made);
      CHECK(made->policy.start(shape).error().code == Errc::unsupported);
      continue;
    }
    AnyCache chunked = cache_of(name + ":schedule=per_chunk", name == "MiKV" ? 0 : B + C),
             late = cache_of(name + ":schedule=after_prefill", 0);
    const Peak peak = feed(chunked, T, C, B), whole = feed(late, T, C, B);
    const Index heads = shape.layers * shape.kv_heads;
    // Until its end the prompt is whole; the first layer is cut before the others have its last call.
    CHECK(whole.head == T);
    CHECK(whole.all >= heads * T - (heads - shape.kv_heads) * C);
    if (name == "MiKV") continue;  // moves entries to its second tier: nothing goes
    CHECK(peak.all <= heads * (B + C));
    // Budgets of heads' and layers' own lie around the mean.
    const bool even = name != "AdaKV" && name != "PyramidKV" && name != "CAKE" && name != "KVMerger";
    if (even) CHECK(peak.head <= B + C);
    CHECK(chunked.size(shape.layers - 1, 0) + chunked.size(shape.layers - 1, 1) < 2 * (B + C));
    // Memory, and not only entries: an eighth and a sixteenth of the prompt is less than a fifth of it. Entries that
    // stand for several have a weight of their own.
    bool weighs = false;
    for (int l = 0; l < shape.layers; ++l)
      for (int h = 0; h < shape.kv_heads; ++h) weighs = weighs || !chunked.bias(l, h).empty();
    if (even)
      CHECK(peak.bytes <= bytes_for(B + C) + (weighs ? std::size_t(heads * (B + C)) * sizeof(float) : 0));
    CHECK(peak.bytes * 5 < whole.bytes + (even ? 0 : whole.bytes / 4));
  }
}

TEST_CASE("The peak of a prompt in calls follows budget and call, not the prompt's length",
          "[cache][chunked]") {
  std::size_t bytes[2][2];
  for (const int longer : {0, 1})
    for (const int larger : {0, 1}) {
      AnyCache cache = cache_of("SnapKV:window=16,schedule=per_chunk", 0);
      const Peak peak = feed(cache, longer ? 2048 : 512, larger ? 128 : 32, 64);
      CHECK(peak.head == 64 + (larger ? 128 : 32));
      CHECK(cache.size(0, 0) == 64);
      bytes[longer][larger] = peak.bytes;
    }
  CHECK(bytes[0][0] == bytes[1][0]);
  CHECK(bytes[0][1] == bytes[1][1]);
  CHECK(bytes[0][0] < bytes[0][1]);
}
