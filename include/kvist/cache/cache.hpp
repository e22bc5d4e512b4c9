#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/attend.hpp>
#include <kvist/attention/tap.hpp>
#include <kvist/cache/head_cache.hpp>
#include <kvist/core/executor.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/state_fields.hpp>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The KV cache of one sequence, in memory that the library owns: a store for every (layer, KV head), and a policy that
/// decides what stays. `P` is a Policy or AnyPolicy, `S` a store or AnyStore.
///
/// A prompt (or a chunk of it): for each layer `append` its rows, then `observe` with the evidence that `wants()` names.
/// A decode step: for each layer `append`, `attend`, `step`; a policy's evidence is that of the last attend(), so a layer's
/// step comes before the attention of the next layer. Calls of one cache come one after another, as they share its
/// buffers; within attend() the heads run on the executor. Different caches are independent. Copies are explicit: clone().
template <class P, Store S>
class Cache {
 public:
  /// Makes the tiers of one head, tier 0 first, or says why rows of this shape cannot be stored so.
  using MakeStores = std::function<Result<std::vector<S>>(int layer, int head)>;

  /// An empty cache. `rope` is needed by policies that renumber positions and by signals that look at raw keys, and must
  /// outlive the cache.
  /// Fails with: what the policy says of the shape, and the stores; missing_evidence where a needed rope is not given.
  static Result<Cache> make(const Shape& shape, P policy, const MakeStores& stores,
                            const RopeTable* rope = nullptr) {
    auto state = policy.start(shape);
    if (!state) return state.error();
    if (policy.compact() && !rope)
      return Error{Errc::missing_evidence, "renumbering positions wants the model's rotary table"};
    Cache c(shape, std::move(policy), std::move(*state), rope);
    for (int l = 0; l < shape.layers; ++l) {
      c.layers_.emplace_back();
      for (int h = 0; h < shape.kv_heads; ++h) {
        auto tiers = stores(l, h);
        if (!tiers) return tiers.error();
        c.layers_.back().heads.emplace_back(*std::move(tiers), shape.dim_k, shape.dim_v);
      }
    }
    if (!c.couple())
      return Error{Errc::unsupported,
                   "a store shares with the one of the layer below, which is not there or not of its kind"};
    return c;
  }

  const Shape& shape() const { return shape_; }
  const P& policy() const { return policy_; }
  Wants wants() const { return policy_.wants(); }
  bool compact() const { return policy_.compact(); }
  /// How keys are to be appended: raw where positions are renumbered, else as the model rotates them.
  KeyForm form() const { return compact() ? KeyForm::raw : KeyForm::rotated; }

