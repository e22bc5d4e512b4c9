// SPDX-License-Identifier: Apache-2.0
// Laws of records: runs repeat, threads do not matter, branches and sequences are apart, what is taken back or removed
// by the engine leaves no trace.
#include <kvist/reference/thread_pool.hpp>

#include "conformance/laws.hpp"
#include "conformance/wrong_policies.hpp"
#include "support/driven_cache.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

Result<Drive> begin(const Subject& s, const Setup& setup) {
  auto d = Drive::start(s.policy, setup);
  if (d) d->budget = 48;
  return d;
}

/// Steps, a second turn (so that policies that plan after prompts do so once more), steps.
Status go_on(Drive& d) {
  if (Status s = d.steps(13); !s) return s;
  if (Status s = d.prompt(40); !s) return s;
  return d.steps(3);
}
Status whole(Drive& d) {
  if (Status s = d.prompt(96); !s) return s;
  return go_on(d);
}

/// The first call after which two runs hold different entries, counted from the last `n` of both.
Verdict same_end(const Drive& a, const Drive& b, std::size_t n, const char* what) {
  for (std::size_t i = 0; i < n; ++i)
    if (a.trace[a.trace.size() - n + i] != b.trace[b.trace.size() - n + i])
      return Verdict::no(std::string(what) + " (from call " + std::to_string(i) + " of " + std::to_string(n) +
                         ")");
  if (!a.fault.empty() || !b.fault.empty()) return Verdict::no(a.fault + b.fault);
  return {};
}
constexpr std::size_t end_calls = 13 + 1 + 3;

#define KVIST_STEP(when, status) \
  if (const Status went_ = (status); !went_) return error(when, went_.error())

/// The same calls give the same plans, on any number of threads where layers may run at once.
Verdict repeats(const Subject& s, const Setup& setup) {
  auto first = begin(s, setup);
  if (!first) return error("start", first.error());
  KVIST_STEP("first run", whole(*first));
  for (int threads = 1; threads <= (s.policy.in_order() ? 1 : 4); ++threads) {
    auto again = begin(s, setup);
    if (!again) return error("start", again.error());
    ThreadPool pool(threads);
    KVIST_STEP("prompt", again->call(ids(0, 96), Phase::prefill, true, true, pool));
    again->fresh = 96;
    KVIST_STEP("going on", go_on(*again));
    if (Verdict v = same_end(*first, *again, end_calls + 1, "another run keeps other entries"); !v.ok)
      return v;
  }
  return {};
}

/// A cache gives the same outputs and holds the same entries on any number of threads: its heads run at once, also where
/// layers wait for each other.
Verdict repeats_in_a_cache(const Subject& s, const Setup& setup) {
  if (setup.paged || setup.ragged) return {};  // the cache's memory is its own
  const Shape& shape = setup.shape;
  const RopeTable rope = RopeTable::standard(shape.dim_k, 10000, RopePairs::half_split);
  const methods::StoreFactory stores = methods::ExactF32::make({}).value();
  std::vector<float> out;
  std::vector<std::vector<Pos>> held;
  for (const int threads : {1, 1, 4}) {
    auto made = AnyCache::make(
        shape, s.policy, [&](int l, int h) { return stores(shape, l, h); }, &rope);
    if (!made) return error("the cache", made.error());
    DrivenCache run(std::move(*made), 48, 11);
    ThreadPool pool(threads);
    KVIST_STEP("prompt", run.prompt(96));
    KVIST_STEP("steps", run.steps(13, pool));
    KVIST_STEP("second turn", run.prompt(40));
    KVIST_STEP("steps", run.steps(3, pool));
    std::vector<std::vector<Pos>> now;
    for (int l = 0; l < shape.layers; ++l)
      for (int h = 0; h < shape.kv_heads; ++h) {
        const auto pos = run.cache.head(l, h).tier(0).pos;
        now.emplace_back(pos.begin(), pos.end());
      }
    if (out.empty()) out = run.out, held = now;
    if (now != held)
      return Verdict::no("a cache on " + std::to_string(threads) + " threads keeps other entries");
    if (run.out != out)
      return Verdict::no("a cache on " + std::to_string(threads) + " threads gives other outputs");
  }
  return {};
}

