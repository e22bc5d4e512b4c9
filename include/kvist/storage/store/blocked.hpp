#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/attend.hpp>
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/kernels/softmax.hpp>
#include <kvist/storage/store/codec_side.hpp>
#include <kvist/storage/store/detail/exact_tail.hpp>
#include <kvist/storage/store/detail/sum_weighted.hpp>
#include <kvist/storage/store/packed_side.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The coded rows of one head behind an exact tail of the newest: keys in a side K, values in a side V (CodecSide,
/// PackedSide).
///
/// append() puts rows into the tail, f32; settle() encodes what may be encoded: keys in steps of `residual` rows (at least
/// one unit of K), all that make whole steps; of the values, those older than the newest `residual` rows. So the key window
/// holds 0 .. residual-1 rows after it and the value window `residual`, as KIVI's code does it, and with residual 0 all rows
/// that fill a unit are coded at once. Rows that a policy drops before settle() never reach a code.
/// Source: Liu et al. 2024, arXiv 2402.02750; jy-yuan/KIVI, models/llama_kivi.py.
///
/// Entries are coded into slots, in order; keys and values of an entry have the same slot. A dropped row's slot is marked
/// dead in a bitmap. When whole dead units add up to an eighth of the room (and a page, where slots come in pages), the units
/// behind them move down, bit for bit, and the room falls: rows that stay are never encoded again. A unit along the tokens
/// (keys of KIVI) leaves only when all its rows are dead; ThinnedStore gives the memory of sparse ones back, too.
/// write() encodes that row anew, once, in its place; within a unit along the tokens it is fitted to the unit's scales.
/// A tail of residual + 64 rows (or a step + 64) is settled by the next append of a single row, so that an engine that never
/// settles still gets a coded cache.
///
/// Rows that are dropped, or that attention hides, do not touch its output, whatever numbers they hold or held. Only where
/// rows are coded together along the tokens an infinity widens the range of its unit, and its neighbours lose precision.
///
/// bytes(): codes, scales and minima with the room for them, the tail's room, the bitmap. Room grows by an eighth in decode
/// and is exact (to a page) after a prompt. attend() adds over tiles of 128 slots and allocates nothing for packed sides.
template <class K, class V>
class BlockedStore {
 public:
  static constexpr Index tile = 128;
  static constexpr Index slack = 64;  ///< rows that the tail takes beyond its window

  /// Requires: the units of both sides are equal, or that of V is 1; residual >= 0, a multiple of K's unit.
  BlockedStore(K keys, V values, Index residual)
      : k_(std::move(keys)),
        v_(std::move(values)),
        residual_(residual),
        step_(std::max(residual, k_.unit())),
        tk_(k_.dim()),
        tv_(v_.dim()) {
    KVIST_ASSERT(v_.unit() == 1 || v_.unit() == k_.unit());
    KVIST_ASSERT(residual >= 0 && residual % k_.unit() == 0);
  }

  int dim_k() const { return k_.dim(); }
  int dim_v() const { return v_.dim(); }
  Index size() const { return live_k_ + tk_.size(); }
  Index residual() const { return residual_; }
  /// Rows whose keys (values) are coded.
  Index coded_keys() const { return live_k_; }
  Index coded_values() const { return live_v_; }
  /// Does no row wait in the tail?
  bool all_coded() const { return tk_.size() == 0 && tv_.size() == 0; }
  /// Slots of coded keys, dead ones counted.
  Index slots() const { return slots_; }
  const K& key_side() const { return k_; }
  const V& value_side() const { return v_; }

  std::size_t bytes() const {
    return k_.bytes() + v_.bytes() + tk_.bytes() + tv_.bytes() + live_.capacity() * sizeof(std::uint64_t);
  }

