// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/budget/layer/cascade.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/window_mean_variance.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("What a prompt said of a head goes with its last query, decode steps leave nothing to take back",
          "[policy][WindowMeanVariance]") {
  const Policy<WindowMeanVariance, KeepEnds> policy(WindowMeanVariance{4, 200, 5}, KeepEnds{0, 4});
  SmallLayer layer(Shape{1, 4, 2, 4, 4});
  Random random(2);
  auto state = *policy.start(layer.shape);
  layer.append_random(30, random);
  layer.give_random_evidence(30, random);
  run_call(policy, state, layer, prompt_clock(40));
  const LayerStat said = state.layers[0].stat;
  CHECK(said.entropy > 0);
  CHECK(said.variance > 0);
  layer.append_random(3, random);
  layer.give_random_evidence(1, random);
  run_call(policy, state, layer, step_clock(1, 40));

  for (int h = 0; h < 2; ++h) policy.truncate(state, 0, h, 30, 30);  // the steps alone
  CHECK(state.layers[0].stat.entropy == said.entropy);
  CHECK(state.layers[0].stat.variance == said.variance);
  CHECK(state.layers[0].heads[0].own.entropy > 0);

  policy.truncate(state, 0, 0, 29, 29);  // the prompt's last token, head by head
  CHECK(state.layers[0].heads[0].own.entropy == 0);
  CHECK(state.layers[0].stat.entropy < said.entropy);
  CHECK(state.layers[0].stat.entropy > 0);
  policy.truncate(state, 0, 1, 29, 29);
  CHECK(state.layers[0].stat.entropy == 0);
  CHECK(state.layers[0].stat.variance == 0);
}
