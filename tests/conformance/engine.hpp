#pragma once
// SPDX-License-Identifier: Apache-2.0
// An engine in miniature that drives any policy by its public calls: several layers of heads in its own memory, evidence
// by the formulas in f64, plans carried out. What the laws of this folder are stated over.
#include <kvist/core/half.hpp>
#include <kvist/core/random.hpp>
#include <kvist/policy/any_policy.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace kvist::test {

/// The memory and the heads that a law is tried on.
struct Setup {
  std::string name;
  Shape shape;
  bool ragged = false;  ///< odd heads lack every third token of the first prompt call
  bool paged =
      false;  ///< bf16 in scattered pages, and queries for evidence; else f32 in one piece, and probabilities
};

inline std::vector<Setup> setups() {
  std::vector<Setup> out;
  for (const bool paged : {false, true}) {
    const std::string memory = paged ? "bf16 pages, " : "f32, ";
    out.push_back({memory + "one query head per KV head", {3, 2, 2, 8, 6}, false, paged});
    out.push_back({memory + "groups of 3", {3, 6, 2, 8, 6}, false, paged});
    out.push_back({memory + "groups of 4", {3, 8, 2, 8, 6}, false, paged});
    out.push_back({memory + "heads of different lengths", {3, 6, 3, 8, 6}, true, paged});
  }
  return out;
}

/// What keys, values and queries are made of.
enum class Data { random, ties, nan, infinite };

/// Tokens are known by a number: it decides their content, wherever they lie and whatever their position is.
using Id = int;
inline constexpr Id decoy =
    1'000'000;  ///< from here on: entries that no other token attends to; they ask nothing
inline constexpr Id loner =
    2'000'000;  ///< from here on: tokens that attend to themselves only, but for the first
inline constexpr Id follower = 2'500'000;  ///< from here on: tokens that attend to the first of them only

/// One head's entries, and the copy of them that a view shows.
struct EngineHead {
  std::vector<Id> id;
  std::vector<Pos> pos;
  std::vector<float> k, v, log_weight;
  std::vector<bf16> k_pages, v_pages;
  std::vector<std::int32_t> table;
};

class Engine {
 public:
  static constexpr Index page = 4;

  Engine(const Setup& setup, Data data) : setup_(setup), data_(data) {
    layers_.resize(std::size_t(setup.shape.layers));
    for (auto& l : layers_) l.resize(std::size_t(setup.shape.kv_heads));
  }

  const Setup& setup() const { return setup_; }
  EngineHead& head(int l, int h) { return layers_[std::size_t(l)][std::size_t(h)]; }
  const EngineHead& head(int l, int h) const { return layers_[std::size_t(l)][std::size_t(h)]; }
  Index size(int l, int h) const { return Index(head(l, h).id.size()); }

