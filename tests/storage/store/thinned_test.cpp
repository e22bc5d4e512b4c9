// SPDX-License-Identifier: Apache-2.0
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/storage/codec/int_channel.hpp>
#include <kvist/storage/codec/int_token.hpp>
#include <kvist/storage/store/thinned.hpp>

#include <functional>
#include <map>

using namespace kvist;
using namespace kvist::test;

namespace {

using PackedKivi = BlockedStore<PackedSide, PackedSide>;
using CodecKivi = BlockedStore<CodecSide<AnyCodec>, CodecSide<AnyCodec>>;
static_assert(Store<ThinnedStore<PackedSide, PackedSide>> &&
              Store<ThinnedStore<CodecSide<AnyCodec>, CodecSide<AnyCodec>>>);

PackedKivi packed(int bits, int group, Index residual, int d) {
  return PackedKivi(
      PackedSide(kernels::channel_keys(bits, d, group), kernels::Accuracy::exact),
      PackedSide(kernels::token_values(bits, d, std::min(group, d), true), kernels::Accuracy::exact), residual);
}
CodecKivi channel(int bits, int group, int d) {
  return CodecKivi(CodecSide<AnyCodec>(IntChannel<f16>{bits, group}, d),
                   CodecSide<AnyCodec>(IntChannel<f16>{bits, group}, d), 0);
}

/// A long decode at a budget, as a policy of heavy hitters makes it: of each `period` tokens one stays for long, the others
/// leave when they are `recent` steps old; when the budget is reached, the oldest heavy one leaves.
struct Decode {
  std::vector<int> id;  // by row
  Index period = 24, recent = 64, heavy = 160;

  /// Rows that leave at token t.
  std::vector<Index> losers(int t) const {
    std::vector<Index> gone;
    Index held = 0, first_heavy = -1;
    for (std::size_t i = 0; i < id.size(); ++i) {
      const bool old = id[i] + recent < t, loud = id[i] % period == 3;
      if (old && !loud) gone.push_back(Index(i));
      if (old && loud) {
        if (first_heavy < 0) first_heavy = Index(i);
        ++held;
      }
    }
    if (held > heavy) gone.push_back(first_heavy);
    std::sort(gone.begin(), gone.end());
    return gone;
  }
};

template <class S>
void run(S store, int d, Decode decode, int tokens, const std::function<void(const S&, int)>& look) {
  Numbers numbers(17);
  std::map<int, std::vector<float>> coded;  // key and value of an entry, as first read after it was coded
  std::vector<float> k, v;
  for (int t = 0; t < tokens; ++t) {
    const auto nk = numbers.rows(1, d), nv = numbers.rows(1, d);
    store.append(nk.data(), nv.data(), 1);
    decode.id.push_back(t);
    const auto gone = decode.losers(t);
    store.drop(gone);
    for (auto r = gone.rbegin(); r != gone.rend(); ++r) {
      coded.erase(decode.id[std::size_t(*r)]);
      decode.id.erase(decode.id.begin() + *r);
    }
    store.settle();
    REQUIRE(store.size() == Index(decode.id.size()));
    if (t % 97 != 0) continue;
    const Index n = store.size();
    k.resize(std::size_t(n * d)), v.resize(std::size_t(n * d));
    store.read(0, n, k.data(), v.data());
    for (Index i = 0; i < std::min(store.coded_keys(), store.coded_values()); ++i) {
      std::vector<float> now(k.begin() + i * d, k.begin() + (i + 1) * d);
      now.insert(now.end(), v.begin() + i * d, v.begin() + (i + 1) * d);
      const auto [at, fresh] = coded.emplace(decode.id[std::size_t(i)], now);
      if (!fresh) REQUIRE((at->second == now));  // never coded again
    }
    look(store, t);
  }
}

/// The state over all rows is that of attention in f64 over what read() gives, with and without lists, edges and bias.
template <class S>
void attends(const S& store, int d) {
  const Index n = store.size();
  Numbers numbers(23);
  std::vector<float> k(std::size_t(n * d)), v(k), bias(static_cast<std::size_t>(n));
  store.read(0, n, k.data(), v.data());
  for (float& b : bias) b = float(numbers.random.uniform());
  const auto q = numbers.rows(3, d);
  const Index f = store.front().size();
  std::vector<Index> spread;
  for (Index i = 0; i < n; i += 3) spread.push_back(i);
  for (int kind = 0; kind < 6; ++kind) {
    AttendArgs a;
    a.q = q.data();
    a.group = 3;
    a.scale = 0.2f;
    std::vector<Index> only;
    if (kind == 1) a.first = f / 2;
    if (kind == 2) a.first = f + 5, a.soft_cap = 2;
    if (kind == 3) only = spread;
    if (kind == 4) only = {0, f - 1};
    if (kind == 5) only = {f, n - 1};
    a.only = only;
    if (kind != 1) a.bias = bias.data();
    std::vector<float> logits(std::size_t(3 * n), 7.0f);
    a.logits = logits.data();
    a.logits_stride = n;
    AttnBuffer buffer(3, d);
    store.attend(a, buffer.state());
    std::vector<float> out(std::size_t(3 * d));
    finish(buffer.state(), out.data());
    for (int g = 0; g < 3; ++g) {
      INFO("kind " << kind << " query " << g);
      const auto want = exact_attention(a, g, k, v, d, n);
      double error = 0, norm = 0;
      for (int c = 0; c < d; ++c) {
        error += std::pow(double(out[std::size_t(g * d + c)]) - want.out[std::size_t(c)], 2);
        norm += std::pow(want.out[std::size_t(c)], 2);
      }
      REQUIRE(std::sqrt(error / norm) < 4e-4);
      for (Index i = 0; i < n; ++i) {
        const double w = want.logits[std::size_t(i)], x = double(logits[std::size_t(g * n + i)]);
        REQUIRE(std::isinf(w) == std::isinf(x));
        if (!std::isinf(w)) REQUIRE(std::fabs(w - x) < 0.02);
      }
    }
  }
}

}  // namespace

