// SPDX-License-Identifier: Apache-2.0
// Options that every method takes by its SPEC: what they say holds for each of them.
#include <kvist/methods/registry.hpp>
#include <kvist/methods/spec.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

#include <cmath>
#include <string>

using namespace kvist;
using namespace kvist::test;

namespace {

using Dues = std::vector<int>;

/// A model of three layers that a policy of a SPEC decides over: a prompt in chunks, then steps.
struct Model {
  AnyPolicy policy;
  AnyPolicy::State state;
  std::vector<SmallLayer> layers;
  RopeTable rope = RopeTable::standard(8, 10000, RopePairs::half_split);
  Random random{7};
  Index budget = 40, step = 0;
  std::vector<Plan> plans;  ///< of the last call, each layer's own

  static constexpr Shape shape{3, 4, 2, 8, 6};

  explicit Model(AnyPolicy p) : policy(std::move(p)), state(started()), layers(3, SmallLayer(shape)) {}

  AnyPolicy::State started() const {
    auto made = policy.start(shape);
    REQUIRE(made);
    return std::move(*made);
  }

  /// 1 where layer 0 was planned.
  int call(Index count, Phase phase, bool last) {
    step = phase == Phase::decode ? step + 1 : 0;
    int planned = 0;
    plans.clear();
    for (int l = 0; l < shape.layers; ++l) {
      SmallLayer& layer = layers[std::size_t(l)];
      const Pos next = end;
      for (Index i = 0; i < count; ++i)
        for (int h = 0; h < shape.kv_heads; ++h) layer.append(h, row(8), row(6), next + i);
      layer.give_random_evidence(count, random);
      const AnyLayer view = layer.view();
      const Clock now{phase, step, std::max(layer.size(0), layer.size(1)), budget, last};
      const LayerCall<AnyLayer> ask{view, layer.seen, now, l, {}, &rope};
      REQUIRE(policy.observe(ask, state));
      if (!policy.due(now)) continue;
      if (l == 0) planned = 1;
      std::vector<Plan> made;
      const Status went = policy.plan(ask, state, made);
      INFO((went ? "" : went.error().what));
      REQUIRE(went);
      for (const Plan& p : made) {
        if (p.layer == l) plans.push_back(p);
        Plan gone = p;
        for (HeadPlan& h : gone.heads) {
          for (const Move& m : h.move) h.drop.push_back(m.src);
          std::sort(h.drop.begin(), h.drop.end());
        }
        layers[std::size_t(p.layer)].apply(gone);
        policy.applied(p, state);
      }
    }
    end += count;
    return planned;
  }
  Row row(int d) {
    Row r;
    for (int c = 0; c < d; ++c) r.push_back(float(2 * random.uniform() - 1));
    return r;
  }
  /// When it planned: three chunks of 30, nine steps.
  Dues run() {
    Dues out;
    for (int c = 0; c < 3; ++c) out.push_back(call(30, Phase::prefill, c == 2));
    for (int s = 0; s < 9; ++s) out.push_back(call(1, Phase::decode, true));
    return out;
  }
  double mean_entries() const {
    double sum = 0;
    for (const SmallLayer& l : layers)
      for (int h = 0; h < shape.kv_heads; ++h) sum += double(l.size(h)) / (shape.layers * shape.kv_heads);
    return sum;
  }
  Pos end = 0;
};

AnyPolicy made(const std::string& text) {
  std::string fault;
  const auto spec = methods::parse_spec(text, fault);
  INFO(text << ": " << fault);
  REQUIRE(spec);
  auto out = methods::make(*spec, fault);
  INFO(fault);
  REQUIRE(out);
  return out->policy;
}

/// Layer budgets of these want all layers first: they plan in decode steps alone, and refuse schedules without any.
bool waits(const std::string& name) { return name == "D2O"; }

std::vector<std::string> evicting() {
  std::vector<std::string> out;
  for (const methods::Entry& e : methods::registry())
    if (e.evicts) out.push_back(e.info.name);
  return out;
}

}  // namespace

TEST_CASE("Every method lists the common options and takes them", "[methods][CommonOptions]") {
  for (const methods::Entry& e : methods::registry()) {
    if (!e.evicts) continue;
    INFO(e.info.name);
    for (const char* const name :
         {"sinks", "recent", "skip_layers", "account_loss", "tolerance", "schedule"}) {
      INFO(name);
      int listed = 0;
      for (const methods::OptionInfo& o : e.options) listed += o.name == name ? 1 : 0;
      CHECK(listed == 1);
    }
    const PolicySettings s =
        made(std::string(e.info.name) + ":skip_layers=1,account_loss=yes,schedule=every:5").settings();
    CHECK(s.skip_layers == std::vector<int>{1});
    CHECK(s.account_loss);
    CHECK(s.schedule == ChosenSchedule{ChosenSchedule::Kind::every_steps, 5, 0});
  }
}