  /// Adds tokens at positions first, first + 1, ...; `ragged` leaves some out of odd heads.
  void append(int l, std::span<const Id> ids, Pos first, bool ragged) {
    for (int h = 0; h < setup_.shape.kv_heads; ++h) {
      EngineHead& to = head(l, h);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ragged && h % 2 == 1 && ids[i] < decoy && ids[i] % 3 == 2) continue;
        to.id.push_back(ids[i]);
        to.pos.push_back(first + Pos(i));
        if (!to.log_weight.empty()) to.log_weight.push_back(0);
        for (int c = 0; c < setup_.shape.dim_k; ++c) to.k.push_back(key(l, h, ids[i], c));
        for (int c = 0; c < setup_.shape.dim_v; ++c) to.v.push_back(value(l, h, ids[i], c));
      }
    }
  }

  /// Writes what a plan blends; its rows are still there.
  void blend(int l, int h, const HeadPlan& plan) {
    EngineHead& x = head(l, h);
    const std::size_t dk = std::size_t(setup_.shape.dim_k), dv = std::size_t(setup_.shape.dim_v);
    if (!plan.self.empty()) x.log_weight.resize(x.id.size(), 0.0f);
    for (const Self& s : plan.self) {
      for (std::size_t c = 0; c < dk; ++c) x.k[std::size_t(s.dst) * dk + c] *= s.wk;
      for (std::size_t c = 0; c < dv; ++c) x.v[std::size_t(s.dst) * dv + c] *= s.wv;
      x.log_weight[std::size_t(s.dst)] = s.log_weight;
    }
    for (const Blend& b : plan.blend) {
      for (std::size_t c = 0; c < dk; ++c)
        x.k[std::size_t(b.dst) * dk + c] += b.wk * x.k[std::size_t(b.src) * dk + c];
      for (std::size_t c = 0; c < dv; ++c)
        x.v[std::size_t(b.dst) * dv + c] += b.wv * x.v[std::size_t(b.src) * dv + c];
    }
  }

  /// Removes ascending rows of a head.
  void drop(int l, int h, const std::vector<Index>& rows) {
    EngineHead& x = head(l, h);
    for (std::size_t d = rows.size(); d-- > 0;) {
      const std::ptrdiff_t i = rows[d];
      x.id.erase(x.id.begin() + i);
      x.pos.erase(x.pos.begin() + i);
      if (!x.log_weight.empty()) x.log_weight.erase(x.log_weight.begin() + i);
      x.k.erase(x.k.begin() + i * setup_.shape.dim_k, x.k.begin() + (i + 1) * setup_.shape.dim_k);
      x.v.erase(x.v.begin() + i * setup_.shape.dim_v, x.v.begin() + (i + 1) * setup_.shape.dim_v);
    }
  }

  std::vector<AnyHead> view(int l, KeyForm form) {
    std::vector<AnyHead> out;
    for (int h = 0; h < setup_.shape.kv_heads; ++h) {
      EngineHead& x = head(l, h);
      const Index n = Index(x.id.size());
      const int dk = setup_.shape.dim_k, dv = setup_.shape.dim_v;
      if (!setup_.paged) {
        out.push_back({rows(x.k.data(), n, dk), rows(x.v.data(), n, dv), x.pos, form, x.log_weight});
        continue;
      }
      const Index pages = (n + page - 1) / page;
      x.table.clear();
      for (Index p = 0; p < pages; ++p) x.table.push_back(pages - 1 - p);
      copy(x.k, dk, x.table, x.k_pages);
      copy(x.v, dv, x.table, x.v_pages);
      out.push_back(
          {PagedRows<bf16>{x.k_pages.data(), x.table.data(), n, dk, page, std::ptrdiff_t(page) * dk, dk, 1},
           PagedRows<bf16>{x.v_pages.data(), x.table.data(), n, dv, page, std::ptrdiff_t(page) * dv, dv, 1},
           x.pos, form, x.log_weight});
    }
    return out;
  }

  float key(int l, int h, Id id, int c) const {
    if (id >= follower) return c == 0 && id == follower ? 40.0f : c == 1 ? -1000.0f : 0.0f;
    if (id >= loner) return c == 0 ? 40.0f + 10.0f * float(id - loner) : c == 1 ? -1000.0f : 0.0f;
    if (id >= decoy) return c == 1 ? -1000.0f : 0.0f;
    if (const float x = broken(id); x != 0) return x;
    return c == 0 ? 0.0f : c == 1 ? 0.25f : content(1, l, h, id, c);
  }
  float value(int l, int h, Id id, int c) const {
    if (const float x = broken(id); x != 0) return x;
    return content(2, l, h, id, c);
  }
  float query(int l, int q_head, Id id, int c) const {
    if (id == loner || id == follower) return 0.0f;  // all alike
    if (id >= loner) return c == 0 ? 40.0f : 0.0f;
    return c == 0 ? 0.0f : c == 1 ? 4.0f : 10 * content(3, l, q_head, id, c);
  }
  /// Is the entry's content no number?
  float broken(Id id) const {
    if (id >= decoy || (id % 5 != 0 && id % 7 != 1)) return 0;
    return data_ == Data::nan        ? std::numeric_limits<float>::quiet_NaN()
           : data_ == Data::infinite ? std::numeric_limits<float>::infinity() * (id % 2 ? 1.0f : -1.0f)
                                     : 0.0f;
  }

 private:
  float content(int what, int l, int h, Id id, int c) const {
    if (data_ == Data::ties) return 0.5f;
    Random r(mix_seed(mix_seed(std::uint64_t(what * 1000 + l), std::uint64_t(h * 64 + c)), std::uint64_t(id)));
    return float(2 * r.uniform() - 1);
  }
  static void copy(const std::vector<float>& from, int d, const std::vector<std::int32_t>& table,
                   std::vector<bf16>& to) {
    to.assign(table.size() * std::size_t(page * d), bf16{});
    for (std::size_t i = 0; i < from.size(); ++i) {
      const std::size_t row = i / std::size_t(d), p = row / page;
      to[(std::size_t(table[p]) * page + row % page) * std::size_t(d) + i % std::size_t(d)] =
          from_f32<bf16>(from[i]);
    }
  }

  Setup setup_;
  Data data_;
  std::vector<std::vector<EngineHead>> layers_;
};