  /// Room for n rows in all, coded ones and a tail that never grows: append, settle and drop then allocate nothing in decode.
  /// Where decode also evicts, slots of dropped rows count until they are closed up, which waits until they are a 32nd of the
  /// room: ask for that many more rows than there will be, rounded up to pages. Units along the tokens close up whole: room
  /// for two units more does where the oldest rows leave (a window, behind sinks). Where evictions leave a few rows in each
  /// unit no room is enough, and it grows by an eighth at a time.
  void reserve(Index n) {
    const Index want = up(n);
    reserved_ = std::max(reserved_, want);
    if (want > room_) set_room(want);
    live_.reserve(std::size_t(want / 64 + 1));
    const Index most = std::max(step_, residual_) + slack + 1;
    tk_.reserve(most);
    tv_.reserve(most);
  }

  void append(const float* k, const float* v, Index n) {
    if (n <= 0) return;
    if (n == 1 && tv_.size() >= std::max(step_, residual_) + slack) settle();
    if (n > 1) prompt_ = 1;
    tk_.append(k, n);
    tv_.append(v, n);
  }

  void settle() {
    const bool together = v_.unit() > 1;  // values by units have no window of their own
    if (tk_.size() >= step_) {
      const Index n = tk_.size() / step_ * step_;
      make_room(n);
      k_.encode(slots_, tk_.row(0), n);
      if (together) v_.encode(slots_, tv_.row(0), n);
      live_.resize(std::size_t((slots_ + n + 63) / 64), 0);
      for (Index i = slots_; i < slots_ + n; ++i) live_[std::size_t(i / 64)] |= std::uint64_t{1} << (i % 64);
      slots_ += n;
      live_k_ += n;
      tk_.drop_front(n);
      if (together) {
        value_slots_ = slots_;
        live_v_ += n;
        tv_.drop_front(n);
      }
    }
    if (!together) settle_values();
    if (prompt_) {
      tk_.fit(0);
      tv_.fit(0);
      prompt_ = 0;
    } else {
      loosen();
    }
  }

  /// Takes rows out; the others keep their order and their bits. Requires: ascending, each row once, in range.
  void drop(std::span<const Index> rows) {
    if (rows.empty()) return;
    KVIST_ASSERT(rows.front() >= 0 && rows.back() < size());
    const auto split = [&](Index coded) {
      return std::lower_bound(rows.begin(), rows.end(), coded) - rows.begin();
    };
    const auto gone_k = rows.subspan(std::size_t(split(live_k_))),
               gone_v = rows.subspan(std::size_t(split(live_v_)));
    tk_.drop(gone_k, live_k_);
    tv_.drop(gone_v, live_v_);
    kill(rows.first(rows.size() - gone_k.size()));
    live_k_ -= Index(rows.size() - gone_k.size());
    live_v_ -= Index(rows.size() - gone_v.size());
    repack();
    loosen();
  }

  /// How many of the first rows had better lie in a store that takes `row_bytes` for each of them: those of the first whole
  /// units by which most memory becomes free, where that is an eighth of the codes' or more; else 0. Cost: a pass over the
  /// bitmap.
  Index worth_giving(std::size_t row_bytes) const {
    if (room_ == 0) return 0;
    const Index unit = k_.unit(), end = value_slots_ / unit * unit;
    const double slot = double(k_.bytes() + v_.bytes()) / double(room_), row = double(row_bytes);
    double best = 0;
    Index rows = 0, best_rows = 0, best_slots = 0;
    for (Index at = 0; at < end; at += unit) {
      rows += live_in(at, at + unit);
      const double saved = double(at + unit) * slot - double(rows) * row;
      if (saved > best) best = saved, best_rows = rows, best_slots = at + unit;
    }
    const Index after = std::max(up(slots_ - best_slots), reserved_);
    const double falls = double(room_ - after) * slot - double(best_rows) * row;
    return falls >= double(room_) * slot / 8 ? best_rows : 0;
  }

