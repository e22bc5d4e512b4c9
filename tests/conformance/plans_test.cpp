// SPDX-License-Identifier: Apache-2.0
// Laws of single plans: guards, budgets, positions, and who may see what.
#include "conformance/laws.hpp"
#include "conformance/wrong_policies.hpp"

#include <cstdlib>

using namespace kvist;
using namespace kvist::test;

namespace {

/// A prompt, steps, a second turn of the prompt, steps; `between` runs after every call.
template <class F>
Verdict converse(Drive& d, F&& between) {
  const auto told = [&](const char* when, const Status& s) -> Verdict {
    if (!s) return error(when, s.error());
    if (!d.fault.empty()) return Verdict::no(std::string(when) + ": " + d.fault);
    return between(when);
  };
  if (Verdict v = told("the prompt", d.prompt(96)); !v.ok) return v;
  for (int i = 0; i < 30; ++i)
    if (Verdict v = told("a step", d.step()); !v.ok) return v;
  if (Verdict v = told("the second turn", d.prompt(40)); !v.ok) return v;
  for (int i = 0; i < 9; ++i)
    if (Verdict v = told("a step of the second turn", d.step()); !v.ok) return v;
  return {};
}

/// Entries that the subject's guarded form promises: by its SPEC's own counts, else those on trial.
Guards promised(const Subject& s) {
  const auto count = [&](const std::string& option) {
    const std::size_t at = s.name.find(option + "=");
    return at == s.name.npos ? -1 : Index(std::atoi(s.name.c_str() + at + option.size() + 1));
  };
  const Index sinks = count("sinks"), recent = exempt(s.name, "counts") ? 0 : count("recent");
  if (sinks < 0 && recent < 0) return trial_guards;
  return {std::max<Index>(sinks, 0), std::max<Index>(recent, 0)};
}

Verdict guarded_with(const Subject& s, const Setup& setup, Data data) {
  auto d = Drive::start(s.guarded, setup, data);
  if (!d) return error("start", d.error());
  d->budget = 48;
  d->guards = promised(s);
  if (Verdict v = converse(*d, [](const char*) { return Verdict{}; }); !v.ok) return v;
  if (d->evictions == 0) return Verdict::no("nothing was ever given up");
  return {};
}

/// Plans are well formed and keep the guarded entries.
Verdict keeps_guards(const Subject& s, const Setup& setup) { return guarded_with(s, setup, Data::random); }
/// They do so when all entries rank alike, and when scores are NaN or infinite.
Verdict keeps_guards_in_ties(const Subject& s, const Setup& setup) {
  return guarded_with(s, setup, Data::ties);
}
Verdict keeps_guards_with_nan(const Subject& s, const Setup& setup) {
  return guarded_with(s, setup, Data::nan);
}
Verdict keeps_guards_with_infinities(const Subject& s, const Setup& setup) {
  return guarded_with(s, setup, Data::infinite);
}

/// After each call that planned, at most the budget stays over all layers and heads; of full heads, exactly the budget.
Verdict keeps_to_the_budget(const Subject& s, const Setup& setup) {
  if (exempt(s.name, "budget")) return {};
  auto d = Drive::start(s.policy, setup);
  if (!d) return error("start", d.error());
  d->budget = 48;
  const bool exact = exempt(s.name, "exact") == nullptr;
  const Shape& shape = setup.shape;
  const long long most = (long long)d->budget * shape.layers * shape.kv_heads;
  Verdict v = converse(*d, [&](const char* when) -> Verdict {
    if (!d->due) return {};
    long long kept = 0;
    for (const auto& head : d->kept()) kept += (long long)head.size();
    if (kept > most)
      return Verdict::no(std::string(when) + ": " + std::to_string(kept) + " entries stay where " +
                         std::to_string(most) + " may");
    bool all_cut = d->plans.size() == std::size_t(shape.layers);  // then no head was too short for its share
    for (const Plan& p : d->plans)
      for (const HeadCost& c : p.cost) all_cut = all_cut && c.after < c.before;
    if (exact && all_cut && kept < most)
      return Verdict::no(std::string(when) + ": " + std::to_string(kept) + " entries stay of " +
                         std::to_string(most) + " that were asked for");
    return {};
  });
  if (v.ok && d->evictions == 0) return Verdict::no("nothing was ever given up");
  return v;
}

/// The same tokens at other positions, with gaps between calls: the same entries stay.
Verdict tells_positions_from_rows(const Subject& s, const Setup& setup) {
  if (exempt(s.name, "shift")) return {};
  std::vector<Kept> traces[2];
  int at = 0;
  for (const Pos first : {0, 1000}) {
    auto d = Drive::start(s.policy, setup);
    if (!d) return error("start", d.error());
    d->budget = 48;
    d->next = first;
    if (Verdict v = converse(*d, [&](const char*) { return d->next += 3, Verdict{}; }); !v.ok) return v;
    traces[at++] = d->trace;
  }
  for (std::size_t call = 0; call < traces[0].size(); ++call)
    if (traces[0][call] != traces[1][call])
      return Verdict::no("call " + std::to_string(call) + " keeps other entries when positions start at 1000");
  return {};
}

/// An engine that gives less than wants() names gets an Error, and nothing is planned.
Verdict says_what_it_needs(const Subject& s, const Setup& setup) {
  const Wants w = s.policy.wants();
  if (!any(w.prefill)) return {};
  auto state = s.policy.start(setup.shape);
  if (!state) return error("start", state.error());
  Engine engine(setup, Data::random);
  const auto t = ids(0, 60);
  engine.append(0, t, 0, false);
  const auto heads = engine.view(0, KeyForm::rotated);
  const AnyLayer view{heads};
  std::vector<Evidence> nothing(std::size_t(setup.shape.kv_heads));
  const Clock now{Phase::prefill, 0, 60, 48, true};
  for (const std::span<const Evidence> seen : {std::span<const Evidence>(nothing), std::span<const Evidence>()}) {
    const LayerCall<AnyLayer> call{view, seen, now, 0};
    const Status went = s.policy.observe(call, *state);
    if (went) return Verdict::no("evidence is missing and observe goes well");
    if (went.error().code != Errc::missing_evidence)
      return error("another Error than missing_evidence", went.error());
    std::vector<Plan> plans;
    if (s.policy.plan(call, *state, plans) || !plans.empty())
      return Verdict::no("evidence is missing and it plans");
  }
  return {};
}

}  // namespace

