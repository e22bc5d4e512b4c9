#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/attend.hpp>
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/core/half.hpp>
#include <kvist/core/vector_rows.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/kernels/softmax.hpp>
#include <kvist/storage/any_store.hpp>
#include <kvist/storage/share/slerp.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// How the rows of two layers become one direction.
struct SharedDirectionOptions {
  enum class Retain : std::uint8_t {
    count,  ///< the ceil(gamma * n) rows of a call that are furthest apart
    range   ///< those further apart than D_max - gamma (D_max - D_min)
  };
  double t = 0.6;       ///< weight of the upper layer's direction
  double gamma = 0.05;  ///< rows kept as they are
  Retain retain = Retain::count;
};

namespace detail {

/// What two layers hold together of one head: for each token one direction of keys and one of values, both layers' norms, and
/// whole rows where directions are too far apart. Its two layers see it through ports (SharedDirectionStore).
template <Scalar T>
class DirectionPair {
 public:
  static constexpr Index tile = 128;
  static constexpr Index slack = 64;  ///< rows that wait before a single append lets them in
  static constexpr Index batch =
      32;  ///< rows that choose anew which are retained; fewer follow the limit of those before

  DirectionPair(AnyStore directions, int dim_k, int dim_v, const SharedDirectionOptions& options)
      : directions_(std::move(directions)), options_(options) {
    d_[0] = dim_k, d_[1] = dim_v;
  }

  int dim(int what) const { return d_[what]; }
  Index size(int layer) const { return side_[layer].live + waiting(layer); }
  Index slots() const { return slots_; }
  Index retained(int what) const { return Index(kept_[what].at.size()); }
  const std::vector<Index>& retained_slots(int what) const { return kept_[what].at; }
  const AnyStore& directions() const { return directions_; }

  std::size_t bytes(int layer) const {
    const Side& s = side_[layer];
    std::size_t sum = s.bits.capacity() * sizeof(std::uint64_t) + s.id.capacity() * sizeof(Index);
    for (int w = 0; w < 2; ++w)
      sum += s.norms[w].capacity() * sizeof(T) + s.wait[w].capacity() * sizeof(T) +
             kept_[w].rows[layer].capacity() * sizeof(T);
    if (layer == 0)
      sum += directions_.bytes() +
             (kept_[0].at.capacity() + kept_[1].at.capacity() + chosen_.capacity()) * sizeof(Index) +
             (rows_[0].capacity() + rows_[1].capacity() + both_.capacity()) * sizeof(float) +
             tokens_.capacity() * sizeof(tokens_[0]) + apart_.capacity() * sizeof(double);
    return sum;
  }

  void reserve(Index n) {
    reserved_ = std::max(reserved_, n);
    directions_.reserve(n);
    for (Side& s : side_) {
      s.bits.reserve(std::size_t(n / 64 + 1));
      s.id.reserve(std::size_t(slack + 2));
      for (int w = 0; w < 2; ++w) {
        s.norms[w].reserve(std::size_t(n));
        s.wait[w].reserve(std::size_t(slack + 2) * std::size_t(d_[w]));
      }
    }
    tokens_.reserve(std::size_t(slack + 2));
    apart_.reserve(std::size_t(slack + 2));
    chosen_.reserve(std::size_t(slack + 2));
    for (int w = 0; w < 2; ++w) {
      rows_[w].reserve(std::size_t(slack + 2) * std::size_t(d_[w]));
      kept_[w].at.reserve(room_for_kept());
      for (auto& r : kept_[w].rows) r.reserve(room_for_kept() * std::size_t(d_[w]));
    }
  }

  void append(int layer, const float* k, const float* v, Index n) {
    // The next token's lower layer: all before it have been attended to in both.
    if (layer == 0 && n == 1 && waiting(0) >= slack) settle();
    Side& s = side_[layer];
    const float* const x[2] = {k, v};
    for (int w = 0; w < 2; ++w) {
      const std::size_t had = s.wait[w].size();
      s.wait[w].resize(had + std::size_t(n) * std::size_t(d_[w]));
      kernels::from_f32(x[w], std::ptrdiff_t(n) * d_[w], s.wait[w].data() + had);
    }
    for (Index i = 0; i < n; ++i) s.id.push_back(s.given++);
  }

