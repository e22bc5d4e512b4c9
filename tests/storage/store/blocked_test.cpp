// SPDX-License-Identifier: Apache-2.0
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/storage/codec/adapt/rotated.hpp>
#include <kvist/storage/codec/adapt/with_outliers.hpp>
#include <kvist/storage/codec/any_codec.hpp>
#include <kvist/storage/codec/ggml.hpp>
#include <kvist/storage/codec/int_channel.hpp>
#include <kvist/storage/codec/int_token.hpp>
#include <kvist/storage/codec/plain.hpp>
#include <kvist/storage/store/blocked.hpp>
#include <kvist/storage/store/thinned.hpp>

#include <limits>

using namespace kvist;
using namespace kvist::test;
using kernels::Accuracy;

namespace {

using PackedStore = BlockedStore<PackedSide, PackedSide>;
using CodecStore = BlockedStore<CodecSide<AnyCodec>, CodecSide<AnyCodec>>;
static_assert(Store<PackedStore> && Store<CodecStore>);

PackedStore packed_kivi(int bits, int group, int residual, int d, Accuracy accuracy = Accuracy::exact) {
  return PackedStore(PackedSide(kernels::channel_keys(bits, d, group), accuracy),
                     PackedSide(kernels::token_values(bits, d, std::min(group, d), true), accuracy), residual);
}
CodecStore codec_kivi(int bits, int group, int residual, int d) {
  return CodecStore(CodecSide<AnyCodec>(IntChannel<f16>{bits, group}, d),
                    CodecSide<AnyCodec>(IntToken<f16>{bits, std::min(group, d)}, d), residual);
}
PackedStore packed_token(int bits, int group, int d, Accuracy accuracy = Accuracy::exact) {
  return PackedStore(PackedSide(kernels::token_keys(bits, d, group, true), accuracy),
                     PackedSide(kernels::token_values(bits, d, group, true), accuracy), 0);
}

/// A store beside the plainest model of it: rows as read() gave them last.
template <class S>
struct Watched {
  S store;
  int d;
  Numbers numbers;
  std::vector<float> k, v;  // as appended, until read back

