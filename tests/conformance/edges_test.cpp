// SPDX-License-Identifier: Apache-2.0
// Laws of little: no entry, one entry, fewer than the guards; a budget that the guards do not fit in; a budget that
// everything fits in, through a cache of the library's own; and that what is given up is gone.
#include <kvist/cache/cache.hpp>
#include <kvist/reference/attention.hpp>
#include <kvist/storage/any_store.hpp>
#include <kvist/storage/store/dense.hpp>

#include <map>
#include <set>

#include "conformance/laws.hpp"
#include "conformance/wrong_policies.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

Result<Drive> begin(const Subject& s, const Setup& setup, Index budget) {
  auto d = Drive::start(s.policy, setup);
  if (d) d->budget = budget;
  return d;
}

/// Empty heads, one token, a prompt shorter than any guard: nothing goes wrong and nothing is given up.
Verdict bears_little(const Subject& s, const Setup& setup) {
  for (const Index n : {0, 1, 3, 6}) {
    auto d = begin(s, setup, 48);
    if (!d) return error("start", d.error());
    const std::string at = "a prompt of " + std::to_string(n);
    if (Status went = d->prompt(n); !went) return error(at.c_str(), went.error());
    if (Status went = n > 0 ? Status(Done{}) : d->prompt(0); !went)
      return error("an empty second turn", went.error());
    if (Status went = d->steps(3); !went) return error("steps", went.error());
    if (!d->fault.empty()) return Verdict::no(at + ": " + d->fault);
    if (d->evictions > 0) return Verdict::no(at + ": something was given up though the budget holds all");
  }
  return {};
}

/// Guards that do not fit in the budget: an Error, nothing planned, and the sequence goes on as if never asked.
Verdict refuses_small_budgets(const Subject& s, const Setup& setup) {
  Subject guarded = s;
  guarded.policy = s.guarded;
  auto plain = begin(guarded, setup, 48), asked = begin(guarded, setup, 48);
  if (!plain || !asked) return Verdict::no("start");
  for (Drive* d : {&*plain, &*asked})
    if (Status went = d->prompt(60, false, false); !went) return error("first chunk", went.error());
  for (const Index budget : {-1, 0, 1, 2}) {
    std::vector<Plan> plans;
    const Status went = asked->ask_again(budget, plans);
    if (went) return Verdict::no("a budget of " + std::to_string(budget) + " goes well");
    if (went.error().code != Errc::bad_budget) return error("another Error than bad_budget", went.error());
    if (!plans.empty()) return Verdict::no("an Error, and a plan");
  }
  for (Drive* d : {&*plain, &*asked}) {
    if (Status went = d->prompt(40); !went) return error("second chunk", went.error());
    if (Status went = d->steps(10); !went) return error("steps", went.error());
  }
  if (plain->trace != asked->trace) return Verdict::no("a refused budget changed what is kept later");
  return {};
}

/// A cache of the library's own that a policy runs on, and what should be in it.
struct Owned {
  Setup setup;
  Engine all;  ///< everything that was ever appended
  Cache<AnyPolicy, AnyStore> cache;
  Index budget;
  Index step = 0;
  std::vector<std::set<Pos>> gone;  ///< [layers * kv_heads] positions that a plan dropped
  Serial serial;

  /// `at` is where this object lies from now on.
  static Result<std::unique_ptr<Owned>> make(const Subject& s, const Setup& setup, Index budget,
                                             const RopeTable* rope) {
    auto cache = Cache<AnyPolicy, AnyStore>::make(
        setup.shape, s.policy,
        [&](int, int) {
          std::vector<AnyStore> tiers;
          for (int t = 0; t < 2; ++t) {
            if (setup.paged) tiers.emplace_back(DenseStore<bf16>(setup.shape.dim_k, setup.shape.dim_v));
            else tiers.emplace_back(DenseStore<float>(setup.shape.dim_k, setup.shape.dim_v));
          }
          return tiers;
        },
        rope);
    if (!cache) return cache.error();
    std::unique_ptr<Owned> o(
        new Owned{setup, Engine(setup, Data::random), std::move(*cache), budget, 0, {}, {}});
    o->gone.resize(std::size_t(setup.shape.layers * setup.shape.kv_heads));
    return o;
  }