/// Evidence of one layer and call, with the memory that it points to.
struct SeenMemory {
  std::vector<std::vector<float>> probs, queries, sums, seen_by, largest;
  std::vector<Evidence> seen;
};

/// What `want` names, and no more, of the queries of tokens `ids`, the newest of the layer.
inline SeenMemory evidence(const Engine& engine, int l, std::span<const Id> ids, Pos first, Needs want,
                           Index last) {
  const Shape& s = engine.setup().shape;
  SeenMemory m;
  m.seen.resize(std::size_t(s.kv_heads));
  for (auto* v : {&m.probs, &m.queries, &m.sums, &m.seen_by, &m.largest}) v->resize(std::size_t(s.kv_heads));
  std::size_t silent = 0;
  while (silent < ids.size() && ids[silent] >= decoy && ids[silent] < loner) ++silent;
  const std::size_t asking = ids.size() - silent;
  const std::size_t w = last == all_queries ? asking : std::min(asking, std::size_t(last));
  const bool one_of = any(want & Needs::rows) && !any(want & (Needs::probs | Needs::queries));
  const bool give_probs = any(want & Needs::probs) || (one_of && !engine.setup().paged);
  const bool give_queries = any(want & Needs::queries) || (one_of && engine.setup().paged);
  const int group = s.group(), d = s.dim_k;
  for (int h = 0; h < s.kv_heads && asking > 0; ++h) {
    const EngineHead& head = engine.head(l, h);
    const std::size_t n = head.id.size(), i = std::size_t(h);
    m.probs[i].assign(std::size_t(group) * w * n, 0.0f);
    m.sums[i].assign(std::size_t(group) * n, 0.0f);
    m.seen_by[i].assign(n, 0.0f);
    m.largest[i].assign(std::size_t(group * d), 0.0f);
    std::vector<double> p(n);
    for (int g = 0; g < group; ++g)
      for (std::size_t t = 0; t < asking; ++t) {
        float q[64];
        for (int c = 0; c < d; ++c) {
          q[c] = engine.query(l, h * group + g, ids[silent + t], c);
          float& most = m.largest[i][std::size_t(g * d + c)];
          most = std::max(most, std::abs(q[c]));
          if (t + w >= asking) m.queries[i].push_back(q[c]);
        }
        const bool in_rows = give_probs && t + w >= asking;
        if (!in_rows && !any(want & Needs::column_sums)) continue;
        const Pos mine = first + Pos(silent + t);
        double top = -1e300, sum = 0;
        std::size_t visible = 0;
        for (; visible < n && head.pos[visible] <= mine; ++visible) {
          double dot = 0;
          for (int c = 0; c < d; ++c)
            dot += double(q[c]) * double(head.k[visible * std::size_t(d) + std::size_t(c)]);
          p[visible] =
              dot / std::sqrt(double(d)) + (head.log_weight.empty() ? 0.0 : double(head.log_weight[visible]));
          if (engine.broken(head.id[visible]) == 0) top = std::max(top, p[visible]);
        }
        for (std::size_t j = 0; j < visible; ++j) {
          const float broken = engine.broken(head.id[j]);
          p[j] = broken == 0 ? std::exp(p[j] - top) : double(std::numeric_limits<float>::quiet_NaN());
          if (broken == 0) sum += p[j];
        }
        for (std::size_t j = 0; j < visible; ++j) {
          const float x = float(p[j] / sum);
          if (in_rows) m.probs[i][(std::size_t(g) * w + t + w - asking) * n + j] = x;
          m.sums[i][std::size_t(g) * n + j] += x;
          if (g == 0) m.seen_by[i][j] += 1;
        }
      }
    Evidence& e = m.seen[i];
    if (give_probs) e.probs = cube(m.probs[i].data(), group, Index(w), Index(n));
    if (give_queries) e.queries = cube(m.queries[i].data(), group, Index(w), d);
    if (any(want & Needs::column_sums)) {
      e.column_sums = cube(m.sums[i].data(), group, 1, Index(n));
      e.seen_by = m.seen_by[i];
    }
    if (any(want & Needs::max_query)) e.max_query = cube(m.largest[i].data(), group, 1, d);
    e.first_query = first + Pos(ids.size() - w);
  }
  return m;
}

