// SPDX-License-Identifier: Apache-2.0
// `kvist-eval plan` over recorded tensors against the kept sets of kvpress and of the methods' published code: every method
// here whose sets those state and whose queries are recorded. Not compared: presses that no method here is (adakv_expected_e2,
// criticalkv, criticaladakv, noncausal, leverage, compactor, cur, think), kvpress's PyramidKV, whose ladder ends at T - window
// and counts the window, and LaCache, H2O's masked and one-shot variants and make_room of StreamingLLM, which evict before
// they attend or elsewhere. Scissorhands reuses slots there, which decides its ties (tests/golden goes on from each).
#include "run_tool.hpp"

#include "support/presses.hpp"

#include <map>
#include <sstream>

using namespace kvist;
using namespace kvist::test;

namespace {

/// Saves [layers, heads, count, 64] of recorded arrays from token `first` on; each of their heads `repeat` times.
void stack(const Folder& f, const std::string& file, const std::vector<const Tensor*>& layers,
           std::size_t first, std::size_t count, std::size_t repeat = 1, std::size_t every = 1) {
  std::vector<float> x;
  const std::size_t n = layers[0]->dim(1), heads = layers[0]->dim(0) / every;
  for (const Tensor* t : layers)
    for (std::size_t h = 0; h < heads; ++h)
      for (std::size_t r = 0; r < repeat; ++r) {
        const auto from = t->data.begin() + std::ptrdiff_t((h * every * n + first) * 64);
        x.insert(x.end(), from, from + std::ptrdiff_t(count * 64));
      }
  REQUIRE(save_npy(f / file, {layers.size(), heads * repeat, count, 64}, std::span<const float>(x)));
}

Json plan(const Folder& f, const std::string& arguments) {
  const ToolRun r = tool(f, "plan --rope-base 100000 --k k.npy --json p.json --policy " + arguments);
  INFO(arguments << ": " << r.err);
  REQUIRE(r.status == 0);
  return f.json("p.json");
}
std::vector<Pos> positions(const Json& list) {
  std::vector<Pos> out;
  for (const Json& x : list.elements()) out.push_back(Pos(x.as_int()));
  return out;
}
const Json& head(const Json& p, std::size_t layer, std::size_t h) { return p["layers"][layer]["heads"][h]; }
/// After the prompt (0) and after each step.
std::vector<Pos> after(const Json& p, std::size_t h, std::size_t step) {
  return positions(step == 0 ? head(p, 0, h)["kept"] : head(p, 0, h)["steps"][step - 1]);
}

struct Compared {
  int equal = 0, ties = 0;
  /// Equal sets; or, where the cut is a tie up to rounding, sets that differ by `swaps` entries at most: by default those of
  /// one pooled plateau. False then.
  bool same(const std::vector<Pos>& got, const std::vector<Pos>& want, bool tie, std::size_t swaps = 7) {
    if (got == want) return ++equal, true;
    CHECK(got.size() == want.size());
    CHECK(tie);
    CHECK(difference(got, want) <= 2 * swaps);
    ++ties;
    return false;
  }
  /// Most sets must be equal: ties are frequent where scores are pooled by their maximum.
  ~Compared() {
    INFO(equal << " equal, " << ties << " ties");
    CHECK(equal > ties);
  }
};

Json manifest(const std::string& method) {
  auto json =
      Json::parse(read_file(*golden_path() + "/official/" + method + "/manifest.json").value_or(std::string()));
  REQUIRE(json);
  return *std::move(json);
}

/// Recorded arrays by name, loaded once.
const Tensor& input(const std::string& name) {
  static std::map<std::string, Tensor> all;
  const auto known = all.find(name);
  return known != all.end() ? known->second
                            : all.emplace(name, recorded("official/inputs/" + name)).first->second;
}
std::string two(std::int64_t layer) { return (layer < 10 ? "0" : "") + std::to_string(layer); }
std::string text(const Json& x) { return std::to_string(x.as_int()); }
std::string text(double x) {
  std::ostringstream out;
  out << x;
  return out.str();
}

/// Saves keys and queries of one recorded layer: `count` tokens, as 3 KV heads or repeated to 9. Of layer 28 the last 32
/// queries of the prompt and those after it are recorded.
void save_layer(const Folder& f, std::int64_t layer, std::int64_t heads, std::size_t count) {
  const Tensor &k = input("k" + two(layer)), &q = input((layer == 28 ? "qw" : "q") + two(layer));
  stack(f, "k.npy", {&k}, 0, count, heads == 9 ? 3 : 1);
  stack(f, "q.npy", {&q}, 0, count - (528 - q.dim(1)) * (layer == 28));
}

constexpr std::size_t prompt = 512, steps = 16;
bool absent() { return !have_recorded("official/inputs"); }

std::string pool(const Json& p) { return p["pooling"].as_string() == "maxpool" ? "max" : "avg"; }

}  // namespace