  Status call(std::span<const Id> t, Phase phase) {
    const Shape& shape = setup.shape;
    const Pos first = cache.next_position();
    step = phase == Phase::prefill ? 0 : step + 1;
    for (int l = 0; l < shape.layers; ++l) {
      std::vector<float> k, v, q, out(std::size_t(shape.q_heads * shape.dim_v));
      for (const Id id : t)
        for (int h = 0; h < shape.kv_heads; ++h) {
          for (int c = 0; c < shape.dim_k; ++c) k.push_back(all.key(l, h, id, c));
          for (int c = 0; c < shape.dim_v; ++c) v.push_back(all.value(l, h, id, c));
        }
      if (Status s = cache.append(l, Index(t.size()), k.data(), v.data(), first); !s) return s;
      all.append(l, t, first, false);
      Engine now(setup, Data::random);  // what the cache holds, for evidence
      for (int h = 0; h < shape.kv_heads; ++h) copy(l, h, now.head(l, h));
      const Wants wants = cache.wants();
      if (phase == Phase::prefill) {
        const SeenMemory seen = evidence(now, l, t, first, wants.prefill, wants.last_queries);
        if (Status s = watch(l, [&] { return cache.observe(l, seen.seen, {phase, 0, 0, budget, true}); }); !s)
          return s;
        continue;
      }
      for (int h = 0; h < shape.q_heads; ++h)
        for (int c = 0; c < shape.dim_k; ++c) q.push_back(all.query(l, h, t[0], c));
      if (Status s = cache.attend(l, q.data(), 0.25f, out.data(), serial); !s) return s;
      if (last_out.size() < std::size_t(shape.layers))
        last_out.resize(std::size_t(shape.layers)), last_q = last_out;
      last_out[std::size_t(l)] = out;
      last_q[std::size_t(l)] = q;
      if (Status s = watch(l, [&] { return cache.step(l, {phase, step, 0, budget, true}); }); !s) return s;
    }
    return Done{};
  }

  std::vector<std::vector<float>> last_out = {}, last_q = {};  ///< [layers] of the last step

  /// Positions of all tiers of a head.
  std::set<Pos> held(int l, int h) const {
    std::set<Pos> out;
    for (int t = 0; t < cache.head(l, h).tiers(); ++t)
      for (const Pos p : cache.head(l, h).tier(t).pos) out.insert(p);
    return out;
  }

 private:
  void copy(int l, int h, EngineHead& to) const {
    const EngineHead& from = all.head(l, h);
    for (const Pos p : cache.head(l, h).tier(0).pos) {
      const auto i = std::size_t(std::lower_bound(from.pos.begin(), from.pos.end(), p) - from.pos.begin());
      to.id.push_back(from.id[i]);
      to.pos.push_back(p);
      for (int c = 0; c < setup.shape.dim_k; ++c)
        to.k.push_back(from.k[i * std::size_t(setup.shape.dim_k) + std::size_t(c)]);
      for (int c = 0; c < setup.shape.dim_v; ++c)
        to.v.push_back(from.v[i * std::size_t(setup.shape.dim_v) + std::size_t(c)]);
    }
  }
  /// Runs a call that may plan and notes what each plan drops, by position.
  template <class F>
  Status watch(int, F&& f) {
    std::map<int, std::vector<std::vector<Pos>>> before;
    for (int l = 0; l < setup.shape.layers; ++l)
      for (int h = 0; h < setup.shape.kv_heads; ++h) before[l].push_back(cache.head(l, h).tier(0).pos);
    cache.on_plan = [&](const Plan& p) {
      for (std::size_t h = 0; h < p.heads.size(); ++h)
        for (const Index i : p.heads[h].drop)
          gone[std::size_t(p.layer) * p.heads.size() + h].insert(before[p.layer][h][std::size_t(i)]);
    };
    const Status s = f();
    cache.on_plan = nullptr;
    return s;
  }
};