  /// Lets in the waiting rows of tokens that both layers have been given.
  void settle() {
    const Index end = std::min(side_[0].given, side_[1].given);
    Index n[2];
    for (int l = 0; l < 2; ++l)
      n[l] = Index(std::lower_bound(side_[l].id.begin(), side_[l].id.end(), end) - side_[l].id.begin());
    if (n[0] + n[1] == 0) return;
    auto& tokens = tokens_;  // waiting rows of both layers; -1: the layer has let it go
    tokens.clear();
    for (Index i = 0, j = 0; i < n[0] || j < n[1];) {
      const Index a = i < n[0] ? side_[0].id[std::size_t(i)] : end,
                  b = j < n[1] ? side_[1].id[std::size_t(j)] : end;
      tokens.emplace_back(a <= b ? i : -1, b <= a ? j : -1);
      i += a <= b, j += b <= a;
    }
    const Index m = Index(tokens.size()), first = slots_;
    auto& e = rows_;
    for (int w = 0; w < 2; ++w) {
      e[w].resize(std::size_t(m) * std::size_t(d_[w]));
      apart_.assign(std::size_t(m), -1.0);  // -1: nothing to compare with
      auto& pair = both_;
      pair.resize(std::size_t(2 * d_[w]));
      for (Side& s : side_) make_room(s.norms[w], m);
      for (Index i = 0; i < m; ++i) {
        const auto [a, b] = tokens[std::size_t(i)];
        for (const auto& [l, row] : {std::pair{0, a}, std::pair{1, b}})
          if (row >= 0)
            kernels::widen(side_[l].wait[w].data() + std::ptrdiff_t(row) * d_[w], d_[w],
                           pair.data() + l * d_[w]);
        const float* const x = a < 0 ? nullptr : pair.data();
        const float* const y = b < 0 ? nullptr : pair.data() + d_[w];
        float* const out = e[w].data() + std::ptrdiff_t(i) * d_[w];
        const Slerp s = slerp(x ? x : y, y ? y : x, d_[w], options_.t, out);
        if (x && y) apart_[std::size_t(i)] = s.distance();
        side_[0].norms[w].push_back(from_f32<T>(x ? float(s.norm_x) : 0.0f));
        side_[1].norms[w].push_back(from_f32<T>(y ? float(s.norm_y) : 0.0f));
      }
      choose(limit_[w]);
      for (const Index i : chosen_) {
        const auto [a, b] = tokens[std::size_t(i)];
        kept_[w].at.push_back(first + i);
        for (int l = 0; l < 2; ++l) {
          const Index row = l == 0 ? a : b;
          const auto from = side_[l].wait[w].begin() + std::ptrdiff_t(row) * d_[w];
          kept_[w].rows[l].insert(kept_[w].rows[l].end(), from, from + d_[w]);
        }
      }
      if (m >= batch) tighten(kept_[w], w);
    }
    directions_.append(e[0].data(), e[1].data(), m);
    directions_.settle();
    slots_ += m;
    for (int l = 0; l < 2; ++l) {
      Side& s = side_[l];
      s.bits.resize(std::size_t((slots_ + 63) / 64), 0);
      for (Index i = 0; i < m; ++i)
        if ((l == 0 ? tokens[std::size_t(i)].first : tokens[std::size_t(i)].second) >= 0)
          set(s, first + i, true);
      s.live += n[l];
      forget_front(s, n[l]);
    }
    merged_ = end;
    if (too_much(tokens_.capacity())) {  // a prompt's memory is given back
      rows_[0].clear(), rows_[1].clear(), tokens_.clear(), apart_.clear(), chosen_.clear();
      for (int w = 0; w < 2; ++w) fit_memory(rows_[w], room_to_wait() * std::size_t(d_[w]));
      fit_memory(tokens_, room_to_wait()), fit_memory(apart_, room_to_wait()),
          fit_memory(chosen_, room_to_wait());
    }
  }