TEST_CASE("Every policy keeps guarded entries", "[conformance][guards]") { hold(keeps_guards); }
TEST_CASE("Guards survive ties", "[conformance][guards]") { hold(keeps_guards_in_ties); }
TEST_CASE("Guards survive NaN scores", "[conformance][guards]") { hold(keeps_guards_with_nan); }
TEST_CASE("Guards survive infinite scores", "[conformance][guards]") { hold(keeps_guards_with_infinities); }
TEST_CASE("A guard made of a maximum score is caught", "[conformance][guards][wrong]") {
  bites(keeps_guards_in_ties, wrong::GuardsByScore{}, wrong::right_recency());
  bites(keeps_guards_with_nan, wrong::GuardsByScore{}, wrong::right_recency());
}

TEST_CASE("A guard made of a bonus on the score is caught", "[conformance][guards][wrong]") {
  bites(keeps_guards_with_infinities, wrong::GuardsByScore{true}, wrong::right_recency());
}
TEST_CASE("A guarded entry that leaves is caught", "[conformance][guards][wrong]") {
  bites(keeps_guards, wrong::DropsFirst{}, wrong::right_recency());
}
TEST_CASE("Fewer guarded entries than a SPEC counts are caught", "[conformance][guards][wrong]") {
  const AnyPolicy policy = wrong::right_recency();  // guards 3 and 5
  for (const Setup& setup : setups()) {
    CHECK(keeps_guards({"newest:sinks=3,recent=5", policy, policy, true}, setup).ok);
    CHECK_FALSE(keeps_guards({"newest:sinks=4", policy, policy, true}, setup).ok);
  }
}

TEST_CASE("No policy exceeds its budget, and those that can meet it exactly", "[conformance][budget]") {
  hold(keeps_to_the_budget);
}
TEST_CASE("One entry too many or too few is caught", "[conformance][budget][wrong]") {
  bites(keeps_to_the_budget, wrong::OffByOne{+1}, wrong::right_recency());
  bites(keeps_to_the_budget, wrong::OffByOne{-1}, wrong::right_recency());
}

TEST_CASE("Positions and rows stay apart across evictions", "[conformance][positions]") {
  hold(tells_positions_from_rows);
}
TEST_CASE("Positions taken for rows are caught", "[conformance][positions][wrong]") {
  bites(tells_positions_from_rows, wrong::DropsPositions{}, wrong::right_recency());
  bites(tells_positions_from_rows, wrong::records_by_position(), wrong::right_records());
}

TEST_CASE("Missing evidence is an Error", "[conformance][evidence]") { hold(says_what_it_needs); }
TEST_CASE("A policy that does not look whether evidence came is caught", "[conformance][evidence][wrong]") {
  bites(says_what_it_needs, wrong::Trusting{}, wrong::right_records());
}