/// A budget that holds everything: nothing goes, and attention is that over all entries.
Verdict is_full_attention_without_compression(const Subject& s, const Setup& setup) {
  if (setup.ragged || s.policy.compact() || exempt(s.name, "full")) return {};
  const RopeTable rope = RopeTable::standard(setup.shape.dim_k, 10000, RopePairs::half_split);
  auto made = Owned::make(s, setup, 96, &rope);
  if (!made) return error("make", made.error());
  Owned& o = **made;
  if (Status went = o.call(ids(0, 80), Phase::prefill); !went) return error("the prompt", went.error());
  for (int i = 0; i < 16; ++i)
    if (Status went = o.call(ids(80 + i, 1), Phase::decode); !went) return error("a step", went.error());
  const Shape& shape = setup.shape;
  for (int l = 0; l < shape.layers; ++l)
    for (int h = 0; h < shape.kv_heads; ++h) {
      const EngineHead& want = o.all.head(l, h);
      if (o.held(l, h).size() != want.pos.size())
        return Verdict::no("entries are missing though the budget holds all");
      AttendArgs args;
      args.q = o.last_q[std::size_t(l)].data() + std::ptrdiff_t(h) * shape.group() * shape.dim_k;
      args.group = shape.group();
      args.scale = 0.25f;
      const auto right = reference::attention(rows(want.k.data(), Index(want.pos.size()), shape.dim_k),
                                              rows(want.v.data(), Index(want.pos.size()), shape.dim_v), args);
      for (std::size_t i = 0; i < right.out.size(); ++i) {
        const double got = double(o.last_out[std::size_t(l)][std::size_t(h) * right.out.size() + i]);
        if (!(std::abs(got - right.out[i]) <= (setup.paged ? 0.06 : 1e-4)))
          return Verdict::no("attention differs from that over all entries by " +
                             std::to_string(std::abs(got - right.out[i])));
      }
    }
  return {};
}

/// What a plan dropped is in no tier of the cache, then or ever after.
Verdict given_up_is_gone(const Subject& s, const Setup& setup) {
  if (setup.ragged) return {};
  const RopeTable rope = RopeTable::standard(setup.shape.dim_k, 10000, RopePairs::half_split);
  auto made = Owned::make(s, setup, 48, &rope);
  if (!made) return error("make", made.error());
  Owned& o = **made;
  const auto look = [&]() -> Verdict {
    for (int l = 0; l < setup.shape.layers; ++l)
      for (int h = 0; h < setup.shape.kv_heads; ++h)
        for (const Pos p : o.held(l, h))
          if (o.gone[std::size_t(l * setup.shape.kv_heads + h)].count(p))
            return Verdict::no("the entry at position " + std::to_string(p) + " was dropped and is held");
    return {};
  };
  if (Status went = o.call(ids(0, 80), Phase::prefill); !went) return error("the prompt", went.error());
  for (int i = 0; i < 16; ++i) {
    if (Status went = o.call(ids(80 + i, 1), Phase::decode); !went) return error("a step", went.error());
    if (Verdict v = look(); !v.ok) return v;
  }
  if (Status went = o.call(ids(200, 30), Phase::prefill); !went) return error("a second turn", went.error());
  return look();
}

}  // namespace

TEST_CASE("Nothing and little are borne", "[conformance][edges]") { hold(bears_little); }
TEST_CASE("A policy that drops where all fits is caught", "[conformance][edges][wrong]") {
  bites(bears_little, wrong::DropsFirst{}, wrong::right_recency());
}

TEST_CASE("Budgets below the guards are refused, and nothing has changed", "[conformance][budget][edges]") {
  hold(refuses_small_budgets);
}
TEST_CASE("Guards that are forgotten in silence are caught", "[conformance][budget][wrong]") {
  bites(refuses_small_budgets, wrong::Squeezes{}, wrong::right_recency());
}

TEST_CASE("Without compression attention is full attention", "[conformance][cache]") {
  hold(is_full_attention_without_compression);
}
TEST_CASE("An entry dropped without need is caught", "[conformance][cache][wrong]") {
  bites(is_full_attention_without_compression, wrong::Greedy{}, wrong::right_recency());
}

TEST_CASE("What was given up never returns", "[conformance][cache]") { hold(given_up_is_gone); }
TEST_CASE("An entry that is dropped and moved is caught", "[conformance][cache][wrong]") {
  bites(given_up_is_gone, wrong::Resurrects{}, wrong::right_recency());
}