/// One after another from `first`.
inline std::vector<Id> ids(Id first, Index count) {
  std::vector<Id> out;
  for (Index i = 0; i < count; ++i) out.push_back(first + i);
  return out;
}

/// Which tokens every head holds: [layers * kv_heads].
using Kept = std::vector<std::vector<Id>>;

/// An engine, a policy and one sequence of calls.
class Drive {
 public:
  Engine engine;
  AnyPolicy policy;
  Index budget = 40;
  Pos next = 0;   ///< position of the next token
  Id fresh = 0;   ///< number of the next token
  Guards guards;  ///< that every plan must keep
  Abilities can;
  std::vector<Kept> trace;  ///< after each call
  std::vector<Plan> plans;  ///< of the last call
  std::string fault;        ///< the first broken promise of a plan; empty: none
  int evictions = 0;        ///< calls that dropped something
  bool due = false;         ///< was a plan made in the last call?

  static Result<Drive> start(AnyPolicy policy, const Setup& setup, Data data = Data::random) {
    auto state = policy.start(setup.shape);
    if (!state) return state.error();
    return Drive(std::move(policy), std::move(*state), setup, data);
  }
  Drive clone() const {
    Drive copy(policy, state_.clone(), engine.setup(), Data::random);
    copy.engine = engine;
    copy.budget = budget;
    copy.next = next;
    copy.fresh = fresh;
    copy.guards = guards;
    copy.can = can;
    copy.trace = trace;
    copy.rope_ = rope_;
    copy.step_ = step_;
    copy.called_ = called_;
    return copy;
  }

  /// n further tokens of a prompt.
  Status prompt(Index n, bool last = true, bool plan = true) {
    const auto t = ids(fresh, n);
    fresh += n;
    step_ = 0;
    return call(t, Phase::prefill, last, plan);
  }
  Status step() {
    const auto t = ids(fresh++, 1);
    return tokens(t);
  }
  /// Decode steps with these tokens.
  Status tokens(std::span<const Id> t) {
    for (const Id id : t) {
      ++step_;
      if (Status s = call({&id, 1}, Phase::decode, true, true); !s) return s;
    }
    return Done{};
  }
  /// Decode steps that are observed and not planned for: a draft that the engine tells the policy of.
  Status speculate(std::span<const Id> t) {
    for (const Id id : t) {
      ++step_;
      if (Status s = call({&id, 1}, Phase::decode, true, false); !s) return s;
    }
    return Done{};
  }
  Status steps(Index n) {
    for (Index i = 0; i < n; ++i)
      if (Status s = step(); !s) return s;
    return Done{};
  }
  Status call(std::span<const Id> t, Phase phase, bool last, bool plan) {
    return call(t, phase, last, plan, serial_);
  }

  /// One call over all layers, through an executor where layers may be processed at once.
  template <Executor E>
  Status call(std::span<const Id> t, Phase phase, bool last, bool plan, E& executor) {
    const int layers = engine.setup().shape.layers;
    plans.clear();
    due = false;
    std::vector<Status> went(std::size_t(layers), Status(Done{}));
    std::vector<std::vector<Plan>> made(static_cast<std::size_t>(layers));
    const bool ragged = engine.setup().ragged && called_++ == 0;
    executor.for_each(layers, [&](Index l) {
      engine.append(int(l), t, next, ragged);
      went[std::size_t(l)] = layer(int(l), t, phase, last, plan, made[std::size_t(l)]);
    });
    next += Pos(t.size());
    for (int l = 0; l < layers; ++l) {
      if (!went[std::size_t(l)]) return went[std::size_t(l)];
      for (Plan& p : made[std::size_t(l)]) plans.push_back(std::move(p));
    }
    for (const Plan& p : plans) evictions += p.empty() ? 0 : 1;
    trace.push_back(kept());
    return Done{};
  }

