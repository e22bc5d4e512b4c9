// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"
#include "../support/driven_cache.hpp"

#include <kvist/io/snapshot.hpp>
#include <kvist/methods/detail/coded.hpp>

#include <cstdio>
#include <filesystem>

using namespace kvist;
using namespace kvist::test;

namespace {

const Shape shape{2, 4, 2, 32, 32};
constexpr Index budget = 72;

/// Everything that can be asked of two caches is the same, to the bit.
void same(const AnyCache& a, const AnyCache& b) {
  CHECK(a.bytes() == b.bytes());
  CHECK(a.bytes_peak() == b.bytes_peak());
  CHECK(a.next_position() == b.next_position());
  for (int l = 0; l < a.shape().layers; ++l)
    for (int h = 0; h < a.shape().kv_heads; ++h) {
      const auto &x = a.head(l, h), &y = b.head(l, h);
      REQUIRE(x.tiers() == y.tiers());
      for (int t = 0; t < x.tiers(); ++t) {
        REQUIRE(x.tier(t).store.size() == y.tier(t).store.size());
        CHECK(x.tier(t).store.bytes() == y.tier(t).store.bytes());
        CHECK((x.tier(t).pos == y.tier(t).pos));
        CHECK((x.tier(t).log_weight == y.tier(t).log_weight));
      }
      std::vector<float> k(std::size_t(x.size()) * 32), v(k), rk(k), rv(k);
      a.read(l, h, 0, x.size(), k.data(), v.data());
      b.read(l, h, 0, y.size(), rk.data(), rv.data());
      CHECK((k == rk));
      CHECK((v == rv));
    }
}

/// A cache of that SPEC after a prompt and some steps; saved, loaded, and both go on.
void comes_back(const std::string& spec) {
  INFO(spec);
  auto made = DrivenCache::empty(spec, shape), other = DrivenCache::empty(spec, shape);
  REQUIRE(made);
  DrivenCache run(*std::move(made), budget, 7);
  REQUIRE(run.prompt(150));
  REQUIRE(run.steps(45));
  const auto bytes = snapshot_bytes(run.cache);
  REQUIRE(bytes);
  auto loaded = from_snapshot(*bytes, *std::move(other));
  REQUIRE(loaded);
  same(run.cache, *loaded);
  DrivenCache again = run.with(*std::move(loaded));
  CHECK((snapshot_bytes(again.cache).value() == *bytes));
  run.out.clear();
  REQUIRE(run.steps(40));
  REQUIRE(again.steps(40));
  CHECK((run.out == again.out));
  same(run.cache, again.cache);
  run.cache.truncate(170), again.cache.truncate(170);
  REQUIRE(run.prompt(30));
  REQUIRE(again.prompt(30));
  same(run.cache, again.cache);
  CHECK((snapshot_bytes(again.cache).value() == snapshot_bytes(run.cache).value()));
}

/// A small cache that has one of everything: tiers, codes, a balancer, a window, dead rows.
Result<AnyCache> small_empty() {
  return DrivenCache::empty("MiKV:bits=4,group=4,high=int8", {1, 1, 1, 4, 4});
}
std::string small_snapshot() {
  DrivenCache run(*small_empty(), 4, 3);
  REQUIRE(run.prompt(9));
  REQUIRE(run.steps(3));
  return snapshot_bytes(run.cache).value();
}

}  // namespace

TEST_CASE("A cache of every store comes back from a snapshot and goes on as if it had never stopped",
          "[io][snapshot]") {
  for (const methods::Entry& e : methods::registry()) {
    if (!e.store || std::string_view(e.info.name) == "rotated") continue;
    const std::string name =
        std::string(e.info.name) + (std::string_view(e.info.name) == "MiniCache" ? ":start=0" : "");
    comes_back(name);  // of two layers, so that those that share are a pair
    comes_back("H2O+" + name);
  }
  for (const char* spec : {"rotated(int8)", "H2O+rotated(q4_0)", "KIVI:bits=4,group=32,residual=32",
                           "H2O+KIVI:bits=2,group=16,residual=32", "H2O+KIVI:bits=3,group=16,residual=16",
                           "int_token:bits=4,group=32,outliers=2", "KIVI:k_bits=16,v_bits=8,residual=0",
                           "MiniCache:start=0+int8", "H2O+MiniCache:start=0+KIVI:bits=4,group=16,residual=32",
                           "MiKV:high=f16", "MiKV:high=int8,bits=3", "MiKV:high=f32,balance=no"})
    comes_back(spec);
}

