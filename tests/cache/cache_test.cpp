// SPDX-License-Identifier: Apache-2.0
#include <kvist/cache/cache.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/streaming_llm.hpp>
#include <kvist/reference/attention.hpp>
#include <kvist/storage/store/dense.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

using Store32 = DenseStore<float>;
const Shape shape{2, 6, 2, 16, 8};

template <class P>
Cache<P, Store32> make_cache(P policy, const RopeTable* rope = nullptr, int tiers = 1) {
  auto made = Cache<P, Store32>::make(
      shape, std::move(policy),
      [tiers](int, int) {
        std::vector<Store32> stores;
        for (int t = 0; t < tiers; ++t) stores.emplace_back(shape.dim_k, shape.dim_v);
        return stores;
      },
      rope);
  REQUIRE(made);
  return std::move(*made);
}

std::vector<float> random_floats(std::size_t n, Random& random) {
  std::vector<float> out(n);
  for (float& x : out) x = float(2 * random.uniform() - 1);
  return out;
}

/// What was appended, to compute attention from by the formula.
struct History {
  std::vector<float> k, v;  // [tokens, kv_heads, d], of one layer
};

template <class C>
void append(C& cache, History& history, Index n, Random& random) {
  const auto k = random_floats(std::size_t(n * shape.kv_heads * shape.dim_k), random);
  const auto v = random_floats(std::size_t(n * shape.kv_heads * shape.dim_v), random);
  const Pos first = cache.next_position();
  for (int l = 0; l < shape.layers; ++l) REQUIRE(cache.append(l, n, k.data(), v.data(), first));
  history.k.insert(history.k.end(), k.begin(), k.end());
  history.v.insert(history.v.end(), v.begin(), v.end());
}

/// Attention of query head group h over the positions that the cache holds, by the formula.
template <class C>
std::vector<double> wanted(const C& cache, const History& history, int layer, int h, const float* q,
                           float scale) {
  std::vector<float> k, v;
  for (const Pos p : cache.head(layer, h).tier(0).pos) {
    const auto at = std::ptrdiff_t(p) * shape.kv_heads + h;
    k.insert(k.end(), history.k.begin() + at * shape.dim_k, history.k.begin() + (at + 1) * shape.dim_k);
    v.insert(v.end(), history.v.begin() + at * shape.dim_v, history.v.begin() + (at + 1) * shape.dim_v);
  }
  const Index n = cache.size(layer, h);
  AttendArgs args;
  args.q = q + std::ptrdiff_t(h) * shape.group() * shape.dim_k;
  args.group = shape.group();
  args.scale = scale;
  return reference::attention(rows(k.data(), n, shape.dim_k), rows(v.data(), n, shape.dim_v), args).out;
}

struct Never {
  static constexpr Role role = Role::schedule;
  bool due(const Clock&) const { return false; }
};

}  // namespace

TEST_CASE("A cache that keeps everything gives the formula's attention", "[cache][Cache]") {
  auto cache = make_cache(Policy<Never>());
  History history;
  Random random(1);
  append(cache, history, 37, random);
  append(cache, history, 1, random);
  const auto q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
  std::vector<float> out(std::size_t(shape.q_heads * shape.dim_v));
  Serial serial;
  REQUIRE(cache.attend(1, q.data(), 0.25f, out.data(), serial));
  for (int h = 0; h < shape.kv_heads; ++h) {
    const auto want = wanted(cache, history, 1, h, q.data(), 0.25f);
    for (std::size_t i = 0; i < want.size(); ++i)
      CHECK(out[std::size_t(h) * want.size() + i] == Approx(want[i]).margin(1e-5));
  }
  CHECK(cache.next_position() == 38);
}