  void drop(int layer, std::span<const Index> rows) {
    Side& s = side_[layer];
    const auto middle = std::lower_bound(rows.begin(), rows.end(), s.live);
    if (middle != rows.end()) {
      auto next = middle;
      std::size_t to = 0;
      for (std::size_t from = 0; from < s.id.size(); ++from) {
        if (next != rows.end() && std::size_t(*next - s.live) == from) {
          ++next;
          continue;
        }
        s.id[to] = s.id[from];
        for (int w = 0; w < 2; ++w)
          std::copy_n(s.wait[w].begin() + std::ptrdiff_t(from) * d_[w], d_[w],
                      s.wait[w].begin() + std::ptrdiff_t(to) * d_[w]);
        ++to;
      }
      s.id.resize(to);
      for (int w = 0; w < 2; ++w) s.wait[w].resize(to * std::size_t(d_[w]));
      if (rows.end() - middle > slack) shrink(s);
    }
    std::vector<Index> gone;
    Index row = 0;
    auto next = rows.begin();
    for (Index slot = 0; slot < slots_ && next != middle; ++slot) {
      if (!alive(layer, slot)) continue;
      if (row++ != *next) continue;
      gone.push_back(slot);
      ++next;
    }
    for (const Index slot : gone) set(s, slot, false);
    s.live -= Index(gone.size());
    free_dead();
  }

  void truncate(int layer, Index n) {
    Side& s = side_[layer];
    if (n >= size(layer)) return;
    const Index stay = std::max<Index>(0, n - s.live);
    s.id.resize(std::size_t(stay));
    for (int w = 0; w < 2; ++w) s.wait[w].resize(std::size_t(stay) * std::size_t(d_[w]));
    if (n < s.live) {
      for (Index slot = slot_of(layer, n); slot < slots_; ++slot) set(s, slot, false);
      s.live = n;
      free_dead();
    }
    // Both layers will be given the same tokens from here on: any number that neither has in use will do.
    Index next = merged_;
    for (const Side& of : side_)
      if (!of.id.empty()) next = std::max(next, of.id.back() + 1);
    for (Side& of : side_) of.given = next;
  }

  /// Row i of a layer becomes what it is given: in its place while it waits, else as a retained row of its own.
  void write(int layer, Index i, const float* k, const float* v) {
    Side& s = side_[layer];
    const float* const x[2] = {k, v};
    for (int w = 0; w < 2; ++w) {
      if (x[w] == nullptr) continue;
      if (i >= s.live) kernels::from_f32(x[w], d_[w], s.wait[w].data() + std::ptrdiff_t(i - s.live) * d_[w]);
      else retain(w, slot_of(layer, i), layer, x[w]);
    }
  }

  void read(int layer, Index first, Index n, float* k, float* v) const {
    const Side& s = side_[layer];
    const Index coded = std::clamp<Index>(s.live - first, 0, n);
    float* const out[2] = {k, v};
    for (Index i = 0, slot = coded > 0 ? slot_of(layer, first) : 0; i < coded;) {
      while (!alive(layer, slot)) ++slot;
      Index run = 1;
      while (i + run < coded && alive(layer, slot + run)) ++run;
      directions_.read(slot, run, k ? k + std::ptrdiff_t(i) * d_[0] : nullptr,
                       v ? v + std::ptrdiff_t(i) * d_[1] : nullptr);
      for (int w = 0; w < 2; ++w) {
        if (out[w] == nullptr) continue;
        float* const to = out[w] + std::ptrdiff_t(i) * d_[w];
        for (Index r = 0; r < run; ++r) {
          const float norm = to_f32(s.norms[w][std::size_t(slot + r)]);
          for (int c = 0; c < d_[w]; ++c) to[std::ptrdiff_t(r) * d_[w] + c] *= norm;
        }
        const Kept& kept = kept_[w];
        for (auto at = std::lower_bound(kept.at.begin(), kept.at.end(), slot);
             at != kept.at.end() && *at < slot + run; ++at) {
          const T* const row = kept.rows[layer].data() + (at - kept.at.begin()) * d_[w];
          for (int c = 0; c < d_[w]; ++c) to[std::ptrdiff_t(*at - slot) * d_[w] + c] = to_f32(row[c]);
        }
      }
      i += run, slot += run;
    }
    for (int w = 0; w < 2; ++w)
      if (out[w] != nullptr && n > coded)
        kernels::widen(s.wait[w].data() + std::ptrdiff_t(first + coded - s.live) * d_[w],
                       std::ptrdiff_t(n - coded) * d_[w], out[w] + std::ptrdiff_t(coded) * d_[w]);
  }

  void attend(int layer, const AttendArgs& args, const AttnState& state) const {
    for (int g = 0; g < args.group; g += attend_queries) {
      const int group = std::min(attend_queries, args.group - g);
      attend_16(layer, part_of(args, g, group, d_[0]), part_of(state, g, group));
    }
  }

