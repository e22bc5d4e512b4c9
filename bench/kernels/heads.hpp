#pragma once
// SPDX-License-Identifier: Apache-2.0
// Stores full of rows for benchmarks: as many heads as make the wanted bytes, all with the same rows.
#include "../measure.hpp"

#include <kvist/core/random.hpp>
#include <kvist/storage/store/blocked.hpp>
#include <kvist/storage/store/dense.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace kvist::bench {

/// n numbers, roughly normal.
inline std::vector<float> noise(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> x(n);
  for (float& v : x)
    v = float((random.uniform() + random.uniform() + random.uniform() + random.uniform() - 2.0) * 1.7);
  return x;
}

/// The question of queries q [group, d], scaled as models do.
inline AttendArgs question(const std::vector<float>& q, int group) {
  AttendArgs args;
  args.q = q.data();
  args.group = group;
  args.scale = 1.0f / std::sqrt(float(q.size()) / float(group));
  return args;
}

using PackedStore = BlockedStore<PackedSide, PackedSide>;

/// What a format's name means as a store of head dimension d: those of decode/ that stores write, with minima where the
/// codec has them.
inline PackedStore packed_store(const std::string& format, int d) {
  using kernels::Accuracy;
  const auto side = [](kernels::PackedLayout layout, Accuracy a) { return PackedSide(layout, a); };
  const auto along = [&](int bits, int group, Accuracy a) {
    return PackedStore(side(kernels::channel_keys(bits, d, group), a),
                       side(kernels::token_values(bits, d, std::min(group, d), true), a), 0);
  };
  const auto blocks = [&](PackedRule rule, Accuracy a) {
    return PackedStore(PackedSide(PackedSide::layout_of(rule, true, d), a, rule),
                       PackedSide(PackedSide::layout_of(rule, false, d), a, rule), 0);
  };
  if (format == "int8")
    return PackedStore(side(kernels::token_keys(8, d, d, true), Accuracy::exact),
                       side(kernels::token_values(8, d, d, true), Accuracy::exact), 0);
  if (format == "int4_128") return along(4, 128, Accuracy::fast);
  if (format == "int4_128_accurate") return along(4, 128, Accuracy::exact);
  if (format == "int4_32") return along(4, 32, Accuracy::fast);
  if (format == "int2_128") return along(2, 128, Accuracy::fast);
  if (format == "int2_32") return along(2, 32, Accuracy::fast);
  if (format == "q8_0") return blocks(PackedRule::q8_0, Accuracy::exact);
  if (format == "q4_0") return blocks(PackedRule::q4_0, Accuracy::fast);
  std::fprintf(stderr, "no packed format '%s'\n", format.c_str());
  std::abort();
}
inline bool is_packed(const std::string& format) { return format[0] == 'i' || format[0] == 'q'; }

/// Heads of n entries in stores of one kind: the first is filled, the others are copies.
template <class S>
class StoreHeads {
 public:
  /// `whole_layers`: the heads come in eights.
  StoreHeads(S first, Index n, int d, std::size_t wanted_bytes, bool whole_layers = true) {
    const Index chunk = 1024;
    const auto k = noise(std::size_t(chunk) * std::size_t(d), 1),
               v = noise(std::size_t(chunk) * std::size_t(d), 2);
    first.reserve(n);
    for (Index i = 0; i < n; i += chunk) {
      first.append(k.data(), v.data(), std::min(chunk, n - i));
      first.settle();
    }
    const std::size_t by = whole_layers ? 8 : 1;
    const std::size_t all =
        std::max<std::size_t>(1, (wanted_bytes + by * bytes(first) - 1) / (by * bytes(first))) * by;
    for (std::size_t h = 1; h < all; ++h) heads_.push_back(first.clone());
    heads_.push_back(std::move(first));
  }

  int count() const { return int(heads_.size()); }
  const S& operator[](int h) const { return heads_[std::size_t(h)]; }
  std::size_t bytes_of_head() const { return bytes(heads_[0]); }
  /// Reads all that a head holds, and does nothing with it.
  void read(int h) const { read_store(heads_[std::size_t(h)]); }

  static void read_store(const S& s) {
    for_each_part(s, [](const void* at, std::size_t n) { read_only(at, n); });
  }
  static std::size_t bytes(const S& s) {
    std::size_t sum = 0;
    for_each_part(s, [&](const void*, std::size_t n) { sum += n; });
    return sum;
  }

 private:
  template <class F>
  static void for_each_part(const S& s, F f) {
    if constexpr (requires { s.key_side().coded(); }) {
      f(s.key_side().coded().data(), s.key_side().coded().size());
      f(s.value_side().coded().data(), s.value_side().coded().size());
    } else {
      const std::size_t n = std::size_t(s.size()), each = sizeof(*s.values().data);
      f(s.keys().pool, n * std::size_t(s.dim_k()) * each);
      f(s.values().data, n * std::size_t(s.dim_v()) * each);
    }
  }
  std::vector<S> heads_;
};

}  // namespace kvist::bench