TEST_CASE("After evictions attention is that over the survivors, and bytes fall with them",
          "[cache][Cache]") {
  auto cache = make_cache(methods::StreamingLLM::keep({}));
  History history;
  Random random(2);
  append(cache, history, 200, random);
  const std::size_t before = cache.bytes();
  for (int l = 0; l < shape.layers; ++l) REQUIRE(cache.observe(l, {}, prompt_clock(40)));
  CHECK(cache.size(0, 0) == 40);
  CHECK(double(cache.bytes()) < 0.3 * double(before));
  CHECK(cache.bytes_peak() >= before);
  Serial serial;
  std::vector<float> out(std::size_t(shape.q_heads * shape.dim_v));
  for (Index step = 1; step <= 5; ++step) {
    append(cache, history, 1, random);
    const auto q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
    for (int l = 0; l < shape.layers; ++l) {
      REQUIRE(cache.attend(l, q.data(), 0.25f, out.data(), serial));
      for (int h = 0; h < shape.kv_heads; ++h) {
        const auto want = wanted(cache, history, l, h, q.data(), 0.25f);
        for (std::size_t i = 0; i < want.size(); ++i)
          CHECK(out[std::size_t(h) * want.size() + i] == Approx(want[i]).margin(1e-5));
      }
      REQUIRE(cache.step(l, step_clock(step, 40)));
      CHECK(cache.size(l, 0) == 40);
    }
  }
}

TEST_CASE("H2O sees the probabilities of each step", "[cache][Cache]") {
  auto cache = make_cache(*methods::H2O::make({}));
  History history;
  Random random(3);
  Serial serial;
  std::vector<float> out(std::size_t(shape.q_heads * shape.dim_v));
  for (Index step = 1; step <= 30; ++step) {
    append(cache, history, 1, random);
    const auto q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
    for (int l = 0; l < shape.layers; ++l) {
      REQUIRE(cache.attend(l, q.data(), 0.25f, out.data(), serial));
      REQUIRE(cache.step(l, step_clock(step, 8)));
    }
    CHECK(cache.size(0, 0) == std::min<Index>(step, 8));
    CHECK(cache.head(0, 1).tier(0).pos.back() == step - 1);
  }
}

TEST_CASE("Taking tokens back leaves the cache as it was before them", "[cache][Cache]") {
  auto cache = make_cache(*methods::H2O::make({}));
  History history;
  Random random(4);
  append(cache, history, 6, random);
  auto branch = cache.clone();
  append(cache, history, 3, random);
  CHECK(cache.size(0, 0) == 9);
  cache.truncate(6);
  CHECK(cache.size(1, 1) == 6);
  CHECK(cache.next_position() == 6);
  std::vector<float> a(6 * 16), b(6 * 16);
  cache.read(1, 1, 0, 6, a.data(), nullptr);
  branch.read(1, 1, 0, 6, b.data(), nullptr);
  CHECK(a == b);
}

TEST_CASE("A few tokens go through the layers one after another, a window with them", "[cache][Cache]") {
  Random random(21);
  auto together = make_cache(Policy<Never>());
  History history;
  append(together, history, 20, random);
  auto single = together.clone();
  const Index n = 3;
  const auto q = random_floats(std::size_t(n * shape.q_heads * shape.dim_k), random);
  const auto k = random_floats(std::size_t(n * shape.kv_heads * shape.dim_k), random);
  const auto v = random_floats(std::size_t(n * shape.kv_heads * shape.dim_v), random);
  const LayerAttention how{0.25f, 0, 8, {}};
  Serial serial;
  std::vector<float> out(std::size_t(n * shape.q_heads * shape.dim_v)), want(out);
  for (int l = 0; l < shape.layers; ++l) {
    REQUIRE(together.attend_tokens(l, n, q.data(), k.data(), v.data(), 20, how, out.data(), serial));
    REQUIRE(together.append(l, n, k.data(), v.data(), 20));
    if (l > 0) continue;
    for (Index t = 0; t < n; ++t)
      for (int every = 0; every < shape.layers; ++every) {
        REQUIRE(single.append(every, 1, k.data() + t * shape.kv_heads * shape.dim_k,
                              v.data() + t * shape.kv_heads * shape.dim_v, 20 + t));
        REQUIRE(single.attend(every, q.data() + t * shape.q_heads * shape.dim_k, how,
                              want.data() + t * shape.q_heads * shape.dim_v, serial));
      }
  }
  // both layers hold the same, so `want`, the last layer's, is that of each
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == Approx(want[i]).margin(1e-6));
  CHECK(together.next_position() == 23);
}