  std::shared_ptr<DirectionPair> clone() const {
    auto c = std::make_shared<DirectionPair>(directions_.clone(), d_[0], d_[1], options_);
    for (int i = 0; i < 2; ++i) c->side_[i] = side_[i], c->kept_[i] = kept_[i], c->limit_[i] = limit_[i];
    c->slots_ = slots_, c->merged_ = merged_;
    return c;
  }

  template <class V, class Self>
  static void fields(V& v, Self& p) {
    v.same("shared directions");
    v.same(p.d_[0]), v.same(p.d_[1]), v.same(int(sizeof(T))), v.same(p.options_.retain);
    constexpr Index most = 1 << 30;
    v.number(p.slots_, 0, most), v.number(p.merged_, 0, most);
    v.number(p.reserved_, 0, most);
    v.block(p.limit_, 2);
    v.memory_of(p.tokens_), v.memory_of(p.apart_), v.memory_of(p.chosen_);
    v.memory_of(p.rows_[0]), v.memory_of(p.rows_[1]), v.memory_of(p.both_);
    visit_fields(v, p.directions_);
    if (!v.good()) return;
    const std::size_t n = std::size_t(p.slots_);
    bool right = p.directions_.size() == p.slots_;
    for (int l = 0; l < 2; ++l) {
      auto& s = p.side_[l];
      v.number(s.live, 0, p.slots_), v.number(s.given, 0, most);
      v.list(s.bits, n / 64 + 1);
      v.list(s.id, std::size_t{1} << 30);
      for (int w = 0; w < 2; ++w) {
        v.list(s.norms[w], n);
        v.list(s.wait[w], s.id.size() * std::size_t(p.d_[w]));
        right = right && s.norms[w].size() == n && s.wait[w].size() == s.id.size() * std::size_t(p.d_[w]);
      }
      if (!v.good()) return;
      Index live = 0;
      for (const std::uint64_t b : s.bits) live += Index(std::popcount(b));
      right = right && live == s.live && s.bits.size() == (n + 63) / 64 &&
              (n % 64 == 0 || (s.bits.back() >> (n % 64)) == 0) && ascending(s.id) &&
              (s.id.empty() || (s.id.front() >= 0 && s.id.back() < s.given));
    }
    for (int w = 0; w < 2; ++w) {
      auto& kept = p.kept_[w];
      v.list(kept.at, n);
      if (!v.good()) return;
      right = right && ascending(kept.at) &&
              (kept.at.empty() || (kept.at.front() >= 0 && kept.at.back() < p.slots_));
      for (int l = 0; l < 2; ++l) {
        v.list(kept.rows[l], kept.at.size() * std::size_t(p.d_[w]));
        right = right && kept.rows[l].size() == kept.at.size() * std::size_t(p.d_[w]);
      }
    }
    if (V::reads && v.good() && !right)
      v.fail({Errc::bad_file, "a snapshot's shared directions do not fit together"});
  }

 private:
  struct Side {
    std::vector<std::uint64_t> bits;  // [slots] does the layer hold the token?
    Index live = 0;                   // of them
    std::vector<T> norms[2];          // [slots] of keys, of values
    std::vector<T> wait[2];           // [waiting, d] rows that wait for the other layer, oldest first
    std::vector<Index> id;            // [waiting] number of each one's token
    Index given = 0;                  // the next token's number
  };
  struct Kept {              // rows kept as they are
    std::vector<Index> at;   // slots, ascending
    std::vector<T> rows[2];  // [at, d] of the lower and of the upper layer
  };

  static bool ascending(const std::vector<Index>& x) {
    return std::adjacent_find(x.begin(), x.end(), std::greater_equal<>()) == x.end();
  }
  Index waiting(int layer) const { return Index(side_[layer].id.size()); }
  bool alive(int layer, Index slot) const {
    return ((side_[layer].bits[std::size_t(slot / 64)] >> (slot % 64)) & 1u) != 0;
  }
  static void set(Side& s, Index slot, bool to) {
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    std::uint64_t& w = s.bits[std::size_t(slot / 64)];
    w = to ? w | bit : w & ~bit;
  }
  /// The slot of a layer's row; the end of the slots for the first that waits.
  Index slot_of(int layer, Index row) const {
    const Side& s = side_[layer];
    if (s.live == slots_) return row;
    for (std::size_t w = 0; w < s.bits.size(); ++w) {
      const Index here = Index(std::popcount(s.bits[w]));
      if (row >= here) {
        row -= here;
        continue;
      }
      std::uint64_t bits = s.bits[w];
      for (; row > 0; --row) bits &= bits - 1;
      return Index(w) * 64 + Index(std::countr_zero(bits));
    }
    return slots_;
  }

