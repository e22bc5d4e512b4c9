#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// The newest `capacity` queries of one query group, over prompt calls and decode steps: a ring that
/// allocates once.
class RecentQueries {
 public:
  Index size() const { return count_; }
  /// Query i of size(), oldest first: [G, dk], contiguous.
  const float* row(Index i) const { return rows_.data() + slot(i) * std::ptrdiff_t(width_); }
  Pos position(Index i) const { return pos_[std::size_t(slot(i))]; }

  /// Takes the queries of a call; the oldest go where `capacity` is exceeded.
  void push(const Cube& queries, Pos first, Index capacity) {
    width_ = std::size_t(queries.g) * std::size_t(queries.n);
    if (pos_.size() != std::size_t(capacity) || rows_.size() != width_ * std::size_t(capacity)) {
      pos_.assign(std::size_t(capacity), 0);
      rows_.assign(width_ * std::size_t(capacity), 0.0f);
      begin_ = count_ = 0;
    }
    truncate(first);  // what comes again replaces what was there
    for (Index i = std::max<Index>(0, queries.w - capacity); i < queries.w; ++i) {
      if (count_ == capacity) begin_ = (begin_ + 1) % capacity;
      else ++count_;
      const Index at = slot(count_ - 1);
      pos_[std::size_t(at)] = first + i;
      for (int g = 0; g < queries.g; ++g) {
        const std::span<const float> q = queries.row(g, i);
        std::copy(q.begin(), q.end(),
                  rows_.begin() + at * std::ptrdiff_t(width_) + g * std::ptrdiff_t(queries.n));
      }
    }
  }
  /// Queries at positions >= pos are gone.
  void truncate(Pos pos) {
    while (count_ > 0 && position(count_ - 1) >= pos) --count_;
  }
  /// For snapshots.
  template <class V, class Self>
  static void fields(V& v, Self& s, const Shape& shape) {
    const std::size_t width = std::size_t(shape.group()) * std::size_t(shape.dim_k);
    constexpr std::size_t most = std::size_t{1} << 40;
    v.list(s.pos_, std::size_t{1} << 30);
    v.list(s.rows_, most);
    v.number(s.width_, 0, width);
    v.number(s.count_, 0, Index(s.pos_.size()));
    v.number(s.begin_, 0, std::max<Index>(0, Index(s.pos_.size()) - 1));
    if (v.good() && !s.pos_.empty() && (s.width_ != width || s.rows_.size() != width * s.pos_.size()))
      v.fail({Errc::bad_file, "remembered queries of a snapshot against the model's shape", (long long)width,
              (long long)s.width_});
  }

 private:
  Index slot(Index i) const { return (begin_ + i) % Index(pos_.size()); }

  std::vector<float> rows_;
  std::vector<Pos> pos_;
  std::size_t width_ = 0;
  Index begin_ = 0, count_ = 0;
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
