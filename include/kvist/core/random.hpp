#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <cstdint>

namespace kvist::inline KVIST_ABI {

/// splitmix64: a small generator whose numbers are the same on every platform.
/// Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators". Seed 42 starts with .741565 .159910 .278601.
class Random {
 public:
  constexpr explicit Random(std::uint64_t seed) : state_(seed) {}

  constexpr std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, 1), 53 random bits.
  constexpr double uniform() { return double(next() >> 11) * 0x1p-53; }
  /// Uniform in [0, n). Requires: n > 0. (The bias is below n / 2^53.)
  constexpr std::uint64_t below(std::uint64_t n) { return std::uint64_t(uniform() * double(n)); }

 private:
  std::uint64_t state_;
};

/// One seed made of two numbers: streams for (seed, layer), (that, head) and so on do not overlap in practice.
constexpr std::uint64_t mix_seed(std::uint64_t a, std::uint64_t b) {
  return Random(a ^ (b * 0xd1342543de82ef95u)).next();
}

}  // namespace kvist::inline KVIST_ABI