  void make_room(std::vector<T>& x, Index more) const {
    const std::size_t want = x.size() + std::size_t(more);
    if (want > x.capacity()) x.reserve(std::max(want, x.empty() ? want : x.size() + x.size() / 8 + 8));
  }
  void forget_front(Side& s, Index n) {
    s.id.erase(s.id.begin(), s.id.begin() + n);
    for (int w = 0; w < 2; ++w)
      s.wait[w].erase(s.wait[w].begin(), s.wait[w].begin() + std::ptrdiff_t(n) * d_[w]);
    if (too_much(s.id.capacity())) shrink(s);
  }
  /// Gives the memory of a prompt's waiting rows back.
  void shrink(Side& s) {
    fit_memory(s.id, room_to_wait());
    for (int w = 0; w < 2; ++w) fit_memory(s.wait[w], room_to_wait() * std::size_t(d_[w]));
  }
  /// Rows that reserve() lets wait and settle.
  std::size_t room_to_wait() const { return reserved_ > 0 ? std::size_t(slack + 2) : 0; }
  /// Is memory for so many rows more than steps take?
  bool too_much(std::size_t rows_of) const { return rows_of > std::max<std::size_t>(room_to_wait(), 8); }
  /// Retained rows that reserve() makes room for.
  std::size_t room_for_kept() const {
    return reserved_ == 0 ? 0 : std::size_t(std::min(1.0, 2 * options_.gamma) * reserved_) + 8;
  }
  void tighten(Kept& kept, int w) const {
    if (kept.at.capacity() <= std::max(kept.at.size(), room_for_kept())) return;
    fit_memory(kept.at, room_for_kept());
    for (auto& r : kept.rows) fit_memory(r, room_for_kept() * std::size_t(d_[w]));
  }

  /// Which of a call's rows are too far apart for one direction: into chosen_, ascending. Rows without a partner (-1) are not.
  void choose(double& limit) {
    std::vector<Index>& out = chosen_;
    out.clear();
    for (std::size_t i = 0; i < apart_.size(); ++i)
      if (apart_[i] >= 0) out.push_back(Index(i));
    const auto d = [&](Index i) { return apart_[std::size_t(i)]; };
    if (Index(out.size()) < batch && (limit >= 0 || out.size() < 2)) {
      std::erase_if(out, [&](Index i) { return d(i) < (limit >= 0 ? limit : 0.5); });
      return;
    }
    if (options_.retain == SharedDirectionOptions::Retain::range) {
      double least = 1, most = 0;
      for (const Index i : out) least = std::min(least, d(i)), most = std::max(most, d(i));
      const double from = most - options_.gamma * (most - least);
      limit = std::nextafter(from, 2.0);
      std::erase_if(out, [&](Index i) { return !(d(i) > from); });
      return;
    }
    const std::size_t all = out.size(),
                      count = std::min(all, std::size_t(std::ceil(options_.gamma * double(all) - 1e-9)));
    std::sort(out.begin(), out.end(), [&](Index a, Index b) { return d(a) != d(b) ? d(a) > d(b) : a < b; });
    out.resize(count);
    limit = count == all ? 0.0 : count > 0 ? d(out.back()) : 2.0;
    std::sort(out.begin(), out.end());
  }

  /// Layer's row at a slot is kept as given, and with it the other layer's as it stands.
  void retain(int w, Index slot, int layer, const float* row) {
    Kept& kept = kept_[w];
    const auto at = std::lower_bound(kept.at.begin(), kept.at.end(), slot);
    const std::ptrdiff_t place = at - kept.at.begin();
    if (at == kept.at.end() || *at != slot) {
      std::vector<float> e(static_cast<std::size_t>(d_[w]));
      directions_.read(slot, 1, w == 0 ? e.data() : nullptr, w == 0 ? nullptr : e.data());
      kept.at.insert(at, slot);
      for (int l = 0; l < 2; ++l) {
        const float norm = to_f32(side_[l].norms[w][std::size_t(slot)]);
        std::vector<T> own;
        for (const float x : e) own.push_back(from_f32<T>(norm * x));
        kept.rows[l].insert(kept.rows[l].begin() + place * d_[w], own.begin(), own.end());
      }
    }
    for (int c = 0; c < d_[w]; ++c) kept.rows[layer][std::size_t(place * d_[w] + c)] = from_f32<T>(row[c]);
  }

