// SPDX-License-Identifier: Apache-2.0
// Eviction and coded stores in one cache.
#include "../support/catch.hpp"
#include "../support/coded_rows.hpp"

#include <kvist/cache/cache.hpp>
#include <kvist/methods/kivi.hpp>
#include <kvist/methods/spec.hpp>

#include <map>

using namespace kvist;
using namespace kvist::test;

namespace {

using AnyCache = Cache<AnyPolicy, AnyStore>;
const Shape shape{1, 4, 2, 64, 64};

/// A cache of that SPEC after a prompt of n random tokens.
Result<AnyCache> after_prompt(const char* text, Index n, Index budget, Numbers& numbers) {
  std::string fault;
  const auto spec = methods::parse_spec(text, fault);
  if (!spec) return spec.error();
  const auto made = methods::make(*spec, fault);
  if (!made) return made.error();
  auto cache = AnyCache::make(shape, made->policy, [&](int l, int h) { return made->stores(shape, l, h); });
  if (!cache) return cache.error();
  const auto k = numbers.rows(n, 128), v = numbers.rows(n, 128), q = numbers.rows(2 * 2 * n, 64);
  if (Status s = cache->append(0, n, k.data(), v.data(), 0); !s) return s.error();
  std::vector<float> sums(std::size_t(4 * n)), seen_by(std::size_t(n), 1.0f), most(256, 1.0f);
  for (float& x : sums) x = float(numbers.random.uniform());
  std::vector<Evidence> seen(2);
  for (std::size_t h = 0; h < 2; ++h) {
    seen[h].queries = cube(q.data() + h * std::size_t(2 * n) * 64, 2, n, 64);
    seen[h].column_sums = cube(sums.data() + h * std::size_t(2 * n), 2, 1, n);
    seen[h].seen_by = seen_by;
    seen[h].max_query = cube(most.data() + h * 128, 2, 1, 64);
  }
  if (Status s = cache->observe(0, seen, Clock{Phase::prefill, 0, n, budget, true}); !s) return s.error();
  return cache;
}

}  // namespace

TEST_CASE("A prompt is evicted first, and what stays is coded once", "[cache][stores]") {
  Numbers one(3), two(3);
  // the survivors of SnapKV, coded by KIVI: the same rows as KIVI makes of the exact survivors
  auto exact = after_prompt("SnapKV:window=8+f32", 400, 160, one);
  auto coded = after_prompt("SnapKV:window=8+KIVI:bits=8,group=32,residual=32", 400, 160, two);
  REQUIRE(exact);
  REQUIRE(coded);
  for (int h = 0; h < 2; ++h) {
    REQUIRE(coded->size(0, h) == 160);
    CHECK(coded->head(0, h).tier(0).pos == exact->head(0, h).tier(0).pos);
    std::vector<float> k(160 * 64), v(k), ek(k), ev(k);
    coded->read(0, h, 0, 160, k.data(), v.data());
    exact->read(0, h, 0, 160, ek.data(), ev.data());
    auto again = methods::Kivi::make({8, 32, 32, 0, 0, kernels::Accuracy::exact}).value()(shape, 0, 0);
    AnyStore& store = (*again)[0];
    store.append(ek.data(), ev.data(), 160);
    store.settle();
    store.read(0, 160, ek.data(), ev.data());
    CHECK((k == ek));
    CHECK((v == ev));
  }
}

TEST_CASE("After a prompt that is evicted, coded rows take what their parts predict", "[cache][stores]") {
  Numbers numbers(4);
  const auto cache = after_prompt("SnapKV+KIVI:bits=4", 1024, 256, numbers);
  REQUIRE(cache);
  // d = 64: 32 bytes of codes a row; of keys a scale and a minimum (2 bytes each) per channel and 32 rows, of values per row
  // and 32 channels, 8 bytes a row both. The newest 128 values are f32, of keys none is left over.
  const std::size_t codes = 256 * (32 + 8), window = 128 * 64 * 4, bitmap = 256 / 8;
  CHECK(cache->head(0, 0).tier(0).store.bytes() == 2 * codes + window + bitmap);
}

namespace {

/// What one side (keys or values) of a head must hold: an entry's bits change once, when it is coded.
struct WatchedSide {
  struct Row {
    std::vector<float> exact, now;  ///< as it was before it was coded; as it was read last
    bool coded() const { return now != exact; }
  };
  std::map<Pos, Row> rows;

