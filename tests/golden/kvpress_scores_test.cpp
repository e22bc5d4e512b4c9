// SPDX-License-Identifier: Apache-2.0
// Scores of NVIDIA/kvpress on recorded queries, keys and values of three layers: the same formula gives the same numbers.
// Entries that a press forces in (window, last token) carry a mark there and are left out.
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/key_norm.hpp>
#include <kvist/methods/keydiff.hpp>
#include <kvist/methods/snapkv.hpp>
#include <kvist/methods/tova.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr int layers[] = {0, 14, 29};

/// Runs `policy` over the prompt without evicting and compares its scores of all but the last `forced` entries.
template <class P>
void same_scores(const P& policy, const char* press, Index queries, std::size_t forced) {
  const Tensor want = recorded(std::string("model/presses/passkey/scores/") + press);
  for (std::size_t l = 0; l < 3; ++l) {
    const std::string at = "model/layers/passkey/layer" + std::to_string(layers[l]);
    const Tensor q = recorded(at + "_q"), k = recorded(at + "_k"), v = recorded(at + "_v");
    const std::size_t n = k.dim(1);
    SmallLayer layer(Shape{1, 9, 3, 64, 64});
    append_recorded(layer, k, &v, 0, n);
    if (queries > 0) give_recorded_queries(layer, q, n - std::size_t(queries), std::size_t(queries));
    if (queries == all_queries) {
      for (int h = 0; h < 3; ++h) {
        std::vector<std::vector<Row>> rows_of(3);
        SmallLayer seen(layer.shape);
        for (std::size_t t = 0; t < n; ++t) {
          seen.append(h, k.row(std::size_t(h), t), Row(64), Pos(t));
          for (std::size_t g = 0; g < 3; ++g)
            rows_of[g].push_back(attention_row(seen, h, q.row(std::size_t(h) * 3 + g, t)));
        }
        layer.give_sums(h, rows_of);
      }
    }
    auto state = *policy.start(layer.shape);
    const AnyLayer view = layer.view();
    const LayerCall<AnyLayer> call{view, layer.seen, prompt_clock(Index(n)), 0};
    REQUIRE(policy.observe(call, state));
    std::vector<Plan> plans;
    REQUIRE(policy.plan(call, state, plans));
    float largest = 0, worst = 0;
    for (std::size_t h = 0; h < 3; ++h)
      for (std::size_t t = 0; t + forced < n; ++t) {
        const float theirs = want.data[((l * 3) + h) * n + t];  // of the first ratio: scores do not depend on it
        largest = std::max(largest, std::abs(theirs));
        worst = std::max(worst, std::abs(theirs - state.layers[0].heads[h].scores[t]));
      }
    INFO(press << " layer " << layers[l]);
    CHECK(worst <= 3e-5f * largest);
  }
}

bool absent() {
  return !have_recorded("model/presses/passkey/scores") || !have_recorded("model/layers/passkey");
}

}  // namespace

TEST_CASE("KeyNorm and KeyDiff score as kvpress does", "[golden][KeyNorm][KeyDiff]") {
  if (absent()) KVIST_SKIP("scores of kvpress");
  same_scores(*methods::KeyNormEviction::make({}), "knorm", 0, 0);
  same_scores(*methods::KeyDiff::make({}), "keydiff", 0, 0);
}

TEST_CASE("SnapKV and TOVA score as kvpress does", "[golden][SnapKV][TOVA]") {
  if (absent()) KVIST_SKIP("scores of kvpress");
  same_scores(*methods::SnapKV::make({64, 5, PoolMode::avg, Reduce::mean, false}), "snapkv_w64_k5", 64, 64);
  same_scores(*methods::SnapKV::make({32, 7, PoolMode::avg, Reduce::mean, true}), "snapkv_w32_k7", 32, 32);
  same_scores(*methods::TOVA::make({}), "tova", 1, 1);
}

TEST_CASE("H2O's normalised sums are kvpress's observed attention", "[golden][H2O]") {
  if (absent()) KVIST_SKIP("scores of kvpress");
  methods::H2OOptions o;
  o.normalise = true;
  same_scores(*methods::H2O::make(o), "observed_attention", all_queries, 0);
}