TEST_CASE("plan keeps what kvpress keeps", "[tool][plan][golden]") {
  if (!have_recorded("model/presses/passkey")) KVIST_SKIP("reference values of kvpress");
  const Presses presses("passkey");
  const std::size_t n = std::size_t(presses.tokens());
  const Folder f;
  for (const std::string what : {"k", "q", "v"}) {
    std::vector<Tensor> of;
    for (const int l : {0, 14, 29})
      of.push_back(recorded("model/layers/passkey/layer" + std::to_string(l) + "_" + what));
    stack(f, what + ".npy", {&of[0], &of[1], &of[2]}, 0, n);
  }
  struct One {
    const char *press, *spec;
    bool marks;  ///< scores of what is kept anyway are the largest plus 1
    bool values = false;
  };
  Compared c;
  for (const One& one : {One{"snapkv_w64_k5", "SnapKV:window=64,reduce_after=yes", true},
                         {"snapkv_w32_k7", "SnapKV:window=32,kernel=7,reduce_after=yes", true},
                         {"observed_attention", "H2O:recent=0,normalise=yes,heavy=BUDGET", false},
                         {"tova", "TOVA:recent=1", true},
                         {"streamingllm", "StreamingLLM", false},
                         {"streamingllm_rerotated", "StreamingLLM:positions=compact", false},
                         {"knorm", "KeyNorm", false},
                         {"keydiff", "KeyDiff", false},
                         {"block_keydiff", "KeyDiff", false},
                         {"lagkv", "LagKV", false, true},
                         {"expected_attention", "ExpectedAttention", true, true},
                         {"expected_attention_e2", "ExpectedAttention:epsilon=0.01", true, true},
                         // its safeguard counts the window, and protects nothing at these budgets
                         {"adakv_snapkv", "AdaKV:window=64,kernel=5,pool=avg,floor=0", true},
                         {"chunkkv_snapkv", "ChunkKV:window=64,total=official", true}}) {
    const std::string press = one.press;
    std::size_t ratio = 0;
    for (const Press& run : presses.runs(press)) {
      const Index budget = presses.budget(run.ratio);
      std::string spec = one.spec;
      if (const auto at = spec.find("BUDGET"); at != spec.npos) spec.replace(at, 6, std::to_string(budget));
      spec += (spec.find(':') == spec.npos ? ":budget=" : ",budget=") + std::to_string(budget) + " --q q.npy";
      if (one.values) spec += " --v v.npy";
      if (press == "block_keydiff") {  // the budget is filled first, then blocks come
        spec += " --chunks " + std::to_string(budget);
        for (Index left = Index(n) - budget; left > 0; left -= 128)
          spec += "," + std::to_string(std::min<Index>(left, 128));
      }
      const Json p = plan(f, spec);
      for (const int l : {0, 14, 29})
        for (int h = 0; h < 3; ++h) {
          INFO(press << " ratio " << run.ratio << " layer " << l << " head " << h);
          const float gap = presses.gap(run, l, h);
          float most = 0;
          if (press != "block_keydiff")
            for (const float s : presses.scores(press, ratio, l, h)) most = std::max(most, std::abs(s));
          const auto got = positions(head(p, l == 0 ? 0 : l == 14 ? 1 : 2, std::size_t(h))["kept"]);
          const auto want = presses.kept(run, l, h);
          // ranks of entries within rounding of one another are 1/128 apart: one of them may be the other's
          const bool ranks = press == "lagkv" && gap > 0 && gap < 1.5f / 128;
          if (press == "lagkv" && gap == 0)
            continue;  // 0.8: which of the equal sinks and newest stay is no order
          // equal tokens have equally long keys in layer 0
          c.same(got, want, ranks || (gap >= 0 && gap <= 1e-5f * (most - float(one.marks))),
                 press == "knorm" ? n
                 : ranks          ? 1
                                  : 7);
        }
      ++ratio;
    }
  }
}

