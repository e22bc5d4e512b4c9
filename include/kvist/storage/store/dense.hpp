#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/attend.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/core/half.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/storage/buffer.hpp>
#include <kvist/view/rows.hpp>

#include <algorithm>
#include <cstring>
#include <span>

namespace kvist::inline KVIST_ABI {

/// The exact rows of one head in f32, f16 or bf16.
///
/// Layout: keys in blocks of 16 entries, channel by channel ([block][dk][16]), so that a dot product with a query needs
/// no horizontal sums; values row by row ([n][dv]). Memory grows by an eighth (at least a block) when append runs out
/// of it. It falls to the rows that stay, rounded up to a block, when more than a block of rows are dropped at once; single
/// drops leave it, so that a step that appends one row and drops one costs no copy of the rest. So bytes() is at most
/// max(size / 8, 16) + 31 rows above what the entries need, unless reserve() asked for more.
/// Cost: append and drop copy rows; attend reads each row once per 16 queries.
template <Scalar T>
class DenseStore {
 public:
  static constexpr Index block = 16;  ///< entries

  DenseStore() = default;
  /// Requires: dim_k > 0, dim_v > 0.
  DenseStore(int dim_k, int dim_v) : dim_k_(dim_k), dim_v_(dim_v) {}
  DenseStore(const DenseStore&) = delete;
  DenseStore& operator=(const DenseStore&) = delete;
  DenseStore(DenseStore&& other) noexcept { *this = std::move(other); }
  DenseStore& operator=(DenseStore&& other) noexcept {
    k_ = std::move(other.k_);
    v_ = std::move(other.v_);
    table_ = std::move(other.table_);
    dim_k_ = other.dim_k_;
    dim_v_ = other.dim_v_;
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
    reserved_ = std::exchange(other.reserved_, 0);
    return *this;
  }

  int dim_k() const { return dim_k_; }
  int dim_v() const { return dim_v_; }
  Index size() const { return size_; }
  Index capacity() const { return capacity_; }
  /// Everything that is allocated: keys, values and the table of blocks.
  std::size_t bytes() const { return k_.bytes() + v_.bytes() + table_.bytes(); }

  /// Room for n entries, so that append and drop allocate nothing up to there.
  void reserve(Index n) {
    reserved_ = std::max(reserved_, up(n));
    if (n > capacity_) set_capacity(up(n));
  }

  /// Adds n entries: k [n, dk], v [n, dv], rounded to T.
  void append(const float* k, const float* v, Index n) {
    if (n <= 0) return;
    if (size_ + n > capacity_) set_capacity(up(std::max(size_ + n, size_ + size_ / 8)));
    for (Index i = 0; i < n; ++i) write_key(size_ + i, k + std::ptrdiff_t(i) * dim_k_);
    kernels::from_f32(v, std::ptrdiff_t(n) * dim_v_, v_.data() + std::ptrdiff_t(size_) * dim_v_);
    size_ += n;
  }

  /// Replaces entry i: k [dk], v [dv]; either may be null and then stays.
  void write(Index i, const float* k, const float* v) {
    KVIST_ASSERT(i >= 0 && i < size_);
    if (k != nullptr) write_key(i, k);
    if (v != nullptr) kernels::from_f32(v, dim_v_, v_.data() + std::ptrdiff_t(i) * dim_v_);
  }

  /// Entries first .. first+n-1 as f32: k [n, dk], v [n, dv]; either may be null.
  void read(Index first, Index n, float* k, float* v) const {
    KVIST_ASSERT(first >= 0 && n >= 0 && first + n <= size_);
    if (k != nullptr)
      for_each_run_in(keys(), first, n, [&](const Rows<T>& run, Index at) {
        kernels::to_f32(run, k + std::ptrdiff_t(at - first) * dim_k_);
      });
    if (v != nullptr)
      kernels::widen(v_.data() + std::ptrdiff_t(first) * dim_v_, std::ptrdiff_t(n) * dim_v_, v);
  }

  /// Takes rows out; the others keep their order and their bits.
  /// Requires: ascending, each row once, in range.
  void drop(std::span<const Index> rows) {
    if (rows.empty()) return;
    KVIST_ASSERT(rows.front() >= 0 && rows.back() < size_);
    const Index left = size_ - Index(rows.size());
    std::size_t next = 0;
    Index to = rows.front(), from = to;
    std::ptrdiff_t source[block];
    while (to < left) {
      Index lanes = 0;  // the next entries that stay and that end in the same block
      const Index place = to;
      for (; to < left && (lanes == 0 || to % block != 0); ++to, ++lanes) {
        for (; next < rows.size() && rows[next] == from; ++next) ++from;
        source[lanes] = key_offset(from);
        if (from != to)
          std::memmove(static_cast<void*>(v_.data() + std::ptrdiff_t(to) * dim_v_),
                       v_.data() + std::ptrdiff_t(from) * dim_v_, std::size_t(dim_v_) * sizeof(T));
        ++from;
      }
      T* const out = k_.data() + key_offset(place);
      for (int c = 0; c < dim_k_; ++c)
        for (Index l = 0; l < lanes; ++l) out[c * block + l] = k_.data()[source[l] + c * block];
    }
    size_ = left;
    const Index need = std::max(up(left), reserved_),
                slack = Index(rows.size()) > block ? 0 : std::max(left / 8, block) + block;
    if (need + slack < capacity_) set_capacity(need);
  }