  /// The first rows leave for `to`: keys as the numbers that they decode to, values as they are coded.
  /// Requires: a number that worth_giving() gave.
  template <class To>
  void give(Index rows, To& to) {
    to.expect(rows);
    constexpr Index at_once = 16;
    std::vector<float> keys(std::size_t(at_once) * std::size_t(dim_k()));
    Index slot = 0;
    for (Index i = 0; i < rows;) {
      while (!alive(slot)) ++slot;
      Index run = 1;
      while (run < at_once && i + run < rows && alive(slot + run)) ++run;
      k_.decode(slot, run, keys.data());
      to.take(keys.data(), v_, slot, run);
      i += run, slot += run;
    }
    for (Index s = 0; s < slot; ++s) set_alive(s, false);
    live_k_ -= rows, live_v_ -= rows;
    close_up();
  }

  /// Room for n rows more that take() will bring.
  void expect(Index n) {
    if (up(slots_ + n) > room_) grow(n);
  }
  /// Adds n rows behind the coded ones: keys [n, dk], and values as side `from` has them in slots `slot` and on.
  /// Requires: no tail, units of one row.
  template <class Side>
  void take(const float* keys, const Side& from, Index slot, Index n) {
    KVIST_ASSERT(tk_.size() == 0 && k_.unit() == 1 && v_.unit() == 1);
    expect(n);
    k_.encode(slots_, keys, n);
    for (Index i = 0; i < n; ++i) v_.take(from, slot + i, slots_ + i);
    live_.resize(std::size_t((slots_ + n + 63) / 64), 0);
    for (Index i = slots_; i < slots_ + n; ++i) set_alive(i, true);
    slots_ += n, live_k_ += n, live_v_ += n;
    value_slots_ = slots_;
  }

  /// Forgets the rows from n on; their room stays for those that follow.
  void truncate(Index n) {
    KVIST_ASSERT(n >= 0);
    if (n >= size()) return;
    if (n >= live_k_) {
      tk_.truncate(n - live_k_);
    } else {
      tk_.truncate(0);
      const Index end = slot_of(n);  // slots from there on hold nothing
      slots_ = std::min(slots_, (end + k_.unit() - 1) / k_.unit() * k_.unit());
      live_.resize(std::size_t((slots_ + 63) / 64));
      for (Index i = end; i < Index(live_.size()) * 64; ++i)
        live_[std::size_t(i / 64)] &= ~(std::uint64_t{1} << (i % 64));
      live_k_ = n;
    }
    tv_.truncate(std::max<Index>(0, n - live_v_));
    live_v_ = std::min(live_v_, n);
    value_slots_ = std::min(value_slots_, slots_);
  }

  /// Row i gets a new key and value; either may be null and then stays.
  void write(Index i, const float* k, const float* v) {
    KVIST_ASSERT(i >= 0 && i < size());
    const Index slot = i < live_k_ ? slot_of(i) : 0;
    if (k != nullptr) {
      if (i < live_k_) k_.rewrite(slot, k);
      else std::copy_n(k, dim_k(), tk_.row(i - live_k_));
    }
    if (v != nullptr) {
      if (i < live_v_) v_.rewrite(slot, v);
      else std::copy_n(v, dim_v(), tv_.row(i - live_v_));
    }
  }

  /// Rows first .. first+n-1 decoded: k [n, dk], v [n, dv]; either may be null.
  void read(Index first, Index n, float* k, float* v) const {
    KVIST_ASSERT(first >= 0 && n >= 0 && first + n <= size());
    if (k != nullptr) read_side(k_, live_k_, tk_, first, n, k);
    if (v != nullptr) read_side(v_, live_v_, tv_, first, n, v);
  }

  void attend(const AttendArgs& args, const AttnState& state) const {
    for (int g = 0; g < args.group; g += detail::attend_queries) {
      const int group = std::min(detail::attend_queries, args.group - g);
      attend_16(detail::part_of(args, g, group, dim_k()), detail::part_of(state, g, group));
    }
  }

