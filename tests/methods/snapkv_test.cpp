// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/snapkv.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

methods::SnapKVOptions options(Index window, int kernel, PoolMode pool) {
  return {window, kernel, pool, Reduce::mean, false};
}

std::vector<Pos> kept(const methods::SnapKVOptions& o, SmallLayer layer, Index budget,
                      std::vector<float>* scores = nullptr) {
  const auto policy = *methods::SnapKV::make(o);
  auto state = *policy.start(layer.shape);
  const AnyLayer view = layer.view();
  if (scores) {
    scores->resize(std::size_t(layer.size()));
    Scratch scratch;
    const Clock now = prompt_clock(budget);
    const AnyContext c{view.head(0), layer.seen[0], now, layer.shape, scratch};
    REQUIRE(policy.signal.score(c, std::vector<Nothing>(scores->size()), Nothing{}, *scores));
  }
  run_call(policy, state, layer, prompt_clock(budget));
  return layer.pos[0];
}

SmallLayer votes_layer() {
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(8);
  layer.give_probs(
      0, {{{.30f, .01f, .02f, .10f, .12f, .05f, .40f, 0}, {.20f, .01f, .02f, .14f, .14f, .13f, .16f, .20f}}});
  return layer;
}

SmallLayer group_layer() {
  SmallLayer layer = SmallLayer::one_head(2);
  const std::vector<Row> keys{{1, 0}, {0, 1}, {1, 1}, {-1, 0}, {0, -1}, {1, -1}};
  for (std::size_t i = 0; i < keys.size(); ++i) layer.append(0, keys[i], {0, 0}, Pos(i));
  layer.give_queries(0, {{{1, 0}, {0, 2}}, {{0, 1}, {2, 0}}});
  return layer;
}

void check_close(std::vector<float> got, const std::vector<float>& want, float scale) {
  got.resize(want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] * scale == Approx(want[i]).margin(2e-6));
}

}  // namespace

TEST_CASE("SnapKV's pooling decides which neighbours stay", "[methods][SnapKV]") {
  std::vector<float> s;
  CHECK(kept(options(2, 3, PoolMode::none), votes_layer(), 5, &s) == std::vector<Pos>{0, 3, 4, 6, 7});
  check_close(s, {.50f, .02f, .04f, .24f, .26f, .18f}, 2);
  CHECK(kept(options(2, 3, PoolMode::avg), votes_layer(), 5, &s) == std::vector<Pos>{1, 3, 4, 6, 7});
  check_close(s, {.173333f, .186667f, .10f, .18f, .226667f, .146667f}, 2);
  CHECK(kept(options(2, 3, PoolMode::max), votes_layer(), 5, &s) == std::vector<Pos>{0, 1, 3, 6, 7});
  check_close(s, {.50f, .50f, .24f, .26f, .26f, .26f}, 2);
}

TEST_CASE("SnapKV reduces the votes of a query group", "[methods][SnapKV]") {
  std::vector<float> s;
  auto o = options(2, 3, PoolMode::none);
  CHECK(kept(o, group_layer(), 4, &s) == std::vector<Pos>{1, 2, 4, 5});
  check_close(s, {.418882f, .457445f, .642679f, .168996f}, 2);
  o.reduce = Reduce::max;
  CHECK(kept(o, group_layer(), 4, &s) == std::vector<Pos>{1, 2, 4, 5});
  check_close(s, {.434749f, .536647f, .693628f, .169359f}, 2);
  o = options(2, 3, PoolMode::max);
  CHECK(kept(o, group_layer(), 4, &s) == std::vector<Pos>{1, 2, 4, 5});
  check_close(s, {.457445f, .642679f, .642679f, .642679f}, 2);
  o.reduce_after = true;
  CHECK(kept(o, group_layer(), 4, &s) == std::vector<Pos>{1, 2, 4, 5});
  check_close(s, {.485698f, .642679f, .642679f, .642679f}, 2);
}

TEST_CASE("SnapKV keeps exactly its budget and its window, and everything where it fits",
          "[methods][SnapKV]") {
  Random random(5);
  for (const Index n : {1, 3, 8, 9, 50, 200}) {
    for (const Index budget : {8, 20, 199}) {
      const Shape shape{1, 6, 2, 8, 8};
      SmallLayer layer(shape);
      layer.append_random(n, random);
      layer.give_random_evidence(8, random);
      const auto policy = *methods::SnapKV::make(options(8, 5, PoolMode::avg));
      auto state = *policy.start(shape);
      run_call(policy, state, layer, prompt_clock(budget));
      for (int h = 0; h < 2; ++h) {
        REQUIRE(layer.size(h) == std::min(n, budget));
        for (Index i = 0; i < std::min<Index>(8, n); ++i)
          CHECK(layer.pos[std::size_t(h)][std::size_t(layer.size(h) - 1 - i)] == n - 1 - i);
        CHECK(std::is_sorted(layer.pos[std::size_t(h)].begin(), layer.pos[std::size_t(h)].end()));
      }
    }
  }
}

TEST_CASE("SnapKV refuses an even kernel and a window larger than the budget", "[methods][SnapKV]") {
  const Status even =
      (*methods::SnapKV::make(options(8, 4, PoolMode::avg))).signal.validate(Shape{1, 1, 1, 2, 2});
  REQUIRE(!even);
  CHECK(even.error().code == Errc::bad_option);

  const auto policy = *methods::SnapKV::make(options(8, 5, PoolMode::avg));
  const Shape shape{1, 1, 1, 2, 2};
  auto state = *policy.start(shape);
  SmallLayer layer(shape);
  Random random(1);
  layer.append_random(20, random);
  layer.give_random_evidence(8, random);
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, 20, 7, true}, 0};
  REQUIRE(policy.observe(call, state));
  std::vector<Plan> plans;
  const Status s = policy.plan(call, state, plans);
  REQUIRE(!s);
  CHECK(s.error() == Error{Errc::bad_budget, s.error().what, 8, 7});
}
