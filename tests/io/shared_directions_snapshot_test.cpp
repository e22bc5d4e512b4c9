// SPDX-License-Identifier: Apache-2.0
// Caches whose layers share directions, and caches that merge, come back from snapshots and go on.
#include <kvist/io/snapshot.hpp>

#include "support/catch.hpp"
#include "support/driven_cache.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

const Shape shape{3, 4, 2, 32, 32};  // layers 0 and 1 make a pair

void come_back(const std::string& spec) {
  INFO(spec);
  auto made = DrivenCache::empty(spec, shape), other = DrivenCache::empty(spec, shape);
  REQUIRE((made && other));
  DrivenCache run(*std::move(made), 60, 7);
  REQUIRE(run.prompt(150));
  REQUIRE(run.steps(30));
  const auto bytes = snapshot_bytes(run.cache);
  REQUIRE(bytes);
  auto loaded = from_snapshot(*bytes, *std::move(other));
  REQUIRE(loaded);
  CHECK(loaded->bytes() == run.cache.bytes());
  DrivenCache again = run.with(*std::move(loaded));
  CHECK((snapshot_bytes(again.cache).value() == *bytes));
  run.out.clear();
  REQUIRE(run.steps(20));
  REQUIRE(again.steps(20));
  CHECK((run.out == again.out));
  run.cache.truncate(190), again.cache.truncate(190);
  REQUIRE(run.prompt(30));
  REQUIRE(again.prompt(30));
  CHECK((snapshot_bytes(again.cache).value() == snapshot_bytes(run.cache).value()));
}

}  // namespace

TEST_CASE("Shared directions come back from a snapshot and go on", "[io][snapshot][MiniCache]") {
  for (const char* const spec :
       {"MiniCache:start=0", "MiniCache:start=0+f16", "MiniCache:start=0+KIVI:bits=4,group=16,residual=32",
        "H2O+MiniCache:start=0", "H2O:merge=nearest+MiniCache:start=0+f16", "StreamingLLM:merge=compensate",
        "SnapKV:window=8,merge=runs"})
    come_back(spec);
}

TEST_CASE("A snapshot of shared directions that does not fit together is refused",
          "[io][snapshot][MiniCache]") {
  DrivenCache run(*DrivenCache::empty("MiniCache:start=0", {2, 1, 1, 4, 4}), 20, 3);
  REQUIRE(run.prompt(40));
  const std::string whole = snapshot_bytes(run.cache).value();
  for (std::size_t i = 0; i < whole.size();
       ++i) {  // whatever byte is broken: an Error, or a cache that can be used
    std::string broken = whole;
    broken[i] = char(broken[i] ^ 0x81);
    auto loaded = from_snapshot(broken, *DrivenCache::empty("MiniCache:start=0", {2, 1, 1, 4, 4}));
    if (!loaded) continue;
    for (int l = 0; l < 2; ++l) {
      const Index n = loaded->size(l, 0);
      std::vector<float> k(std::size_t(n) * 4), v(k);
      loaded->read(l, 0, 0, n, k.data(), v.data());
    }
  }
  CHECK_FALSE(from_snapshot(whole, *DrivenCache::empty("MiniCache:start=0+f16", {2, 1, 1, 4, 4})));
  CHECK_FALSE(from_snapshot(whole, *DrivenCache::empty("f32", {2, 1, 1, 4, 4})));
  CHECK_FALSE(from_snapshot(whole.substr(0, whole.size() / 2),
                            *DrivenCache::empty("MiniCache:start=0", {2, 1, 1, 4, 4})));
}
