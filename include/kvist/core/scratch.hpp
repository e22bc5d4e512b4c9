#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// Working memory that parts borrow and give back, last borrowed first returned. It grows to what was needed and then
/// allocates no more, so that a policy's upkeep during decode is free of allocation.
class Scratch {
 public:
  /// n borrowed floats, given back at the end of their scope. Contents are undefined at first.
  class Floats : public std::span<float> {
   public:
    Floats(const Floats&) = delete;
    Floats& operator=(const Floats&) = delete;
    ~Floats() { --home_.lent_; }

   private:
    friend class Scratch;
    Floats(Scratch& home, std::span<float> memory) : std::span<float>(memory), home_(home) {}
    Scratch& home_;
  };

  /// Memory that it holds, lent or not.
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& b : buffers_) sum += b.capacity() * sizeof(float);
    return sum;
  }

  Floats floats(std::size_t n) {
    if (lent_ == buffers_.size()) buffers_.emplace_back();
    std::vector<float>& b = buffers_[lent_++];
    if (b.size() < n) b.resize(n);
    return {*this, {b.data(), n}};
  }

 private:
  std::vector<std::vector<float>> buffers_;
  std::size_t lent_ = 0;
};

}  // namespace kvist::inline KVIST_ABI