  /// Of the entries at `pos`, read as x [n, 64], those that were not coded before may be, and no others; coded ones come
  /// first, and at most `waiting` are not.
  void look(std::span<const Pos> pos, const std::vector<float>& x, Index waiting) {
    std::map<Pos, Row> left;
    Index exact = 0;
    for (std::size_t i = 0; i < pos.size(); ++i) {
      Row row = rows.at(pos[i]);
      const std::vector<float> now(x.begin() + std::ptrdiff_t(i * 64), x.begin() + std::ptrdiff_t(i * 64 + 64));
      if ((now != row.now)) REQUIRE_FALSE(row.coded());
      row.now = now;
      if (row.coded()) REQUIRE(exact == 0);
      else ++exact;
      left.emplace(pos[i], std::move(row));
    }
    REQUIRE(exact <= waiting);
    rows = std::move(left);
  }
};

}  // namespace

TEST_CASE("Policies that go on in decode work over every store, and rows that stay keep their bits",
          "[cache][stores]") {
  struct Case {
    const char* store;
    Index keys, values;  ///< most rows that wait to be coded after a step
  };
  for (const Case& of : {Case{"int8", 0, 0}, Case{"int_token:bits=4,group=32", 0, 0},
                         Case{"int_channel:bits=4,group=16", 15, 15}, Case{"q4_0", 0, 0},
                         Case{"fp8_e4m3", 0, 0}, Case{"KIVI:bits=4,group=32,residual=32", 31, 32},
                         Case{"KIVI:bits=3,group=16,residual=16", 15, 16}, Case{"rotated(int8)", 0, 0}}) {
    const char* const store = of.store;
    INFO(store);
    Numbers numbers(5), again(5);
    auto cache = after_prompt((std::string("H2O+") + store).c_str(), 200, 120, numbers);
    REQUIRE(cache);
    WatchedSide watched_k[2], watched_v[2];
    const auto prompt_k = again.rows(200, 128), prompt_v = again.rows(200, 128);
    const auto row_of = [](const std::vector<float>& x, std::size_t row) {
      return std::vector<float>(x.begin() + std::ptrdiff_t(row * 64), x.begin() + std::ptrdiff_t(row * 64 + 64));
    };
    std::vector<float> k_now, v_now;
    const auto read = [&](int h) {
      const Index n = cache->size(0, h);
      k_now.resize(std::size_t(n) * 64), v_now.resize(std::size_t(n) * 64);
      cache->read(0, h, 0, n, k_now.data(), v_now.data());
    };
    const auto look = [&](int h) {
      read(h);
      const auto& pos = cache->head(0, h).tier(0).pos;
      watched_k[h].look(pos, k_now, of.keys);
      watched_v[h].look(pos, v_now, of.values);
    };
    for (int h = 0; h < 2; ++h) {
      for (std::size_t t = 0; t < 200; ++t) {
        const auto k = row_of(prompt_k, 2 * t + std::size_t(h)), v = row_of(prompt_v, 2 * t + std::size_t(h));
        watched_k[h].rows[Pos(t)] = {k, k}, watched_v[h].rows[Pos(t)] = {v, v};
      }
      look(h);
    }
    for (Index t = 0; t < 100; ++t) {
      const auto k = numbers.rows(1, 128), v = numbers.rows(1, 128), q = numbers.rows(4, 64);
      REQUIRE(cache->append(0, 1, k.data(), v.data(), 200 + t));
      std::vector<float> out(256);
      Serial serial;
      REQUIRE(cache->attend(0, q.data(), 0.125f, out.data(), serial));
      for (int h = 0; h < 2; ++h) {
        // the output is that of the rows which read() gives
        read(h);
        const Index n = cache->size(0, h);
        AttendArgs a;
        a.q = q.data() + h * 128;
        a.group = 2;
        a.scale = 0.125f;
        double error = 0, norm = 0;
        for (int g = 0; g < 2; ++g) {
          const auto want = exact_attention(a, g, k_now, v_now, 64, n);
          for (std::size_t c = 0; c < 64; ++c) {
            const double e = double(out[std::size_t(h * 128 + g * 64) + c]) - want.out[c];
            error += e * e;
            norm += want.out[c] * want.out[c];
          }
        }
        REQUIRE(std::sqrt(error / norm) < 3e-4);
        const auto last_k = row_of(k_now, std::size_t(n - 1)), last_v = row_of(v_now, std::size_t(n - 1));
        watched_k[h].rows[200 + t] = {last_k, last_k}, watched_v[h].rows[200 + t] = {last_v, last_v};
        if (std::string_view(store).substr(0, 7) == "rotated") continue;  // turned and turned back
        REQUIRE((last_k == row_of(k, std::size_t(h))));
        REQUIRE((last_v == row_of(v, std::size_t(h))));
      }
      REQUIRE(cache->step(0, Clock{Phase::decode, t + 1, 0, 120, true}));
      for (int h = 0; h < 2; ++h) {
        REQUIRE(cache->size(0, h) == 120);
        look(h);
      }
    }
  }
}

