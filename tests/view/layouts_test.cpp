// SPDX-License-Identifier: Apache-2.0
// The memory of llama.cpp, vLLM, openvino.genai, onnxruntime-genai and gemma.cpp: what is seen in it, what policies decide
// over it, and what carrying a plan out leaves alone.
#include "support/engine_layouts.hpp"

#include <kvist/methods/registry.hpp>
#include <kvist/methods/spec.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr Index n = EngineData::n;
constexpr Shape shape = EngineData::shape;

/// The sequence in plain vectors, with evidence that every engine hands over alike.
struct Source {
  EngineData data;
  std::vector<SmallLayer> layers;
  RopeTable rope = RopeTable::standard(32, 10000, RopePairs::half_split);

  Source() {
    Random random(23);
    for (int l = 0; l < shape.layers; ++l) {
      layers.emplace_back(shape);
      for (int h = 0; h < shape.kv_heads; ++h)
        for (Index i = 0; i < n; ++i) {
          Row k, v;
          for (int c = 0; c < 32; ++c)
            k.push_back(data.at(false, l, h, i, c)), v.push_back(data.at(true, l, h, i, c));
          layers.back().append(h, k, v, EngineData::first + i);
        }
    }
    for (SmallLayer& l : layers) l.give_random_evidence(n, random);
  }
};
const Source& source() {
  static const Source one;
  return one;
}

std::vector<AnyHead> heads_of(EngineMemory& memory, int l) {
  std::vector<AnyHead> out;
  for (int h = 0; h < shape.kv_heads; ++h) {
    const auto k = memory.rows(false, l, h, n), v = memory.rows(true, l, h, n);
    INFO(memory.name);
    REQUIRE(k);
    REQUIRE(v);
    out.push_back({*k, *v, source().layers[std::size_t(l)].pos[std::size_t(h)], KeyForm::rotated});
  }
  return out;
}

struct Decision {
  Status went = Done{};
  std::vector<Plan> plans;  ///< of all layers, in order
};

/// What a policy makes of a prompt in that memory (none: the plain one).
/// Where it waits for all layers, what it makes of a step right behind the prompt.
Decision decide(const AnyPolicy& policy, EngineMemory* memory, const Abilities& can, Index budget,
                bool step = false) {
  Decision d;
  auto state = policy.start(shape);
  REQUIRE(state);
  const auto one_call = [&](int l, const Clock& now) {
    std::vector<AnyHead> heads;
    SmallLayer plain = source().layers[std::size_t(l)];
    if (memory) heads = heads_of(*memory, l);
    else heads = {plain.view().head(0), plain.view().head(1)};
    const AnyLayer view{heads};
    const LayerCall<AnyLayer> call{view, source().layers[std::size_t(l)].seen, now, l, can, &source().rope};
    if (now.phase == Phase::prefill) d.went = policy.observe(call, *state);
    if (!d.went || (step && now.phase == Phase::prefill)) return;
    std::vector<Plan> made;
    d.went = policy.plan(call, *state, made);
    if (!d.went) return;
    for (Plan& p : made) {
      policy.applied(p, *state);
      d.plans.push_back(std::move(p));
    }
  };
  for (int l = 0; l < shape.layers && d.went; ++l) one_call(l, {Phase::prefill, 0, n, budget, true});
  for (int l = 0; step && l < shape.layers && d.went; ++l) one_call(l, {Phase::decode, 1, n, budget, true});
  return d;
}

void same(const Decision& got, const Decision& want) {
  REQUIRE(got.went.has_value() == want.went.has_value());
  if (!want.went) {
    CHECK(got.went.error() == want.went.error());
    return;
  }
  REQUIRE(got.plans.size() == want.plans.size());
  for (std::size_t i = 0; i < want.plans.size(); ++i) {
    CHECK(got.plans[i].layer == want.plans[i].layer);
    CHECK(got.plans[i].heads == want.plans[i].heads);
  }
}

/// Layer budgets of these want all layers first: they plan in steps alone.
bool waits(const std::string& name) { return name == "D2O"; }

/// Every method of the registry that evicts, chosen to act on a prompt, or on steps.
std::vector<std::pair<std::string, AnyPolicy>> policies() {
  std::vector<std::pair<std::string, AnyPolicy>> out;
  for (const methods::Entry& e : methods::registry()) {
    if (!e.evicts) continue;
    std::string fault;
    const auto spec = methods::parse_spec(
        std::string(e.info.name) + (waits(e.info.name) ? ":schedule=every_step" : ":schedule=after_prefill"),
        fault);
    REQUIRE(spec);
    auto made = methods::make(*spec, fault);
    INFO(fault);
    REQUIRE(made);
    out.emplace_back(e.info.name, made->policy);
  }
  return out;
}
AnyPolicy by_name(const std::string& name) {
  for (const auto& [known, policy] : policies())
    if (known == name) return policy;
  FAIL("no policy " << name);
  return policies()[0].second;
}