  /// Forgets the entries from n on; memory stays for those that follow (speculative decoding takes entries back often).
  void truncate(Index n) {
    KVIST_ASSERT(n >= 0);
    size_ = std::min(size_, n);
  }

  /// Adds the attention over all entries to the state.
  void attend(const AttendArgs& args, const AttnState& state) const {
    constexpr std::size_t ahead =
        detail::stream_bytes;  // the blocks of keys follow one another, though they look like pages
    detail::attend_stream(keys(), values(), args, state, {ahead, ahead});
  }

  /// Nothing waits here: rows are stored for good when they are appended.
  void settle() {}

  /// A copy, with memory for its entries only.
  DenseStore clone() const {
    DenseStore copy(dim_k_, dim_v_);
    copy.size_ = size_;
    copy.set_capacity(up(size_));
    if (size_ > 0) {
      std::memcpy(static_cast<void*>(copy.k_.data()), k_.data(), copy.k_.bytes());
      std::memcpy(static_cast<void*>(copy.v_.data()), v_.data(),
                  std::size_t(size_) * std::size_t(dim_v_) * sizeof(T));
    }
    return copy;
  }

  /// Keys of whole blocks, values of the entries, and the room behind them.
  template <class V, class Self>
  static void fields(V& v, Self& s) {
    v.same("dense");
    v.same(std::same_as<T, float> ? "f32" : std::same_as<T, f16> ? "f16" : "bf16");
    v.same(s.dim_k_), v.same(s.dim_v_);
    Index room = s.capacity_, size = s.size_;
    v.number(s.reserved_, 0, most_entries);
    v.number(room, 0, most_entries);
    v.number(size, 0, room);
    if constexpr (V::reads) {
      // What was reserved becomes the room when rows leave: both are whole blocks, and the room holds what was reserved.
      if (v.good() && (room % block != 0 || s.reserved_ % block != 0 || s.reserved_ > room))
        v.fail({Errc::bad_file,
                "the room of a snapshot is no whole number of blocks, or less than was reserved", block, room});
      const std::size_t entry = (std::size_t(s.dim_k_) + std::size_t(s.dim_v_)) * sizeof(T) + 1;  // 1: the table
      if (!v.allow(std::uint64_t(room), entry)) return;
      s.size_ = 0;
      s.set_capacity(room);
      s.size_ = size;
    }
    v.block(s.k_.data(), std::size_t(up(size)) * std::size_t(s.dim_k_));
    v.block(s.v_.data(), std::size_t(size) * std::size_t(s.dim_v_));
  }

  PagedRows<T> keys() const {
    return {k_.data(), table_.data(), size_, dim_k_, block, std::ptrdiff_t(dim_k_) * block, 1, block};
  }
  Rows<T> values() const { return {v_.data(), size_, dim_v_, dim_v_, 1}; }

 private:
  static constexpr Index most_entries = 1 << 30;  // that a snapshot may hold

  static Index up(Index n) { return (n + block - 1) / block * block; }
  std::ptrdiff_t key_offset(Index i) const { return std::ptrdiff_t(i / block) * block * dim_k_ + i % block; }
  void write_key(Index i, const float* k) {
    T* const out = k_.data() + key_offset(i);
    for (int c = 0; c < dim_k_; ++c) out[c * block] = kvist::from_f32<T>(k[c]);
  }
  // Keeps min(size, capacity) entries. Requires: a multiple of the block.
  void set_capacity(Index capacity) {
    k_.resize(std::size_t(capacity) * std::size_t(dim_k_));
    v_.resize(std::size_t(capacity) * std::size_t(dim_v_));
    const std::size_t blocks = std::size_t(capacity / block), had = table_.size();
    table_.resize(blocks);
    for (std::size_t b = had; b < blocks; ++b) table_[b] = std::int32_t(b);
    for (std::size_t e = std::size_t(size_) * std::size_t(dim_v_); e < v_.size(); ++e) v_[e] = T{};
    if (capacity > capacity_)  // lanes of the last block that hold no entry are read (never used) by vector loads
      for (std::size_t e = std::size_t(capacity_) * std::size_t(dim_k_); e < k_.size(); ++e) k_[e] = T{};
    capacity_ = capacity;
  }

  Buffer<T> k_;                 // [capacity / 16][dk][16]
  Buffer<T> v_;                 // [capacity][dv]
  Buffer<std::int32_t> table_;  // block b lies at b: the keys are one piece, but as pages any view can read them
  int dim_k_ = 0, dim_v_ = 0;
  Index size_ = 0, capacity_ = 0, reserved_ = 0;
};

}  // namespace kvist::inline KVIST_ABI
