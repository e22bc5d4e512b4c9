// SPDX-License-Identifier: Apache-2.0
// How does an engine with pages give whole pages back?
//
// The engine keeps f16 keys and values of one layer in a pool [2][page][kv_head][row 16][channel 64], as paged servers do.
// The sequence's table names its pages; the first two hold a system prompt that other sequences use, too. The engine says
// what it can carry out (whole pages, the same for all heads, not the shared ones), asks SnapKV, and takes the pages that
// the plan empties out of the table: no row is copied.
#include <kvist/kvist.hpp>

#include <cstdio>
#include <vector>

int main() {
  using kvist::Axis;
  const kvist::Shape shape{.layers = 1, .q_heads = 4, .kv_heads = 2, .dim_k = 64, .dim_v = 64};
  const kvist::Index n = 250, page = 16, window = 32, budget = 128, shared_pages = 2;

  // The engine's memory: a pool of 32 pages, and the pages of this sequence in order.
  kvist::Random random(1);
  const auto fill = [&] { return float(2 * random.uniform() - 1); };
  std::vector<kvist::f16> pool(2 * 32 * 2 * 16 * 64);
  for (auto& x : pool) x = kvist::to_f16(fill());
  std::vector<std::int32_t> table;
  for (int i = 0; i < 16; ++i) table.push_back((5 * i + 3) % 32);
  std::vector<float> queries(4 * 32 * 64);
  for (auto& x : queries) x = fill();
  std::vector<kvist::Pos> positions;
  for (kvist::Index i = 0; i < n; ++i) positions.push_back(i);

  // Views of it: the pool's shape, outermost axis first, and where the head lies in it.
  const auto rows = [&](bool values, int head, kvist::Index count) {
    const kvist::TensorAxis axes[] = {{Axis::fixed, 2, values ? 1 : 0},
                                      {Axis::page, 32},
                                      {Axis::fixed, 2, head},
                                      {Axis::row, page},
                                      {Axis::channel, 64}};
    return kvist::rows_of(static_cast<const kvist::f16*>(pool.data()), axes, table, count);
  };
  std::vector<kvist::AnyHead> heads;
  std::vector<kvist::Evidence> seen(2);
  for (int h = 0; h < 2; ++h) {
    const auto k = rows(false, h, n), v = rows(true, h, n);
    if (!k || !v) return std::puts((k ? v : k).error().what), 1;
    heads.push_back({*k, *v, positions});
    seen[std::size_t(h)].queries = kvist::cube(queries.data() + h * 2 * window * 64, 2, window, 64);
    seen[std::size_t(h)].first_query = n - window;
  }

  // Ask for a plan of whole pages, the same for both heads.
  const auto policy = kvist::methods::SnapKV::make({.window = window});
  if (!policy) return std::puts(policy.error().what), 1;
  auto state = policy->start(shape);
  if (!state) return std::puts(state.error().what), 1;
  const kvist::AnyLayer view{heads};
  const kvist::Abilities can{kvist::drops, kvist::Grain::layer, page, true, shared_pages * page};
  const kvist::LayerCall<kvist::AnyLayer> call{view, seen, {kvist::Phase::prefill, 0, n, budget, true}, 0, can};
  std::vector<kvist::Plan> plans;
  if (auto s = policy->observe(call, *state); !s) return std::puts(s.error().what), 1;
  if (auto s = policy->plan(call, *state, plans); !s) return std::puts(s.error().what), 1;

  // Carry it out: pages leave the table, the last ones first.
  const kvist::HeadPlan& plan = plans[0].heads[0];
  const std::vector<kvist::Index> gone = kvist::free_pages(plan, n, page, shared_pages * page);
  for (std::size_t i = gone.size(); i-- > 0;) {
    std::printf("page %d of the pool is free again\n", table[std::size_t(gone[i])]);
    table.erase(table.begin() + gone[i]);
  }
  policy->applied(plans[0], *state);
  const kvist::Index kept = n - kvist::Index(plan.drop.size());
  const auto after = rows(false, 1, kept);
  if (!after) return std::puts(after.error().what), 1;
  std::printf("%d of %d entries stay in %zu pages, the shared ones first: %d and %d\n", kept, n, table.size(),
              table[0], table[1]);
  return kept <= budget && table[0] == 3 && table[1] == 8 ? 0 : 1;
}
