#pragma once
// SPDX-License-Identifier: Apache-2.0
// What kernel tests share: random data, layouts, and running a check at every instruction set of the machine.
#include <kvist/core/half.hpp>
#include <kvist/core/random.hpp>
#include <kvist/kernels/dispatch.hpp>
#include <kvist/view/rows.hpp>

#include <cmath>
#include <vector>

namespace kvist::test {

/// Roughly normal numbers (sum of uniform ones), the same everywhere.
inline std::vector<float> normals(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> x(n);
  for (float& v : x) {
    double s = -6;
    for (int i = 0; i < 12; ++i) s += random.uniform();
    v = float(s);
  }
  return x;
}

/// Runs f(isa) with each instruction set of this machine in turn, base first.
template <class F>
void at_every_isa(F&& f) {
  for (const kernels::Isa isa : kernels::available_isas()) {
    kernels::force_isa(isa);
    f(isa);
  }
  kernels::unforce_isa();
}

/// The ways that rows may lie in memory.
enum class Layout { token_major, channel_major, scattered };
inline constexpr Layout layouts[] = {Layout::token_major, Layout::channel_major, Layout::scattered};

/// Rows [n, d] of T with memory of their own; gaps between rows hold a number that would spoil any sum.
template <Scalar T>
struct OwnRows {
  std::vector<T> memory;
  Rows<T> view;

  OwnRows(const std::vector<float>& x, Index n, int d, Layout layout) {
    const std::ptrdiff_t row = layout == Layout::token_major     ? d + 3
                               : layout == Layout::channel_major ? 1
                                                                 : 2;
    const std::ptrdiff_t channel = layout == Layout::token_major     ? 1
                                   : layout == Layout::channel_major ? n + 5
                                                                     : 2 * n + 1;
    memory.assign(std::size_t((n + 1) * row + (d + 1) * channel), from_f32<T>(1e4f));
    for (Index i = 0; i < n; ++i)
      for (int c = 0; c < d; ++c)
        memory[std::size_t(i * row + c * channel)] = from_f32<T>(x[std::size_t(i * d + c)]);
    view = {memory.data(), n, d, row, channel};
  }
};

}  // namespace kvist::test
