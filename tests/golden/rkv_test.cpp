// SPDX-License-Identifier: Apache-2.0
// R-KV against its official code on recorded layers.
#include <kvist/methods/rkv.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("R-KV's scores and kept sets are those of its official code", "[golden][RKV]") {
  if (!have_recorded("official/rkv")) KVIST_SKIP("reference values");
  struct Setting {
    const char* name;
    Index budget, window;
    double lambda;
  };
  for (const std::string layer_name : {"02", "11", "20", "28"}) {
    const Tensor k = recorded("official/inputs/k" + layer_name);
    const bool all = layer_name != "28";
    const Tensor q = recorded((all ? "official/inputs/q" : "official/inputs/qw") + layer_name);
    for (const Setting& s : {Setting{"_b128_w8_lam7", 128, 8, .07}, {"_b96_w16_lam50", 96, 16, .5}}) {
      const std::string at = "official/rkv/l" + layer_name + s.name;
      INFO(at);
      const Tensor kept = recorded(at + "_kept"), margin = recorded(at + "_margin");
      const Shape shape{1, 9, 3, 64, 64};
      const auto policy = *methods::RKV::make({s.lambda, s.window, 7, .5, 128});
      auto state = *policy.start(shape);
      SmallLayer layer(shape);
      append_recorded(layer, k, nullptr, 0, 512);
      give_recorded_queries(layer, q, (all ? 512 : 32) - std::size_t(s.window), std::size_t(s.window));
      if (layer_name == "11" || layer_name == "20") {
        const Tensor scores = recorded(at + "_score");
        const AnyLayer view = layer.view();
        Scratch scratch;
        const Clock now = prompt_clock(s.budget);
        for (int h = 0; h < 3; ++h) {
          const AnyContext c{view.head(h), layer.seen[std::size_t(h)], now, shape, scratch, nullptr, 0, h};
          AttentionAndRedundancy::PerHead own;
          std::vector<float> mine(512);
          REQUIRE(policy.signal.observe(c, {}, own));
          REQUIRE(policy.signal.score(c, {}, own, mine));
          for (std::size_t i = 0; i < scores.dim(1); ++i)
            CHECK(mine[i] == Approx(scores.at(std::size_t(h), i)).epsilon(1e-4).margin(1e-8));
        }
      }
      run_call(policy, state, layer, prompt_clock(s.budget));
      for (std::size_t h = 0; h < 3; ++h) {
        REQUIRE(layer.size(int(h)) == s.budget);
        const std::size_t other = difference(layer.pos[h], kept.positions(h));
        CHECK(other <= (margin.at(h) < 1e-7f ? 2u : 0u));
      }
    }
  }
}