TEST_CASE("A step needs the attention of its token", "[cache][Cache]") {
  Random random(22);
  auto cache = make_cache(*methods::H2O::make({}));
  History history;
  append(cache, history, 10, random);
  const Clock now{Phase::decode, 1, 10, 5, true};
  CHECK(cache.step(0, now).error().code == Errc::missing_evidence);
  const auto q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
  std::vector<float> out(std::size_t(shape.q_heads * shape.dim_v));
  Serial serial;
  REQUIRE(cache.attend(0, q.data(), 0.25f, out.data(), serial));
  REQUIRE(cache.attend(1, q.data(), 0.25f, out.data(), serial));
  CHECK(cache.step(0, now).error().code == Errc::missing_evidence);  // of another layer
  REQUIRE(cache.step(1, now));
  CHECK(cache.step(1, now).error().code == Errc::missing_evidence);  // used up
  REQUIRE(cache.attend(1, q.data(), 0.25f, out.data(), serial));
  append(cache, history, 1, random);
  CHECK(cache.step(1, now).error().code == Errc::missing_evidence);  // of the token before
  REQUIRE(cache.attend(1, q.data(), 0.25f, out.data(), serial));
  HeadPlan drop_first;
  drop_first.drop = {0};
  cache.apply(Plan{1, {drop_first, drop_first}, {}});
  CHECK(cache.step(1, now).error().code == Errc::missing_evidence);  // of rows that have gone
}

TEST_CASE("Appended positions must go on", "[cache][Cache]") {
  auto cache = make_cache(Policy<Never>());
  History history;
  Random random(5);
  append(cache, history, 4, random);
  const Status s = cache.append(0, 1, history.k.data(), history.v.data(), 3);
  REQUIRE(!s);
  CHECK(s.error().code == Errc::bad_shape);
}

TEST_CASE("Layers may lag behind each other, and each has its own newest token", "[cache][Cache]") {
  Random random(8);
  auto cache = make_cache(*methods::H2O::make({}));
  History history;
  append(cache, history, 10, random);
  const auto k = random_floats(std::size_t(shape.kv_heads * shape.dim_k), random),
             v = random_floats(std::size_t(shape.kv_heads * shape.dim_v), random),
             q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
  std::vector<float> out(std::size_t(shape.q_heads * shape.dim_v));
  Serial serial;
  const Clock now{Phase::decode, 1, 12, 12, true};
  REQUIRE(cache.append(0, 1, k.data(), v.data(), 10));
  REQUIRE(cache.append(0, 1, k.data(), v.data(), 11));
  REQUIRE(cache.append(1, 1, k.data(), v.data(), 10));
  REQUIRE(cache.attend(1, q.data(), 0.25f, out.data(), serial));
  REQUIRE(cache.append(1, 1, k.data(), v.data(), 11));
  CHECK(cache.step(1, now).error().code == Errc::missing_evidence);  // its newest was not attended to
  REQUIRE(cache.attend(1, q.data(), 0.25f, out.data(), serial));
  CHECK(cache.step(1, now));
}

TEST_CASE("A plan that the policy did not make may move entries, and their records go", "[cache][Cache]") {
  auto cache = make_cache(methods::StreamingLLM::keep({}), nullptr, 2);
  History history;
  Random random(9);
  append(cache, history, 10, random);
  REQUIRE(cache.observe(0, {}, prompt_clock(100)));
  HeadPlan move_third;
  move_third.move = {{3, 1}};
  cache.apply(Plan{0, {move_third, move_third}, {}});
  CHECK(cache.head(0, 0).tier(0).store.size() == 9);
  CHECK(cache.observe(0, {}, prompt_clock(100)));
}