/// A branch and its origin go on as if the other did not exist.
Verdict branches(const Subject& s, const Setup& setup) {
  auto alone = begin(s, setup), origin = begin(s, setup);
  if (!alone || !origin) return Verdict::no("start");
  KVIST_STEP("alone", whole(*alone));
  KVIST_STEP("prompt", origin->prompt(96));
  Drive branch = origin->clone(), other = origin->clone();
  other.fresh = 500;  // its tokens differ
  KVIST_STEP("the other branch", go_on(other));
  KVIST_STEP("the branch", go_on(branch));
  KVIST_STEP("a second branch of the branch", go_on(other));
  KVIST_STEP("the origin", go_on(*origin));
  if (Verdict v = same_end(*alone, *origin, end_calls, "a branch changed its origin"); !v.ok) return v;
  return same_end(*alone, branch, end_calls, "a branch goes another way than its origin would have");
}

/// Tokens that were appended, never told to the policy, and taken back, as a draft is that was not accepted: as if they
/// had never been. Further, a token that was told and taken back leaves its place, and no record, to the next.
Verdict takes_back(const Subject& s, const Setup& setup) {
  auto plain = begin(s, setup), drafted = begin(s, setup);
  if (!plain || !drafted) return Verdict::no("start");
  for (Drive* d : {&*plain, &*drafted}) {
    KVIST_STEP("prompt", d->prompt(30));
    KVIST_STEP("steps", d->steps(4));
  }
  drafted->draft(ids(700, 5));
  drafted->truncate(drafted->next - 5, 0);
  for (Drive* d : {&*plain, &*drafted}) {
    KVIST_STEP("steps", d->steps(13));
    KVIST_STEP("second turn", d->prompt(40));
    KVIST_STEP("steps", d->steps(3));
  }
  if (Verdict v = same_end(*plain, *drafted, end_calls, "a draft that was taken back left a trace"); !v.ok)
    return v;

  auto a = begin(s, setup), b = begin(s, setup);
  if (!a || !b) return Verdict::no("start");
  for (Drive* d : {&*a, &*b}) {
    KVIST_STEP("prompt", d->prompt(30));
    KVIST_STEP("steps", d->steps(4));
    KVIST_STEP("tokens that will be taken back", d->tokens(ids(d == &*a ? loner : follower, 12)));
    d->truncate(d->next - 12, 12);
    KVIST_STEP("steps", d->steps(13));
    KVIST_STEP("second turn", d->prompt(40));
    KVIST_STEP("steps", d->steps(3));
  }
  return same_end(*a, *b, end_calls, "tokens that were taken back left their records to others");
}

/// Speculative tokens whose evidence the policy was given and that were taken back: as if they had never been.
Verdict unlearns(const Subject& s, const Setup& setup) {
  if (exempt(s.name, "unlearn")) return {};
  auto plain = begin(s, setup), told = begin(s, setup);
  if (!plain || !told) return Verdict::no("start");
  for (Drive* d : {&*plain, &*told}) {
    KVIST_STEP("prompt", d->prompt(90));
    KVIST_STEP("steps", d->steps(13));
  }
  KVIST_STEP("speculative tokens", told->speculate(ids(700, 5)));
  told->truncate(told->next - 5, 5);
  for (Drive* d : {&*plain, &*told}) {
    KVIST_STEP("steps", d->steps(13));
    KVIST_STEP("second turn", d->prompt(40));
    KVIST_STEP("steps", d->steps(3));
  }
  return same_end(*plain, *told, end_calls,
                  "what a token that was taken back attended to is still remembered");
}

/// Sequences take turns and each goes as if it were alone; a new start is a clean one.
Verdict sequences_are_apart(const Subject& s, const Setup& setup) {
  auto alone = begin(s, setup);
  if (!alone) return error("start", alone.error());
  KVIST_STEP("alone", whole(*alone));
  auto one = begin(s, setup), two = begin(s, setup);
  if (!one || !two) return Verdict::no("start");
  two->fresh = 300;
  KVIST_STEP("one", one->prompt(96));
  KVIST_STEP("two", two->prompt(80));
  for (int i = 0; i < 13; ++i) {
    KVIST_STEP("one", one->step());
    KVIST_STEP("two", two->step());
  }
  KVIST_STEP("two", two->prompt(50));
  KVIST_STEP("one", one->prompt(40));
  KVIST_STEP("one", one->steps(3));
  if (Verdict v = same_end(*alone, *one, end_calls + 1, "another sequence leaks into this one"); !v.ok)
    return v;
  auto reset = begin(s, setup);
  if (!reset) return error("start", reset.error());
  KVIST_STEP("after a reset", whole(*reset));
  return same_end(*alone, *reset, end_calls + 1, "a new start remembers the sequence before it");
}

