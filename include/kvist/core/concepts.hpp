#pragma once
// SPDX-License-Identifier: Apache-2.0
// The map: every concept of the library on one page, and the plain values that its functions pass around. A part is a
// small struct that satisfies one of these; `Policy` (policy/policy.hpp) and `Cache` (cache/cache.hpp) put parts
// together. This page includes the plain data of view/ and attention/ that the concepts name, and no code.
#include <kvist/attention/state.hpp>
#include <kvist/core/executor.hpp>
#include <kvist/core/plan.hpp>
#include <kvist/core/result.hpp>
#include <kvist/core/scratch.hpp>
#include <kvist/core/types.hpp>
#include <kvist/view/evidence.hpp>
#include <kvist/view/head.hpp>
#include <kvist/view/rope.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

// ------------------------------------------------------------------------------------------ parts of a policy

/// What a part does in a Policy; each role is filled once, a missing one by its default.
enum class Role : std::uint8_t {
  signal,
  layer_budget,
  head_budget,
  guard,
  selector,
  disposition,
  schedule,
  positions
};

/// For signals without records.
struct Nothing {
  friend bool operator==(Nothing, Nothing) = default;
};

/// Over what one choice of entries holds.
enum class Grain : std::uint8_t { head, layer, sequence };

template <class P>
concept Part = requires {
  { P::role } -> std::convertible_to<Role>;
}
&&std::copyable<P>;

/// What a part may look at besides its own state, for one head; it can grow without changing a signature.
template <Head H>
struct HeadContext {
  const H& head;         ///< keys, values and positions of all entries of the head
  const Evidence& seen;  ///< what the engine saw since the last call
  const Clock& now;
  const Shape& shape;
  Scratch& scratch;
  const RopeTable* rope = nullptr;  ///< the model's rotation; null where the engine gave none
  int layer = 0;
  int index = 0;  ///< KV head
  std::uint64_t seed = 0;
  // for dispositions, while a plan is made:
  Index budget = 0;       ///< entries that the head may keep
  Index mean_budget = 0;  ///< entries per head that its layer may keep
  Guards guards = {};
  Index shared_rows = 0;  ///< rows before it are never written

  Index size() const { return head.size(); }
};
using AnyContext = HeadContext<AnyHead>;
using F32Context = HeadContext<F32Head>;
using PagedBf16Context = HeadContext<PagedBf16Head>;

namespace detail {
template <class S, class C>
concept Scores = requires(const S s, const C& c, std::span<const typename S::Entry> entries,
                          const typename S::PerHead& per_head, std::span<float> out) {
  { s.score(c, entries, per_head, out) } -> std::same_as<Status>;
};
}  // namespace detail

/// Ranks entries: score() writes out[n], higher = keep. `Entry` is the record that travels with each entry, `PerHead`
/// the head's own; both start default-initialised. Optional members: `observe(c, span<Entry>, PerHead&) -> Status`
/// folds new evidence into the records; `layer_stat(span<const PerHead>) -> LayerStat`; `static constexpr Grain grain`
/// (Grain::layer: the mean of all heads' scores ranks for all of them); `validate(const Shape&) -> Status`;
/// `truncate(PerHead&, Pos)` or `truncate(span<Entry>, PerHead&, Pos)` forgets what came at or after a position.
/// NaN scores rank below all others.
template <class S>
concept Signal = Part<S> && S::role ==
                 Role::signal&& std::default_initializable<typename S::Entry>&& std::copyable<typename S::Entry>&&
                     std::default_initializable<typename S::PerHead>&& std::copyable<typename S::PerHead>&&
                         detail::Scores<S, AnyContext>&& detail::Scores<S, F32Context>&&
                             detail::Scores<S, PagedBf16Context>&& requires(const S s) {
  { s.wants() } -> std::same_as<Wants>;
};

/// What a signal says of a whole layer; layer budgets read it.
struct LayerStat {
  double entropy = 0, variance = 0;
  Index size = 0;    ///< entries in each head of the layer (the largest, where they differ)
  Index tokens = 0;  ///< that the layer was given so far, whether they are still held or not
};

/// What a LayerBudget is asked: entries per KV head for each compressed layer seen so far.
struct LayerBudgetCall {
  int layers = 1;                   ///< compressed layers of the model
  std::span<const LayerStat> seen;  ///< of the layers so far, this one last; the others are empty without `cascades`
  Guards guards;                    ///< of a layer at the mean, counted inside the budgets
  Index mean = 0;                   ///< entries per KV head, on average over the compressed layers
  Index least = 0;                  ///< budget from which on a layer's own guards fit in it, at most the mean
};
/// Splits the budget over layers. allocate() writes out[seen.size()]; `cascades` says whether layers budgeted before may
/// be cut again: they are then re-selected from the scores of their own prefill. Optional members: `static constexpr bool whole
/// = true` says that all layers must have been seen, and nothing is then planned before the first decode step;
/// `validate(int layers) -> Status` is asked when a state is started, of the layers that are not skipped.
template <class B>
concept LayerBudget = Part<B> && B::role == Role::layer_budget&& requires(const B b, const LayerBudgetCall& call,
                                                                          std::span<Index> out) {
  { B::cascades } -> std::convertible_to<bool>;
  { b.allocate(call, out) } -> std::same_as<Status>;
};

/// Scores of all heads of a layer: [kv_heads][n_h].
using ScoreTable = std::span<const std::span<const float>>;
struct HeadBudgetCall {
  ScoreTable scores;
  Guards guards;   ///< counted inside the budgets
  Index mean = 0;  ///< entries per KV head, on average over the layer's heads
  int layer = 0;
};
/// Splits a layer's budget over its heads: out[kv_heads], guards included, sum <= mean * heads. `even` says that all
/// heads always get the same. An optional `validate(const Shape&) -> Status` is asked when a state is started.
template <class B>
concept HeadBudget = Part<B> && B::role == Role::head_budget&& requires(const B b, const HeadBudgetCall& call,
                                                                        std::span<Index> out) {
  { B::even } -> std::convertible_to<bool>;
  { b.allocate(call, out) } -> std::same_as<Status>;
};