TEST_CASE("Where one head cannot take a token, none does", "[cache][Cache]") {
  auto cache = make_cache(Policy<Never>());
  History history;
  Random random(5);
  append(cache, history, 4, random);
  HeadPlan drop_last;
  drop_last.drop = {3};
  cache.apply(Plan{0, {drop_last, HeadPlan{}}, {}});
  CHECK(cache.append(0, 1, history.k.data(), history.v.data(), 3).error().code == Errc::bad_shape);
  CHECK(cache.size(0, 0) == 3);
  CHECK(cache.size(0, 1) == 4);
}

TEST_CASE("Renumbered positions give the attention of keys rotated by their row", "[cache][Cache]") {
  const RopeTable rope = RopeTable::standard(16, 10000, RopePairs::neighbours);
  auto cache = make_cache(methods::StreamingLLM::compact({2, methods::PositionScheme::compact}), &rope);
  CHECK(cache.form() == KeyForm::raw);
  History history;
  Random random(6);
  append(cache, history, 150, random);
  for (int l = 0; l < shape.layers; ++l) REQUIRE(cache.observe(l, {}, prompt_clock(100)));
  append(cache, history, 1, random);
  const auto q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
  std::vector<float> out(std::size_t(shape.q_heads * shape.dim_v));
  Serial serial;
  REQUIRE(cache.attend(0, q.data(), 0.25f, out.data(), serial));
  for (int h = 0; h < shape.kv_heads; ++h) {
    History turned = history;
    const auto& pos = cache.head(0, h).tier(0).pos;
    REQUIRE(pos.size() == 101);
    for (std::size_t slot = 0; slot < pos.size(); ++slot)
      rope.rotate(std::span(turned.k).subspan(std::size_t((pos[slot] * shape.kv_heads + h) * shape.dim_k), 16),
                  double(slot));
    auto turned_q = q;
    for (int g = 0; g < shape.q_heads; ++g)
      rope.rotate(std::span(turned_q).subspan(std::size_t(g * 16), 16), 100);
    const auto want = wanted(cache, turned, 0, h, turned_q.data(), 0.25f);
    for (std::size_t i = 0; i < want.size(); ++i)
      CHECK(out[std::size_t(h) * want.size() + i] == Approx(want[i]).margin(1e-5));
  }
}

TEST_CASE("Blends carry absolute weights, and an entry that stands for several counts so", "[cache][Cache]") {
  auto cache = make_cache(Policy<Never>());
  History history;
  Random random(7);
  append(cache, history, 5, random);
  // Entry 1 becomes a copy of entry 3, then both are one entry of weight log 2: attention must not change.
  Plan copy{0, std::vector<HeadPlan>(2), {}};
  std::vector<float> k(16), v(8), q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
  for (int h = 0; h < 2; ++h) {
    HeadPlan& p = copy.heads[std::size_t(h)];
    p.drop = {1};
    p.blend = {{1, 3, 0.5f, 0.25f}};
    p.self = {{3, 0.5f, 0.75f, std::log(2.0f)}};
    REQUIRE(check(p, 5));
  }
  cache.apply(copy);
  CHECK(cache.size(0, 0) == 4);
  CHECK(cache.bias(0, 0).size() == 4);
  cache.read(0, 1, 2, 1, k.data(), v.data());
  CHECK(cache.head(0, 1).tier(0).pos == std::vector<Pos>{0, 2, 3, 4});
  for (int c = 0; c < 16; ++c)
    CHECK(k[std::size_t(c)] == Approx(0.5f * history.k[std::size_t((1 * 2 + 1) * 16 + c)] +
                                      0.5f * history.k[std::size_t((3 * 2 + 1) * 16 + c)])
                                   .margin(1e-6));
  for (int c = 0; c < 8; ++c)
    CHECK(v[std::size_t(c)] == Approx(0.25f * history.v[std::size_t((1 * 2 + 1) * 8 + c)] +
                                      0.75f * history.v[std::size_t((3 * 2 + 1) * 8 + c)])
                                   .margin(1e-6));
  CHECK(cache.bias(0, 0)[2] == Approx(std::log(2.0f)));
}