  Index size() const { return Index(k.size() / std::size_t(d)); }
  void append(Index n) {
    const auto a = numbers.rows(n, d), b = numbers.rows(n, d);
    store.append(a.data(), b.data(), n);
    k.insert(k.end(), a.begin(), a.end());
    v.insert(v.end(), b.begin(), b.end());
    same("append");
  }
  void read(std::vector<float>& rk, std::vector<float>& rv) const {
    rk.resize(k.size());
    rv.resize(v.size());
    store.read(0, store.size(), rk.data(), rv.data());
  }
  /// Bits are what they were.
  void same(const char* what) {
    INFO(what);
    REQUIRE(store.size() == size());
    std::vector<float> rk, rv;
    read(rk, rv);
    REQUIRE((rk == k));  // parentheses: no list of thousands of numbers
    REQUIRE((rv == v));
  }
  /// Coded rows keep their bits when others are coded; newly coded ones are near what they were.
  void settle(float step) {
    const Index ck = store.coded_keys(), cv = store.coded_values();
    store.settle();
    REQUIRE(store.coded_keys() >= ck);
    REQUIRE(store.coded_values() >= cv);
    std::vector<float> rk, rv;
    read(rk, rv);
    const auto near = [&](const std::vector<float>& now, const std::vector<float>& was, Index before,
                          Index after) {
      REQUIRE(std::equal(was.begin(), was.begin() + std::ptrdiff_t(before) * d, now.begin()));
      REQUIRE(std::equal(was.begin() + std::ptrdiff_t(after) * d, was.end(),
                         now.begin() + std::ptrdiff_t(after) * d));
      float worst = 0;
      for (std::size_t i = 0; i < now.size(); ++i) worst = std::max(worst, std::fabs(now[i] - was[i]));
      REQUIRE(worst <= step);
    };
    near(rk, k, ck, store.coded_keys());
    near(rv, v, cv, store.coded_values());
    k = rk;
    v = rv;
  }
  void drop(const std::vector<Index>& rows) {
    store.drop(rows);
    for (auto r = rows.rbegin(); r != rows.rend(); ++r) {
      k.erase(k.begin() + std::ptrdiff_t(*r) * d, k.begin() + std::ptrdiff_t(*r + 1) * d);
      v.erase(v.begin() + std::ptrdiff_t(*r) * d, v.begin() + std::ptrdiff_t(*r + 1) * d);
    }
    same("drop");
  }
  void truncate(Index n) {
    store.truncate(n);
    k.resize(std::size_t(std::min(n, size())) * std::size_t(d));
    v.resize(k.size());
    same("truncate");
  }
  /// attend() against f64 over the rows that read() gives; also logits, `first`, `only`, bias and a soft cap.
  void attend(double tolerance) {
    const Index n = size();
    if (n == 0) return;
    for (int kind = 0; kind < 4; ++kind) {
      const int group = kind == 1 ? 3 : kind == 2 ? 18 : 1;
      const auto q = numbers.rows(group, d);
      AttendArgs a;
      a.q = q.data();
      a.group = group;
      a.scale = 1.0f / std::sqrt(float(d));
      std::vector<float> bias(static_cast<std::size_t>(n)), logits(std::size_t(n * group), 7.0f);
      std::vector<Index> only;
      if (kind == 1) a.first = n / 3;
      if (kind == 2) {
        for (float& b : bias) b = float(numbers.random.uniform());
        a.bias = bias.data();
        a.soft_cap = 3;
      }
      if (kind == 3)
        for (Index i = 0; i < n; ++i)
          if (numbers.random.below(5) == 0 || i == n / 2) only.push_back(i);
      a.only = only;
      a.logits = logits.data();
      a.logits_stride = n;
      AttnBuffer buffer(group, d);
      store.attend(a, buffer.state());
      std::vector<float> out(std::size_t(group * d));
      finish(buffer.state(), out.data());
      double error = 0, norm = 0;
      for (int g = 0; g < group; ++g) {
        const auto want = exact_attention(a, g, k, v, d, n);
        for (int c = 0; c < d; ++c) {
          const double e = double(out[std::size_t(g * d + c)]) - want.out[std::size_t(c)];
          error += e * e;
          norm += want.out[std::size_t(c)] * want.out[std::size_t(c)];
        }
        for (Index i = 0; i < n; ++i) {
          const double w = want.logits[std::size_t(i)], x = double(logits[std::size_t(g * n + i)]);
          if (std::isinf(w)) REQUIRE(std::isinf(x));
          else REQUIRE(std::fabs(x - w) <= 40 * tolerance + 1e-5);
        }
      }
      INFO("kind " << kind << " rows " << n << " relative error " << std::sqrt(error / norm));
      REQUIRE(std::sqrt(error / norm) <= tolerance);
    }
  }
};

/// A long random life of a store: everything that a cache does to it.
template <class S>
void live(S store, int d, std::uint64_t seed, float step, double tolerance) {
  Watched<S> w{std::move(store), d, Numbers(seed), {}, {}};
  Random random(seed * 7 + 1);
  w.append(Index(random.below(300)));
  for (int turn = 0; turn < 40; ++turn) {
    const std::uint64_t what = random.below(8);
    if (what < 3) w.append(Index(2 + random.below(what == 0 ? 90 : 3)));  // a single row may settle the tail
    if (what == 3 || what == 4) w.settle(step);
    if (what == 5 || what == 6) {
      std::vector<Index> rows;
      const std::uint64_t keep = 1 + random.below(5);
      const Index begin = Index(random.below(std::uint64_t(w.size() + 1)));
      for (Index i = 0; i < w.size(); ++i)
        if (what == 5 ? random.below(keep + 1) == 0 : i >= begin && i < begin + 60) rows.push_back(i);
      w.drop(rows);
    }
    if (what == 7)
      w.truncate(w.size() - Index(random.below(20)) > 0 ? w.size() - Index(random.below(20)) : 0);
    if (turn % 5 == 4) w.attend(tolerance);
    if (turn % 13 == 12) {
      S copy = w.store.clone();
      std::vector<float> ck(w.k.size()), cv(w.v.size());
      copy.read(0, copy.size(), ck.data(), cv.data());
      REQUIRE((ck == w.k));
      REQUIRE((cv == w.v));
      w.store = std::move(copy);
    }
  }
}

/// A codec of units of rows that cannot change one of them.
struct Whole {
  using Model = Nothing;
  IntChannel<f16> inner{8, 20};
  Index block_rows() const { return inner.block_rows(); }
  std::size_t block_bytes(int d) const { return inner.block_bytes(d); }
  void encode(const Model& m, const float* rows, Index n, int d, std::byte* out) const {
    inner.encode(m, rows, n, d, out);
  }
  void decode(const Model& m, const std::byte* in, Index n, int d, float* out) const {
    inner.decode(m, in, n, d, out);
  }
};

/// Rows of a store that are written are near what they were written to, and the others within `others` of what they were.
template <class C>
void writes(const char* name, C codec, float others) {
  INFO(name);
  constexpr int d = 32;
  BlockedStore<CodecSide<C>, CodecSide<C>> store(CodecSide<C>(codec, d), CodecSide<C>(codec, d), 20);
  Numbers numbers(9);
  const auto rows = numbers.rows(100, d);
  store.append(rows.data(), rows.data(), 97);
  store.settle();
  REQUIRE(store.coded_keys() == 80);
  std::vector<float> k(97 * d), v(k), k2(k), v2(k);
  store.read(0, 97, k.data(), v.data());
  for (const Index i : {0, 45, 79, 90}) {
    std::vector<float> nk(d), nv(d);
    for (int c = 0; c < d; ++c)  // within the ranges of the unit
      nk[std::size_t(c)] = 0.5f * k[std::size_t(i * d + c)],
      nv[std::size_t(c)] = -0.25f * v[std::size_t(i * d + c)];
    store.write(i, nk.data(), nv.data());
    store.read(0, 97, k2.data(), v2.data());
    float worst_written = 0, worst_other = 0;
    for (Index e = 0; e < 97 * d; ++e) {
      const std::size_t at = std::size_t(e), c = std::size_t(e % d);
      const bool written = e / d == i;
      float& worst = written ? worst_written : worst_other;
      worst = std::max({worst, std::fabs(k2[at] - (written ? nk[c] : k[at])),
                        std::fabs(v2[at] - (written ? nv[c] : v[at]))});
    }
    INFO("row " << i);
    CHECK(worst_written < 0.05f);
    CHECK(worst_other <= others);
    k = k2;
    v = v2;
  }
}

}  // namespace