/// Entries of a head as they lie now: keys and values of the first `count`.
void check_rows(EngineMemory& memory, int l, int h, const std::vector<Index>& entries) {
  const auto k = memory.rows(false, l, h, Index(entries.size())),
             v = memory.rows(true, l, h, Index(entries.size()));
  REQUIRE(k);
  REQUIRE(v);
  bool all = true;
  for (std::size_t i = 0; i < entries.size(); ++i)
    for (int c = 0; c < 32; ++c)
      all = all && k->at(Index(i), c) == source().data.at(false, l, h, entries[i], c) &&
            v->at(Index(i), c) == source().data.at(true, l, h, entries[i], c);
  CHECK(all);
}

std::vector<Index> everything() {
  std::vector<Index> out;
  for (Index i = 0; i < n; ++i) out.push_back(i);
  return out;
}

}  // namespace

TEST_CASE("What is seen of an engine's memory is what lies there, element by element", "[view][layouts]") {
  for (const auto& memory : engines(source().data))
    for (int l = 0; l < shape.layers; ++l)
      for (int h = 0; h < shape.kv_heads; ++h) {
        INFO(memory->name << ", layer " << l << ", head " << h);
        check_rows(*memory, l, h, everything());
      }
}

TEST_CASE("Tiles of matrix units are refused, and so is what does not fit", "[view][layouts]") {
  const std::vector<bf16> pool(16 * 2 * 2 * 32 * 32);
  const std::vector<std::int32_t> table{3, 8, 13, 2, 7, 12, 1};
  for (const auto& axes : {vllm_amx_key_axes(1), vllm_amx_value_axes(1)}) {
    const auto rows = rows_of(pool.data(), axes, table, n);
    REQUIRE(!rows);
    CHECK(rows.error().code == Errc::unsupported);
    CHECK(std::string(rows.error().what).find("ReaderRows") != std::string::npos);
  }
}

TEST_CASE("A policy decides alike in every engine's memory, within what that engine can carry out",
          "[view][layouts]") {
  const auto memories = engines(source().data);
  for (const auto& [name, policy] : policies()) {
    const bool step = waits(name);
    const Decision free = decide(policy, nullptr, {}, 96, step);
    INFO(name);
    REQUIRE(free.went);
    CHECK(free.plans.size() >= std::size_t(shape.layers));
    bool something = false;
    for (const Plan& p : free.plans) something = something || !p.empty();
    CHECK(something);
    for (const auto& memory : memories) {
      INFO(memory->name);
      same(decide(policy, memory.get(), {}, 96, step), free);
      const Decision bound = decide(policy, memory.get(), memory->can, 96, step);
      same(bound, decide(policy, nullptr, memory->can, 96, step));
      if (!bound.went) continue;
      for (const Plan& p : bound.plans)
        for (const HeadPlan& h : p.heads) {
          REQUIRE(check(h, n));
          // budgets of layers' or heads' own lie around the mean
          const bool own =
              name == "CAKE" || name == "PyramidKV" || name == "AdaKV" || name == "KVMerger" || name == "D2O";
          if (!own) CHECK(n - Index(h.drop.size()) <= 96);
          if (memory->can.grain != Grain::head) CHECK(h == p.heads[0]);
          if (memory->can.grain == Grain::sequence) CHECK(h == bound.plans[0].heads[0]);
          if (memory->can.page > 1)
            CHECK(Index(free_pages(h, n, memory->can.page).size()) * memory->can.page == Index(h.drop.size()));
        }
    }
  }
}

TEST_CASE("What an engine cannot carry out is an Error before anything has changed", "[view][layouts]") {
  const auto memories = engines(source().data);
  for (const auto& memory : memories) {
    INFO(memory->name);
    if (memory->can.equal_counts) {  // heads' own budgets, and another tier
      const Decision own = decide(by_name("AdaKV"), memory.get(), memory->can, 96);
      REQUIRE(!own.went);
      CHECK(own.went.error().code == Errc::unsupported);
      CHECK(own.plans.empty());
    }
    const Decision tiers = decide(by_name("MiKV"), memory.get(), memory->can, 96);
    REQUIRE(!tiers.went);
    CHECK(tiers.went.error().code == Errc::unsupported);
    CHECK(tiers.plans.empty());
  }
}