TEST_CASE("plan keeps what SnapKV's, PyramidKV's and AdaKV's published code keeps", "[tool][plan][golden]") {
  if (absent()) KVIST_SKIP("reference values of snapkv, pyramidkv and adakv");
  const Folder f;
  Compared c;
  const Json snapkv = manifest("snapkv"), pyramidkv = manifest("pyramidkv"), adakv = manifest("adakv");
  for (const Json& one : snapkv["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    const std::int64_t heads = name.find("gqa") != name.npos ? 3 : 9;
    save_layer(f, p["layer"].as_int(), heads, prompt);
    const Json got = plan(f, "SnapKV:window=" + text(p["window_size"]) + ",kernel=" + text(p["kernel_size"]) +
                                 ",pool=" + pool(p) +
                                 ",reduce=" + (p["gqa_score_agg"].as_string() == "max" ? "max" : "mean") +
                                 ",budget=" + text(p["max_capacity_prompt"]) + " --q q.npy");
    const Tensor kept = recorded("official/snapkv/" + name + "_kept"),
                 margin = recorded("official/snapkv/" + name + "_margin");
    INFO(name);
    for (std::size_t h = 0; h < std::size_t(heads); ++h)
      c.same(after(got, h, 0), kept.positions(h), margin.at(h) < 1e-5f);
  }
  for (const Json& one : pyramidkv["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    const bool budgets = name.rfind("budgets", 0) == 0;  // of 30 layers, whatever these hold
    const std::int64_t layer = budgets ? 2 : p["layer"].as_int(), heads = budgets ? 3 : p["heads"].as_int();
    const Tensor &k = input("k" + two(layer)), &q = input((layer == 28 ? "qw" : "q") + two(layer));
    stack(f, "k.npy", std::vector<const Tensor*>(30, &k), 0, prompt, heads == 9 ? 3 : 1);
    stack(f, "q.npy", std::vector<const Tensor*>(30, &q), layer == 28 ? 0 : prompt - 32, 32);
    std::string spec = "PyramidKV:total=official,window=" + text(p["window_size"]) +
                       ",beta=" + text(p["beta"]) + ",budget=" + text(p["max_capacity_prompt"]);
    if (!budgets) spec += ",kernel=" + text(p["kernel_size"]) + ",pool=" + pool(p);
    const Json got = plan(f, spec + " --q q.npy");
    const Tensor want = recorded("official/pyramidkv/" + name);
    INFO(name);
    if (budgets) {
      for (std::size_t l = 0; l < 30; ++l) CHECK(float(head(got, l, 0)["kept"].size()) == want.at(l));
      continue;
    }
    const Tensor margin = recorded("official/pyramidkv/" + name + "_margin");
    for (std::size_t h = 0; h < std::size_t(heads); ++h)
      c.same(positions(head(got, std::size_t(layer), h)["kept"]), want.positions(h), margin.at(h) < 1e-5f);
  }
  for (const Json& one : adakv["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    const std::int64_t heads = p["gqa_support"].as_bool() ? 3 : 9;
    save_layer(f, p["layer"].as_int(), heads, prompt);
    const Json got =
        plan(f, "AdaKV:total=official,window=" + text(p["window_size"]) + ",kernel=" + text(p["kernel_size"]) +
                    ",pool=" + pool(p) + ",floor=" + text(p["floor_alpha"].as_double()) +
                    ",normalise=" + (p["normalize"].as_bool() ? "yes" : "no") +
                    ",reduce=" + (p["gqa_func"].as_string() == "max" ? "max" : "mean") +
                    ",budget=" + text(p["base_capacity"]) + " --q q.npy");
    const Tensor kept = recorded("official/adakv/" + name + "_kept"),
                 margin = recorded("official/adakv/" + name + "_margin");
    INFO(name);
    for (std::size_t h = 0; h < std::size_t(heads); ++h)
      c.same(after(got, h, 0), kept.positions(h), margin.at(h) < 1e-5f);
  }
}

TEST_CASE("plan keeps what KeyDiff, CAKE and R-KV keep of a prompt", "[tool][plan][golden]") {
  if (absent()) KVIST_SKIP("reference values of keydiff, cake and rkv");
  const Folder f;
  Compared c;
  const Json keydiff = manifest("keydiff"), cake = manifest("cake"), rkv = manifest("rkv");
  for (const Json& one : keydiff["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    save_layer(f, p["layer"].as_int(), 3, prompt);
    std::string spec = "KeyDiff:budget=" + text(p["budget"]);
    const bool blocks = name.rfind("block", 0) == 0;
    if (blocks) {
      spec += " --chunks " + text(p["budget"]);
      for (std::int64_t at = p["budget"].as_int(); at < 512; at += p["block"].as_int())
        spec += "," + text(p["block"]);
    }
    const Json got = plan(f, spec);
    const Tensor kept = recorded("official/keydiff/" + name + "_kept");
    INFO(name);
    for (std::size_t h = 0; h < 3; ++h)
      c.same(positions(head(got, 0, h)["kept"]), kept.positions(h),
             !blocks && recorded("official/keydiff/" + name + "_margin").at(h) < 1e-5f);
  }
  std::vector<const Tensor*> k, q;
  std::vector<Tensor> windows;
  for (const int l : {2, 5, 8, 11, 14, 20, 26, 28}) {
    const bool all = l == 2 || l == 11 || l == 20;
    const Tensor& queries = input((all ? "q" : "qw") + two(l));
    Tensor last{{9, 32, 64}, {}};
    for (std::size_t h = 0; h < 9; ++h) {
      const auto from =
          queries.data.begin() + std::ptrdiff_t((h * queries.dim(1) + (all ? prompt - 32 : 0)) * 64);
      last.data.insert(last.data.end(), from, from + 32 * 64);
    }
    windows.push_back(std::move(last));
    k.push_back(&input("k" + two(l)));
  }
  for (const Tensor& w : windows) q.push_back(&w);
  std::vector<float> keys;  // some are recorded with their decode steps, some without
  for (const Tensor* t : k)
    for (std::size_t h = 0; h < 3; ++h) {
      const auto from = t->data.begin() + std::ptrdiff_t(h * t->dim(1) * 64);
      keys.insert(keys.end(), from, from + prompt * 64);
    }
  REQUIRE(save_npy(f / "k.npy", {8, 3, prompt, 64}, std::span<const float>(keys)));
  stack(f, "q.npy", q, 0, 32);
  for (const Json& one : cake["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    if (!p["cache_size"].is_number())
      continue;  // decode steps, of which four layers have no keys, and sharing alone
    const Json got =
        plan(f, "CAKE:total=official,budget=" + text(p["cache_size"]) + ",window=" + text(p["window_size"]) +
                    ",gamma=" + text(p["gamma"].as_double()) + ",tau1=" + text(p["tau1"].as_double()) +
                    ",tau2=" + text(p["tau2"].as_double()) +
                    ",cascade=" + (p["use_cascading"].as_bool() ? "yes" : "no") + " --q q.npy");
    const Tensor kept = recorded("official/cake/" + name + "_kept");
    INFO(name);
    for (std::size_t l = 0; l < 8; ++l)
      for (std::size_t h = 0; h < 3; ++h)
        c.same(positions(head(got, l, h)["kept"]), kept.positions(l, h), false);
  }
  for (const Json& one : rkv["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    save_layer(f, p["layer"].as_int(), 3, prompt);
    const Json got =
        plan(f, "RKV:budget=" + text(p["budget"]) + ",window=" + text(p["window_size"]) +
                    ",kernel=" + text(p["kernel_size"]) + ",lambda=" + text(p["mix_lambda"].as_double()) +
                    ",similarity=" + text(p["similarity_threshold"].as_double()) + " --q q.npy");
    const Tensor kept = recorded("official/rkv/" + name + "_kept"),
                 margin = recorded("official/rkv/" + name + "_margin");
    INFO(name);
    for (std::size_t h = 0; h < 3; ++h) c.same(after(got, h, 0), kept.positions(h), margin.at(h) < 1e-7f);
  }
}

TEST_CASE("plan keeps what TOVA's, H2O's, LazyEviction's and StreamingLLM's code keeps, step by step",
          "[tool][plan][golden]") {
  if (absent()) KVIST_SKIP("reference values of tova, h2o, lazyeviction and streamingllm");
  const Folder f;
  Compared c;
  const Json tova = manifest("tova"), h2o = manifest("h2o"), lazy = manifest("lazyeviction"),
             streaming = manifest("streamingllm");
  for (const Json& one : tova["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    save_layer(f, p["layer"].as_int(), 3, prompt + steps);
    const Json got = plan(f, "TOVA:budget=" + text(p["cache_size"]) + " --q q.npy --prefill 512");
    const Tensor kept = recorded("official/tova/" + name + "_kept"),
                 margin = recorded("official/tova/" + name + "_margin");
    for (std::size_t event = 0; event <= steps; ++event) {
      INFO(name << " event " << event);
      if (!c.same(after(got, 0, event), kept.positions(event), margin.at(event) < 1e-5f)) break;
    }
  }
  for (const Json& one : h2o["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    if (name.rfind("real", 0) != 0) continue;
    const std::int64_t heads = p["heads"].as_int();
    save_layer(f, p["layer"].as_int(), heads, prompt + steps);
    const Json got = plan(f, "H2O:heavy=" + text(p["hh_size"]) + ",recent=" + text(p["recent_size"]) +
                                 ",budget=" + std::to_string(p["hh_size"].as_int() + p["recent_size"].as_int()) +
                                 " --q q.npy --prefill 512");
    const Tensor kept = recorded("official/h2o/" + name + "_kept"),
                 margin = recorded("official/h2o/" + name + "_margin");
    for (std::size_t h = 0; h < std::size_t(heads); ++h)
      for (std::size_t event = 0; event <= steps; ++event) {
        INFO(name << " head " << h << " event " << event);
        if (!c.same(after(got, h, event), kept.positions(event, h), margin.at(event, h) < 1e-5f)) break;
      }
  }
  for (const Json& one : lazy["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    stack(f, "k.npy", {&input("k" + two(p["layer"].as_int()))}, 0, 528);
    stack(f, "q.npy", {&input("q" + two(p["layer"].as_int()))}, 0, 528, 1, 3);
    const Json got =
        plan(f, "LazyEviction:window=" + text(p["window"]) + ",alpha=" + text(p["alpha"].as_double()) +
                    ",form=" + name.substr(0, name.find('_')) + ",budget=" + text(p["capacity"]) +
                    " --q q.npy --prefill 128");
    const std::string at = "official/lazyeviction/" + name;
    const Tensor when = recorded(at + "_steps"), kept = recorded(at + "_kept"),
                 margin = recorded(at + "_margin");
    for (std::size_t h = 0; h < 3; ++h)  // entries that were never attended to score 0, all alike
      for (std::size_t event = 0; event < when.dim(0); ++event) {
        INFO(name << " head " << h << " event " << event);
        if (!c.same(after(got, h, std::size_t(when.at(event))), kept.positions(event, h),
                    margin.at(event, h) < 1e-5f, 528))
          break;
      }
  }
  for (const Json& one : streaming["cases"].elements()) {
    const Json& p = one["parameters"];
    const std::string name(one["case"].as_string());
    if (name.rfind("call", 0) != 0) continue;  // the others make room before they attend, or are attention
    std::string chunks;
    std::size_t n = 0;
    for (const Json& x : p["chunks"].elements()) {
      chunks += (chunks.empty() ? "" : ",") + text(x);
      n += std::size_t(x.as_int());
    }
    stack(f, "k.npy", {&input("k11")}, 0, n);
    const Tensor want = recorded("official/streamingllm/" + name);
    for (const char* const scheme : {"keep", "compact"}) {
      const Json got =
          plan(f, "StreamingLLM:sinks=" + text(p["start_size"]) + ",positions=" + scheme +
                      ",budget=" + std::to_string(p["start_size"].as_int() + p["recent_size"].as_int()) +
                      " --chunks " + chunks);
      for (std::size_t event = 0; event < p["chunks"].size(); ++event) {
        INFO(name << " " << scheme << " event " << event);
        c.same(after(got, 0, event + 1), want.positions(event), false);
      }
    }
  }
}
