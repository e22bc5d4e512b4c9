#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/fields.hpp>
#include <kvist/core/types.hpp>
#include <kvist/storage/buffer.hpp>

#include <algorithm>
#include <cstring>
#include <span>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// The newest rows of one side of a BlockedStore, as they came: f32 [size, dim], oldest first. Room grows by an eighth.
class ExactTail {
 public:
  explicit ExactTail(int dim) : dim_(dim) {}

  Index size() const { return n_; }
  std::size_t bytes() const { return rows_.bytes(); }
  const float* row(Index i) const { return rows_.data() + std::ptrdiff_t(i) * dim_; }
  float* row(Index i) { return rows_.data() + std::ptrdiff_t(i) * dim_; }

  /// Room for n rows, which nothing below takes away.
  void reserve(Index n) {
    reserved_ = std::max(reserved_, n);
    if (n > room_) set_room(n);
  }
  void append(const float* rows, Index n) {
    if (n_ + n > room_) set_room(room_ == 0 ? n : std::max(n_ + n, room_ + room_ / 8 + 8));
    std::copy_n(rows, std::ptrdiff_t(n) * dim_, row(n_));
    n_ += n;
  }
  /// The oldest n rows leave.
  void drop_front(Index n) {
    if (n_ > n) std::memmove(rows_.data(), row(n), std::size_t(n_ - n) * std::size_t(dim_) * sizeof(float));
    n_ -= n;
  }
  /// Rows leave that are counted from `first`. Requires: ascending, in range.
  void drop(std::span<const Index> rows, Index first) {
    if (rows.empty()) return;
    Index to = rows.front() - first;
    std::size_t next = 0;
    for (Index from = to; from < n_; ++from) {
      if (next < rows.size() && rows[next] - first == from) {
        ++next;
        continue;
      }
      std::copy_n(row(from), dim_, row(to++));
    }
    n_ = to;
  }
  /// Forgets the rows from n on.
  void truncate(Index n) { n_ = std::min(n_, n); }

  /// Gives back all room that the rows do not need where that is more than `spare`.
  void fit(Index spare) {
    const Index want = std::max(n_, reserved_);
    if (room_ > want + spare) set_room(want);
  }

  ExactTail clone() const {
    ExactTail c(dim_);
    c.append(row(0), n_);
    return c;
  }
  template <class Visit, class Self>
  static void fields(Visit& v, Self& s) {
    constexpr Index most = 1 << 30;
    v.number(s.room_, 0, most), v.number(s.reserved_, 0, most);
    v.number(s.n_, 0, s.room_);
    if constexpr (Visit::reads) {
      if (v.good() && s.reserved_ > s.room_)
        v.fail({Errc::bad_file, "the room of a snapshot's tail is less than was reserved", s.reserved_,
                s.room_});
      if (!v.allow(std::uint64_t(s.room_), std::size_t(s.dim_) * sizeof(float))) return;
      s.rows_ = Buffer<float>(std::size_t(s.room_) * std::size_t(s.dim_));
    }
    v.block(s.rows_.data(), std::size_t(s.n_) * std::size_t(s.dim_));
  }

 private:
  void set_room(Index n) {
    rows_.resize(std::size_t(n) * std::size_t(dim_));
    room_ = n;
  }

  int dim_;
  Buffer<float> rows_;  // [room, dim]
  Index n_ = 0, room_ = 0, reserved_ = 0;
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
