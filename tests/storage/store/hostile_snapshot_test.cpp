// SPDX-License-Identifier: Apache-2.0
// Snapshots of single stores with numbers that no store would write: refused, or a store that can be used in every way.
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/core/fields.hpp>
#include <kvist/storage/codec/int_channel.hpp>
#include <kvist/storage/codec/int_token.hpp>
#include <kvist/storage/store/dense.hpp>
#include <kvist/storage/store/thinned.hpp>

#include <cstring>
#include <string>

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr int d = 16;
using Packed = BlockedStore<PackedSide, PackedSide>;
using Coded = BlockedStore<CodecSide<AnyCodec>, CodecSide<AnyCodec>>;
using kernels::Accuracy;

Packed int8() {
  return Packed(PackedSide(kernels::token_keys(8, d, d, true), Accuracy::exact),
                PackedSide(kernels::token_values(8, d, d, true), Accuracy::exact), 0);
}
Packed kivi() {
  return Packed(PackedSide(kernels::channel_keys(4, d, 32), Accuracy::exact),
                PackedSide(kernels::token_values(4, d, d, true), Accuracy::exact), 32);
}
Coded channels() {
  return Coded(CodecSide<AnyCodec>(IntChannel<f16>{4, 20}, d), CodecSide<AnyCodec>(IntChannel<f16>{4, 20}, d),
               20);
}

/// What a walk over the fields wrote, and where its single numbers lie.
struct Saved {
  std::string bytes;
  std::vector<std::size_t> numbers;

  static bool put(void* to, const void* bytes, std::size_t n) {
    auto& s = *static_cast<Saved*>(to);
    if (n == 8) s.numbers.push_back(s.bytes.size());
    s.bytes.append(static_cast<const char*>(bytes), n);
    return true;
  }
  FieldWriter writer() { return FieldWriter(&put, this); }

  std::int64_t at(std::size_t place) const {
    std::int64_t x;
    std::memcpy(&x, bytes.data() + place, 8);
    return x;
  }
  Saved with(std::size_t place, std::int64_t x) const {
    Saved other = *this;
    std::memcpy(other.bytes.data() + place, &x, 8);
    return other;
  }
  /// The first number with the value x.
  std::size_t place_of(std::int64_t x) const {
    for (const std::size_t p : numbers)
      if (at(p) == x) return p;
    FAIL("no such number");
    return 0;
  }
};

template <class S>
Saved saved(const S& store) {
  Saved s;
  FieldWriter v = s.writer();
  visit_fields(v, store);
  REQUIRE(v.good());
  return s;
}

template <class S>
Status load(const Saved& from, S& store) {
  struct Source {
    const std::string* bytes;
    std::size_t at = 0;
    static bool get(void* source, void* out, std::size_t n) {
      auto& s = *static_cast<Source*>(source);
      if (n > s.bytes->size() - s.at) return false;
      std::memcpy(out, s.bytes->data() + s.at, n);
      s.at += n;
      return true;
    }
  } source{&from.bytes};
  FieldReader v(&Source::get, &source, std::uint64_t{1} << 24);
  visit_fields(v, store);
  return v.status();
}

/// Everything that a cache does to a store.
template <class S>
void use(S store) {
  Numbers numbers(5);
  const auto rows = numbers.rows(60, d);
  const auto look = [&] {
    const Index n = store.size();
    std::vector<float> k(std::size_t(n) * d), v(k), logits(static_cast<std::size_t>(n)), m(1), l(1), o(d);
    store.read(0, n, k.data(), v.data());
    AttendArgs a;
    a.q = rows.data();
    a.logits = logits.data();
    a.logits_stride = n;
    const AttnState state{1, d, m.data(), l.data(), o.data()};
    state.clear();
    store.attend(a, state);
  };
  const auto drop = [&](auto leaves) {
    std::vector<Index> gone;
    for (Index i = 0; i < store.size(); ++i)
      if (leaves(i)) gone.push_back(i);
    store.drop(gone);
  };
  look();
  const Index size = store.size();
  drop([](Index i) { return i % 4 != 1; });
  look();
  for (Index i = 0; i < 20; ++i) store.append(rows.data() + i * d, rows.data() + i * d, 1);
  store.append(rows.data(), rows.data(), 20);
  store.settle();
  CHECK(store.size() == size - (size / 4 * 3 + std::min(size % 4, 1) + std::max(size % 4 - 2, 0)) + 40);
  store.reserve(store.size() + 50);
  look();
  if (store.size() > 3) store.write(2, rows.data(), rows.data());
  store.append(rows.data(), rows.data(), 60);
  store.settle();
  drop([&](Index i) { return i > 5 && i + 5 < store.size(); });
  store.truncate(std::max<Index>(0, store.size() - 3));
  look();
  S copy = store.clone();
  copy.append(rows.data(), rows.data(), 50);
  copy.settle();
  CHECK(copy.size() == store.size() + 50);
}

