#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/attend.hpp>
#include <kvist/cache/detail/blend_rows.hpp>
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/core/vector_rows.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The entries of one KV head: tiers of stores, each with the positions of its rows and, where entries stand for several,
/// their log-weights. Tier 0 takes what is appended and is what policies plan over; other tiers hold what was moved.
template <Store S>
class HeadCache {
 public:
  struct Tier {
    S store;
    std::vector<Pos> pos;           ///< [size]; ascending in tier 0, as entries came in others
    std::vector<float> log_weight;  ///< [size], or empty where all are 0
  };

  /// One store for each tier, tier 0 first.
  HeadCache(std::vector<S> stores, int dim_k, int dim_v) : dim_k_(dim_k), dim_v_(dim_v) {
    for (S& s : stores) tiers_.push_back({std::move(s), {}, {}});
  }

  Index size() const {
    Index n = 0;
    for (const Tier& t : tiers_) n += t.store.size();
    return n;
  }
  int tiers() const { return int(tiers_.size()); }
  const Tier& tier(int t) const { return tiers_[std::size_t(t)]; }

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const Tier& t : tiers_)
      sum += t.store.bytes() + t.pos.capacity() * sizeof(Pos) + t.log_weight.capacity() * sizeof(float);
    return sum;
  }

  /// Stores that share with those of the layer below are told of them. False where one needs what is not there.
  bool couple(HeadCache& below) {
    for (std::size_t t = 0; t < tiers_.size(); ++t)
      if constexpr (requires(S & a, S & b) { a.couple(b); }) {
        if (t < below.tiers_.size() && !tiers_[t].store.couple(below.tiers_[t].store)) return false;
      }
    return true;
  }
  /// Has every store what it shares?
  bool coupled() const {
    for (const Tier& t : tiers_)
      if constexpr (requires { t.store.coupled(); }) {
        if (!t.store.coupled()) return false;
      }
    return true;
  }

  void reserve(Index n) {
    reserved_ = std::max(reserved_, n);
    for (Tier& t : tiers_) {
      t.store.reserve(n);
      t.pos.reserve(std::size_t(n));
      if (!t.log_weight.empty()) t.log_weight.reserve(std::size_t(n));
    }
  }

  /// n rows k [n, dk], v [n, dv] at positions first_pos, first_pos + 1, ...
  void append(const float* k, const float* v, Index n, Pos first_pos) {
    Tier& t = tiers_[0];
    t.store.append(k, v, n);
    for (Index i = 0; i < n; ++i) t.pos.push_back(first_pos + i);
    if (!t.log_weight.empty()) t.log_weight.resize(t.pos.size(), 0.0f);
  }

  /// Stores that learn from a prompt (a member `fit(const AnyHead&, const Evidence&)`) look at what came, rows of tier 0.
  void fit(const AnyHead& head, const Evidence& seen) {
    for (Tier& t : tiers_)
      if constexpr (requires { t.store.fit(head, seen); }) t.store.fit(head, seen);
  }

  void settle() {
    for (Tier& t : tiers_) t.store.settle();
  }

  /// Adds all entries to the state. Rows of `first`, `only` and `logits` in args count over all tiers, which follow one
  /// another; the bias is that of the entries.
  void attend(const AttendArgs& args, const AttnState& state) const {
    Index from = 0;
    for (const Tier& t : tiers_) {
      detail::attend_rows(t.store, args, from, t.log_weight.empty() ? nullptr : t.log_weight.data(), state);
      from += t.store.size();
    }
  }

  /// As attend(), but of the entries only those at positions >= oldest. Allocates only for entries that moved to another
  /// tier and lie on both sides, and for `only` lists over several tiers.
  void attend_since(const AttendArgs& args, Pos oldest, const AttnState& state) const {
    Index from = 0;
    std::vector<Index> seen;
    for (const Tier& t : tiers_) {
      const Index n = t.store.size();
      AttendArgs a = args;
      if (&t == &tiers_[0] || std::is_sorted(t.pos.begin(), t.pos.end())) {  // tier 0 always is
        const Index first = Index(std::lower_bound(t.pos.begin(), t.pos.end(), oldest) - t.pos.begin());
        a.first = std::max(args.first, from + first);
      } else {
        seen.clear();
        for (Index i = 0; i < n; ++i)
          if (t.pos[std::size_t(i)] >= oldest &&
              (args.only.empty() || std::binary_search(args.only.begin(), args.only.end(), from + i)))
            seen.push_back(from + i);
        if (seen.empty()) a.first = from + n;  // an empty list would mean all rows
        else if (Index(seen.size()) < n) a.only = seen;
      }
      detail::attend_rows(t.store, a, from, t.log_weight.empty() ? nullptr : t.log_weight.data(), state);
      from += n;
    }
  }

  AnyHead view(KeyForm form) const {
    const Tier& t = tiers_[0];
    return {t.store.keys(), t.store.values(), t.pos, form, t.log_weight};
  }

  /// Rows first .. first+n-1 over all tiers, decoded; either pointer may be null.
  void read(Index first, Index n, float* k, float* v) const {
    for (const Tier& t : tiers_) {
      const Index here = std::min(n, t.store.size() - first);
      if (here > 0) {
        t.store.read(first, here, k, v);
        if (k) k += std::ptrdiff_t(here) * dim_k_;
        if (v) v += std::ptrdiff_t(here) * dim_v_;
        n -= here;
        first = 0;
      } else {
        first -= t.store.size();
      }
      if (n == 0) return;
    }
  }

  /// Carries out a plan for tier 0: blends first, then drops and moves. Requires: check(plan, tier 0's size).
  void apply(const HeadPlan& plan) {
    Tier& t = tiers_[0];
    if (!plan.self.empty()) blend(t, plan);
    for (std::size_t i = 0; i < plan.move.size();) {  // runs of one tier, read and appended row by row
      const Move m = plan.move[i++];
      row_k_.resize(std::size_t(dim_k_));
      row_v_.resize(std::size_t(dim_v_));
      t.store.read(m.src, 1, row_k_.data(), row_v_.data());
      Tier& to = tiers_[m.tier];
      to.store.append(row_k_.data(), row_v_.data(), 1);
      if (!t.log_weight.empty() || !to.log_weight.empty()) {
        to.log_weight.resize(to.pos.size(), 0.0f);
        to.log_weight.push_back(t.log_weight.empty() ? 0.0f : t.log_weight[std::size_t(m.src)]);
      }
      to.pos.push_back(t.pos[std::size_t(m.src)]);
    }
    if (plan.move.empty()) return leave(t, plan.drop);
    std::vector<Index> gone = plan.drop;
    for (const Move& m : plan.move) gone.push_back(m.src);
    std::sort(gone.begin(), gone.end());
    leave(t, gone);
  }

  /// Entries at positions >= pos are gone. Returns how many rows of tier 0 stay.
  Index truncate(Pos pos) {
    for (Tier& t : tiers_) {
      if (!std::is_sorted(t.pos.begin(), t.pos.end())) {  // entries moved here one by one
        std::vector<Index> gone;
        for (std::size_t i = 0; i < t.pos.size(); ++i)
          if (t.pos[i] >= pos) gone.push_back(Index(i));
        leave(t, gone);
        continue;
      }
      const auto n = std::lower_bound(t.pos.begin(), t.pos.end(), pos) - t.pos.begin();
      if (std::size_t(n) == t.pos.size()) continue;
      t.store.truncate(Index(n));
      t.pos.resize(std::size_t(n));
      if (!t.log_weight.empty()) t.log_weight.resize(std::size_t(n));
    }
    return tiers_[0].store.size();
  }

  HeadCache clone() const {
    std::vector<S> stores;
    for (const Tier& t : tiers_) stores.push_back(t.store.clone());
    HeadCache out(std::move(stores), dim_k_, dim_v_);
    for (std::size_t i = 0; i < tiers_.size(); ++i) {
      out.tiers_[i].pos = tiers_[i].pos;
      out.tiers_[i].log_weight = tiers_[i].log_weight;
    }
    return out;
  }
  /// The tiers, each with positions and log-weights; `next` is one after the newest position that there may be.
  template <class V, class Self>
  static void fields(V& v, Self& h, Pos next = most_position) {
    v.same("head");
    v.same(h.dim_k_), v.same(h.dim_v_), v.same(h.tiers_.size());
    v.number(h.reserved_, 0, most_position);
    for (auto& t : h.tiers_) {
      visit_fields(v, t.store);
      if (!v.good()) return;
      const std::size_t n = std::size_t(t.store.size());
      v.list(t.pos, n);
      v.list(t.log_weight, n);
      if constexpr (V::reads)
        if (v.good() && !(t.pos.size() == n && (t.log_weight.empty() || t.log_weight.size() == n) &&
                          plausible(t.pos, &t == &h.tiers_[0], next)))
          v.fail({Errc::bad_file, "positions of a snapshot that do not fit its entries", (long long)n,
                  (long long)t.pos.size()});
    }
  }

 private:
  static constexpr Pos most_position = 1 << 30;  // that a snapshot may hold

  static bool plausible(const std::vector<Pos>& pos, bool ascending, Pos next) {
    for (std::size_t i = 0; i < pos.size(); ++i) {
      if (pos[i] < 0 || pos[i] >= next) return false;
      if (ascending && i > 0 && pos[i] <= pos[i - 1]) return false;
    }
    return true;
  }
  void leave(Tier& t, const std::vector<Index>& rows) const {
    if (rows.empty()) return;
    t.store.drop(rows);
    detail::erase_rows(t.pos, rows);
    detail::erase_rows(t.log_weight, rows);
    // A cut that frees much gives the memory back; a step's single drop keeps it for the next append.
    const std::size_t keep = std::max(t.pos.size(), std::size_t(reserved_)) + 64;
    if (t.pos.capacity() > keep) detail::fit_memory(t.pos, std::size_t(reserved_));
    if (t.log_weight.capacity() > keep) detail::fit_memory(t.log_weight, std::size_t(reserved_));
  }

  void blend(Tier& t, const HeadPlan& plan) {
    detail::blend_rows(
        plan, dim_k_, dim_v_, [&](Index i, float* k, float* v) { t.store.read(i, 1, k, v); },
        [&](Index i, const float* k, const float* v) { t.store.write(i, k, v); });
    for (const Self& self : plan.self)
      if (self.log_weight != 0 || !t.log_weight.empty()) {
        if (t.log_weight.empty()) t.log_weight.reserve(t.pos.capacity());
        t.log_weight.resize(t.pos.size(), 0.0f);
        t.log_weight[std::size_t(self.dst)] = self.log_weight;
      }
  }

  int dim_k_, dim_v_;
  std::vector<Tier> tiers_;
  Index reserved_ = 0;
  std::vector<float> row_k_, row_v_;
};

}  // namespace kvist::inline KVIST_ABI