TEST_CASE("Plans carried out in place leave the survivors packed and everything else as it was",
          "[view][layouts]") {
  int written = 0;
  for (const Index shared : {0, 64}) {
    for (const auto& memory : engines(source().data)) {
      INFO(memory->name << ", shared " << shared);
      Abilities can = memory->can;  // moves of single entries, in the engine's own grain
      can.page = 1;
      can.shared_rows = shared;
      const Decision d = decide(by_name("KeyNorm"), memory.get(), can, 110);
      REQUIRE(d.went);
      for (const Plan& p : d.plans)
        for (int h = 0; h < shape.kv_heads; ++h) {
          const HeadPlan& plan = p.heads[std::size_t(h)];
          std::vector<Pos> pos = source().layers[0].pos[0];
          const auto before = memory->bytes();
          const auto kept = memory->apply(plan, p.layer, h, pos, shared);
          if (!kept) {  // codes: the engine itself moves them
            CHECK(memory->bytes() == before);
            continue;
          }
          ++written;
          REQUIRE(*kept);
          const std::vector<Index> stay = survivors(plan, n);
          REQUIRE(**kept == Index(stay.size()));
          for (std::size_t i = 0; i < stay.size(); ++i) REQUIRE(pos[i] == EngineData::first + stay[i]);
          check_rows(*memory, p.layer, h, stay);
          // Nothing was written but this head's own entries behind the shared ones.
          const auto after = memory->bytes();
          const auto owned = memory->owned(p.layer, h, shared);
          bool alone = true;
          for (std::size_t b = 0; b < after.size(); ++b) alone = alone && (owned[b] || after[b] == before[b]);
          CHECK(alone);
        }
    }
  }
  CHECK(written > 100);
}

TEST_CASE("Engines of pages take whole pages out of their tables and touch no byte", "[view][layouts]") {
  for (const Index shared : {0, 64}) {
    for (const auto& memory : engines(source().data)) {
      if (memory->can.page == 1) continue;
      INFO(memory->name << ", shared " << shared);
      Abilities can = memory->can;
      can.shared_rows = shared;
      const Decision d = decide(by_name("SnapKV"), memory.get(), can, 150);
      REQUIRE(d.went);
      const auto before = memory->bytes();
      for (const Plan& p : d.plans) {
        // Equal for all heads (and layers, where there is one table): one table is changed.
        const HeadPlan& plan = p.heads[0];
        CHECK(!plan.drop.empty());
        const std::vector<Index> gone = free_pages(plan, n, can.page, shared);
        CHECK(Index(gone.size()) * can.page == Index(plan.drop.size()));
        auto& table = memory->table(p.layer);
        const auto whole = table;
        for (std::size_t g = gone.size(); g-- > 0;) {
          CHECK(gone[g] >= shared / can.page);  // shared pages are never freed
          table.erase(table.begin() + gone[g]);
        }
        if (dynamic_cast<PackedMemory*>(memory.get()) == nullptr)
          for (int h = 0; h < shape.kv_heads; ++h) check_rows(*memory, p.layer, h, survivors(plan, n));
        table = whole;
      }
      CHECK(memory->bytes() == before);
    }
  }
}

TEST_CASE("llama.cpp removes the runs of a plan from its cells", "[view][layouts]") {
  for (const auto& memory : engines(source().data)) {
    if (!memory->cells || dynamic_cast<PackedMemory*>(memory.get()) != nullptr) continue;
    INFO(memory->name);
    const Decision d = decide(by_name("H2O"), memory.get(), memory->can, 96);
    REQUIRE(d.went);
    REQUIRE(d.plans.size() == std::size_t(shape.layers));
    const HeadPlan& plan = d.plans[0].heads[0];
    for (const Plan& p : d.plans)
      for (const HeadPlan& h : p.heads) CHECK(h == plan);
    // The engine's table of cells: seq_rm(p0, p1) frees those of positions p0 .. p1 - 1.
    struct Cell {
      Pos pos;
      std::int32_t at;
    };
    std::vector<Cell> cells;
    for (Index i = 0; i < n; ++i)
      cells.push_back({EngineData::first + i, memory->tables.empty() ? i : memory->tables[0][std::size_t(i)]});
    for (const Range& r : ranges(plan))
      std::erase_if(cells, [&](const Cell& c) {
        return c.pos >= EngineData::first + r.first && c.pos < EngineData::first + r.first + r.count;
      });
    REQUIRE(cells.size() == 96);
    memory->tables.assign(1, {});
    for (const Cell& c : cells) memory->tables[0].push_back(c.at);
    for (int l = 0; l < shape.layers; ++l)
      for (int h = 0; h < shape.kv_heads; ++h) check_rows(*memory, l, h, survivors(plan, n));
  }
}
