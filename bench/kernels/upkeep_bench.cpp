// SPDX-License-Identifier: Apache-2.0
// upkeep/T:<entries>/G:<group>: a decode step's attention over int4_128 (8 KV heads, d = 128, as many layers as make
// 512 MB), and the same with what a policy of accumulated attention adds: logits kept, probabilities made of them, summed
// into the entries' records. `share` is the median of (with - without) / without, repetition by repetition.
// upkeep/top_k/T:<entries>/B:<budget>: the rows that leave when B of T stay, against std::nth_element on indices.
#include "heads.hpp"

#include <kvist/attention/tap.hpp>
#include <kvist/kernels/select.hpp>
#include <kvist/policy/signal/accumulated_attention.hpp>

#include <numeric>

namespace {

using namespace kvist;
using namespace kvist::bench;

constexpr int d = 128, heads_of_layer = 8;

Counters upkeep(Index n, int group) {
  const StoreHeads<PackedStore> heads(packed_store("int4_128", d), n, d, std::size_t{512} << 20);
  const auto q = noise(std::size_t(group * d), 7);
  const AttendArgs args = question(q, group);
  AttnBuffer buffer(group, d);
  const std::size_t of_head = std::size_t(group) * std::size_t(n);
  std::vector<float> logits(of_head * heads_of_layer);  // a cache has this much for all its layers together
  using Signal = AccumulatedAttention;
  std::vector<std::vector<Signal::Entry>> records(std::size_t(heads.count()),
                                                  std::vector<Signal::Entry>(std::size_t(n)));
  const Shape shape{1, group, 1, d, d};
  const Clock now{Phase::decode, 1, n, n, true};
  Scratch scratch;
  std::vector<Pos> pos(static_cast<std::size_t>(n));
  std::iota(pos.begin(), pos.end(), 0);
  const auto without = [&](int) {
    for (int h = 0; h < heads.count(); ++h) {
      const AttnState s = buffer.state();
      s.clear();
      heads[h].attend(args, s);
    }
  };
  const auto with = [&](int) {
    for (int h = 0; h < heads.count(); ++h) {
      AttendArgs a = args;
      a.logits = logits.data() + std::size_t(h % heads_of_layer) * of_head;
      a.logits_stride = n;
      const AttnState s = buffer.state();
      s.clear();
      heads[h].attend(a, s);
      tap_probabilities(s, a.logits, n, n);
      Evidence seen;
      seen.probs = cube(a.logits, group, 1, n);
      const AnyHead head{heads[h].keys(), heads[h].values(), pos, KeyForm::rotated};
      Signal::PerHead own;
      const AnyContext c{head, seen, now, shape, scratch};
      (void)Signal{}.observe(c, std::span(records[std::size_t(h)]), own);
    }
  };
  std::vector<double> alone, both, share;
  timed(1, without), timed(1, with);
  for (int r = 0; r < 9; ++r) {
    const double a = timed(1, without), b = timed(1, with);
    alone.push_back(a), both.push_back(b), share.push_back((b - a) / a);
  }
  const double entries = double(heads.count()) * double(n);
  return {{"attention_ns_per_entry", median(alone) * 1e9 / entries},
          {"with_upkeep_ns_per_entry", median(both) * 1e9 / entries},
          {"share", median(share)}};
}

Counters top_k(Index n, Index budget) {
  const auto scores = noise(std::size_t(n), 3);
  std::vector<Index> rows, order(static_cast<std::size_t>(n));
  const int times = int(std::max<Index>(1, (1 << 22) / n));
  std::vector<double> ours, theirs, ratios;
  for (int r = 0; r < 9; ++r) {
    const double a = timed(1, [&](int) {
      for (int i = 0; i < times; ++i) kernels::select_rest(scores, budget, rows);
    });
    const double b = timed(1, [&](int) {
      for (int i = 0; i < times; ++i) {
        std::iota(order.begin(), order.end(), 0);
        std::nth_element(order.begin(), order.begin() + budget, order.end(),
                         [&](Index x, Index y) { return scores[std::size_t(x)] > scores[std::size_t(y)]; });
        std::sort(order.begin() + budget, order.end());
      }
    });
    ours.push_back(a), theirs.push_back(b), ratios.push_back(b / a);
  }
  const double all = double(n) * times;
  return {{"ns_per_element", median(ours) * 1e9 / all},
          {"nth_element_ns", median(theirs) * 1e9 / all},
          {"ratio", median(ratios)}};
}

const int registered = [] {
  for (const Index n : {4096, 32768, 131072})
    for (const int group : {1, 4, 8})
      add("upkeep/T:" + std::to_string(n) + "/G:" + std::to_string(group), [=] { return upkeep(n, group); });
  for (const Index n : {4096, 131072})
    add("upkeep/top_k/T:" + std::to_string(n) + "/B:" + std::to_string(n / 8), [=] { return top_k(n, n / 8); });
  return 0;
}();

}  // namespace