  ReaderRows keys() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const BlockedStore*>(s)->read(first, n, out, nullptr);
            },
            this, size(), dim_k()};
  }
  ReaderRows values() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const BlockedStore*>(s)->read(first, n, nullptr, out);
            },
            this, size(), dim_v()};
  }

  BlockedStore clone() const {
    BlockedStore c(k_.clone(), v_.clone(), residual_);
    c.live_ = live_;
    c.counted_ = counted_;
    c.slots_ = slots_, c.value_slots_ = value_slots_, c.live_k_ = live_k_, c.live_v_ = live_v_, c.room_ = room_;
    c.tk_ = tk_.clone(), c.tv_ = tv_.clone();
    c.prompt_ = prompt_;
    return c;
  }

  /// Counts, the bitmap, the codes and the tails, with the room behind each.
  template <class Visit, class Self>
  static void fields(Visit& v, Self& s) {
    constexpr Index most = 1 << 30;
    v.same("blocked");
    v.same(s.residual_);
    K::form(v, s.k_);
    V::form(v, s.v_);
    v.number(s.room_, 0, most), v.number(s.reserved_, 0, most);
    v.number(s.slots_, 0, s.room_), v.number(s.value_slots_, 0, s.slots_);
    v.number(s.live_k_, 0, s.slots_), v.number(s.live_v_, 0, s.live_k_);
    v.number(s.counted_, 0, most);
    v.list(s.live_, std::size_t(most / 64));
    detail::ExactTail::fields(v, s.tk_);
    detail::ExactTail::fields(v, s.tv_);
    v.number(s.prompt_, 0, 1);
    if constexpr (Visit::reads)
      if (v.good() && !s.agrees())
        v.fail({Errc::bad_file, "counts of a snapshot that contradict one another", s.slots_, s.live_k_});
    K::fields(v, s.k_, s.slots_, s.room_);
    V::fields(v, s.v_, s.slots_, s.room_);
  }

 private:
  /// Do the counts and the bitmap say the same? Every function relies on it.
  bool agrees() const {
    const Index by = up(1);
    if (room_ % by != 0 || reserved_ % by != 0 || slots_ % k_.unit() != 0 || value_slots_ % v_.unit() != 0)
      return false;
    if (reserved_ > room_) return false;
    if (live_.size() != std::size_t((slots_ + 63) / 64)) return false;
    if (slots_ % 64 != 0 && (live_.back() >> (slots_ % 64)) != 0) return false;
    Index keys = 0, values = 0;
    for (Index i = 0; i < slots_; i += 64) {
      const std::uint64_t bits = word(i);
      const Index left = value_slots_ - i;
      keys += Index(std::popcount(bits));
      values += Index(std::popcount(left >= 64 ? bits
                                    : left > 0 ? bits & ((std::uint64_t{1} << left) - 1)
                                               : 0));
    }
    if (keys != live_k_ || values != live_v_ || live_k_ + tk_.size() != live_v_ + tv_.size()) return false;
    return v_.unit() == 1 || (value_slots_ == slots_ && live_v_ == live_k_);
  }
  /// Slots come in whole units and pages.
  Index up(Index n) const {
    const Index by = std::max({k_.unit(), K::quantum, V::quantum});
    return (n + by - 1) / by * by;
  }
  void grow(Index n) {
    const Index need = up(slots_ + n);
    set_room(slots_ == 0 ? need : std::max(need, up(room_ + room_ / 8)));
  }
  /// Room for n slots behind the others: of dead units where these are many enough and do, else new.
  void make_room(Index n) {
    if (up(slots_ + n) <= room_) return;
    // Closing up moves every row behind the first dead unit, so that each slot won costs room / `enough` moves.
    const Index enough = std::max(k_.unit(), room_ / (reserved_ > 0 ? 32 : 8));
    if (slots_ - live_k_ >= enough) {
      const Index dead = dead_slots();
      if (dead >= enough && up(slots_ - dead + n) <= room_) return pack();
    }
    grow(n);
  }
  void set_room(Index slots) {
    k_.resize(slots);
    v_.resize(slots);
    room_ = slots;
  }

  /// Gives back the room of tails that much has left.
  void loosen() {
    tk_.fit(tk_.size() + slack);
    tv_.fit(tv_.size() + slack);
  }

  bool alive(Index slot) const { return ((live_[std::size_t(slot / 64)] >> (slot % 64)) & 1u) != 0; }
  /// Bits of slots at .. at+63.
  std::uint64_t word(Index at) const {
    return std::size_t(at / 64) < live_.size() ? live_[std::size_t(at / 64)] : 0;
  }
  /// The slot of coded row `row`; the end of the slots for row = live_k_.
  Index slot_of(Index row) const {
    if (live_k_ == slots_) return row;
    for (std::size_t w = 0; w < live_.size(); ++w) {
      const Index here = Index(std::popcount(live_[w]));
      if (row >= here) {
        row -= here;
        continue;
      }
      std::uint64_t bits = live_[w];
      for (; row > 0; --row) bits &= bits - 1;
      return Index(w) * 64 + Index(std::countr_zero(bits));
    }
    return slots_;
  }

  void settle_values() {
    Index n = std::min(tv_.size() - residual_, live_k_ - live_v_);  // never ahead of the keys
    if (n <= 0) return;
    const float* from = tv_.row(0);
    for (Index left = n; left > 0;) {
      while (!alive(value_slots_)) ++value_slots_;
      Index run = 1;
      while (run < left && alive(value_slots_ + run)) ++run;
      v_.encode(value_slots_, from, run);
      from += std::ptrdiff_t(run) * dim_v();
      value_slots_ += run;
      left -= run;
    }
    live_v_ += n;
    tv_.drop_front(n);
  }

  /// Marks coded rows dead.
  void kill(std::span<const Index> rows) {
    std::size_t next = 0;
    Index row = 0;  // the first of the word, as rows were numbered before
    for (std::size_t w = 0; w < live_.size() && next < rows.size(); ++w) {
      const std::uint64_t bits = live_[w];
      const Index here = Index(std::popcount(bits));
      if (rows[next] < row + here) {
        std::uint64_t gone = 0;
        Index r = row;
        for (std::uint64_t left = bits; left != 0 && next < rows.size(); left &= left - 1, ++r)
          if (rows[next] == r) gone |= left & (~left + 1), ++next;
        live_[w] = bits & ~gone;
      }
      row += here;
    }
  }

  /// Live slots among first .. last-1.
  Index live_in(Index first, Index last) const {
    Index n = 0;
    for (Index at = first / 64 * 64; at < last; at += 64) {
      std::uint64_t bits = word(at);
      if (at < first) bits &= ~std::uint64_t{0} << (first - at);
      if (last - at < 64) bits &= (std::uint64_t{1} << (last - at)) - 1;
      n += Index(std::popcount(bits));
    }
    return n;
  }
  bool unit_alive(Index first) const { return live_in(first, first + k_.unit()) > 0; }
  void set_alive(Index slot, bool to) {
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    std::uint64_t& w = live_[std::size_t(slot / 64)];
    w = to ? w | bit : w & ~bit;
  }

  /// Closes up dead units where that frees enough. They are counted again when an eighth of that more slots are dead.
  void repack() {
    const Index enough = std::min(std::max(up(1), room_ / 8), slots_), gone = slots_ - live_k_;
    counted_ = std::min(counted_, gone);
    if (gone < enough || (gone < counted_ + enough / 8 && live_k_ > 0)) return;
    counted_ = gone;
    const Index dead = dead_slots();
    if (dead > 0 && dead >= enough) close_up();
  }
  /// Slots of dead units.
  Index dead_slots() const {
    const Index unit = k_.unit();
    Index dead = 0;
    for (Index at = 0; at < slots_; at += unit) dead += unit_alive(at) ? 0 : unit;
    return dead;
  }
  /// The units behind dead ones move down.
  void pack() {
    const Index unit = k_.unit();
    Index to = 0, values = 0;
    for (Index from = 0; from < slots_; from += unit) {
      if (!unit_alive(from)) continue;
      const Index coded = std::clamp<Index>(value_slots_ - from, 0, unit);
      if (from != to) {
        k_.move(from, to);
        for (Index i = 0; i < coded; i += v_.unit()) v_.move(from + i, to + i);
        for (Index i = 0; i < unit; ++i) set_alive(to + i, alive(from + i));
      }
      if (coded > 0) values = to + coded;
      to += unit;
    }
    for (Index i = to; i < slots_; ++i) set_alive(i, false);
    slots_ = to;
    value_slots_ = values;
    counted_ = 0;
    live_.resize(std::size_t((slots_ + 63) / 64));
  }
  /// That, and room that it frees is given back.
  void close_up() {
    pack();
    const Index want = std::max(up(slots_), reserved_);
    if (want < room_) {
      set_room(want);
      if (reserved_ == 0) live_.shrink_to_fit();
    }
  }

  template <class Side>
  void read_side(const Side& side, Index coded, const detail::ExactTail& tail, Index first, Index n,
                 float* out) const {
    const int d = side.dim();
    const Index here = std::clamp<Index>(coded - first, 0, n);
    for (Index i = 0, slot = here > 0 ? slot_of(first) : 0; i < here;) {
      while (!alive(slot)) ++slot;
      Index run = 1;
      while (i + run < here && alive(slot + run)) ++run;
      side.decode(slot, run, out + std::ptrdiff_t(i) * d);
      i += run;
      slot += run;
    }
    if (n > here)
      std::copy_n(tail.row(first + here - coded), std::ptrdiff_t(n - here) * d, out + std::ptrdiff_t(here) * d);
  }

  // Logits, softmax and values of one tile. Its entries are rows row .. row+live-1; `slot_bits` says which of its lanes hold
  // them. `f(w)` adds the values with weights w [group][tile], 0 where nothing is seen.
  template <class F>
  void finish_tile(float (*logits)[tile], Index count, const std::uint64_t* bits, Index row,
                   const AttendArgs& a, const AttnState& s, F&& f) const {
    constexpr float none = -std::numeric_limits<float>::infinity();
    Index lane_of[tile];
    bool seen[tile];
    Index live = 0;
    bool all = count == tile && bits[0] == ~std::uint64_t{0} && bits[1] == bits[0];
    const bool whole = all;  // lane i is entry row + i
    if (whole) {
      live = tile;
      for (Index i = 0; i < tile; ++i) lane_of[i] = i;
    } else {
      for (Index w = 0; w * 64 < count; ++w)
        for (std::uint64_t b = bits[w]; b != 0; b &= b - 1)
          lane_of[live++] = w * 64 + Index(std::countr_zero(b));
    }
    if (!all || row < a.first || !a.only.empty()) {
      const Index* only =
          a.only.empty() ? nullptr : std::lower_bound(a.only.data(), a.only.data() + a.only.size(), row);
      for (Index i = 0; i < live; ++i) {
        seen[i] = row + i >= a.first;
        if (only != nullptr) {
          while (only != a.only.data() + a.only.size() && *only < row + i) ++only;
          seen[i] = seen[i] && only != a.only.data() + a.only.size() && *only == row + i;
        }
        all = all && seen[i];
      }
    }
    for (int g = 0; g < a.group; ++g) {
      float* const x = logits[g];
      if (a.soft_cap > 0) kernels::soft_cap(x, count, a.soft_cap);
      if (a.bias != nullptr)
        for (Index i = 0; i < live; ++i) x[lane_of[i]] += a.bias[row + i];
      if (!all) {  // lanes of dead, hidden and missing entries count nothing
        float kept[tile];
        for (Index i = 0; i < live; ++i) kept[i] = seen[i] ? x[lane_of[i]] : none;
        std::fill_n(x, tile, none);
        for (Index i = 0; i < live; ++i) x[lane_of[i]] = kept[i];
      }
      if (a.logits != nullptr) {
        float* const out = a.logits + g * a.logits_stride + row;
        if (whole) std::copy_n(x, tile, out);
        else
          for (Index i = 0; i < live; ++i) out[i] = x[lane_of[i]];
      }
      kernels::online_softmax(x, tile, s.m[g], s.l[g], s.row(g), s.dim_v);
    }
    f(lane_of, live);
  }

  bool none_seen(const AttendArgs& a, Index row, Index count) const {
    if (row + count <= a.first) return true;
    if (a.only.empty()) return false;
    const auto at = std::lower_bound(a.only.begin(), a.only.end(), row);
    return at == a.only.end() || *at >= row + count;
  }

  void attend_16(const AttendArgs& a, const AttnState& s) const {
    alignas(64) float logits[detail::attend_queries][tile];
    alignas(64) float later[detail::attend_queries][tile];  // weights of entries whose values are not coded yet
    typename K::Query query;
    if (slots_ > 0) k_.prepare(a.q, a.group, a.scale, query);
    Index row = 0;
    for (Index at = 0; at < slots_; at += tile) {
      const Index count = std::min(tile, slots_ - at);
      const std::uint64_t bits[2] = {word(at), word(at + 64)};
      const Index live = Index(std::popcount(bits[0]) + std::popcount(bits[1]));
      if (live == 0 || none_seen(a, row, live)) {
        detail::hide_logits(a, row, live);
        row += live;
        continue;
      }
      k_.logits(query, at, count, &logits[0][0], tile);
      finish_tile(logits, count, bits, row, a, s, [&](const Index* lane_of, Index n) {
        const Index coded = std::clamp<Index>(live_v_ - row, 0, n);
        if (coded < n)
          for (int g = 0; g < a.group; ++g)
            for (Index i = coded; i < n; ++i) {
              later[g][i - coded] = logits[g][lane_of[i]];
              logits[g][lane_of[i]] = 0;
            }
        if (coded > 0) v_.sum(at, std::min(count, value_slots_ - at), &logits[0][0], tile, a.group, s.o);
        if (coded < n)
          detail::sum_weighted(rows(tv_.row(row + coded - live_v_), n - coded, dim_v()), &later[0][0], tile,
                               a.group, s.o);
      });
      row += live;
    }
    for (Index at = 0; at < tk_.size(); at += tile, row += tile) {
      const Index count = std::min(tile, tk_.size() - at);
      if (none_seen(a, row, count)) {
        detail::hide_logits(a, row, count);
        continue;
      }
      kernels::dot_group(rows(tk_.row(at), count, dim_k()), a.q, a.group, a.scale, &logits[0][0], tile);
      const auto ones = [&](Index n) {
        return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << std::max<Index>(n, 0)) - 1;
      };
      const std::uint64_t bits[2] = {ones(count), ones(count - 64)};
      finish_tile(logits, count, bits, row, a, s, [&](const Index*, Index n) {
        detail::sum_weighted(rows(tv_.row(row - live_v_), n, dim_v()), &logits[0][0], tile, a.group, s.o);
      });
    }
  }

  K k_;
  V v_;
  Index residual_ = 0, step_ = 1;
  detail::ExactTail tk_, tv_;
  int prompt_ = 0;                     // 1: rows that came together wait for settle()
  std::vector<std::uint64_t> live_;    // a bit for each slot with coded keys
  Index slots_ = 0, value_slots_ = 0;  // ends of coded keys and values
  Index live_k_ = 0, live_v_ = 0;      // rows among them
  Index room_ = 0, reserved_ = 0;      // slots that there is memory for, and that were asked for
  Index counted_ = 0;                  // dead slots when dead units were last counted, to no avail
};

}  // namespace kvist::inline KVIST_ABI