  Index size(int layer, int head) const { return head_at(layer, head).size(); }
  const HeadCache<S>& head(int layer, int h) const { return head_at(layer, h); }
  /// Position of the next token: one after the newest that was appended.
  Pos next_position() const { return next_; }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const Layer& l : layers_)
      for (const auto& h : l.heads) sum += h.bytes();
    return sum;
  }
  /// The most that bytes() has been after an append or an applied plan.
  std::size_t bytes_peak() const { return peak_; }

  /// Room for n entries a head: decode up to it allocates nothing, but in steps in which a policy plans (a plan's own lists).
  /// Coded stores that evict want some more than the budget (BlockedStore::reserve says how much).
  void reserve(Index n) {
    for (Layer& l : layers_)
      for (auto& h : l.heads) h.reserve(n);
    tap_.reserve(std::size_t(n) * std::size_t(shape_.q_heads));
    if (compact()) renumber_table(n);
    if constexpr (requires { policy_.reserve(state_, n); }) policy_.reserve(state_, n);
    buffers();
  }

  /// n tokens of a layer: k [n, kv_heads, dk], v [n, kv_heads, dv], positions first_pos, first_pos + 1, ...
  /// Fails with: bad_shape where positions do not go on after those held; nothing has changed then.
  Status append(int layer, Index n, const float* k, const float* v, Pos first_pos) {
    Layer& l = layers_[std::size_t(layer)];
    for (const auto& head : l.heads)
      if (const auto& pos = head.tier(0).pos; !pos.empty() && pos.back() >= first_pos)
        return Error{Errc::bad_shape, "appended positions must follow those held", pos.back() + 1, first_pos};
    for (int h = 0; h < shape_.kv_heads; ++h) {
      auto& head = l.heads[std::size_t(h)];
      if (n == 1) {
        head.append(k + h * shape_.dim_k, v + h * shape_.dim_v, 1, first_pos);
      } else {
        gather(k, n, h, shape_.dim_k, one_k_);
        gather(v, n, h, shape_.dim_v, one_v_);
        head.append(one_k_.data(), one_v_.data(), n, first_pos);
      }
    }
    l.next = std::max(l.next, first_pos + n);
    next_ = std::max(next_, l.next);
    l.bytes_stale = true;
    note_peak();
    return Done{};
  }

  /// The layer's evidence of a prompt call, one for each KV head: records follow, and where the schedule says so entries
  /// go. Then stores encode what they may.
  Status observe(int layer, std::span<const Evidence> seen, const Clock& now) {
    Layer& l = layers_[std::size_t(layer)];
    l.views.clear();
    for (const auto& h : l.heads) l.views.push_back(h.view(form()));
    const AnyLayer view{l.views};
    Clock clock = now;
    clock.size = 0;
    for (const auto& h : l.views) clock.size = std::max(clock.size, h.size());
    const LayerCall<AnyLayer> call{view, seen, clock, layer, {}, rope_};
    if (Status s = policy_.observe(call, state_); !s) return s;
    if (now.phase == Phase::prefill && !seen.empty())  // what stores learn from a prompt, before anything is encoded
      for (std::size_t h = 0; h < l.heads.size(); ++h) l.heads[h].fit(l.views[h], seen[h]);
    if (policy_.due(clock)) {
      plans_.clear();
      if (Status s = policy_.plan(call, state_, plans_); !s) return s;
      for (const Plan& p : plans_) apply(p);
    }
    settle(layer);
    note_peak();
    return Done{};
  }

  /// Attention of one token's queries q [q_heads, dk] over all entries: out [q_heads, dv]. The token's own key has been
  /// appended before. Probabilities are kept for step() where the policy wants them.
  template <Executor E>
  Status attend(int layer, const float* q, float scale, float* out, E& executor) {
    return attend(layer, q, LayerAttention{scale, 0, 0, {}}, out, executor);
  }
  /// The same with a sliding window, a cap and sinks. A window reaches back from the newest position (of caches that
  /// renumber: from the newest row). Fails with: bad_shape where sinks are not one for each query head.
  template <Executor E>
  Status attend(int layer, const float* q, const LayerAttention& how, float* out, E& executor) {
    if (Status s = check_sinks(how); !s) return s;
    buffers();
    const Layer& l = layers_[std::size_t(layer)];
    const int group = shape_.group();
    const bool tap = any(wants().step & Needs::probs);
    Index longest = 0;
    for (const auto& h : l.heads) longest = std::max(longest, h.size());
    if (tap) tap_.resize(std::size_t(longest) * std::size_t(shape_.q_heads));
    if (compact()) renumber_table(longest);
    executor.for_each(shape_.kv_heads, [&](Index h) {
      const HeadCache<S>& head = l.heads[std::size_t(h)];
      AttnBuffer& buffer = states_[std::size_t(h)];
      const AttnState state = buffer.state();
      state.clear();
      AttendArgs args;
      args.q = q + std::ptrdiff_t(h) * group * shape_.dim_k;
      args.group = group;
      args.scale = how.scale;
      args.soft_cap = how.soft_cap;
      args.logits = tap ? tap_.data() + std::ptrdiff_t(h) * group * longest : nullptr;
      args.logits_stride = longest;
      if (compact()) attend_renumbered(head, args, how.window, state, int(h));
      else if (how.window > 0) head.attend_since(args, l.next - how.window, state);
      else head.attend(args, state);
      add_sinks(state, how, int(h));
      finish(state, out + std::ptrdiff_t(h) * group * shape_.dim_v);
      if (tap) tap_probabilities(state, args.logits, head.size(), longest);
    });
    last_q_.assign(q, q + std::ptrdiff_t(shape_.q_heads) * shape_.dim_k);
    tap_row_ = longest;
    attended_ = {layer, l.next};
    return Done{};
  }

  /// Attention of n tokens at positions first_pos and on, which are appended afterwards: their queries q [n, q_heads, dk] over
  /// all entries, and causally over their own rows k [n, kv_heads, dk], v [n, kv_heads, dv]; out [n, q_heads, dv]. Stored
  /// rows are read once for 16 queries, as they are coded (with a window, once for each token): for a few tokens (a draft to
  /// be verified, a short turn); many are better served by rows that are expanded once. Allocates. After the append settle()
  /// follows, not step(): policies get no evidence of these tokens.
  /// Fails with: bad_shape as attend(); unsupported where positions are renumbered.
  template <Executor E>
  Status attend_tokens(int layer, Index n, const float* q, const float* k, const float* v, Pos first_pos,
                       const LayerAttention& how, float* out, E& executor) const {
    if (Status s = check_sinks(how); !s) return s;
    if (compact()) return Error{Errc::unsupported, "several tokens at once over renumbered positions"};
    const int group = shape_.group(), dk = shape_.dim_k, dv = shape_.dim_v;
    executor.for_each(shape_.kv_heads, [&](Index h) {
      const HeadCache<S>& head = head_at(layer, int(h));
      std::vector<float> head_q, head_k, head_v;
      gather(q, n, int(h), group * dk, head_q);
      gather(k, n, int(h), dk, head_k);
      gather(v, n, int(h), dv, head_v);
      AttnBuffer buffer(int(n) * group, dv);
      const AttnState all = buffer.state();
      AttendArgs args;
      args.scale = how.scale;
      args.soft_cap = how.soft_cap;
      if (how.window <= 0) {
        args.q = head_q.data();
        args.group = int(n) * group;
        head.attend(args, all);
      }
      args.group = group;
      for (Index t = 0; t < n; ++t) {
        const AttnState one = detail::part_of(all, int(t) * group, group);
        args.q = head_q.data() + std::ptrdiff_t(t) * group * dk;
        if (how.window > 0) head.attend_since(args, first_pos + t + 1 - how.window, one);
        const Index from = how.window > 0 ? std::max<Index>(0, t + 1 - how.window) : 0;
        kvist::attend(rows(head_k.data() + std::ptrdiff_t(from) * dk, t + 1 - from, dk),
                      rows(head_v.data() + std::ptrdiff_t(from) * dv, t + 1 - from, dv), args, one);
        add_sinks(one, how, int(h));
        finish(one, out + (std::ptrdiff_t(t) * shape_.kv_heads + h) * group * dv);
      }
    });
    return Done{};
  }

  /// Stores of the layer encode what they may: after tokens that were appended together without evidence (observe() and
  /// step() do it themselves).
  void settle(int layer) {
    Layer& l = layers_[std::size_t(layer)];
    for (auto& h : l.heads) h.settle();
    l.bytes_stale = true;
  }

  /// After attend() of this layer in a live decode step: gives the policy its evidence, and lets entries go where it is due.
  /// Fails with: missing_evidence where the policy wants evidence and the last attend() was not that of the layer's newest
  /// token, or rows have gone since; else as Policy::observe and Policy::plan, and the evidence is used up.
  Status step(int layer, const Clock& now) {
    const Layer& l = layers_[std::size_t(layer)];
    if (any(wants().step)) {
      if (attended_.layer != layer)
        return Error{
            Errc::missing_evidence,
            "a step follows the attention of its own layer (-1: none, or it was used or rows have gone)",
            layer, attended_.layer};
      if (attended_.next != l.next)
        return Error{Errc::missing_evidence,
                     "a step follows the attention of its layer's newest token (positions)", l.next - 1,
                     attended_.next - 1};
    }
    attended_ = {};
    const int group = shape_.group();
    evidence_.assign(std::size_t(shape_.kv_heads), Evidence{});
    for (int h = 0; h < shape_.kv_heads; ++h) {
      Evidence& e = evidence_[std::size_t(h)];
      const Index n = l.heads[std::size_t(h)].tier(0).store.size();
      if (any(wants().step & Needs::probs))
        e.probs = {tap_.data() + std::ptrdiff_t(h) * group * tap_row_, group, 1, n, tap_row_, n};
      if (any(wants().step))
        e.queries = cube(last_q_.data() + std::ptrdiff_t(h) * group * shape_.dim_k, group, 1, shape_.dim_k);
      e.first_query = l.next - 1;
    }
    return observe(layer, evidence_, now);
  }

  /// Carries out a plan that the policy made (or any checked plan), and lets records follow.
  void apply(const Plan& plan) {
    Layer& l = layers_[std::size_t(plan.layer)];
    for (std::size_t h = 0; h < plan.heads.size(); ++h) {
      if (plan.heads[h].empty()) continue;
      l.heads[h].apply(plan.heads[h]);
      if (attended_.layer == plan.layer) attended_ = {};  // probabilities no longer fit the rows
    }
    policy_.applied(plan, state_);
    l.bytes_stale = true;
    if (on_plan) on_plan(plan);
  }

  /// Tokens at positions >= pos were taken back (speculative decoding, a retry).
  void truncate(Pos pos) {
    for (int l = 0; l < shape_.layers; ++l)
      for (int h = 0; h < shape_.kv_heads; ++h) {
        const Index n = layers_[std::size_t(l)].heads[std::size_t(h)].truncate(pos);
        policy_.truncate(state_, l, h, n, pos);
      }
    next_ = std::min(next_, pos);
    attended_ = {};
    for (Layer& l : layers_) {
      l.next = std::min(l.next, pos);
      l.bytes_stale = true;
    }
  }

  /// A copy for a branch: entries and records.
  Cache clone() const {
    Cache c(shape_, policy_, clone_state(), rope_);
    for (const Layer& l : layers_) {
      c.layers_.emplace_back();
      for (const auto& h : l.heads) c.layers_.back().heads.push_back(h.clone());
      c.layers_.back().next = l.next;
    }
    c.couple();
    c.next_ = next_;
    c.peak_ = peak_;
    return c;
  }

  /// All entries, positions and records, for snapshots (io/snapshot.hpp). The policy and its options are not in it.
  template <class V, class Self>
  static void fields(V& v, Self& c) {
    v.same("cache");
    v.same(c.shape_.layers), v.same(c.shape_.q_heads), v.same(c.shape_.kv_heads);
    v.same(c.shape_.dim_k), v.same(c.shape_.dim_v), v.same(c.compact());
    v.number(c.next_, 0, 1 << 30);
    v.number(c.peak_, 0, std::size_t{1} << 50);
    std::vector<Index> rows;  // of tier 0
    for (auto& l : c.layers_) {
      for (auto& h : l.heads) {
        HeadCache<S>::fields(v, h, c.next_);
        if (!v.good()) return;
        rows.push_back(h.tier(0).store.size());
      }
      if constexpr (V::reads) {
        l.bytes_stale = true;
        l.next = c.next_;  // snapshots are taken between tokens
      }
    }
    const std::span<const Index> sizes = rows;
    if constexpr (requires { c.policy_.fields(v, c.state_, sizes); }) c.policy_.fields(v, c.state_, sizes);
    else state_fields(v, c.policy_, c.state_, sizes);
  }

  /// Entries' log-weights of one head (all tiers), or empty where all are 0.
  std::span<const float> bias(int layer, int h) const {
    const auto& head = head_at(layer, h);
    if (head.tiers() == 1) return head.tier(0).log_weight;
    bool any_weight = false;
    bias_.clear();
    for (int t = 0; t < head.tiers(); ++t) {
      const auto& tier = head.tier(t);
      any_weight = any_weight || !tier.log_weight.empty();
      if (tier.log_weight.empty()) bias_.resize(bias_.size() + tier.pos.size(), 0.0f);
      else bias_.insert(bias_.end(), tier.log_weight.begin(), tier.log_weight.end());
    }
    if (!any_weight) bias_.clear();
    return bias_;
  }

  /// Rows first.. of one head decoded to f32, k [n, dk], v [n, dv]; either may be null.
  void read(int layer, int h, Index first, Index n, float* k, float* v) const {
    head_at(layer, h).read(first, n, k, v);
  }

  /// Called with every plan after it was carried out, where set: for reports.
  std::function<void(const Plan&)> on_plan;

 private:
  struct Layer {
    std::vector<HeadCache<S>> heads;
    std::vector<AnyHead> views;
    Pos next = 0;  ///< one after the newest that was appended here
    std::size_t bytes = 0;
    bool bytes_stale = true;
  };

  Cache(const Shape& shape, P policy, auto state, const RopeTable* rope)
      : shape_(shape), policy_(std::move(policy)), state_(std::move(state)), rope_(rope) {}

  const HeadCache<S>& head_at(int layer, int h) const {
    return layers_[std::size_t(layer)].heads[std::size_t(h)];
  }

  auto clone_state() const {
    if constexpr (requires { state_.clone(); }) return state_.clone();
    else return state_;
  }

  Status check_sinks(const LayerAttention& how) const {
    if (how.sinks.empty() || how.sinks.size() == std::size_t(shape_.q_heads)) return Done{};
    return Error{Errc::bad_shape, "sinks are one logit for each query head", shape_.q_heads,
                 (long long)how.sinks.size()};
  }
  static void add_sinks(const AttnState& state, const LayerAttention& how, int h) {
    if (how.sinks.empty()) return;
    for (int g = 0; g < state.group; ++g) add_sink(state, g, how.sinks[std::size_t(h * state.group + g)]);
  }

  void gather(const float* all, Index n, int h, int d, std::vector<float>& one) const {
    one.resize(std::size_t(n) * std::size_t(d));
    for (Index i = 0; i < n; ++i)
      std::copy_n(all + (std::ptrdiff_t(i) * shape_.kv_heads + h) * d, d, one.data() + std::ptrdiff_t(i) * d);
  }

  /// Tells stores that share across layers of each other.
  bool couple() {
    for (std::size_t l = 1; l < layers_.size(); ++l)
      for (std::size_t h = 0; h < layers_[l].heads.size(); ++h)
        if (!layers_[l].heads[h].couple(layers_[l - 1].heads[h])) return false;
    for (const Layer& l : layers_)
      for (const auto& h : l.heads)
        if (!h.coupled()) return false;
    return true;
  }

  void buffers() {
    if (!states_.empty()) return;
    for (int h = 0; h < shape_.kv_heads; ++h) states_.emplace_back(shape_.group(), shape_.dim_v);
    if (compact())
      turned_.assign(std::size_t(shape_.kv_heads),
                     std::vector<float>(std::size_t(shape_.group() * shape_.dim_k) +
                                        std::size_t(turned_rows) * std::size_t(shape_.dim_k + shape_.dim_v)));
    last_q_.reserve(std::size_t(shape_.q_heads * shape_.dim_k));
    evidence_.reserve(std::size_t(shape_.kv_heads));
    for (Layer& l : layers_) l.views.reserve(std::size_t(shape_.kv_heads));
  }

  void note_peak() {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      Layer& l = layers_[i];
      // What a layer does may free memory of the one below, where they share.
      if (l.bytes_stale || (i + 1 < layers_.size() && layers_[i + 1].bytes_stale)) {
        l.bytes = 0;
        for (const auto& h : l.heads) l.bytes += h.bytes();
      }
      sum += l.bytes;
    }
    for (Layer& l : layers_) l.bytes_stale = false;
    peak_ = std::max(peak_, sum);
  }

  /// cos and sin of every (slot, pair), made once for each slot.
  void renumber_table(Index slots) {
    const Index pairs = Index(rope_->frequency.size());
    for (Index s = Index(turn_.size()) / std::max<Index>(1, 2 * pairs); s < slots; ++s)
      for (Index f = 0; f < pairs; ++f) {
        const double angle = double(s) * rope_->frequency[std::size_t(f)];
        turn_.push_back(rope_->scale * float(std::cos(angle)));
        turn_.push_back(rope_->scale * float(std::sin(angle)));
      }
  }
  void turn(float* x, Index slot) const {
    const Index pairs = Index(rope_->frequency.size());
    const float* t = turn_.data() + std::ptrdiff_t(slot) * 2 * pairs;
    for (int f = 0; f < int(pairs); ++f) {
      const auto [i, j] = rope_->channels(f);
      const float a = x[i], b = x[j];
      x[i] = a * t[2 * f] - b * t[2 * f + 1];
      x[j] = a * t[2 * f + 1] + b * t[2 * f];
    }
  }
  /// Attention over raw keys, row i rotated as position i, the query as that of the newest row: a tile at a time, so
  /// that no rotated copy of the cache is kept.
  void attend_renumbered(const HeadCache<S>& head, AttendArgs args, Pos window, const AttnState& state, int h) {
    const Index n = head.size();
    if (n == 0) return;
    float* const q = turned_[std::size_t(h)].data();
    float* const k = q + std::ptrdiff_t(args.group) * shape_.dim_k;
    float* const v = k + std::ptrdiff_t(turned_rows) * shape_.dim_k;
    std::copy_n(args.q, std::ptrdiff_t(args.group) * shape_.dim_k, q);
    for (int g = 0; g < args.group; ++g) turn(q + std::ptrdiff_t(g) * shape_.dim_k, n - 1);
    args.q = q;
    const Index hidden = window > 0 ? std::max<Index>(0, n - window) : 0;
    Index row = 0;
    for (int t = 0; t < head.tiers(); ++t) {
      const auto& tier = head.tier(t);
      for (Index i = 0; i < tier.store.size(); i += turned_rows) {
        const Index count = std::min(turned_rows, tier.store.size() - i);
        tier.store.read(i, count, k, v);
        for (Index j = 0; j < count; ++j) turn(k + std::ptrdiff_t(j) * shape_.dim_k, row + j);
        args.bias = tier.log_weight.empty() ? nullptr : tier.log_weight.data() + i;
        args.first = std::clamp<Index>(hidden - row, 0, count);
        kvist::attend(rows(k, count, shape_.dim_k), rows(v, count, shape_.dim_v), args, state);
        if (args.logits) args.logits += count;
        row += count;
      }
    }
  }

  static constexpr Index turned_rows = 64;  // of a tile that is rotated on the way

  Shape shape_;
  P policy_;
  typename P::State state_;
  const RopeTable* rope_;
  std::vector<Layer> layers_;
  Pos next_ = 0;
  std::size_t peak_ = 0;
  std::vector<Plan> plans_;
  std::vector<float> one_k_, one_v_, last_q_, tap_, turn_;
  Index tap_row_ = 0;
  struct Attended {
    int layer = -1;
    Pos next = 0;  ///< of that layer, then
  } attended_;     ///< what the last attend() was of, until a step has used it
  std::vector<AttnBuffer> states_;
  std::vector<std::vector<float>> turned_;  // [kv_heads]: rotated queries, a tile of keys and one of values
  std::vector<Evidence> evidence_;
  mutable std::vector<float> bias_;
};

}  // namespace kvist::inline KVIST_ABI
