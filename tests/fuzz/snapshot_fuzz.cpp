// SPDX-License-Identifier: Apache-2.0
// Any bytes as a snapshot, or (where they do not start as one) as edits of a good one whose sum is made right again, so
// that what lies behind the sum is reached: refused, or a cache that can be used in every way.
#include <kvist/cache/cache.hpp>
#include <kvist/io/snapshot.hpp>
#include <kvist/methods/coded_stores.hpp>
#include <kvist/methods/d2o.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/kivi.hpp>
#include <kvist/methods/mikv.hpp>
#include <kvist/methods/rkv.hpp>
#include <kvist/methods/scissorhands.hpp>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace kvist;
using AnyCache = Cache<AnyPolicy, AnyStore>;

constexpr int dim = 32;
constexpr Shape shape{4, 4, 2, dim, dim};
constexpr int policies = 6;
constexpr Index budget = 20;

AnyPolicy policy(int kind) {
  if (kind == 1) return AnyPolicy(methods::Scissorhands::make({.history = 70, .recent = 4}).value());
  if (kind == 2) return AnyPolicy(methods::RKV::make({}).value());
  if (kind == 3) return AnyPolicy(methods::Mikv::make({}).value());
  if (kind == 4) {
    auto folding = methods::H2O::make({}).value();
    folding.settings.merge = Fold::compensate;
    return AnyPolicy(folding);
  }
  if (kind == 5) return AnyPolicy(methods::D2O::make({}).value());
  return AnyPolicy(Policy<AccumulatedAttention, EveryStep>());
}

/// A store of another kind for every head (all heads of MiKV have its tiers).
Result<std::vector<AnyStore>> stores(int kind, int layer, int head) {
  using namespace methods;
  if (kind == 3)
    return Mikv::make_stores({.bits = 2 + layer, .high = HighTier(layer)}).value()(shape, layer, head);
  switch (layer * 2 + head) {
    case 0:
      return ExactF32::make({}).value()(shape, layer, head);
    case 1:
      return ExactBf16::make({}).value()(shape, layer, head);
    case 2:
      return Kivi::make({.bits = 4, .group = 16, .residual = 16}).value()(shape, layer, head);
    case 3:
      return Kivi::make({.bits = 3, .group = 8, .residual = 8}).value()(shape, layer, head);
    case 4:
      return Int8::make({}).value()(shape, layer, head);
    case 5:
      return Q4_0Store::make({}).value()(shape, layer, head);
    case 6:
      return IntTokenStore::make({.bits = 4, .outliers = 2}).value()(shape, layer, head);
    default:
      return RotatedInner::wrap(IntChannelStore::make({.bits = 4, .group = 16}).value())(shape, layer, head);
  }
}

AnyCache empty(int kind) {
  return *AnyCache::make(shape, policy(kind), [=](int l, int h) { return stores(kind, l, h); });
}

std::vector<float> numbers(Index n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i * 37 % 101) / 50 - 1;
  return x;
}

/// A prompt of n tokens or, where it is one, a decode step.
void feed(AnyCache& c, Index n, Index step) {
  static const std::vector<float> x = numbers(64 * 4 * dim), ones(4096, 1.0f);
  const Pos first = c.next_position();
  for (int l = 0; l < shape.layers; ++l) {
    if (!c.append(l, n, x.data(), x.data() + 7, first)) return;
    if (step > 0) {
      float out[4 * dim];
      Serial serial;
      if (!c.attend(l, x.data() + step % 32, 0.2f, out, serial)) std::abort();
      (void)c.step(l, {Phase::decode, step, 0, budget, true});
      continue;
    }
    std::vector<Evidence> seen(2);
    for (int h = 0; h < 2; ++h) {
      Evidence& e = seen[std::size_t(h)];
      const Index size = c.head(l, h).tier(0).store.size();
      if (size > 1000) return;
      e.queries = cube(x.data() + h * 64, 2, n, dim);
      e.column_sums = cube(ones.data(), 2, 1, size);
      e.seen_by = std::span(ones).first(std::size_t(size));
      e.max_query = cube(ones.data(), 2, 1, dim);
      e.first_query = first;
    }
    (void)c.observe(l, seen, {Phase::prefill, 0, n, budget, true});
  }
}

struct Good {
  std::string bytes;
  std::vector<std::size_t> numbers;  ///< where the single numbers of the snapshot lie
};

std::vector<std::size_t> places_of_numbers(const AnyCache& c) {
  struct Note {
    std::size_t at = 16;  // behind the head of the file
    std::vector<std::size_t> numbers;
    static bool put(void* to, const void*, std::size_t n) {
      auto& note = *static_cast<Note*>(to);
      if (n == 8) note.numbers.push_back(note.at);
      note.at += n;
      return true;
    }
  } note;
  FieldWriter v(&Note::put, &note);
  visit_fields(v, c);
  return note.numbers;
}

