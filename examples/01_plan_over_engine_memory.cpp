// SPDX-License-Identifier: Apache-2.0
// How does an engine that owns its KV memory ask a policy what to keep?
//
// The engine here has one layer of two KV heads with two query heads each, keys and values in f16 in its own buffers.
// After a prompt of 256 tokens it hands over views (no copy) and the last 32 queries; SnapKV answers with a plan; the
// engine carries it out in place.
#include <kvist/kvist.hpp>

#include <cstdio>
#include <vector>

int main() {
  const kvist::Shape shape{.layers = 1, .q_heads = 4, .kv_heads = 2, .dim_k = 64, .dim_v = 64};
  const kvist::Index n = 256, window = 32, budget = 64;

  // The engine's memory: [kv_heads][n][d] f16, and the queries of the prompt's last tokens, [q_heads][window][d] f32.
  kvist::Random random(1);
  const auto fill = [&] { return float(2 * random.uniform() - 1); };
  std::vector<kvist::f16> keys(2 * 256 * 64), values(keys.size());
  for (auto& x : keys) x = kvist::to_f16(fill());
  for (auto& x : values) x = kvist::to_f16(fill());
  std::vector<float> queries(4 * 32 * 64);
  for (auto& x : queries) x = fill();
  std::vector<kvist::Pos> positions[2];
  for (auto& p : positions)
    for (kvist::Index i = 0; i < n; ++i) p.push_back(i);

  // Views of it, and the evidence that the policy wants.
  const auto policy = kvist::methods::SnapKV::make({.window = window});
  if (!policy) return std::puts(policy.error().what), 1;
  auto state = policy->start(shape);
  if (!state) return std::puts(state.error().what), 1;

  using Head = kvist::HeadView<kvist::Rows<kvist::f16>>;
  std::vector<Head> heads;
  std::vector<kvist::Evidence> seen(2);
  for (int h = 0; h < 2; ++h) {
    heads.push_back({kvist::rows(keys.data() + h * n * 64, n, 64),
                     kvist::rows(values.data() + h * n * 64, n, 64), positions[h]});
    seen[std::size_t(h)].queries = kvist::cube(queries.data() + h * 2 * window * 64, 2, window, 64);
    seen[std::size_t(h)].first_query = n - window;
  }
  const kvist::KvView<Head> view{heads};
  const kvist::LayerCall<kvist::KvView<Head>> call{
      .view = view, .seen = seen, .now = {.phase = kvist::Phase::prefill, .size = n, .budget = budget}, .layer = 0};

  // Ask, and carry the answer out.
  std::vector<kvist::Plan> plans;
  if (auto s = policy->observe(call, *state); !s) return std::puts(s.error().what), 1;
  if (policy->due(call.now))
    if (auto s = policy->plan(call, *state, plans); !s) return std::puts(s.error().what), 1;
  for (const kvist::Plan& plan : plans) {
    for (int h = 0; h < 2; ++h) {
      const kvist::HeadPlan& mine = plan.heads[std::size_t(h)];
      const kvist::MutableRows<kvist::f16> k{.data = keys.data() + h * n * 64, .n = n, .d = 64, .stride = 64};
      const kvist::MutableRows<kvist::f16> v{.data = values.data() + h * n * 64, .n = n, .d = 64, .stride = 64};
      const auto kept = kvist::apply_in_place(mine, k, v, positions[h]);
      if (!kept) return std::puts(kept.error().what), 1;
      std::printf("head %d keeps %d of %d entries, in %zu runs to remove; the oldest kept position is %d\n",
                  h, *kept, n, kvist::ranges(mine).size(), positions[h][0]);
      if (*kept != budget) return 1;
    }
    policy->applied(plan, *state);
  }
  return 0;
}