TEST_CASE("A blocked store keeps, codes and attends over the right rows whatever happens to it",
          "[storage][BlockedStore]") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    INFO("seed " << seed);
    live(packed_token(8, 32, 32), 32, seed, 0.05f, 3e-4);
    live(packed_token(4, 32, 64), 64, seed, 0.6f, 3e-4);
    live(packed_kivi(4, 32, 32, 32), 32, seed, 0.6f, 3e-4);
    live(packed_kivi(2, 16, 32, 48), 48, seed, 2.0f, 3e-4);
    live(packed_kivi(8, 16, 0, 32), 32, seed, 0.05f, 3e-4);
    live(codec_kivi(3, 24, 48, 24), 24, seed, 1.0f, 2e-6);
    live(codec_kivi(8, 40, 0, 24), 24, seed, 0.05f, 2e-6);
    live(CodecStore(CodecSide<AnyCodec>(ggml::Blocks<ggml::Q8_0>{}, 32),
                    CodecSide<AnyCodec>(ggml::Blocks<ggml::Q4_1>{}, 32), 0),
         32, seed, 0.6f, 2e-6);
    live(CodecStore(CodecSide<AnyCodec>(IntChannel<f16>{4, 20}, 16),
                    CodecSide<AnyCodec>(IntChannel<f16>{4, 20}, 16), 20),
         16, seed, 0.6f, 2e-6);
    live(ThinnedStore(packed_kivi(4, 32, 32, 32)), 32, seed, 0.6f, 3e-4);
    live(ThinnedStore(packed_kivi(2, 16, 0, 48)), 48, seed, 2.0f, 3e-4);
    live(ThinnedStore(codec_kivi(3, 24, 48, 24)), 24, seed, 1.0f, 2e-6);
    live(ThinnedStore(CodecStore(CodecSide<AnyCodec>(IntChannel<f16>{4, 20}, 16),
                                 CodecSide<AnyCodec>(IntChannel<f16>{4, 20}, 16), 20)),
         16, seed, 0.6f, 2e-6);
  }
}