TEST_CASE("A snapshot holds what every policy remembers", "[io][snapshot]") {
  for (const methods::Entry& e : methods::registry()) {
    if (!e.evicts) continue;
    comes_back(std::string(e.info.name) +
               (std::string_view(e.info.name) == "MiKV" ? "" : "+KIVI:bits=4,group=16,residual=32"));
  }
}

TEST_CASE("Room that was reserved, and room that was left, come back", "[io][snapshot]") {
  for (const char* spec :
       {"f32", "int8", "KIVI:bits=4", "MiKV", "q8_0", "rotated(int8)", "MiniCache:start=0+f16"}) {
    INFO(spec);
    DrivenCache run(*DrivenCache::empty(spec, shape), budget, 5);
    run.cache.reserve(700);
    REQUIRE(run.prompt(150));
    run.cache.truncate(40);
    REQUIRE(run.steps(3));
    auto loaded = from_snapshot(snapshot_bytes(run.cache).value(), *DrivenCache::empty(spec, shape));
    REQUIRE(loaded);
    same(run.cache, *loaded);
    // and a reader may give less
    const auto refused =
        from_snapshot(snapshot_bytes(run.cache).value(), *DrivenCache::empty(spec, shape), {20000});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::out_of_capacity);
  }
}

TEST_CASE("An empty cache, a head and a store have snapshots, too", "[io][snapshot]") {
  same(*from_snapshot(snapshot_bytes(*DrivenCache::empty("KIVI", shape)).value(),
                      *DrivenCache::empty("KIVI", shape)),
       *DrivenCache::empty("KIVI", shape));

  Numbers numbers(2);
  const auto rows = numbers.rows(100, 32);
  DenseStore<bf16> store(32, 32);
  store.append(rows.data(), rows.data(), 100);
  const auto bytes = snapshot_bytes(store);
  REQUIRE(bytes);
  const auto back = from_snapshot(*bytes, DenseStore<bf16>(32, 32));
  REQUIRE(back);
  std::vector<float> a(rows.size()), b(rows.size());
  store.read(0, 100, a.data(), nullptr);
  back->read(0, 100, b.data(), nullptr);
  CHECK((a == b));
  // chosen at run time or not: the same snapshot
  const auto any = from_snapshot(*bytes, AnyStore(DenseStore<bf16>(32, 32)));
  REQUIRE(any);
  CHECK((snapshot_bytes(*any).value() == *bytes));

  std::vector<DenseStore<bf16>> tiers;
  tiers.push_back(std::move(store));
  std::vector<DenseStore<bf16>> none;
  none.emplace_back(32, 32);
  HeadCache<DenseStore<bf16>> head(std::move(none), 32, 32);
  head.append(rows.data(), rows.data(), 60, 11);
  std::vector<DenseStore<bf16>> fresh;
  fresh.emplace_back(32, 32);
  const auto again =
      from_snapshot(snapshot_bytes(head).value(), HeadCache<DenseStore<bf16>>(std::move(fresh), 32, 32));
  REQUIRE(again);
  CHECK(again->size() == 60);
  CHECK((again->tier(0).pos == head.tier(0).pos));
}

TEST_CASE("A snapshot goes through a file", "[io][snapshot]") {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("kvist_snapshot_" + std::to_string(std::rand()))).string();
  DrivenCache run(*DrivenCache::empty("H2O+KIVI:bits=4", shape), budget, 7);
  REQUIRE(run.prompt(300));
  REQUIRE(save_snapshot(path, run.cache));
  CHECK((read_file(path).value() == snapshot_bytes(run.cache).value()));
  const auto loaded = load_snapshot(path, *DrivenCache::empty("H2O+KIVI:bits=4", shape));
  REQUIRE(loaded);
  same(run.cache, *loaded);
  CHECK_FALSE(std::filesystem::exists(path + ".part"));
  // one byte more is not the same file
  REQUIRE(write_file(path, read_file(path).value() + "x"));
  CHECK(load_snapshot(path, *DrivenCache::empty("H2O+KIVI:bits=4", shape)).error().code == Errc::bad_file);
  std::filesystem::remove(path);
  CHECK(load_snapshot(path, *DrivenCache::empty("f32", shape)).error().code == Errc::not_found);
  CHECK(save_snapshot("/no/such/folder/x", run.cache).has_value() == false);
}