/// Every number of the store's snapshot is replaced by others, one at a time.
template <class Make>
void sweep(const char* name, Make empty, const decltype(empty())& store) {
  INFO(name);
  const Saved good = saved(store);
  {
    auto back = empty();
    REQUIRE(load(good, back));
    CHECK((saved(back).bytes == good.bytes));
    use(std::move(back));
  }
  int refused = 0, used = 0;
  for (const std::size_t place : good.numbers) {
    const std::int64_t was = good.at(place);
    for (const std::int64_t x :
         {std::int64_t{0}, was - 1, was + 1, was - 16, was + 16, was - 32, was + 32, was + 128, was / 2,
          was * 2, std::int64_t{40}, std::int64_t{64}, std::int64_t{1} << 30, std::int64_t{-1}}) {
      if (x == was) continue;
      INFO("number at " << place << ": " << was << " becomes " << x);
      auto other = empty();
      if (!load(good.with(place, x), other)) {
        ++refused;
        continue;
      }
      ++used;
      use(std::move(other));
    }
  }
  CHECK(refused > 50);
  CHECK(used > 0);
}

}  // namespace

TEST_CASE("Room of a snapshot that is no whole number of blocks, or less than was reserved, is refused",
          "[storage][DenseStore][hostile]") {
  Numbers numbers(1);
  const auto rows = numbers.rows(100, d);
  DenseStore<f16> store(d, d);
  store.append(rows.data(), rows.data(), 100);
  store.reserve(5000);
  REQUIRE(store.capacity() == 5008);
  const Saved good = saved(store);
  const std::size_t reserved = good.place_of(5008);
  for (const std::int64_t x : {5001, 5024, 7, 1 << 30}) {
    INFO(x);
    DenseStore<f16> other(d, d);
    const Status s = load(good.with(reserved, x), other);
    REQUIRE_FALSE(s);
    CHECK(s.error().code == Errc::bad_file);
  }
  DenseStore<f16> less(d, d);  // what was reserved is forgotten: a store that gives its memory back
  REQUIRE(load(good.with(reserved, 0), less));
  use(std::move(less));
}

TEST_CASE("A thinned store of a snapshot whose first rows wait to be coded is refused",
          "[storage][ThinnedStore][hostile]") {
  using Thinned = ThinnedStore<PackedSide, PackedSide>;
  Numbers numbers(2);
  const auto rows = numbers.rows(300, d);
  for (const bool settled : {true, false}) {
    INFO(settled);
    Packed body = kivi();
    body.append(rows.data(), rows.data(), 300);
    body.settle();
    Thinned::Front front(CodecSide<Plain<float>>({}, d), body.value_side().row_side(), 0);
    front.append(rows.data(), rows.data(), 3);
    if (settled) front.settle();
    Saved made;
    FieldWriter v = made.writer();
    v.same("thinned");
    Thinned::Front::fields(v, front);
    Packed::fields(v, body);
    v.number(0, 0, 0);
    const std::vector<Index> none;
    v.memory_of(none);
    Thinned store(kivi());
    const Status s = load(made, store);
    REQUIRE(s.has_value() == settled);
    if (!settled) CHECK(s.error().code == Errc::bad_file);
    else use(std::move(store));
  }
}

TEST_CASE("A number that is changed in a store's snapshot is refused, or the store can be used",
          "[storage][hostile]") {
  Numbers numbers(3);
  const auto rows = numbers.rows(400, d);
  const auto lived = [&](auto store) {
    store.append(rows.data(), rows.data(), 300);
    store.settle();
    std::vector<Index> gone;
    for (Index i = 0; i < 280; ++i)
      if (i % 32 != 5) gone.push_back(i);
    store.drop(gone);
    store.append(rows.data(), rows.data(), 41);
    store.settle();
    store.reserve(80);
    return store;
  };
  sweep(
      "f32", [] { return DenseStore<float>(d, d); }, lived(DenseStore<float>(d, d)));
  sweep(
      "bf16", [] { return DenseStore<bf16>(d, d); }, lived(DenseStore<bf16>(d, d)));
  sweep("int8", int8, lived(int8()));
  sweep("channels", channels, lived(channels()));
  const auto thinned = [] { return ThinnedStore(kivi()); };
  auto store = lived(thinned());
  REQUIRE(store.front().size() > 0);
  sweep("KIVI", thinned, store);
  const auto coded = [] { return ThinnedStore(channels()); };
  sweep("thinned channels", coded, lived(coded()));
}