TEST_CASE("Packed pages hold the codes of their codecs, to the bit", "[storage][BlockedStore]") {
  for (const int bits : {2, 4, 8})
    for (const int residual : {0, 32}) {
      auto packed = packed_kivi(bits, 32, residual, 64);
      auto coded = codec_kivi(bits, 32, residual, 64);
      Numbers numbers(std::uint64_t(bits) + 3);
      const Index n = 300;
      const auto k = numbers.rows(n, 64), v = numbers.rows(n, 64);
      packed.append(k.data(), v.data(), n);
      coded.append(k.data(), v.data(), n);
      packed.settle();
      coded.settle();
      CHECK(packed.coded_keys() == coded.coded_keys());
      CHECK(packed.coded_values() == coded.coded_values());
      std::vector<float> a(k.size()), b(k.size()), c(k.size()), e(k.size());
      packed.read(0, n, a.data(), b.data());
      coded.read(0, n, c.data(), e.data());
      CHECK((a == c));
      CHECK((b == e));
    }
}

TEST_CASE("The window of a blocked store is KIVI's at every length", "[storage][BlockedStore][KIVI]") {
  auto store = packed_kivi(4, 32, 64, 32);
  Numbers numbers(5);
  const auto prompt = numbers.rows(200, 32);
  store.append(prompt.data(), prompt.data(), 200);
  CHECK(store.coded_keys() == 0);  // nothing before settle
  store.settle();
  CHECK(store.coded_keys() == 192);    // T - T mod R
  CHECK(store.coded_values() == 136);  // T - R
  for (Index t = 200; t < 500; ++t) {
    const auto row = numbers.rows(1, 32);
    store.append(row.data(), row.data(), 1);
    store.settle();
    REQUIRE(store.coded_keys() == (t + 1) / 64 * 64);
    REQUIRE(store.coded_values() == t + 1 - 64);
  }
}

TEST_CASE("A store that nobody settles codes its tail by itself", "[storage][BlockedStore]") {
  auto store = packed_token(8, 32, 32);
  Numbers numbers(15);
  for (Index t = 0; t < 1000; ++t) {
    const auto row = numbers.rows(1, 32);
    store.append(row.data(), row.data(), 1);
    REQUIRE(store.size() - store.coded_keys() <= 1 + PackedSide::quantum / 2 + 1);
  }
  CHECK(store.coded_keys() >= 930);
}

TEST_CASE("Evictions free memory and nothing but dead units waits for it", "[storage][BlockedStore]") {
  auto store = packed_token(8, 64, 64);
  Numbers numbers(6);
  const Index n = 4096;
  const auto rows = numbers.rows(n, 64);
  store.append(rows.data(), rows.data(), n);
  store.settle();
  const std::size_t page = store.key_side().layout().bytes() + store.value_side().layout().bytes();
  CHECK(store.bytes() == 32 * page + 32 * 2 * 8);  // pages and a bitmap; the tail gave its memory back
  std::vector<Index> gone;
  for (Index i = 0; i < n; ++i)
    if (i % 4 != 1) gone.push_back(i);
  store.drop(gone);
  CHECK(store.size() == 1024);
  CHECK(store.slots() == 1024);
  CHECK(store.bytes() == 8 * page + 8 * 2 * 8);
  // one by one: at most an eighth (and a page) is dead at any time
  for (int i = 0; i < 900; ++i) {
    store.drop(std::vector<Index>{Index(numbers.random.below(std::uint64_t(store.size())))});
    REQUIRE(store.slots() - store.size() <= std::max<Index>(128, (store.slots() + 127) / 128 * 128 / 8));
  }
}