TEST_CASE(
    "Units that a long decode has thinned out give their memory back, and rows that stay keep their bits",
    "[storage][ThinnedStore]") {
  constexpr int d = 64;
  std::size_t plain = 0, thinned = 0;
  run<PackedKivi>(packed(4, 32, 32, d), d, {}, 4000, [&](const PackedKivi& s, int) { plain = s.bytes(); });
  using Thinned = ThinnedStore<PackedSide, PackedSide>;
  run<Thinned>(Thinned(packed(4, 32, 32, d)), d, {}, 4000, [&](const Thinned& s, int t) {
    thinned = s.bytes();
    // at most, for each row: an f32 key and a coded value, an eighth of that and of the units, pages, windows
    const std::size_t row = d * 4 + d / 2 + 8,
                      page = s.body().key_side().layout().bytes() + s.body().value_side().layout().bytes();
    if (t > 1000) REQUIRE(s.bytes() <= std::size_t(s.size()) * row * 5 / 4 + 4 * page + 300 * d * 2 * 4);
    if (t % 970 == 0 && t > 1000) attends(s, d);
  });
  CHECK(thinned * 2 < plain);
}

TEST_CASE("Stores whose values are coded along the tokens are thinned out, too", "[storage][ThinnedStore]") {
  constexpr int d = 24;
  using Thinned = ThinnedStore<CodecSide<AnyCodec>, CodecSide<AnyCodec>>;
  std::size_t plain = 0, thinned = 0;
  Decode decode;
  decode.period = 40;
  run<CodecKivi>(channel(4, 32, d), d, decode, 3000, [&](const CodecKivi& s, int) { plain = s.bytes(); });
  run<Thinned>(Thinned(channel(4, 32, d)), d, decode, 3000, [&](const Thinned& s, int t) {
    thinned = s.bytes();
    if (t % 970 == 0 && t > 1000) attends(s, d);
  });
  CHECK(thinned * 3 < plain * 2);
}

TEST_CASE("Full units stay coded: eviction that leaves whole units costs no f32 row",
          "[storage][ThinnedStore]") {
  constexpr int d = 32;
  using Thinned = ThinnedStore<PackedSide, PackedSide>;
  Thinned store(packed(4, 32, 32, d));
  Numbers numbers(3);
  const auto rows = numbers.rows(1024, d);
  store.append(rows.data(), rows.data(), 1024);
  store.settle();
  std::vector<Index> gone;
  for (Index i = 0; i < 512; ++i) gone.push_back(i);
  store.drop(gone);
  CHECK(store.front().size() == 0);
  CHECK(store.body().slots() == 512);
  // a quarter of every unit leaves: too little to pay
  gone.clear();
  for (Index i = 0; i < 480; i += 4) gone.push_back(i);
  store.drop(gone);
  CHECK(store.front().size() == 0);
}

TEST_CASE("Room that was reserved is used before rows leave for f32", "[storage][ThinnedStore]") {
  constexpr int d = 32;
  using Thinned = ThinnedStore<PackedSide, PackedSide>;
  Thinned store(packed(4, 32, 32, d));
  store.reserve(4096);
  const std::size_t bytes = store.bytes();
  run<Thinned>(std::move(store), d, {}, 3500, [&](const Thinned& s, int) {
    REQUIRE(s.front().size() == 0);
    REQUIRE(s.bytes() == bytes);
  });
}
