// SPDX-License-Identifier: Apache-2.0
// What caches take from the allocator: bytes() says it for every store, shorter heads free it, and decode takes nothing
// after reserve().
#include "../support/allocator_log.hpp"
#include "../support/catch.hpp"
#include "../support/driven_cache.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

const Shape shape{1, 4, 2, 64, 64};

/// One layer; two where layers share, so that there is a pair.
Shape shape_of(const std::string& store) {
  Shape s = shape;
  if (store.find("MiniCache") != store.npos) s.layers = 2;
  return s;
}

/// Every registered store, some of them with other options, and those that MiKV brings as tiers.
std::vector<std::string> stores() {
  std::vector<std::string> out{"rotated(int8)",
                               "rotated(KIVI:bits=4)",
                               "KIVI:bits=4,group=64,residual=64",
                               "KIVI:bits=3,group=16,residual=16",
                               "int_token:bits=4,group=32,outliers=2",
                               "int_channel:bits=2,group=64",
                               "MiniCache:start=0+int8",
                               "MiniCache:start=0+KIVI:bits=4,group=32,residual=32"};
  for (const methods::Entry& e : methods::registry())
    if (e.store && std::string_view(e.info.name) != "rotated")
      out.push_back(std::string(e.info.name) + (std::string_view(e.info.name) == "MiniCache" ? ":start=0" : ""));
  return out;
}

/// The tiers of one head in each layer, told of each other.
std::vector<std::vector<AnyStore>> made(const std::string& spec) {
  std::string fault;
  const auto parsed = methods::parse_spec(spec, fault);
  REQUIRE(parsed);
  auto policy = methods::make(*parsed, fault);
  REQUIRE(policy);
  std::vector<std::vector<AnyStore>> out;
  for (int l = 0; l < shape_of(spec).layers; ++l) {
    auto tiers = policy->stores(shape_of(spec), l, 0);
    REQUIRE(tiers);
    out.push_back(*std::move(tiers));
    if (l > 0) REQUIRE(out[1][0].couple(out[0][0]));
  }
  return out;
}

/// Everything that a cache does to the stores of a head in its layers; `look` is called after each.
template <class F>
void live(std::span<AnyStore* const> layers, const std::vector<float>& rows, F look) {
  Random random(11);
  const auto some = [&](const AnyStore& store, std::uint64_t one_of) {
    std::vector<Index> gone;
    for (Index i = 0; i < store.size(); ++i)
      if (random.below(one_of) == 0) gone.push_back(i);
    return gone;
  };
  const auto each = [&](const char* what, auto f) {
    for (std::size_t l = 0; l < layers.size(); ++l) f(*layers[l], rows.data() + l * 64 * 64);
    look(what);
  };
  each("a prompt", [](AnyStore& s, const float* x) { s.append(x, x, 1000); });
  each("coding it", [](AnyStore& s, const float*) { s.settle(); });
  each("dropping a third", [&](AnyStore& s, const float*) { s.drop(some(s, 3)); });
  for (Index t = 0; t < 300; ++t)
    each("a step that drops a row", [&](AnyStore& s, const float* x) {
      s.append(x + t * 64, x + t * 64, 1);
      s.settle();
      s.drop(std::vector<Index>{Index(random.below(std::uint64_t(s.size())))});
    });
  each("a written row", [](AnyStore& s, const float* x) { s.write(5, x, x); });
  each("taking tokens back", [](AnyStore& s, const float*) { s.truncate(s.size() - 40); });
  each("dropping three quarters", [&](AnyStore& s, const float*) { s.drop(some(s, 2)), s.drop(some(s, 2)); });
  each("reserving", [](AnyStore& s, const float*) { s.reserve(3000); });
  each("going on", [](AnyStore& s, const float* x) { s.append(x, x, 200), s.settle(); });
}

}  // namespace