TEST_CASE("A written row of a blocked store is coded once, and its neighbours keep their bits",
          "[storage][BlockedStore]") {
  auto store = packed_kivi(8, 32, 32, 32);
  Numbers numbers(8);
  const auto rows = numbers.rows(100, 32);
  store.append(rows.data(), rows.data(), 100);
  store.settle();
  std::vector<float> k(3200), v(3200), k2(3200), v2(3200);
  store.read(0, 100, k.data(), v.data());
  for (const Index i : {5, 70, 99}) {
    std::vector<float> nk(32), nv(32);
    for (int c = 0; c < 32; ++c)
      nk[std::size_t(c)] = 0.5f * k[std::size_t(i * 32 + c)], nv[std::size_t(c)] = 3.0f - float(c) * 0.1f;
    store.write(i, nk.data(), nv.data());
    store.read(0, 100, k2.data(), v2.data());
    for (Index r = 0; r < 100; ++r)
      for (int c = 0; c < 32; ++c) {
        const std::size_t e = std::size_t(r * 32 + c);
        if (r != i) {
          REQUIRE(k2[e] == k[e]);
          REQUIRE(v2[e] == v[e]);
        } else {
          REQUIRE(std::fabs(v2[e] - nv[std::size_t(c)]) < 0.02f);
          REQUIRE(std::fabs(k2[e] - nk[std::size_t(c)]) < 0.6f);  // within the unit's own range
        }
      }
    k = k2;
    v = v2;
  }
}

TEST_CASE("A written row is not lost where a codec takes several rows together, adapted or not",
          "[storage][BlockedStore]") {
  const IntChannel<f16> codec{8, 20};
  writes("IntChannel", codec, 0);
  writes("WithOutliers", WithOutliers<IntChannel<f16>>{codec, 2}, 0);
  writes("Rotated", Rotated<IntChannel<f16>>{codec}, 0);
  writes("any WithOutliers", AnyCodec(WithOutliers<IntChannel<f16>>{codec, 2}), 0);
  writes("any Rotated", AnyCodec(Rotated<IntChannel<f16>>{codec}), 0);
  writes("both", Rotated<WithOutliers<IntChannel<f16>>>{{codec, 2}}, 0);
  writes("cannot rewrite", Whole{}, 0.05f);
  writes("any that cannot rewrite", AnyCodec(Whole{}), 0.05f);
}

TEST_CASE("Rows of as many channels as a store takes are attended over one by one",
          "[storage][BlockedStore]") {
  constexpr int d = CodecSide<AnyCodec>::most_channels;
  CodecStore store(CodecSide<AnyCodec>(Plain<float>{}, d), CodecSide<AnyCodec>(Plain<float>{}, d), 0);
  Numbers numbers(10);
  const auto k = numbers.rows(5, d), v = numbers.rows(5, d), q = numbers.rows(1, d);
  store.append(k.data(), v.data(), 5);
  store.settle();
  AttendArgs a;
  a.q = q.data();
  a.scale = 0.005f;
  AttnBuffer buffer(1, d);
  store.attend(a, buffer.state());
  std::vector<float> out(static_cast<std::size_t>(d));
  finish(buffer.state(), out.data());
  const auto want = exact_attention(a, 0, k, v, d, 5);
  for (std::size_t c = 0; c < out.size(); ++c) REQUIRE(std::fabs(double(out[c]) - want.out[c]) < 1e-4);
}