/// Entries that the engine takes out by a plan of its own move all others to new rows: their records follow.
Verdict records_follow(const Subject& s, const Setup& setup) {
  if (exempt(s.name, "foreign") || setup.ragged) return {};
  auto plain = begin(s, setup), with = begin(s, setup);
  if (!plain || !with) return Verdict::no("start");
  // The same tokens at the same positions; one engine lets entries in between that nobody attends to.
  const Index apart = 7;
  const auto first = ids(0, 50), decoys = ids(decoy, apart);
  plain->next = apart;
  KVIST_STEP("prompt", plain->call(first, Phase::prefill, false, false));
  std::vector<Id> mixed = decoys;
  mixed.insert(mixed.end(), first.begin(), first.end());
  KVIST_STEP("prompt", with->call(mixed, Phase::prefill, false, false));
  for (int l = 0; l < setup.shape.layers; ++l) {
    Plan away{l, std::vector<HeadPlan>(std::size_t(setup.shape.kv_heads)), {}};
    for (HeadPlan& h : away.heads)
      for (Index i = 0; i < apart; ++i) h.drop.push_back(i);
    with->foreign(away);
  }
  for (Drive* d : {&*plain, &*with}) {
    d->fresh = 50;
    KVIST_STEP("second chunk", d->prompt(46));
    KVIST_STEP("steps", d->steps(20));
  }
  return same_end(*plain, *with, 21, "records did not follow their entries");
}

}  // namespace

TEST_CASE("Runs repeat, on any number of threads", "[conformance][determinism]") { hold(repeats); }
TEST_CASE("A generator that all runs share is caught", "[conformance][determinism][wrong]") {
  bites(repeats, wrong::restless(), wrong::right_records());
}

TEST_CASE("Runs repeat in a cache on any number of threads where layers come in order",
          "[conformance][determinism]") {
  int asked = 0;
  for (const Subject& s : subjects()) {
    if (!s.evicts || !s.policy.in_order()) continue;
    ++asked;
    for (const Setup& setup : setups()) {
      const Verdict v = repeats_in_a_cache(s, setup);
      INFO(s.name << " on " << setup.name << ": " << v.why);
      CHECK(v.ok);
    }
  }
  CHECK(asked > 0);
  bites(repeats_in_a_cache, wrong::restless(), wrong::right_records());
}

TEST_CASE("Branches leave their origin alone", "[conformance][clone]") { hold(branches); }
TEST_CASE("Records that copies of a state share are caught", "[conformance][clone][wrong]") {
  bites(branches, wrong::shared_records(), wrong::right_records());
}

TEST_CASE("Tokens that are taken back leave no trace", "[conformance][truncate]") { hold(takes_back); }
TEST_CASE("A policy that does not hear of tokens taken back is caught", "[conformance][truncate][wrong]") {
  bites(takes_back, wrong::Deaf{}, wrong::right_records());
}

TEST_CASE("What speculative tokens taught is forgotten with them", "[conformance][truncate]") {
  hold(unlearns);
}
TEST_CASE("Records that outlive the tokens they came from are caught", "[conformance][truncate][wrong]") {
  bites(unlearns, wrong::unforgetting(), wrong::forgetting());
}

TEST_CASE("Sequences do not leak into each other", "[conformance][sequences]") { hold(sequences_are_apart); }
TEST_CASE("Memory shared by sequences is caught", "[conformance][sequences][wrong]") {
  bites(sequences_are_apart, wrong::one_for_all(), wrong::right_records());
}

TEST_CASE("Records follow their entries through any plan", "[conformance][records]") { hold(records_follow); }
TEST_CASE("Records that stay with rows are caught", "[conformance][records][wrong]") {
  bites(records_follow, wrong::records_by_row(), wrong::right_records());
}