TEST_CASE("bytes() of every store is what the allocator gave for it", "[cache][memory]") {
  Numbers numbers(3);
  const auto rows = numbers.rows(1100, 64);
  auto names = stores();
  names.push_back("MiKV:high=int8");
  for (const std::string& name : names) {
    auto tiers = made(name);
    for (std::size_t tier = 0; tier < tiers[0].size(); ++tier) {
      std::vector<AnyStore*> layers;
      for (auto& layer : tiers) layers.push_back(&layer[tier]);
      const auto bytes = [&] {
        std::size_t sum = 0;
        for (const AnyStore* s : layers) sum += s->bytes();
        return sum;
      };
      // the objects themselves stand outside: what a store holds is counted from when it is empty
      const std::size_t empty = bytes();
      AllocatorLog::held = 0;
      AllocatorLog::logging = true;
      std::vector<std::pair<long long, long long>> seen;
      seen.reserve(400);
      const long long own = AllocatorLog::held;
      std::vector<const char*> after;
      live(layers, rows, [&](const char* what) {
        AllocatorLog::logging = false;
        seen.emplace_back(AllocatorLog::held - own, (long long)(bytes() - empty));
        after.push_back(what);
        AllocatorLog::logging = true;
      });
      AllocatorLog::logging = false;
      for (std::size_t i = 0; i < seen.size(); ++i) {
        INFO(name << " after " << after[i]);
        CHECK(seen[i].first == seen[i].second);
      }
    }
  }
}

TEST_CASE("A cache that was reserved takes nothing from the allocator in decode", "[cache][memory]") {
  auto names = stores();
  for (const char* policy :
       {"SnapKV:window=8+KIVI:bits=4", "SnapKV:window=8+f16", "AdaKV:window=8+int8", "random"})
    names.push_back(policy);
  names.push_back("SnapKV:window=8+MiniCache:start=0+f16");
  for (const std::string& name : names) {
    INFO(name);
    DrivenCache run(*DrivenCache::empty(name, shape_of(name)), 100, 5);
    const bool before = name.find("MiniCache") != name.npos;  // what a prompt gives back is not what was reserved
    if (before) run.cache.reserve(2000);
    REQUIRE(run.prompt(400));
    if (!before) run.cache.reserve(2000);
    Numbers numbers(9);
    const auto k = numbers.rows(1, 128), v = numbers.rows(1, 128), q = numbers.rows(4, 64);
    std::vector<float> out(256);
    Serial serial;
    bool went = true;
    AllocatorLog::taken = 0;
    AllocatorLog::logging = true;
    for (Index t = 0; t < 600; ++t)
      for (int l = 0; l < run.cache.shape().layers; ++l) {
        went = went && run.cache.append(l, 1, k.data(), v.data(), 400 + t).has_value();
        went = went && run.cache.attend(l, q.data(), 0.1f, out.data(), serial).has_value();
        went = went && run.cache.step(l, {Phase::decode, t + 1, 0, 100, true}).has_value();
      }
    AllocatorLog::logging = false;
    CHECK(went);
    CHECK(AllocatorLog::taken == 0);
  }
}

TEST_CASE("Attention over 131,072 entries takes nothing from the allocator after reserve()",
          "[cache][memory]") {
  constexpr Index n = 131072, steps = 40;
  constexpr int d = 32;
  const Shape one_head{1, 2, 1, d, d};
  Numbers numbers(8);
  const auto rows = numbers.rows(n + steps, d), q = numbers.rows(2, d);
  std::vector<float> out(2 * d);
  for (const char* name : {"f16", "int8", "KIVI:bits=4"}) {
    INFO(name);
    AnyCache cache = *DrivenCache::empty(name, one_head);
    cache.reserve(n + steps);
    REQUIRE(cache.append(0, n, rows.data(), rows.data(), 0));
    cache.settle(0);
    const std::size_t bytes = cache.bytes();
    const LayerAttention window{0.2f, 30, 100000, {}};
    Serial serial;
    bool went = true;
    AllocatorLog::taken = 0;
    AllocatorLog::logging = true;
    for (Index t = 0; t < steps; ++t) {
      const float* const row = rows.data() + std::ptrdiff_t(n + t) * d;
      went = went && cache.append(0, 1, row, row, n + t).has_value();
      went = went && cache.attend(0, q.data(), 0.2f, out.data(), serial).has_value();
      went = went && cache.attend(0, q.data(), window, out.data(), serial).has_value();
      went = went && cache.step(0, {Phase::decode, t + 1, 0, n + steps, true}).has_value();
    }
    AllocatorLog::logging = false;
    CHECK(went);
    CHECK(AllocatorLog::taken == 0);
    CHECK(cache.size(0, 0) == n + steps);
    CHECK(cache.bytes() == bytes);
  }
}