namespace {

/// Attention of head group h over the entries of a head in f64, with everything that a layer may ask for; logits alike.
struct Formula {
  std::vector<double> out, probs;
};
template <class C>
Formula formula(const C& cache, int h, const float* q, const LayerAttention& how, Pos oldest) {
  const auto& head = cache.head(0, h);
  const Index n = head.size();
  std::vector<float> k(std::size_t(n * shape.dim_k)), v(std::size_t(n * shape.dim_v));
  head.read(0, n, k.data(), v.data());
  std::vector<Pos> pos;
  for (int t = 0; t < head.tiers(); ++t)
    pos.insert(pos.end(), head.tier(t).pos.begin(), head.tier(t).pos.end());
  Formula f;
  for (int g = 0; g < shape.group(); ++g) {
    const int head_of_q = h * shape.group() + g;
    std::vector<double> p(std::size_t(n), 0.0), o(std::size_t(shape.dim_v), 0.0);
    double sum = how.sinks.empty() ? 0 : std::exp(double(how.sinks[std::size_t(head_of_q)]));
    for (Index i = 0; i < n; ++i) {
      if (pos[std::size_t(i)] < oldest) continue;
      double s = 0;
      for (int c = 0; c < shape.dim_k; ++c)
        s += double(q[head_of_q * shape.dim_k + c]) * double(k[std::size_t(i * shape.dim_k + c)]);
      s *= double(how.scale);
      if (how.soft_cap > 0) s = double(how.soft_cap) * std::tanh(s / double(how.soft_cap));
      sum += p[std::size_t(i)] = std::exp(s);
    }
    for (Index i = 0; i < n; ++i)
      for (int c = 0; c < shape.dim_v; ++c)
        o[std::size_t(c)] += p[std::size_t(i)] / sum * double(v[std::size_t(i * shape.dim_v + c)]);
    f.out.insert(f.out.end(), o.begin(), o.end());
    for (const double x : p) f.probs.push_back(x / sum);
  }
  return f;
}

/// Keeps everything and remembers the probabilities that it was shown.
struct Watch {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  std::vector<float>* seen = nullptr;
  Wants wants() const { return {Needs::none, Needs::probs, 0}; }
  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry>, PerHead&) const {
    for (int g = 0; g < c.seen.probs.g; ++g) {
      const auto row = c.seen.probs.row(g, 0);
      seen->insert(seen->end(), row.begin(), row.end());
    }
    return Done{};
  }
  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    std::fill(out.begin(), out.end(), 0.0f);
    return Done{};
  }
};

}  // namespace

TEST_CASE("A layer may have a sliding window, a cap on its logits and a sink for each head",
          "[cache][Cache]") {
  std::vector<float> seen;
  auto cache = make_cache(Policy<Watch, Never>(Watch{&seen}, Never{}));
  History history;
  Random random(4);
  append(cache, history, 60, random);
  Serial serial;
  const std::vector<float> sinks{0, -1, 2, .5f, 1, -3};
  std::vector<float> out(std::size_t(shape.q_heads * shape.dim_v));
  Index step = 0;
  for (const Pos window : {0, 1, 17, 60, 1000})
    for (const float cap : {0.0f, 1.5f})
      for (const bool sink : {false, true}) {
        append(cache, history, 1, random);
        const auto q = random_floats(std::size_t(shape.q_heads * shape.dim_k), random);
        const LayerAttention how{0.5f, cap, window,
                                 sink ? std::span<const float>(sinks) : std::span<const float>()};
        REQUIRE(cache.attend(0, q.data(), how, out.data(), serial));
        seen.clear();
        REQUIRE(cache.step(0, step_clock(++step, 1000)));
        const std::size_t n = std::size_t(shape.group()) * std::size_t(cache.size(0, 0));
        REQUIRE(seen.size() == 2 * n);
        for (int h = 0; h < shape.kv_heads; ++h) {
          const Formula want =
              formula(cache, h, q.data(), how, window == 0 ? 0 : cache.next_position() - window);
          for (std::size_t i = 0; i < want.out.size(); ++i)
            CHECK(out[std::size_t(h) * want.out.size() + i] == Approx(want.out[i]).margin(1e-5));
          for (std::size_t i = 0; i < n; ++i)
            CHECK(seen[std::size_t(h) * n + i] == Approx(want.probs[i]).margin(1e-6));
        }
      }
  const LayerAttention few{0.5f, 0, 0, std::span<const float>(sinks).first(2)};
  CHECK(cache.attend(0, out.data(), few, out.data(), serial).error().code == Errc::bad_shape);
}

