// SPDX-License-Identifier: Apache-2.0
// What stores take from the allocator: bytes() is that, and decode takes nothing after reserve().
#include "../../support/allocator_log.hpp"
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/storage/store/blocked.hpp>
#include <kvist/storage/store/dense.hpp>

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