TEST_CASE("A step that evicts takes a few short lists from the allocator, however long the cache is",
          "[cache][memory]") {
  struct Case {
    const char* spec;
    Index more;  ///< rows beyond the budget that are reserved
  };
  // one more entry than the budget is in the cache between append and step; codes along the tokens want two units, too
  for (const auto& [spec, more] : {Case{"H2O+f16", 1}, Case{"H2O+int8", 1}, Case{"H2O+q4_0", 1},
                                   Case{"StreamingLLM+KIVI:bits=4,group=32,residual=32", 1 + 2 * 32}}) {
    INFO(spec);
    std::vector<long long> taken;
    for (const Index budget : {64, 1024}) {
      INFO("budget " << budget);
      DrivenCache run(*DrivenCache::empty(spec, shape), budget, 5);
      REQUIRE(run.prompt(budget + 100));
      run.cache.reserve(budget + more);
      Numbers numbers(9);
      const auto k = numbers.rows(1, 128), v = numbers.rows(1, 128), q = numbers.rows(4, 64);
      std::vector<float> out(256);
      Serial serial;
      const auto step = [&](Index t) {
        bool went = run.cache.append(0, 1, k.data(), v.data(), budget + 99 + t).has_value();
        went = went && run.cache.attend(0, q.data(), 0.1f, out.data(), serial).has_value();
        return went && run.cache.step(0, {Phase::decode, t, 0, budget, true}).has_value();
      };
      for (Index t = 1; t < 20; ++t) REQUIRE(step(t));
      const std::size_t bytes = run.cache.bytes();
      bool went = true;
      AllocatorLog::taken = 0;
      AllocatorLog::logging = true;
      for (Index t = 20; t < 620; ++t) went = step(t) && went;  // long enough that dead rows are closed up
      AllocatorLog::logging = false;
      CHECK(went);
      CHECK(run.cache.size(0, 0) == budget);
      CHECK(run.cache.bytes() == bytes);
      taken.push_back(AllocatorLog::taken);
    }
    CHECK(taken[0] == taken[1]);
    CHECK(taken[0] <= 600 * 12);
  }
}

TEST_CASE("A head that keeps less takes less memory", "[cache][memory]") {
  for (const std::string& name : stores()) {
    INFO(name);
    DrivenCache run(*DrivenCache::empty("full+" + name, shape_of(name)), 0, 5);
    REQUIRE(run.prompt(2048));
    const int layers = run.cache.shape().layers;
    const auto bytes = [&](int h) {
      std::size_t sum = 0;
      for (int l = 0; l < layers; ++l) sum += run.cache.head(l, h).bytes();
      return sum;
    };
    CHECK(bytes(0) == bytes(1));
    const std::size_t whole = bytes(0);
    // head 0 keeps its 128 newest, head 1 the rest of what was dropped there
    for (int l = 0; l < layers; ++l) {
      Plan plan{l, std::vector<HeadPlan>(2), {}};
      for (Index i = 0; i < 1920; ++i) plan.heads[0].drop.push_back(i);
      for (Index i = 0; i < 128; ++i) plan.heads[1].drop.push_back(i);
      run.cache.apply(plan);
      CHECK(run.cache.size(l, 0) == 128);
      CHECK(run.cache.size(l, 1) == 1920);
    }
    // a window of exact rows, a page and what was left of it stay beside the share
    const std::size_t window =
        name.substr(0, 4) == "KIVI" || name.find("(KIVI") != std::string::npos ? 200 * 128 * 4 : 0;
    CHECK(bytes(0) <= whole / 16 + whole / 64 + window + 20000);
    CHECK(bytes(1) <= whole);
    CHECK(run.cache.bytes() == bytes(0) + bytes(1));
  }
}