TEST_CASE("Every beginning of a snapshot, and a snapshot with any byte changed, is an error",
          "[io][snapshot]") {
  const std::string good = small_snapshot();
  REQUIRE(good.size() < 12000);
  REQUIRE(from_snapshot(good, *small_empty()));
  for (std::size_t n = 0; n < good.size(); ++n) {
    const auto cut = from_snapshot(std::string_view(good).substr(0, n), *small_empty());
    INFO("the first " << n << " of " << good.size() << " bytes");
    REQUIRE_FALSE(cut);
    REQUIRE((cut.error().code == Errc::bad_file || cut.error().code == Errc::out_of_capacity));
  }
  std::string bytes = good;
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {1, 0x80, 0xff}) {
      bytes[i] = char(good[i] ^ flip);
      INFO("byte " << i << " of " << good.size());
      REQUIRE_FALSE(from_snapshot(bytes, *small_empty()));
    }
    bytes[i] = good[i];
  }
  REQUIRE_FALSE(from_snapshot(good + '\0', *small_empty()));
}

TEST_CASE("Another version, order of bytes, shape, store or policy is refused", "[io][snapshot]") {
  DrivenCache run(*DrivenCache::empty("H2O+KIVI:bits=4", shape), budget, 7);
  REQUIRE(run.prompt(150));
  const std::string good = snapshot_bytes(run.cache).value();
  std::string bytes = good;
  bytes[8] = 1;
  const Error older = from_snapshot(bytes, *DrivenCache::empty("H2O+KIVI:bits=4", shape)).error();
  CHECK(older.code == Errc::unsupported);
  CHECK(older.want == 2);
  CHECK(older.got == 1);
  bytes = good;
  std::swap(bytes[12], bytes[15]), std::swap(bytes[13], bytes[14]);
  CHECK(from_snapshot(bytes, *DrivenCache::empty("H2O+KIVI:bits=4", shape)).error().code == Errc::unsupported);
  CHECK(from_snapshot("GGUF", *DrivenCache::empty("f32", shape)).error().code == Errc::bad_file);

  for (const Shape other : {Shape{1, 4, 2, 32, 32}, Shape{2, 2, 2, 32, 32}, Shape{2, 4, 1, 32, 32},
                            Shape{2, 4, 2, 64, 32}, Shape{2, 4, 2, 32, 64}}) {
    const auto refused = from_snapshot(good, *DrivenCache::empty("H2O+KIVI:bits=4", other));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::bad_shape);
  }
  for (const char* other : {"H2O+KIVI:bits=2", "H2O+KIVI:bits=4,group=16", "H2O+KIVI:bits=4,residual=64",
                            "H2O+KIVI:k_bits=4,v_bits=8", "H2O+f32", "H2O+int8", "H2O+rotated(KIVI:bits=4)",
                            "H2O+int_channel:bits=4", "KIVI:bits=4", "SnapKV+KIVI:bits=4", "MiKV:high=f16",
                            "StreamingLLM+KIVI:bits=4"}) {
    INFO(other);
    const auto refused = from_snapshot(good, *DrivenCache::empty(other, shape));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::bad_shape);
  }
  // codes of the same size are told apart
  DrivenCache q(*DrivenCache::empty("q4_0", shape), budget, 7);
  REQUIRE(q.prompt(50));
  CHECK(from_snapshot(snapshot_bytes(q.cache).value(), *DrivenCache::empty("iq4_nl", shape)).error().code ==
        Errc::bad_shape);
  DrivenCache e(*DrivenCache::empty("fp8_e4m3", shape), budget, 7);
  REQUIRE(e.prompt(50));
  CHECK(from_snapshot(snapshot_bytes(e.cache).value(), *DrivenCache::empty("fp8_e5m2", shape)).error().code ==
        Errc::bad_shape);
  // options that say nothing about bytes are the reader's
  CHECK(from_snapshot(good, *DrivenCache::empty("H2O:recent=5+KIVI:bits=4,accuracy=fast", shape)).has_value());
}