  /// Slots that no layer holds any more leave.
  void free_dead() {
    std::vector<Index> gone;
    for (std::size_t w = 0; w < side_[0].bits.size(); ++w) {
      std::uint64_t dead = ~(side_[0].bits[w] | side_[1].bits[w]);
      for (; dead != 0; dead &= dead - 1)
        if (const Index slot = Index(w) * 64 + Index(std::countr_zero(dead)); slot < slots_)
          gone.push_back(slot);
    }
    if (gone.empty()) return;
    directions_.drop(gone);
    const auto erase = [&](auto& x) {
      std::size_t to = std::size_t(gone[0]), next = 0;
      for (std::size_t from = to; from < x.size(); ++from) {
        if (next < gone.size() && std::size_t(gone[next]) == from) ++next;
        else x[to++] = x[from];
      }
      x.resize(to);
      if (x.capacity() > std::max(to, std::size_t(reserved_)) + 64) fit_memory(x, std::size_t(reserved_));
    };
    for (Side& s : side_) {
      for (auto& norms : s.norms) erase(norms);
      std::vector<std::uint64_t> bits(std::size_t((slots_ - Index(gone.size()) + 63) / 64), 0);
      std::size_t next = 0;
      Index to = 0;
      for (Index slot = 0; slot < slots_; ++slot) {
        if (next < gone.size() && gone[next] == slot) {
          ++next;
          continue;
        }
        if ((s.bits[std::size_t(slot / 64)] >> (slot % 64)) & 1u)
          bits[std::size_t(to / 64)] |= std::uint64_t{1} << (to % 64);
        ++to;
      }
      s.bits.assign(bits.begin(), bits.end());
    }
    for (int w = 0; w < 2; ++w) {
      Kept& kept = kept_[w];
      std::size_t to = 0;
      for (std::size_t i = 0; i < kept.at.size(); ++i) {
        const auto before = std::lower_bound(gone.begin(), gone.end(), kept.at[i]);
        if (before != gone.end() && *before == kept.at[i]) continue;
        kept.at[to] = kept.at[i] - Index(before - gone.begin());
        for (auto& rows_of : kept.rows)
          std::copy_n(rows_of.begin() + std::ptrdiff_t(i) * d_[w], d_[w],
                      rows_of.begin() + std::ptrdiff_t(to) * d_[w]);
        ++to;
      }
      kept.at.resize(to);
      for (auto& rows_of : kept.rows) rows_of.resize(to * std::size_t(d_[w]));
      if (kept.at.capacity() > std::max(to, room_for_kept()) + 64) tighten(kept, w);
    }
    slots_ -= Index(gone.size());
  }

  /// f(first place, count) of the retained rows in slots at .. at + count - 1, where there are any.
  template <class F>
  void retained_in(int w, Index at, Index count, F&& f) const {
    const auto& list = kept_[w].at;
    const auto from = std::lower_bound(list.begin(), list.end(), at),
               to = std::lower_bound(from, list.end(), at + count);
    if (from != to) f(Index(from - list.begin()), Index(to - from));
  }

