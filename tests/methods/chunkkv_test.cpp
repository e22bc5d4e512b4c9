// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/chunkkv.hpp>
#include <kvist/methods/spec.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;
using methods::ChunkKV;
using methods::ChunkKVOptions;

namespace {

/// Scores that a test states, by KV head and row.
struct Stated {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  std::vector<std::vector<float>> heads;
  Wants wants() const { return {}; }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = heads[std::size_t(c.index)][i];
    return Done{};
  }
};

std::vector<Pos> kept(const std::vector<std::vector<float>>& scores, ChunkKVOptions o, Index budget,
                      Guards guards = {}) {
  auto policy = ChunkKV::of(Stated{scores}, o);
  policy.settings.at_least = guards;
  const Shape shape{1, int(scores.size()), int(scores.size()), 2, 2};
  auto state = *policy.start(shape);
  SmallLayer layer(shape);
  layer.append_blank(Index(scores[0].size()));
  run_call(policy, state, layer, prompt_clock(budget));
  for (const auto& pos : layer.pos) CHECK(pos == layer.pos[0]);
  return layer.pos[0];
}

ChunkKVOptions chunk(Index size, methods::Total total = methods::Total::exact) {
  ChunkKVOptions o;
  o.chunk = size;
  o.total = total;
  return o;
}

const std::vector<std::vector<float>> worked{{.3f, .1f, .1f, .1f, .6f, 0, .2f, .2f},
                                             {.1f, .1f, .3f, .3f, 0, .2f, .2f, 0}};
using Ps = std::vector<Pos>;

}  // namespace

TEST_CASE("ChunkKV keeps the chunks with the highest mean over all heads", "[methods][ChunkKV]") {
  CHECK(kept(worked, chunk(2), 4) == Ps{2, 3, 4, 5});
  CHECK(kept(worked, chunk(2, methods::Total::official), 4) == Ps{2, 3, 4, 5});
  CHECK(kept(worked, chunk(1), 4) == Ps{0, 2, 3, 4});  // a choice of single entries
}

TEST_CASE("ChunkKV meets its budget by cutting one chunk, or keeps whole chunks", "[methods][ChunkKV]") {
  Random random(14);
  for (int trial = 0; trial < 200; ++trial) {
    const Index n = 2 + Index(random.below(120)), size = 1 + Index(random.below(30)),
                budget = 1 + Index(random.below(std::uint64_t(n)));
    std::vector<std::vector<float>> scores(3);
    for (auto& head : scores)
      for (Index i = 0; i < n; ++i) head.push_back(float(random.below(4)));
    const auto cut = [&](const Ps& pos) {  // chunks that are neither whole nor gone
      Index parts = 0;
      for (Index c = 0; c * size < n; ++c) {
        const auto in = std::count_if(pos.begin(), pos.end(), [&](Pos p) { return p / size == c; });
        parts += in > 0 && in < std::min(size, n - c * size);
      }
      return parts;
    };
    const Ps exact = kept(scores, chunk(size), budget);
    CHECK(Index(exact.size()) == std::min(n, budget));
    CHECK(cut(exact) <= 1);
    const Ps whole = kept(scores, chunk(size, methods::Total::official), budget);
    if (budget < n) CHECK(cut(whole) == 0);
    CHECK(!whole.empty());
    CHECK(std::is_sorted(exact.begin(), exact.end()));
  }
}

TEST_CASE("ChunkKV of one entry a chunk is the choice of single entries", "[methods][ChunkKV]") {
  Random random(15);
  std::vector<float> s;
  for (int i = 0; i < 90; ++i) s.push_back(float(random.uniform()));
  std::vector<Pos> best(90);
  for (int i = 0; i < 90; ++i) best[std::size_t(i)] = i;
  std::sort(best.begin(), best.end(), [&](Pos a, Pos b) { return s[std::size_t(a)] > s[std::size_t(b)]; });
  best.resize(33);
  std::sort(best.begin(), best.end());
  CHECK(kept({s}, chunk(1), 33) == best);
}

TEST_CASE("ChunkKV keeps guarded entries inside its budget", "[methods][ChunkKV]") {
  std::vector<float> s(20, 0.0f);
  for (std::size_t i = 8; i < 12; ++i) s[i] = 1;
  CHECK(kept({s}, chunk(4), 9, {2, 3}) == Ps{0, 1, 8, 9, 10, 11, 17, 18, 19});
  CHECK(kept({s}, chunk(4), 8, {2, 3}) == Ps{0, 1, 8, 9, 10, 17, 18, 19});
  CHECK(kept({s}, chunk(100), 6, {1, 1}) == Ps{0, 8, 9, 10, 11, 19});
}

TEST_CASE("ChunkKV ranks by attention, key norms or key diversity, by SPEC", "[methods][ChunkKV]") {
  Random random(3);
  const Shape shape{1, 6, 2, 8, 8};
  SmallLayer whole(shape);
  whole.append_random(60, random);
  whole.give_random_evidence(16, random);
  std::vector<Ps> sets;
  for (const char* spec :
       {"ChunkKV:chunk=5,window=16", "ChunkKV:chunk=5,score=norm", "ChunkKV:chunk=5,score=diversity"}) {
    std::string fault;
    auto made = methods::make(*methods::parse_spec(spec, fault), fault);
    INFO(fault);
    REQUIRE(made);
    SmallLayer layer = whole;
    layer.give_random_evidence(16, random);
    auto state = *made->policy.start(shape);
    run_call(made->policy, state, layer, prompt_clock(30));
    CHECK(layer.size(0) == 30);
    CHECK(layer.pos[0] == layer.pos[1]);
    sets.push_back(layer.pos[0]);
  }
  CHECK(sets[0] != sets[1]);
  CHECK(sets[1] != sets[2]);
  CHECK(std::count_if(sets[0].begin(), sets[0].end(), [](Pos p) { return p >= 44; }) == 16);
}

TEST_CASE("ChunkKV takes one entry, and refuses an empty chunk", "[methods][ChunkKV]") {
  CHECK(kept({{1}}, chunk(20), 1) == Ps{0});
  CHECK(kept({{1, 2}}, chunk(20), 1) == Ps{1});
  CHECK(ChunkKV::make_any(chunk(0), {}).error().code == Errc::bad_option);
}