const Good& good(int kind) {
  static std::vector<Good> all;
  if (all.empty())
    for (int k = 0; k < policies; ++k) {
      AnyCache c = empty(k);
      feed(c, 50, 0);
      for (Index t = 1; t <= 9; ++t) feed(c, 1, t);
      all.push_back({snapshot_bytes(c).value(), places_of_numbers(c)});
    }
  return all[std::size_t(kind)];
}

/// The good snapshot with edits of four bytes each: place (two), how, value.
std::string edited(int kind, std::span<const std::uint8_t> edits) {
  const Good& from = good(kind);
  std::string out = from.bytes;
  for (; edits.size() >= 4; edits = edits.subspan(4)) {
    const std::size_t place = edits[0] + 256u * edits[1], how = edits[2], value = edits[3];
    if (how % 4 == 0) {
      out[(place + 65536 * (how / 4)) % (out.size() - 8)] = static_cast<char>(value);
      continue;
    }
    char* const at = out.data() + from.numbers[place % from.numbers.size()];
    std::int64_t x = 0;
    std::memcpy(&x, at, 8);
    static constexpr std::int64_t edges[] = {0,         -1,        1,         1 << 30,  (1 << 30) - 64,
                                             INT32_MAX, INT64_MAX, INT64_MIN, 1ll << 40};
    if (how % 4 == 1) x = std::int64_t(value);
    if (how % 4 == 2) x = std::int64_t(std::uint64_t(x) + std::uint64_t(value) - 128);
    if (how % 4 == 3) x = edges[value % std::size(edges)];
    std::memcpy(at, &x, 8);
  }
  kvist::Checksum sum;
  sum.add(out.data(), out.size() - 8);
  const std::uint64_t value = sum.value();
  std::memcpy(out.data() + out.size() - 8, &value, 8);
  return out;
}

/// What a cache does to a store in a long life: much leaves at once, little comes, room is asked for.
void live_on(AnyStore s) {
  static const std::vector<float> x = numbers(80 * dim);
  s.append(x.data(), x.data() + 7, 60);  // enough that stores give memory back below
  std::vector<Index> gone;
  for (Index i = 0; i < s.size(); ++i)
    if (i % 4 != 1) gone.push_back(i);
  s.drop(gone);
  for (Index i = 0; i < 20; ++i) s.append(x.data() + i * dim, x.data() + i, 1);
  s.append(x.data(), x.data() + 7, 20);
  s.settle();
  s.reserve(s.size() + 50);
  s.append(x.data(), x.data() + 7, 50);
  s.settle();
  const Index n = s.size();
  std::vector<float> k(std::size_t(n) * dim), v(k), logits(static_cast<std::size_t>(n));
  s.read(0, n, k.data(), v.data());
  float m[1], l[1], out[dim];
  const AttnState state{1, dim, m, l, out};
  state.clear();
  AttendArgs args;
  args.q = x.data();
  args.first = n / 3;
  args.logits = logits.data();
  args.logits_stride = n;
  s.attend(args, state);
}

/// The store of a loaded cache once more, to be changed.
AnyStore once_more(const AnyStore& s, int kind, int layer, int head, int tier) {
  auto empty_ones = stores(kind, layer, head);
  auto copy = from_snapshot(snapshot_bytes(s).value(), std::move((*empty_ones)[std::size_t(tier)]),
                            {std::uint64_t{16} << 20});
  if (!copy) std::abort();
  return *std::move(copy);
}

void check(int kind, std::string_view bytes) {
  auto c = from_snapshot(bytes, empty(kind), {std::uint64_t{16} << 20});
  if (!c) return;
  if (c->bytes() > std::size_t{20} << 20) std::abort();
  const auto again = snapshot_bytes(*c);
  if (!again || *again != bytes) std::abort();
  std::vector<float> k, v;
  for (int l = 0; l < shape.layers; ++l)
    for (int h = 0; h < shape.kv_heads; ++h) {
      const Index n = c->size(l, h);
      k.resize(std::size_t(n) * dim), v.resize(std::size_t(n) * dim);
      c->read(l, h, 0, n, k.data(), v.data());
      for (int t = 0; t < c->head(l, h).tiers(); ++t)
        live_on(once_more(c->head(l, h).tier(t).store, kind, l, h, t));
    }
  for (Index t = 10; t < 14; ++t) feed(*c, 1, t);
  AnyCache branch = c->clone();
  branch.truncate(branch.next_position() - 6);
  feed(branch, 30, 0);
  feed(branch, 1, 1);
  (void)snapshot_bytes(branch);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const int kind = data[0] % policies;
  if (size > 1 && data[0] == 0x89) check(0, std::string_view(reinterpret_cast<const char*>(data), size));
  else check(kind, edited(kind, std::span(data + 1, size - 1)));
  return 0;
}