  /// Asks for a plan of layer 0 with the entries and records as they are, at another budget; nothing is carried out.
  Status ask_again(Index other_budget, std::vector<Plan>& out) {
    const Wants wants = policy.wants();
    const auto t = engine.head(0, 0).id;
    const SeenMemory seen = evidence(engine, 0, t, engine.head(0, 0).pos[0], wants.prefill, wants.last_queries);
    const auto heads = engine.view(0, policy.compact() ? KeyForm::raw : KeyForm::rotated);
    const AnyLayer view{heads};
    const LayerCall<AnyLayer> ask{view, seen.seen, {Phase::prefill, 0, engine.size(0, 0), other_budget, true},
                                  0,    can,       &rope_};
    return policy.plan(ask, state_, out);
  }

  /// The engine removes rows on its own account.
  void foreign(const Plan& p) { apply(p); }
  /// Tokens at positions >= pos are taken back.
  void truncate(Pos pos, Index steps_back) {
    for (int l = 0; l < engine.setup().shape.layers; ++l)
      for (int h = 0; h < engine.setup().shape.kv_heads; ++h) {
        const EngineHead& x = engine.head(l, h);
        const auto n = Index(std::lower_bound(x.pos.begin(), x.pos.end(), pos) - x.pos.begin());
        std::vector<Index> gone;
        for (Index i = n; i < Index(x.pos.size()); ++i) gone.push_back(i);
        engine.drop(l, h, gone);
        policy.truncate(state_, l, h, n, pos);
      }
    next = std::min(next, pos);
    step_ -= steps_back;
  }
  /// Tokens that the policy is never told of.
  void draft(std::span<const Id> t) {
    for (int l = 0; l < engine.setup().shape.layers; ++l) engine.append(l, t, next, false);
    next += Pos(t.size());
  }

  Kept kept() const {
    Kept out;
    for (int l = 0; l < engine.setup().shape.layers; ++l)
      for (int h = 0; h < engine.setup().shape.kv_heads; ++h) out.push_back(engine.head(l, h).id);
    return out;
  }

 private:
  Drive(AnyPolicy p, AnyPolicy::State state, const Setup& setup, Data data)
      : engine(setup, data), policy(std::move(p)), state_(std::move(state)) {
    rope_ = RopeTable::standard(setup.shape.dim_k, 10000, RopePairs::half_split);
  }

  Status layer(int l, std::span<const Id> t, Phase phase, bool last, bool plan, std::vector<Plan>& made) {
    const Wants wants = policy.wants();
    const SeenMemory seen = evidence(engine, l, t, next, phase == Phase::prefill ? wants.prefill : wants.step,
                                     phase == Phase::prefill ? wants.last_queries : 1);
    const auto heads = engine.view(l, policy.compact() ? KeyForm::raw : KeyForm::rotated);
    Clock now{phase, phase == Phase::prefill ? 0 : step_, 0, budget, last};
    for (const AnyHead& h : heads) now.size = std::max(now.size, h.size());
    const AnyLayer view{heads};
    const LayerCall<AnyLayer> ask{view, seen.seen, now, l, can, &rope_};
    if (Status s = policy.observe(ask, state_); !s) return s;
    if (!plan || !policy.due(now)) return Done{};
    if (l == 0) due = true;
    if (Status s = policy.plan(ask, state_, made); !s) return s;
    for (const Plan& p : made) apply(p);
    return Done{};
  }

  void apply(const Plan& p) {
    for (std::size_t h = 0; h < p.heads.size(); ++h) {
      const Index n = engine.size(p.layer, int(h));
      if (const Status s = check(p.heads[h], n, guards); !s) {
        if (fault.empty())
          fault = std::string(s.error().what) + " (layer " + std::to_string(p.layer) + ", head " +
                  std::to_string(h) + ", want " + std::to_string(s.error().want) + ", got " +
                  std::to_string(s.error().got) + ")";
        return;
      }
    }
    for (std::size_t h = 0; h < p.heads.size(); ++h) {
      engine.blend(p.layer, int(h), p.heads[h]);
      std::vector<Index> gone = p.heads[h].drop;
      for (const Move& m : p.heads[h].move) gone.push_back(m.src);
      std::sort(gone.begin(), gone.end());
      engine.drop(p.layer, int(h), gone);
    }
    policy.applied(p, state_);
  }

  AnyPolicy::State state_;
  RopeTable rope_;
  Serial serial_;
  Index step_ = 0;
  int called_ = 0;
};

}  // namespace kvist::test