/// Which entries stay whatever their score: resolved once the budget is known. An optional `validate(Index budget) -> Status`
/// refuses budgets; fixed counts that are negative are refused for every guard when a state is started.
template <class G>
concept Guard = Part<G> && G::role == Role::guard&& requires(const G g, Index budget) {
  { g.resolve(budget) } -> std::same_as<Guards>;
};

struct SelectCall {
  std::span<const float> scores;  ///< [n], no NaN
  std::span<const Pos> pos;       ///< [n], or empty where positions are not at hand
  Guards guards;
  Index budget = 0;
  Scratch& scratch;
  int layer = 0, head = 0;
  Index size() const { return Index(scores.size()); }
};
/// Chooses the losers: ascending rows, none guarded, such that at most `budget` stay.
template <class S>
concept Selector = Part<S> && S::role ==
                   Role::selector&& requires(const S s, const SelectCall& call, std::vector<Index>& drop) {
  s.select(call, drop);
};

namespace detail {
template <class D>
concept Disposes = requires(const D d, const AnyContext& c, std::span<const float> scores, HeadPlan& plan) {
  { d.dispose(c, scores, plan) } -> std::same_as<Status>;
};
template <class D>
concept DisposesWithRecords = std::copyable<typename D::Entry> &&
    std::default_initializable<typename D::Entry> && std::copyable<typename D::PerHead> &&
    std::default_initializable<typename D::PerHead> &&
    requires(const D d, const AnyContext& c, std::span<const float> scores, std::span<typename D::Entry> records,
             std::span<const typename D::Entry> entries, typename D::PerHead& own, HeadPlan& plan) {
  { d.dispose(c, scores, entries, own, plan) } -> std::same_as<Status>;
  d.applied(plan, records, own);  // the plan was carried out; its rows are still there
};
}  // namespace detail

/// Turns losers into drops, blends or moves: in, plan.drop = the losers; out, what becomes of them.
///
/// It may keep records as a signal does: `Entry` travels with each entry, `PerHead` is the head's own. dispose() then takes
/// them, and changes nothing in them that a plan which is not carried out would have to take back; applied() does. Optional
/// members: `sizes` (it decides how many entries stay; a selector that chooses nobody goes with it) with `free_size()` (no
/// budget is needed) and `share(...)` (head budgets of a layer, see Merge); `slots` (entries of the budget that it fills
/// itself); `rank(entries, scores)` changes scores before losers are chosen; `wants()`; `adds_records()` (a signal's records
/// of folded entries are added up, where it has `fold(Entry& into, const Entry& from)`).
template <class D>
concept Disposition = Part<D> && D::role == Role::disposition&& requires {
  { D::makes } -> std::convertible_to<unsigned>;
}
&&(detail::Disposes<D> || detail::DisposesWithRecords<D>);

/// When to plan.
template <class S>
concept Schedule = Part<S> && S::role == Role::schedule&& requires(const S s, const Clock& c) {
  { s.due(c) } -> std::same_as<bool>;
};

/// Which positions attention uses after an eviction.
template <class P>
concept Positions = Part<P> && P::role == Role::positions&& requires {
  { P::compact } -> std::convertible_to<bool>;
};

// ------------------------------------------------------------------------------------------- storage

/// How rows become bytes. `Model` is what is learnt from a prompt (Nothing for most). Enough on its own: what has no
/// KeyDot or ValueSum is decoded to a tile first.
template <class C>
concept Codec = std::copyable<C> && std::default_initializable<typename C::Model> &&
    requires(const C c, const typename C::Model& m, const float* rows, Index n, int d, std::byte* out,
             const std::byte* in, float* decoded) {
  { c.block_rows() } -> std::same_as<Index>;          // rows coded together
  { c.block_bytes(d) } -> std::same_as<std::size_t>;  // of block_rows() rows
  c.encode(m, rows, n, d, out);                       // [n <= block_rows, d] contiguous
  c.decode(m, in, n, d, decoded);                     // -> [n, d]
};

/// The memory of one head: rows of keys and values in one or several segments, in the order of their positions.
/// Rows are numbered 0 .. size()-1 by what lives now. bytes() counts everything that was allocated.
/// Optional: `fit(const AnyHead&, const Evidence&)` learns from each call of a prompt, before plans are carried out;
/// `fields(v, self)` says what snapshots hold of it (core/fields.hpp).
template <class S>
concept Store = std::movable<S> &&
    requires(S s, const S cs, const float* k, const float* v, Index n, std::span<const Index> rows,
             const AttendArgs& args, const AttnState& state, float* out) {
  s.append(k, v, n);  // k [n, dk], v [n, dv]
  s.settle();         // encode what may be encoded now
  s.drop(rows);       // ascending; what stays keeps its order
  s.truncate(n);      // rows n.. are gone
  s.reserve(n);       // room for n rows in all
  s.write(n, k, v);   // row n gets a new key and value
  { cs.size() } -> std::same_as<Index>;
  { cs.bytes() } -> std::same_as<std::size_t>;
  cs.attend(args, state);   // adds this store's entries to the state
  cs.read(n, n, out, out);  // rows first.. decoded to f32 (either may be null)
  { cs.keys() } -> std::convertible_to<AnyRows>;
  { cs.values() } -> std::convertible_to<AnyRows>;
  { cs.clone() } -> std::same_as<S>;
};

}  // namespace kvist::inline KVIST_ABI