  void attend_16(int layer, const AttendArgs& a, const AttnState& state) const {
    constexpr float none = -std::numeric_limits<float>::infinity();
    alignas(64) float x[attend_queries][tile], own[attend_queries][tile];
    const Side& s = side_[layer];
    const AnyRows keys = directions_.keys(), values = directions_.values();
    Index row = 0;  // of the tile's first living slot
    for (Index at = 0; at < slots_; at += tile) {
      const Index count = std::min(tile, slots_ - at);
      Index lane_of[tile];
      Index live = 0;
      for (Index i = 0; i < count; ++i)
        if (alive(layer, at + i)) lane_of[live++] = i;
      bool seen[tile] = {};
      Index any = 0;
      const auto* only =
          a.only.empty() ? nullptr : std::lower_bound(a.only.data(), a.only.data() + a.only.size(), row);
      for (Index i = 0; i < live; ++i) {
        bool chosen = row + i >= a.first;
        if (only != nullptr) {
          while (only != a.only.data() + a.only.size() && *only < row + i) ++only;
          chosen = chosen && only != a.only.data() + a.only.size() && *only == row + i;
        }
        seen[lane_of[i]] = chosen;
        any += chosen;
      }
      if (any == 0) {
        hide_logits(a, row, live);
        row += live;
        continue;
      }
      // k = norm * e: the direction's product with the query, times the layer's norm
      for_each_run_in(keys, at, count, [&](auto run, Index first) {
        kernels::dot_group(run, a.q, a.group, a.scale, &x[0][first - at], tile);
      });
      for (int g = 0; g < a.group; ++g)
        for (Index i = 0; i < count; ++i) x[g][i] *= to_f32(s.norms[0][std::size_t(at + i)]);
      retained_in(0, at, count, [&](Index first, Index n) {
        kernels::dot_group(rows(kept_[0].rows[layer].data() + std::ptrdiff_t(first) * d_[0], n, d_[0]), a.q,
                           a.group, a.scale, &own[0][0], tile);
        for (int g = 0; g < a.group; ++g)
          for (Index i = 0; i < n; ++i) x[g][kept_[0].at[std::size_t(first + i)] - at] = own[g][i];
      });
      for (int g = 0; g < a.group; ++g) {
        if (a.soft_cap > 0) kernels::soft_cap(x[g], count, a.soft_cap);
        if (a.bias != nullptr)
          for (Index i = 0; i < live; ++i) x[g][lane_of[i]] += a.bias[row + i];
        for (Index i = 0; i < count; ++i)
          if (!seen[i]) x[g][i] = none;
        if (a.logits != nullptr)
          for (Index i = 0; i < live; ++i) a.logits[g * a.logits_stride + row + i] = x[g][lane_of[i]];
        kernels::online_softmax(x[g], count, state.m[g], state.l[g], state.row(g), state.dim_v);
      }
      // v = norm * e: the probability is scaled; retained rows take theirs out and add themselves
      retained_in(1, at, count, [&](Index first, Index n) {
        for (int g = 0; g < a.group; ++g)
          for (Index i = 0; i < n; ++i) {
            float& w = x[g][kept_[1].at[std::size_t(first + i)] - at];
            own[g][i] = w;
            w = 0;
          }
        kernels::axpy_group(rows(kept_[1].rows[layer].data() + std::ptrdiff_t(first) * d_[1], n, d_[1]),
                            &own[0][0], tile, a.group, state.o);
      });
      for (int g = 0; g < a.group; ++g)
        for (Index i = 0; i < count; ++i) x[g][i] *= to_f32(s.norms[1][std::size_t(at + i)]);
      for_each_run_in(values, at, count, [&](auto run, Index first) {
        kernels::axpy_group(run, &x[0][first - at], tile, a.group, state.o);
      });
      row += live;
    }
    attend_waiting(layer, a, state);
  }

  void attend_waiting(int layer, AttendArgs a, const AttnState& state) const {
    const Side& s = side_[layer];
    const Index n = waiting(layer);
    if (n == 0) return;
    std::vector<Index> only;
    if (!a.only.empty()) {
      for (const Index i : a.only)
        if (i >= s.live) only.push_back(i - s.live);
      if (a.logits != nullptr) a.logits += s.live;
      if (only.empty()) return hide_logits(a, 0, n);
      a.only = only;
    } else if (a.logits != nullptr) {
      a.logits += s.live;
    }
    a.first = std::max<Index>(0, a.first - s.live);
    if (a.bias != nullptr) a.bias += s.live;
    kvist::attend(rows(s.wait[0].data(), n, d_[0]), rows(s.wait[1].data(), n, d_[1]), a, state);
  }

  AnyStore directions_;  // [slots] unit rows of keys and of values
  SharedDirectionOptions options_;
  int d_[2];
  Side side_[2];                // of the lower and of the upper layer
  Kept kept_[2];                // keys, values
  double limit_[2] = {-1, -1};  // distance from which a few rows are retained; -1: not known yet
  Index slots_ = 0;
  Index merged_ = 0;  // tokens with lower numbers do not wait any more
  Index reserved_ = 0;
  // memory of one settle()
  std::vector<std::pair<Index, Index>> tokens_;
  std::vector<float> rows_[2], both_;
  std::vector<double> apart_;
  std::vector<Index> chosen_;
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
