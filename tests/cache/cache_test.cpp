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
Cache<P, Store32> make_cache(P policy, const RopeTable* rope = nullptr) {
  auto made = Cache<P, Store32>::make(
      shape, std::move(policy),
      [](int, int) {
        std::vector<Store32> one;
        one.emplace_back(shape.dim_k, shape.dim_v);
        return one;
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

TEST_CASE("Appended positions must go on", "[cache][Cache]") {
  auto cache = make_cache(Policy<Never>());
  History history;
  Random random(5);
  append(cache, history, 4, random);
  const Status s = cache.append(0, 1, history.k.data(), history.v.data(), 3);
  REQUIRE(!s);
  CHECK(s.error().code == Errc::bad_shape);
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
