// SPDX-License-Identifier: Apache-2.0
// KVMerger against its formulas in f64 over recorded tensors: who is protected, the runs, their pivots, merged rows.
#include <kvist/methods/kvmerger.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Case {
  const char* name;
  int layer;
  float threshold;
  int sigma;
  double recent, top;
  bool rows;  // whole merged rows are stored, else their sums
};

void compare(const Case& c) {
  const std::string at = "official/kvmerger/" + std::string(c.name), l = std::to_string(c.layer);
  const Tensor k = recorded("official/inputs/k" + l), v = recorded("official/inputs/v" + l);
  const Tensor attention = recorded(at + "_attention"), pivot = recorded(at + "_pivot"),
               count = recorded(at + "_count"), cosines = recorded(at + "_cos"),
               guarded = recorded(at + "_protected");
  const Tensor want_k = recorded(at + (c.rows ? "_k" : "_ksum")),
               want_v = recorded(at + (c.rows ? "_v" : "_vsum"));
  SmallLayer layer(Shape{1, 9, 3, 64, 64});
  append_recorded(layer, k, &v, 0, 192);
  for (std::size_t h = 0; h < 3; ++h) {  // a third for each query head of the group
    layer.sums[h].clear();
    for (int g = 0; g < 3; ++g)
      for (std::size_t i = 0; i < 192; ++i) layer.sums[h].push_back(attention.at(h, i) / 3);
    layer.seen_by[h].assign(192, 1.0f);
    layer.seen[h].column_sums = cube(layer.sums[h].data(), 3, 1, 192);
    layer.seen[h].seen_by = layer.seen_by[h];
  }
  auto policy = methods::KVMerger::make({c.threshold, float(c.sigma), c.recent, c.top, {}});
  REQUIRE(policy);
  auto state = policy->start(layer.shape);
  REQUIRE(state);
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> call{view, layer.seen, {Phase::prefill, 0, 192, 0, true}, 0};
  REQUIRE(policy->observe(call, *state));
  std::vector<Plan> plans;
  REQUIRE(policy->plan(call, *state, plans));
  for (std::size_t h = 0; h < 3; ++h) {
    INFO(c.name << " head " << h);
    const HeadPlan& p = plans[0].heads[h];
    REQUIRE(check(p, 192));
    for (std::size_t i = 0; i + 1 < 192; ++i) {
      const float* const row = layer.k[h].data() + i * 64;
      CHECK(kvist::detail::cosine({row, 64}, {row + 64, 64}) == Approx(cosines.at(h, i)).margin(1e-5));
    }
    std::vector<Pos> kept;
    std::vector<int> counts;
    for (Index i = 0; i < 192; ++i) {
      if (std::binary_search(p.drop.begin(), p.drop.end(), i)) continue;
      kept.push_back(i);
      counts.push_back(
          1 + int(std::count_if(p.blend.begin(), p.blend.end(), [&](const Blend& b) { return b.dst == i; })));
      if (guarded.at(h, std::size_t(i)) != 0) CHECK(counts.back() == 1);
    }
    const auto want = pivot.positions(h);
    CHECK(kept == want);
    REQUIRE(kept.size() == want.size());
    double worst = 0;
    for (std::size_t e = 0; e < kept.size(); ++e) {
      CHECK(float(counts[e]) == count.at(h, e));
      std::vector<double> mk(64, 0.0), mv(64, 0.0);
      const auto add = [&](Index row, double wk, double wv) {
        for (std::size_t d = 0; d < 64; ++d) {
          mk[d] += wk * double(layer.k[h][std::size_t(row) * 64 + d]);
          mv[d] += wv * double(layer.v[h][std::size_t(row) * 64 + d]);
        }
      };
      double self_k = 1, self_v = 1;
      for (const Self& s : p.self)
        if (s.dst == kept[e]) self_k = double(s.wk), self_v = double(s.wv);
      add(kept[e], self_k, self_v);
      for (const Blend& b : p.blend)
        if (b.dst == kept[e]) add(b.src, double(b.wk), double(b.wv));
      double sum_k = 0, sum_v = 0;
      for (std::size_t d = 0; d < 64; ++d) {
        sum_k += mk[d], sum_v += mv[d];
        if (!c.rows) continue;
        worst = std::max({worst, std::abs(mk[d] - double(want_k.at(h, e, d))),
                          std::abs(mv[d] - double(want_v.at(h, e, d)))});
      }
      if (!c.rows)
        worst = std::max(
            {worst, std::abs(sum_k - double(want_k.at(h, e))), std::abs(sum_v - double(want_v.at(h, e)))});
    }
    INFO("merged rows differ by at most " << worst);
    CHECK(worst <= (c.rows ? 2e-5 : 2e-4));
  }
}

}  // namespace

TEST_CASE("KVMerger's runs, pivots and merged rows are those of its formulas over recorded tensors",
          "[golden][KVMerger]") {
  if (!have_recorded("official/kvmerger")) KVIST_SKIP("reference values");
  compare({"l11_e75_s5", 11, 0.75f, 5, 32, 23, true});
  compare({"l20_e85_s5", 20, 0.85f, 5, 15, 3, false});
  compare({"l11_e75_s0", 11, 0.75f, 0, 32, 23, false});
}
