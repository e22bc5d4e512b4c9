// SPDX-License-Identifier: Apache-2.0
// What stores take from the allocator: bytes() is that, and decode takes nothing after reserve().
#include "../../support/allocator_log.hpp"
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/storage/codec/fp8.hpp>
#include <kvist/storage/store/blocked.hpp>
#include <kvist/storage/store/dense.hpp>
#include <kvist/storage/store/thinned.hpp>

using namespace kvist;
using namespace kvist::test;

namespace {

using Packed = BlockedStore<PackedSide, PackedSide>;
Packed int8() {
  return Packed(PackedSide(kernels::token_keys(8, 64, 64, true), kernels::Accuracy::exact),
                PackedSide(kernels::token_values(8, 64, 64, true), kernels::Accuracy::exact), 0);
}
Packed kivi() {
  return Packed(PackedSide(kernels::channel_keys(4, 64, 32), kernels::Accuracy::exact),
                PackedSide(kernels::token_values(4, 64, 32, true), kernels::Accuracy::exact), 64);
}

Packed q4_0() {
  constexpr auto rule = PackedRule::q4_0;
  return Packed(PackedSide(PackedSide::layout_of(rule, true, 64), kernels::Accuracy::exact, rule),
                PackedSide(PackedSide::layout_of(rule, false, 64), kernels::Accuracy::exact, rule), 0);
}
auto fp8() {
  using Side = CodecSide<Fp8<E4M3>>;
  return BlockedStore<Side, Side>(Side({}, 64), Side({}, 64), 0);
}

/// Allocations of 3000 decode steps that append a row, attend, settle and drop a row: any one, or the oldest behind four
/// sinks. What stays is read and compared with what it was.
template <class S>
long long evicting(S store, Index budget, Index room, bool oldest) {
  Numbers numbers(7);
  const auto rows = numbers.rows(4000, 64);
  store.append(rows.data(), rows.data(), budget);
  store.settle();
  store.reserve(room);
  const std::size_t bytes = store.bytes();
  float out[64], m[1], l[1];
  const AttnState state{1, 64, m, l, out};
  std::vector<float> was(std::size_t(budget + 1) * 64), now(was);
  AllocatorLog::taken = 0;
  for (int t = 0; t < 3000; ++t) {
    const Index gone = oldest ? 4 : Index(numbers.random.below(std::uint64_t(budget)));
    AllocatorLog::logging = true;
    store.append(rows.data() + (1000 + t) * 64, rows.data() + t * 64, 1);
    AttendArgs a;
    a.q = rows.data();
    state.clear();
    store.attend(a, state);
    store.settle();
    AllocatorLog::logging = false;
    if (t % 100 == 0) store.read(0, budget + 1, was.data(), nullptr);
    AllocatorLog::logging = true;
    store.drop(std::span(&gone, 1));
    AllocatorLog::logging = false;
    REQUIRE(store.size() == budget);
    if (t % 100 != 0) continue;
    store.read(0, budget, now.data(), nullptr);
    REQUIRE(std::equal(now.begin(), now.begin() + gone * 64, was.begin()));
    REQUIRE(std::equal(now.begin() + gone * 64, now.begin() + budget * 64, was.begin() + (gone + 1) * 64));
  }
  CHECK(store.bytes() == bytes);
  return AllocatorLog::taken;
}

template <class Make>
void check(Make make) {
  Numbers numbers(3);
  const auto rows = numbers.rows(1000, 64);
  std::vector<Index> gone;
  for (Index i = 0; i < 1000; ++i)
    if (i % 3 != 0) gone.push_back(i);
  AllocatorLog::held = AllocatorLog::taken = 0;
  AllocatorLog::logging = true;
  long long at_prompt = 0, at_drop = 0, in_decode = 0;
  std::size_t bytes_prompt = 0, bytes_drop = 0;
  {
    auto store = make();
    store.append(rows.data(), rows.data(), 1000);
    store.settle();
    at_prompt = AllocatorLog::held, bytes_prompt = store.bytes();
    store.drop(gone);
    at_drop = AllocatorLog::held, bytes_drop = store.bytes();
    store.reserve(2000);
    static float out[64], m[1], l[1];
    const long long before = AllocatorLog::taken;
    for (int t = 0; t < 1000; ++t) {
      store.append(rows.data() + t * 64, rows.data() + t * 64, 1);
      AttendArgs a;
      a.q = rows.data();
      const AttnState s{1, 64, m, l, out};
      s.clear();
      store.attend(a, s);
      store.settle();
    }
    in_decode = AllocatorLog::taken - before;
  }
  AllocatorLog::logging = false;
  CHECK(at_prompt == (long long)bytes_prompt);
  CHECK(at_drop == (long long)bytes_drop);
  CHECK(bytes_drop < bytes_prompt);
  CHECK(in_decode == 0);
  CHECK(AllocatorLog::held == 0);
}

}  // namespace

