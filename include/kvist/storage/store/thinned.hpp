#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/storage/codec/plain.hpp>
#include <kvist/storage/store/blocked.hpp>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// A BlockedStore whose keys are coded in units along the tokens, and which gives back the memory of units that eviction
/// during decode has thinned out.
///
/// A unit of 32 keys of which three live takes the memory of 32, of their values, too, and moving the three to other units
/// would mean to code them again. So where it pays, the rows of the first units leave for a second store, in which keys
/// stand as the f32 numbers that they decode to, and values as they are coded: what read() gives of them stays the same to
/// the bit. It pays where memory falls by an eighth of the codes'. Rows keep their order: those of the second store are the
/// first ones.
///
/// So a row takes at most about what an f32 key and its coded value take, however few of its unit stay. Prompts that are
/// evicted before settle() never get here: their losers are not coded at all.
template <class K, class V>
class ThinnedStore {
 public:
  using Body = BlockedStore<K, V>;
  using Front = BlockedStore<CodecSide<Plain<float>>, typename V::Row>;

  explicit ThinnedStore(Body body) : front_(empty_front(body)), body_(std::move(body)) {}

  const Front& front() const { return front_; }
  const Body& body() const { return body_; }
  int dim_k() const { return body_.dim_k(); }
  int dim_v() const { return body_.dim_v(); }
  Index size() const { return front_.size() + body_.size(); }
  /// Rows whose keys (values) are coded, or were.
  Index coded_keys() const { return front_.size() + body_.coded_keys(); }
  Index coded_values() const { return front_.size() + body_.coded_values(); }
  std::size_t bytes() const { return front_.bytes() + body_.bytes() + shifted_.capacity() * sizeof(Index); }

  /// Room for n rows in whole units; rows leave for the second store only where that room does not do.
  void reserve(Index n) {
    body_.reserve(n);
    shifted_.reserve(64);
  }
  void settle() { body_.settle(); }
  void append(const float* k, const float* v, Index n) { body_.append(k, v, n); }
  void truncate(Index n) {
    body_.truncate(std::max<Index>(0, n - front_.size()));
    front_.truncate(n);
  }
  void drop(std::span<const Index> rows) {
    const Index f = front_.size();
    const std::size_t here = std::size_t(std::lower_bound(rows.begin(), rows.end(), f) - rows.begin());
    if (f == 0) {
      body_.drop(rows);
    } else {
      shifted_.assign(rows.begin() + std::ptrdiff_t(here), rows.end());
      for (Index& r : shifted_) r -= f;
      front_.drop(rows.first(here));
      body_.drop(shifted_);
      if (shifted_.capacity() > 64) shifted_ = {};
    }
    thin();
  }
  void write(Index i, const float* k, const float* v) {
    if (i < front_.size()) front_.write(i, k, v);
    else body_.write(i - front_.size(), k, v);
  }
  void read(Index first, Index n, float* k, float* v) const {
    const Index here = std::clamp<Index>(front_.size() - first, 0, n);
    if (here > 0) front_.read(first, here, k, v);
    if (here == n) return;
    body_.read(first + here - front_.size(), n - here,
               k != nullptr ? k + std::ptrdiff_t(here) * dim_k() : nullptr,
               v != nullptr ? v + std::ptrdiff_t(here) * dim_v() : nullptr);
  }

  /// Allocates only for `only` lists, where rows have left for the second store.
  void attend(const AttendArgs& args, const AttnState& state) const {
    const Index f = front_.size();
    if (f == 0) return body_.attend(args, state);
    detail::attend_rows(front_, args, 0, args.bias, state);
    detail::attend_rows(body_, args, f, args.bias != nullptr ? args.bias + f : nullptr, state);
  }

  ReaderRows keys() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const ThinnedStore*>(s)->read(first, n, out, nullptr);
            },
            this, size(), dim_k()};
  }
  ReaderRows values() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const ThinnedStore*>(s)->read(first, n, nullptr, out);
            },
            this, size(), dim_v()};
  }
  ThinnedStore clone() const {
    ThinnedStore c(body_.clone());
    c.front_ = front_.clone();
    c.looked_ = looked_;
    return c;
  }
  template <class Visit, class Self>
  static void fields(Visit& v, Self& s) {
    v.same("thinned");
    Front::fields(v, s.front_);
    if constexpr (Visit::reads)  // rows come to the second store coded: take() has no place for those that wait
      if (v.good() && !s.front_.all_coded())
        v.fail({Errc::bad_file, "a snapshot whose rows wait to be coded where none can", s.front_.size(),
                s.front_.coded_values()});
    Body::fields(v, s.body_);
    v.number(s.looked_, 0, 1 << 30);
    v.memory_of(s.shifted_);
  }

 private:
  static Front empty_front(const Body& body) {
    return Front(CodecSide<Plain<float>>({}, body.dim_k()), body.value_side().row_side(), 0);
  }
  /// Looks for rows to give away each time that an eighth more of the slots are dead.
  void thin() {
    const Index dead = body_.slots() - body_.coded_keys();
    looked_ = std::min(looked_, dead);
    if (dead - looked_ < std::max<Index>(body_.slots() / 8, 1)) return;
    looked_ = dead;
    const std::size_t row = front_.key_side().slot_bytes() + front_.value_side().slot_bytes();
    const Index rows = body_.worth_giving(row);
    if (rows == 0) return;
    body_.give(rows, front_);
    looked_ = body_.slots() - body_.coded_keys();
  }

  Front front_;
  Body body_;
  Index looked_ = 0;            // dead slots when thin() last looked
  std::vector<Index> shifted_;  // rows of the body that a drop names
};

}  // namespace kvist::inline KVIST_ABI
