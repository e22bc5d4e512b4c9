#pragma once
// SPDX-License-Identifier: Apache-2.0
// Tensors recorded from a model, and what other implementations made of them: loading, feeding a SmallLayer,
// and comparing kept sets.
#include <kvist/io/npy.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "support/assets.hpp"
#include "support/catch.hpp"
#include "support/small_layer.hpp"

namespace kvist::test {

/// A .npy array of any rank as f32 (integers below 2^24 are exact).
struct Tensor {
  std::vector<std::size_t> shape;
  std::vector<float> data;

  std::size_t dim(std::size_t axis) const { return shape[axis]; }
  float at(std::size_t i) const { return data[i]; }
  float at(std::size_t i, std::size_t j) const { return data[i * shape[1] + j]; }
  float at(std::size_t i, std::size_t j, std::size_t k) const {
    return data[(i * shape[1] + j) * shape[2] + k];
  }
  /// The innermost row at the outer indices.
  Row row(std::size_t i, std::size_t j) const {
    const auto first = data.begin() + std::ptrdiff_t((i * shape[1] + j) * shape[2]);
    return Row(first, first + std::ptrdiff_t(shape[2]));
  }
  Row row(std::size_t i) const {
    const auto first = data.begin() + std::ptrdiff_t(i * shape[1]);
    return Row(first, first + std::ptrdiff_t(shape[1]));
  }
  /// A row of an index list that is padded with -1.
  std::vector<Pos> positions(std::size_t i, std::size_t j) const { return unpadded(row(i, j)); }
  std::vector<Pos> positions(std::size_t i) const { return unpadded(row(i)); }

 private:
  static std::vector<Pos> unpadded(const Row& r) {
    std::vector<Pos> out;
    for (const float x : r)
      if (x >= 0) out.push_back(Pos(x));
    return out;
  }
};

/// The array of that name below the folder of reference values. Requires: golden_path().
inline Tensor recorded(const std::string& name) {
  INFO(name);
  auto npy = Npy::load(*golden_path() + "/" + name + ".npy");
  REQUIRE(npy);
  return {npy->shape(), npy->as_f32()};
}

/// Is a folder below the reference values there?
inline bool have_recorded(const std::string& folder) {
  const auto root = golden_path();
  return root && detail::existing(*root + "/" + folder);
}

/// Probabilities [n] of one query over the rows of a head, in f64.
inline Row attention_row(const SmallLayer& layer, int h, const Row& q) {
  const std::size_t n = std::size_t(layer.size(h)), d = q.size();
  std::vector<double> p(n);
  double top = -1e300, sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double dot = 0;
    for (std::size_t c = 0; c < d; ++c) dot += double(q[c]) * double(layer.k[std::size_t(h)][i * d + c]);
    top = std::max(top, p[i] = dot / std::sqrt(double(d)));
  }
  for (double& x : p) sum += x = std::exp(x - top);
  Row out;
  for (const double x : p) out.push_back(float(x / sum));
  return out;
}

/// Tokens [first, first + count) of recorded keys (and values) [heads, token, channel] behind what the layer
/// holds.
inline void append_recorded(SmallLayer& layer, const Tensor& k, const Tensor* v, std::size_t first,
                            std::size_t count) {
  for (int h = 0; h < layer.shape.kv_heads; ++h)
    for (std::size_t t = first; t < first + count; ++t)
      layer.append(h, k.row(std::size_t(h), t),
                   v ? v->row(std::size_t(h), t) : Row(std::size_t(layer.shape.dim_v)), Pos(t));
}

/// Rows [first, first + count) of recorded queries [q_heads, token, channel] as the newest entries' queries.
inline void give_recorded_queries(SmallLayer& layer, const Tensor& q, std::size_t first, std::size_t count) {
  const int group = layer.shape.group();
  for (int h = 0; h < layer.shape.kv_heads; ++h) {
    std::vector<std::vector<Row>> rows_of;
    for (int g = 0; g < group; ++g) {
      rows_of.emplace_back();
      for (std::size_t t = first; t < first + count; ++t)
        rows_of.back().push_back(q.row(std::size_t(h * group + g), t));
    }
    layer.give_queries(h, rows_of);
  }
}

/// How many positions of two ascending lists stand in only one of them.
inline std::size_t difference(const std::vector<Pos>& a, const std::vector<Pos>& b) {
  std::vector<Pos> out;
  std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out.size();
}

}  // namespace kvist::test