TEST_CASE("bytes() is what the allocator gave, and decode takes nothing after reserve()",
          "[storage][allocations]") {
  check([] { return DenseStore<float>(64, 64); });
  check([] { return DenseStore<f16>(64, 64); });
  check([] { return int8(); });
}

TEST_CASE("KIVI's store counts its pages, windows and bitmap, and decode takes nothing after reserve()",
          "[storage][allocations][KIVI]") {
  Numbers numbers(4);
  const auto rows = numbers.rows(2000, 64);
  AllocatorLog::held = AllocatorLog::taken = 0;
  AllocatorLog::logging = true;
  long long in_decode = 0, at_prompt = 0;
  std::size_t bytes = 0;
  {
    auto store = kivi();
    store.append(rows.data(), rows.data(), 1000);
    store.settle();
    at_prompt = AllocatorLog::held, bytes = store.bytes();
    store.reserve(2000);
    static float out[64], m[1], l[1];
    const long long before = AllocatorLog::taken;
    for (int t = 0; t < 1000; ++t) {
      store.append(rows.data() + t * 64, rows.data() + t * 64, 1);
      AttendArgs a;
      a.q = rows.data();
      const AttnState s{1, 64, m, l, out};
      s.clear();
      store.attend(a, s);
      store.settle();
    }
    in_decode = AllocatorLog::taken - before;
  }
  AllocatorLog::logging = false;
  CHECK(at_prompt == (long long)bytes);
  // 1000 tokens: 960 keys and 936 values are coded, in 8 pages; the other 40 and 64 rows are f32
  CHECK(bytes == 8 * (kernels::channel_keys(4, 64, 32).bytes() + kernels::token_values(4, 64, 32, true).bytes()) +
                     (40 + 64) * 64 * sizeof(float) + 15 * 8);
  CHECK(in_decode == 0);
}

TEST_CASE("Decode that evicts a row for each that comes takes nothing after reserve()",
          "[storage][allocations]") {
  for (const bool oldest : {false, true}) {
    INFO((oldest ? "the oldest" : "any row"));
    for (const Index budget : {64, 1024}) {  // the rest of the last page is a 32nd of the room and more
      INFO("budget " << budget);
      CHECK(evicting(int8(), budget, budget + 1, oldest) == 0);
      CHECK(evicting(q4_0(), budget, budget + 1, oldest) == 0);
    }
    for (const Index budget : {200, 1000, 1151}) {  // 1000 + 1 rows would leave 23 slots of 1024
      INFO("budget " << budget);
      const Index room = budget + 1 + budget / 31 + 1;
      CHECK(evicting(int8(), budget, room, oldest) == 0);
      CHECK(evicting(q4_0(), budget, room, oldest) == 0);
      CHECK(evicting(fp8(), budget, room, oldest) == 0);
    }
  }
  for (const Index budget : {500, 1024}) {
    INFO("KIVI, budget " << budget);
    const Index room = budget + 1 + 64;  // two units
    CHECK(evicting(kivi(), budget, room, true) == 0);
    CHECK(evicting(ThinnedStore(kivi()), budget, room, true) == 0);
  }
}