TEST_CASE("A window and a list of rows reach over tiers", "[cache][HeadCache]") {
  std::vector<Store32> tiers;
  for (int t = 0; t < 2; ++t) tiers.emplace_back(shape.dim_k, shape.dim_v);
  HeadCache<Store32> head(std::move(tiers), shape.dim_k, shape.dim_v);
  Random random(6);
  const auto k = random_floats(std::size_t(40 * shape.dim_k), random),
             v = random_floats(std::size_t(40 * shape.dim_v), random), q = random_floats(16, random);
  head.append(k.data(), v.data(), 40, 0);
  HeadPlan plan;  // entries 30, 3 and 21 move, in this order
  plan.move = {{30, 1}};
  head.apply(plan);
  plan.move = {{3, 1}, {20 + 1, 1}};
  head.apply(plan);
  REQUIRE((head.tier(1).pos == std::vector<Pos>{30, 3, 21}));
  std::vector<Pos> pos = head.tier(0).pos;
  pos.insert(pos.end(), head.tier(1).pos.begin(), head.tier(1).pos.end());

  const auto check = [&](const AttendArgs& args, const AttnState& state, auto visible) {
    std::vector<double> want(std::size_t(shape.dim_v), 0.0);
    double sum = 0;
    for (Index i = 0; i < 40; ++i) {
      double s = 0;
      const Pos p = pos[std::size_t(i)];
      for (int c = 0; c < shape.dim_k; ++c)
        s += double(q[std::size_t(c)]) * double(k[std::size_t(p * shape.dim_k + c)]);
      CHECK(std::isinf(args.logits[i]) == !visible(i));
      if (!visible(i)) continue;
      CHECK(args.logits[i] == Approx(s).margin(1e-5));
      sum += std::exp(s);
      for (int c = 0; c < shape.dim_v; ++c)
        want[std::size_t(c)] += std::exp(s) * double(v[std::size_t(p * shape.dim_v + c)]);
    }
    std::vector<float> out(std::size_t(shape.dim_v));
    finish(state, out.data());
    for (std::size_t c = 0; c < out.size(); ++c) CHECK(out[c] == Approx(want[c] / sum).margin(1e-5));
  };
  std::vector<float> logits(40);
  AttendArgs args;
  args.q = q.data();
  args.logits = logits.data();
  args.logits_stride = 40;
  for (const Pos oldest : {0, 4, 21, 25, 31}) {
    AttnBuffer buffer(1, shape.dim_v);
    head.attend_since(args, oldest, buffer.state());
    check(args, buffer.state(), [&](Index i) { return pos[std::size_t(i)] >= oldest; });
  }
  const std::vector<Index> chosen{0, 5, 36, 37, 39}, moved{38};
  for (const auto& only : {chosen, moved}) {
    args.only = only;
    AttnBuffer buffer(1, shape.dim_v);
    head.attend(args, buffer.state());
    check(args, buffer.state(), [&](Index i) { return std::binary_search(only.begin(), only.end(), i); });
  }
}
