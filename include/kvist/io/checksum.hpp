#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/little_endian.hpp>
#include <kvist/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kvist::inline KVIST_ABI {

/// 64 bits over a stream. Each step is one-to-one in the sum so far and in the word it takes, so that a change within one
/// word always changes the sum; others are missed once in 2^64. No protection against intent.
class Checksum {
 public:
  void add(const void* bytes, std::size_t n) {
    const char* at = static_cast<const char*>(bytes);
    count_ += n;
    while (n > 0) {
      const std::size_t take = std::min(n, sizeof word_ - held_);
      std::memcpy(word_ + held_, at, take);
      held_ += take, at += take, n -= take;
      if (held_ < sizeof word_) break;
      held_ = 0;
      sum_ = step(sum_, read_le<std::uint64_t>(word_));
      for (; n >= sizeof word_; at += sizeof word_, n -= sizeof word_)
        sum_ = step(sum_, read_le<std::uint64_t>(at));
    }
  }
  std::uint64_t value() const {
    char last[sizeof word_] = {};
    std::memcpy(last, word_, held_);
    return step(step(sum_, read_le<std::uint64_t>(last)), count_);
  }

 private:
  static std::uint64_t step(std::uint64_t sum, std::uint64_t word) {
    sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    return sum ^ (sum >> 32);
  }
  std::uint64_t sum_ = 0x6b766973742d3031u, count_ = 0;
  char word_[8];
  std::size_t held_ = 0;
};

}  // namespace kvist::inline KVIST_ABI
