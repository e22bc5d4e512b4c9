#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// Ranks entries by how often they were attended to in the last `history` rows: a row hits an entry where its probability,
/// averaged over the query group, is at least threshold / n, n being the entries held then. Score = hits / rows seen, so
/// that a young entry is not punished for its age. How much attention a hit brought is forgotten: this is not H2O.
///
/// A prompt call counts as one row: its column means over the queries that could see each entry. Rounding must not
/// decide a flat row, so a probability within 1e-6 (relative) of the threshold hits.
/// Source: Liu et al. 2023, arXiv 2305.17118 (Scissorhands); AnswerDotAI/cold-compress, cache.py.
///
/// Rows of tokens that are taken back are forgotten; what a full history gave up for them stays forgotten.
///
/// Needs: column sums of the prompt, probabilities of each step. State: history bits and a count an entry.
/// Cost: n*(G + history/64) a step.
struct HitHistory {
  static constexpr Role role = Role::signal;
  struct Entry {
    std::vector<std::uint64_t> hits;  ///< ring of bits, one a row
    Index seen = 0;                   ///< rows since the entry was made, at most `history`
  };
  struct PerHead {
    Index next = 0, rows = 0;  ///< place of the next row in the rings; rows held, at most `history`
    std::vector<Pos> first;    ///< [history] where the call of each row began
  };
  Index history = 400;
  double threshold = 1;
  static constexpr Index most_rows = 1 << 16;  ///< a bit for each, with every entry

  Wants wants() const { return {Needs::column_sums, Needs::probs, 0}; }

  /// For snapshots: a record's rings are as long as `history` says, or not made yet.
  template <class V, class Record>
  void fields(V& v, Record& r, const Shape&) const {
    if constexpr (requires { r.hits; }) {
      v.list(r.hits, std::size_t(history + 63) / 64);
      v.number(r.seen, 0, history);
      if (v.good() && !r.hits.empty() && r.hits.size() != std::size_t(history + 63) / 64)
        v.fail({Errc::bad_file, "an entry's history in a snapshot has another length than the policy's",
                (history + 63) / 64, (long long)r.hits.size()});
    } else {
      v.number(r.next, 0, history - 1);
    }
    if constexpr (requires { r.first; }) {
      v.number(r.rows, 0, history);
      v.list(r.first, std::size_t(history));
      if (v.good() && r.first.size() != (r.first.empty() && r.rows == 0 ? 0 : std::size_t(history)))
        v.fail({Errc::bad_file, "a head's history in a snapshot has another length than the policy's",
                history, (long long)r.first.size()});
    }
  }

  Status validate(const Shape&) const {
    if (history < 1 || history > most_rows)
      return Error{Errc::bad_option, "the history holds 1 to 65536 rows", most_rows, history};
    return Done{};
  }

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead& head) const {
    const bool prompt = c.now.phase == Phase::prefill;
    const Cube& rows = prompt ? c.seen.column_sums : c.seen.probs;
    const float limit = float(threshold * (1 - 1e-6) / double(std::max<std::size_t>(entries.size(), 1)));
    if (rows.w > 0) head.first.resize(std::size_t(history), 0);
    Pos began = c.size() > 0 ? c.head.pos[std::size_t(c.size() - 1)] : 0;
    for (std::size_t i = entries.size(); i-- > 0 && entries[i].hits.empty();) began = c.head.pos[i];
    for (Index w = 0; w < rows.w; ++w) {
      const std::size_t word = std::size_t(head.next / 64);
      const std::uint64_t bit = std::uint64_t{1} << (head.next % 64);
      for (std::size_t i = 0; i < entries.size(); ++i) {
        Entry& e = entries[i];
        if (e.hits.empty()) e.hits.assign(std::size_t(history + 63) / 64, 0);
        float p = 0;
        for (int g = 0; g < rows.g; ++g) p += rows.row(g, w)[i];
        p /= float(rows.g) * (prompt ? std::max(c.seen.seen_by[i], 1.0f) : 1.0f);
        e.hits[word] = p >= limit ? e.hits[word] | bit : e.hits[word] & ~bit;
        e.seen = std::min(e.seen + 1, history);
      }
      head.first[std::size_t(head.next)] = began;
      head.next = (head.next + 1) % history;
      head.rows = std::min(head.rows + 1, history);
    }
    return Done{};
  }

  /// Rows of calls that began at or after `pos` are gone.
  void truncate(std::span<Entry> entries, PerHead& head, Pos pos) const {
    for (; head.rows > 0; --head.rows) {
      const Index last = (head.next + history - 1) % history;
      if (head.first[std::size_t(last)] < pos) return;
      for (Entry& e : entries) {
        if (!e.hits.empty()) e.hits[std::size_t(last / 64)] &= ~(std::uint64_t{1} << (last % 64));
        e.seen = std::max<Index>(0, e.seen - 1);
      }
      head.next = last;
    }
  }

  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry> entries, const PerHead&,
               std::span<float> out) const {
    for (std::size_t i = 0; i < entries.size(); ++i) {
      int hits = 0;
      for (const std::uint64_t word : entries[i].hits) hits += std::popcount(word);
      out[i] = entries[i].seen > 0 ? float(hits) / float(entries[i].seen) : 0.0f;
    }
    return Done{};
  }
};
static_assert(Signal<HitHistory>);

}  // namespace kvist::inline KVIST_ABI