TEST_CASE("A window over tiers of coded rows goes together with lists of rows and a first row",
          "[cache][HeadCache]") {
  std::vector<AnyStore> tiers;
  for (const char* name : {"KIVI:bits=4,group=16,residual=16", "int8"}) {
    std::string fault;
    const auto made = methods::make(*methods::parse_spec(name, fault), fault);
    REQUIRE(made);
    tiers.push_back(std::move(made->stores(shape, 0, 0)->front()));
  }
  HeadCache<AnyStore> head(std::move(tiers), 64, 64);
  Numbers numbers(12);
  const Index n = 200;
  const auto rows_k = numbers.rows(n, 64), rows_v = numbers.rows(n, 64), q = numbers.rows(2, 64);
  head.append(rows_k.data(), rows_v.data(), n, 0);
  HeadPlan plan;  // entries move to the second tier, not in their order
  for (const Index i : {150, 3, 90, 180, 40, 41, 42}) plan.move = {{i, 1}}, head.apply(plan);
  head.settle();
  std::vector<Pos> pos = head.tier(0).pos;
  pos.insert(pos.end(), head.tier(1).pos.begin(), head.tier(1).pos.end());
  const Index first_tier = head.tier(0).store.size();
  REQUIRE(first_tier == n - 7);
  std::vector<float> k(std::size_t(n) * 64), v(k);
  head.read(0, n, k.data(), v.data());

  std::vector<Index> third, low, high{n - 6, n - 2};
  for (Index i = 0; i < n; i += 3) third.push_back(i);
  for (Index i = 5; i < 60; ++i) low.push_back(i);
  for (const auto& list : {std::vector<Index>{}, third, low, high})
    for (const Index first : {0, 77, first_tier + 2})
      for (const Pos oldest : {-4, 0, 42, 120, 190}) {
        std::vector<Index> seen;
        for (Index i = first; i < n; ++i)
          if (pos[std::size_t(i)] >= oldest && (list.empty() || std::binary_search(list.begin(), list.end(), i)))
            seen.push_back(i);
        INFO("list of " << list.size() << ", first " << first << ", oldest " << oldest << ", seen "
                        << seen.size());
        AttendArgs a;
        a.q = q.data();
        a.group = 2;
        a.scale = 0.125f;
        a.first = first;
        a.only = list;
        std::vector<float> logits(std::size_t(2 * n), 7.0f), out(128);
        a.logits = logits.data();
        a.logits_stride = n;
        AttnBuffer buffer(2, 64);
        head.attend_since(a, oldest, buffer.state());
        std::vector<Index> got;
        for (Index i = 0; i < n; ++i)
          if (!std::isinf(logits[std::size_t(i)])) got.push_back(i);
        CHECK((got == seen));
        if (seen.empty()) continue;
        finish(buffer.state(), out.data());
        a.first = 0;
        a.only = seen;
        double error = 0, norm = 0;
        for (int g = 0; g < 2; ++g) {
          const auto want = exact_attention(a, g, k, v, 64, n);
          for (std::size_t c = 0; c < 64; ++c) {
            const double e = double(out[std::size_t(g * 64) + c]) - want.out[c];
            error += e * e;
            norm += want.out[c] * want.out[c];
          }
        }
        CHECK(std::sqrt(error / norm) < 3e-4);
      }
}

