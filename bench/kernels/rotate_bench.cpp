// SPDX-License-Identifier: Apache-2.0
// rotate/d:<dim>/bytes:<n>: f32 rows times the Hadamard matrix, in place. The read-only pass reads the same rows.
#include "../measure.hpp"

#include <kvist/kernels/hadamard.hpp>
#include <kvist/storage/buffer.hpp>

namespace {

using namespace kvist;
using namespace kvist::bench;

Counters rotate(int d, std::size_t bytes) {
  Buffer<float> x(bytes / sizeof(float));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i % 251) - 125.0f;
  const std::size_t rows = x.size() / std::size_t(d);
  const int times = int(std::max<std::size_t>(1, (std::size_t{64} << 20) / bytes));
  // turning twice gives the rows back: the numbers stay small
  const Timing t = against_read(
      1, 9,
      [&](int) {
        for (int i = 0; i < times; ++i) kernels::hadamard(x.data(), Index(rows), d);
      },
      [&](int) {
        for (int i = 0; i < times; ++i) read_only(x.data(), x.bytes());
      });
  const double all = double(rows) * times;
  return {{"ns_per_row", t.seconds * 1e9 / all},
          {"gb_per_s", all * d * double(sizeof(float)) / t.seconds * 1e-9},
          {"read_fraction", t.fraction}};
}

const int registered = [] {
  for (const int d : {64, 128, 256})
    for (const std::size_t bytes : {std::size_t{1} << 18, std::size_t{512} << 20})
      add("rotate/d:" + std::to_string(d) + "/bytes:" + std::to_string(bytes), [=] { return rotate(d, bytes); });
  return 0;
}();

}  // namespace