TEST_CASE("A schedule of the SPEC decides when any method evicts, and the budget holds then",
          "[methods][CommonOptions][schedule]") {
  const std::pair<const char*, Dues> schedules[] = {
      {"after_prefill", {0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
      {"per_chunk", {1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
      {"every_step", {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
      {"every:4", {0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0}},
  };
  for (const std::string& name : evicting())
    for (const auto& [schedule, dues] : schedules) {
      INFO(name << " " << schedule);
      if (waits(name) && dues[6] == 0) {  // no step is due
        const auto state = made(name + ":schedule=" + schedule).start(Model::shape);
        REQUIRE(!state);
        CHECK(state.error().code == Errc::unsupported);
        CHECK(std::string(state.error().what).find("every_step") != std::string::npos);
        continue;
      }
      Model m(made(name + ":schedule=" + schedule));
      CHECK(m.run() == dues);
      // Steps since the last event come on top; MiKV's share grows with the sequence.
      const int since = int(std::find(dues.rbegin(), dues.rend(), 1) - dues.rbegin());
      CHECK(m.mean_entries() <= 40 + since + (name == "MiKV" ? 6 : 0) + 1e-9);
      CHECK(m.mean_entries() < 99);
    }
}

TEST_CASE("over_budget waits until more than budget and slack is held",
          "[methods][CommonOptions][schedule]") {
  for (const char* const name : {"StreamingLLM", "KeyNorm", "TOVA", "H2O", "random", "SnapKV"}) {
    INFO(name);
    CHECK(Model(made(std::string(name) + ":schedule=over_budget")).run() ==
          Dues{0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
    CHECK(Model(made(std::string(name) + ":schedule=over_budget:4")).run() ==
          Dues{0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0});
    Model small(made(std::string(name) + ":schedule=over_budget"));
    small.budget = 200;
    CHECK(small.run() == Dues(12, 0));
  }
}

TEST_CASE("A schedule that does not exist is a bad option", "[methods][CommonOptions][schedule]") {
  for (const char* const bad : {"sometimes", "every", "every:", "every:0", "every:-3", "every:x",
                                "per_chunk:2", "over_budget:-1", "over_budget:99999999999", ""}) {
    INFO(bad);
    std::string fault;
    const auto spec = methods::parse_spec(std::string("SnapKV:schedule=") + bad, fault);
    REQUIRE(spec);
    const auto got = methods::make(*spec, fault);
    REQUIRE(!got);
    CHECK(got.error().code == Errc::bad_option);
    CHECK(fault.find("every:W") != fault.npos);
  }
}

TEST_CASE("Every method states its loss where it is asked to", "[methods][CommonOptions][loss]") {
  for (const std::string& name : evicting()) {
    INFO(name);
    Model m(made(name + ":account_loss=yes,schedule=every_step"));
    m.call(90, Phase::prefill, true);
    if (waits(name)) m.call(1, Phase::decode, true);
    REQUIRE(m.plans.size() == 3);
    for (const Plan& p : m.plans)
      for (std::size_t h = 0; h < p.heads.size(); ++h) {
        const HeadCost& c = p.cost[h];
        CHECK(c.mass >= 0);
        CHECK(c.mass <= 1);
        CHECK(c.before == (waits(name) ? 91 : 90));
        if (p.heads[h].drop.empty()) continue;  // moves: the codes of the other tier decide
        CHECK(c.bound > 0);
        if (p.heads[h].blend.empty()) CHECK(c.mass > 0);  // what is folded in is not given up
      }
    Model silent(made(name + ":schedule=every_step"));
    silent.call(90, Phase::prefill, true);
    for (const Plan& p : silent.plans)
      for (const HeadCost& c : p.cost) CHECK(std::isnan(c.mass));
  }
}

TEST_CASE("A tolerance in the place of a budget holds for every method", "[methods][CommonOptions][loss]") {
  for (const std::string& name : evicting()) {
    Index kept[2] = {0, 0};
    bool folds = false;
    for (const int loose : {0, 1}) {
      INFO(name << " " << loose);
      Model m(made(name + ":schedule=every_step,tolerance=" + (loose ? "0.9" : "0.3")));
      m.budget = 0;
      m.call(90, Phase::prefill, true);
      REQUIRE(m.plans.size() == 3);
      folds = folds || (m.policy.makes() & unsigned(Makes::blends)) != 0;
      for (const Plan& p : m.plans)
        for (std::size_t h = 0; h < p.heads.size(); ++h) {
          kept[loose] += 90 - Index(p.heads[h].drop.size() + p.heads[h].move.size());
          if (p.heads[h].move.empty()) CHECK(p.cost[h].bound <= (loose ? 0.9f : 0.3f));
        }
      m.call(20, Phase::prefill, true);  // goes on
    }
    INFO(name);
    CHECK((folds ? kept[1] <= kept[0] : kept[1] < kept[0]));  // folding may need a single entry for either
    CHECK(kept[0] < 90 * 6);
  }
}

TEST_CASE("The oracle takes the common options", "[methods][CommonOptions][oracle]") {
  std::string fault;
  const auto spec = methods::parse_spec("oracle:sinks=3,recent=5,skip_layers=1,schedule=per_chunk", fault);
  REQUIRE(spec);
  auto out = methods::make(*spec, fault);
  INFO(fault);
  REQUIRE(out);
  CHECK(out->oracle);
  CHECK(out->evicts);
  auto masses = std::make_shared<ScoresByPosition>();
  masses->kv_heads = 2;
  for (int h = 0; h < 6; ++h) {
    std::vector<float> one(90, 0.0f);
    for (std::size_t i = 20; i < 50; ++i) one[i] = float(i);  // never the ends
    masses->heads.push_back(one);
  }
  Model m(AnyPolicy(methods::Oracle::make(masses, out->policy.settings())));
  m.budget = 20;
  CHECK(m.call(90, Phase::prefill, false) == 1);  // per_chunk
  for (int h = 0; h < 2; ++h) {
    CHECK(m.layers[1].size(h) == 90);
    const auto& pos = m.layers[0].pos[std::size_t(h)];
    REQUIRE(pos.size() == 20);
    CHECK((pos[0] == 0 && pos[2] == 2 && pos[3] == 38 && pos[14] == 49 && pos[15] == 85 && pos[19] == 89));
  }
  for (const char* const bad : {"oracle:window=3", "oracle:sinks=x"}) {
    const auto wrong = methods::parse_spec(bad, fault);
    REQUIRE(wrong);
    CHECK(!methods::make(*wrong, fault));
    CHECK(fault.find("oracle: ") == 0);
  }
}