TEST_CASE("A few tokens at once get what they get one by one, from every kind of store", "[cache][stores]") {
  const std::vector<float> sink{0.5f, -1, 2, 0};
  for (const char* spec : {"SnapKV:window=8+f32", "SnapKV:window=8+int8",
                           "H2O+KIVI:bits=4,group=32,residual=32", "SnapKV:window=8,merge=nearest+f32"}) {
    for (const Pos window : {0, 3, 40}) {
      INFO(spec << ", window " << window);
      Numbers numbers(6);
      auto together = after_prompt(spec, 300, 160, numbers);
      REQUIRE(together);
      AnyCache single = together->clone();
      const Index n = 7;
      const auto k = numbers.rows(n, 128), v = numbers.rows(n, 128), q = numbers.rows(n * 4, 64);
      const LayerAttention how{0.125f, 30, window, sink};
      Serial serial;
      std::vector<float> out(std::size_t(n) * 256), want(out);
      REQUIRE(together->attend_tokens(0, n, q.data(), k.data(), v.data(), 300, how, out.data(), serial));
      CHECK(together->size(0, 0) == 160);
      for (Index t = 0; t < n; ++t) {
        REQUIRE(single.append(0, 1, k.data() + t * 128, v.data() + t * 128, 300 + t));
        REQUIRE(single.attend(0, q.data() + t * 256, how, want.data() + t * 256, serial));
      }
      double error = 0, norm = 0;
      for (std::size_t i = 0; i < out.size(); ++i) {
        error += (double(out[i]) - want[i]) * (double(out[i]) - want[i]);
        norm += double(want[i]) * want[i];
      }
      CHECK(std::sqrt(error / norm) < 1e-6);
    }
  }
  Numbers numbers(6);
  auto cache = after_prompt("SnapKV:window=8+f32", 300, 160, numbers);
  const std::vector<float> x(512);
  std::vector<float> out(512);
  Serial serial;
  const LayerAttention one_sink{0.125f, 0, 0, std::span(sink).first(1)};
  CHECK(cache->attend_tokens(0, 2, x.data(), x.data(), x.data(), 300, one_sink, out.data(), serial).error().code ==
        Errc::bad_shape);
}

TEST_CASE("A SPEC whose store cannot hold the model's rows is refused when the cache is made",
          "[cache][stores]") {
  const Shape odd{1, 1, 1, 48, 48};
  for (const char* text : {"rotated(int8)", "q4_0", "int_token:bits=4,group=32"}) {
    std::string fault;
    const auto made = methods::make(*methods::parse_spec(text, fault), fault);
    REQUIRE(made);
    const auto cache = AnyCache::make(odd, made->policy, [&](int l, int h) { return made->stores(odd, l, h); });
    REQUIRE(!cache);
    CHECK(cache.error().code == Errc::bad_shape);
  }
  const Shape wide{1, 1, 1, 8224, 8224};  // 257 blocks of 32: more channels than are decoded at once
  for (const char* text :
       {"q8_0", "q5_0", "fp8_e4m3", "int8", "int_token:bits=16", "int_channel:bits=4,group=16",
        "KIVI:bits=3,group=16,residual=16", "KIVI:k_bits=16,v_bits=16", "MiKV"}) {
    INFO(text);
    std::string fault;
    const auto made = methods::make(*methods::parse_spec(text, fault), fault);
    REQUIRE(made);
    const auto stores = made->stores(wide, 0, 0);
    REQUIRE(!stores);
    CHECK(stores.error().code == Errc::bad_shape);
  }
}

TEST_CASE("MiKV demotes and drops nothing; its tiers keep all positions", "[cache][stores][MiKV]") {
  Numbers numbers(7);
  auto cache = after_prompt("MiKV:bits=4,high=f32", 100, 20, numbers);
  REQUIRE(cache);
  for (Index t = 0; t < 50; ++t) {
    const auto k = numbers.rows(1, 128), v = numbers.rows(1, 128), q = numbers.rows(4, 64);
    REQUIRE(cache->append(0, 1, k.data(), v.data(), 100 + t));
    std::vector<float> out(256);
    Serial serial;
    REQUIRE(cache->attend(0, q.data(), 0.125f, out.data(), serial));
    REQUIRE(cache->step(0, Clock{Phase::decode, t + 1, 0, 20, true}));
    const Index n = 101 + t;
    REQUIRE(cache->size(0, 1) == n);
    const auto& high = cache->head(0, 1).tier(0).pos;
    REQUIRE(Index(high.size()) == n / 5);
    std::vector<Pos> all = high;
    all.insert(all.end(), cache->head(0, 1).tier(1).pos.begin(), cache->head(0, 1).tier(1).pos.end());
    std::sort(all.begin(), all.end());
    for (Index i = 0; i < n; ++i) REQUIRE(all[std::size_t(i)] == i);
    for (Index i = 0; i < n / 5 / 2; ++i)
      REQUIRE(high[high.size() - 1 - std::size_t(i)] == n - 1 - i);  // the newest
  }
  cache->truncate(60);  // demoted out of order: all at 60 and later are gone
  CHECK(cache->size(0, 0) == 60);
}
