// SPDX-License-Identifier: Apache-2.0
// What deciding costs beside attention:
//   select/top_k/T:<entries>/B:<kept>   against std::nth_element on indices and sorting them, and against reading the scores
//   select/rest/...                     the losers instead of the winners
//   pool/<max|avg>/kernel:7/T:...       against reading the scores
//   neighbours/<type>/d:128             cosines of neighbouring keys, 512 MB of them, against reading the keys
// Counters: ns_per_entry; times_nth_element; read_fraction (read-only time / time).
#include "../measure.hpp"

#include <kvist/core/random.hpp>
#include <kvist/kernels/pool.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/kernels/select.hpp>

#include <cmath>
#include <memory>
#include <numeric>

namespace {

using namespace kvist;
using namespace kvist::bench;

/// Like attention: a few large, most small.
std::vector<float> scores(Index n) {
  Random random(3);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = float(std::exp(6 * (random.uniform() + random.uniform() + random.uniform() - 1.5)));
  return x;
}

/// Enough rounds of a short piece of work for a clock to see.
int rounds(Index n) { return std::max(1, (1 << 21) / n); }

Counters measure_select(Index n, Index kept, bool rest) {
  const auto x = scores(n);
  std::vector<Index> out, order(x.size());
  const auto work = [&](int) {
    for (int r = 0; r < rounds(n); ++r) {
      if (rest) kernels::select_rest(x, kept, out);
      else kernels::select_top(x, kept, out);
      benchmark::DoNotOptimize(out.data());
    }
  };
  const auto naive = [&](int) {
    for (int r = 0; r < std::max(1, rounds(n) / 8); ++r) {
      std::iota(order.begin(), order.end(), Index{0});
      std::nth_element(order.begin(), order.begin() + kept, order.end(), [&](Index a, Index b) {
        const float s = x[std::size_t(a)], t = x[std::size_t(b)];
        return s > t || (s == t && a < b);
      });
      if (rest) std::sort(order.begin() + kept, order.end());
      else std::sort(order.begin(), order.begin() + kept);
      benchmark::DoNotOptimize(order.data());
    }
  };
  const Timing t = against_read(1, 15, work, [&](int) {
    for (int r = 0; r < rounds(n); ++r) read_only(x.data(), x.size() * sizeof(float));
  });
  std::vector<double> ratios;
  for (int i = 0; i < 9; ++i) {
    const double fast = timed(1, work) / rounds(n), slow = timed(1, naive) / std::max(1, rounds(n) / 8);
    ratios.push_back(slow / fast);
  }
  return {{"ns_per_entry", t.seconds / rounds(n) / n * 1e9},
          {"times_nth_element", median(ratios)},
          {"read_fraction", t.fraction}};
}

Counters measure_pool(Index n, bool max) {
  const auto x = scores(n);
  std::vector<float> out(x.size());
  const Timing t = against_read(
      1, 15,
      [&](int) {
        for (int r = 0; r < rounds(n); ++r) {
          if (max) kernels::max_pool(x, 7, out.data());
          else kernels::avg_pool(x, 7, out.data());
          benchmark::DoNotOptimize(out.data());
        }
      },
      [&](int) {
        for (int r = 0; r < rounds(n); ++r) read_only(x.data(), x.size() * sizeof(float));
      });
  return {{"ns_per_entry", t.seconds / rounds(n) / n * 1e9}, {"read_fraction", t.fraction}};
}

template <Scalar T>
Counters measure_neighbours(int d) {
  const Index n = Index((std::size_t{512} << 20) / (std::size_t(d) * sizeof(T)));
  std::vector<T> keys(std::size_t(n) * std::size_t(d));
  Random random(4);
  for (T& x : keys) x = from_f32<T>(float(random.uniform() - 0.5));
  std::vector<float> dots(static_cast<std::size_t>(n)), squares(dots.size());
  constexpr std::ptrdiff_t ahead = 4096 / sizeof(T);
  const Timing t = against_read(
      1, 7,
      [&](int) {
        const Rows<T> run = rows(static_cast<const T*>(keys.data()), n, d);
        // the last rows lie before the end of what may be asked for
        const Index behind = Index(ahead / d) + 1;
        kernels::neighbour_dots(run.part(0, n - behind), dots.data(), squares.data(), ahead);
        for (std::size_t i = 0; i + 1 < std::size_t(n - behind); ++i)
          dots[i] /= std::sqrt(squares[i] * squares[i + 1]);
        benchmark::DoNotOptimize(dots.data());
      },
      [&](int) { read_only(keys.data(), keys.size() * sizeof(T)); });
  return {{"ns_per_entry", t.seconds / n * 1e9},
          {"gb_per_s", double(keys.size() * sizeof(T)) / t.seconds * 1e-9},
          {"read_fraction", t.fraction}};
}

const bool registered = [] {
  for (const auto& [n, kept] : {std::pair{131072, 2048}, std::pair{131072, 16384}, std::pair{131072, 65536},
                                std::pair{32768, 4096}, std::pair{4096, 512}, std::pair{1025, 1024}}) {
    const std::string sizes = "/T:" + std::to_string(n) + "/B:" + std::to_string(kept);
    add("select/top_k" + sizes, [n = n, kept = kept] { return measure_select(n, kept, false); });
    add("select/rest" + sizes, [n = n, kept = kept] { return measure_select(n, kept, true); });
  }
  for (const Index n : {4096, 131072}) {
    add("pool/max/kernel:7/T:" + std::to_string(n), [n] { return measure_pool(n, true); });
    add("pool/avg/kernel:7/T:" + std::to_string(n), [n] { return measure_pool(n, false); });
  }
  add("neighbours/f16/d:128", [] { return measure_neighbours<f16>(128); });
  add("neighbours/f32/d:128", [] { return measure_neighbours<float>(128); });
  return true;
}();

}  // namespace
