// SPDX-License-Identifier: Apache-2.0
// kvist-eval plan: policies over recorded tensors.
#include "run_tool.hpp"

#include <kvist/core/random.hpp>
#include <kvist/io/npy.hpp>
#include <support/assets.hpp>

#include <algorithm>
#include <cmath>

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<float> noise(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> out(n);
  for (float& x : out) x = float(2 * random.uniform() - 1);
  return out;
}

std::vector<int> positions(const Json& list) {
  std::vector<int> out;
  for (const Json& x : list.elements()) out.push_back(int(x.as_int()));
  return out;
}

std::vector<int> range(int first, int end) {
  std::vector<int> out;
  for (int i = first; i < end; ++i) out.push_back(i);
  return out;
}

/// Keys [2, 2, 40, 8] and queries [2, 4, 40, 8] in the folder.
struct Tensors {
  static constexpr std::size_t layers = 2, kv = 2, q_heads = 4, n = 40, d = 8;
  std::vector<float> k = noise(layers * kv * n * d, 1), q = noise(layers * q_heads * n * d, 2);
  explicit Tensors(const Folder& f) {
    for (float& x : q) x *= 4;  // so that attention is not flat
    REQUIRE(save_npy(f / "k.npy", {layers, kv, n, d}, std::span<const float>(k)));
    REQUIRE(save_npy(f / "q.npy", {layers, q_heads, n, d}, std::span<const float>(q)));
  }
  /// softmax(q.k / sqrt(d)) of query i of a head over the rows `seen`.
  std::vector<double> attention(std::size_t l, std::size_t g, std::size_t i, const std::vector<int>& seen) const {
    std::vector<double> p;
    double sum = 0;
    for (const int j : seen) {
      double dot = 0;
      for (std::size_t c = 0; c < d; ++c)
        dot += double(q[((l * q_heads + g) * n + i) * d + c]) *
               double(k[((l * kv + g / 2) * n + std::size_t(j)) * d + c]);
      p.push_back(std::exp(dot / std::sqrt(double(d))));
      sum += p.back();
    }
    for (double& x : p) x /= sum;
    return p;
  }
};

}  // namespace

TEST_CASE("plan keeps sinks and the newest, and goes on step by step", "[tool][plan]") {
  const Folder f;
  const Tensors t(f);
  REQUIRE(tool(f, "plan --policy StreamingLLM:sinks=2,budget=8 --k k.npy --prefill 36 --json p.json").status ==
          0);
  const Json p = f.json("p.json");
  REQUIRE(p["layers"].size() == 2);
  for (const Json& layer : p["layers"].elements()) {
    REQUIRE(layer["heads"].size() == 2);
    for (const Json& head : layer["heads"].elements()) {
      CHECK(head["budget"].as_int() == 8);
      CHECK(positions(head["kept"]) == std::vector<int>{0, 1, 30, 31, 32, 33, 34, 35});
      REQUIRE(head["steps"].size() == 4);
      CHECK(positions(head["steps"][3]) == std::vector<int>{0, 1, 34, 35, 36, 37, 38, 39});
    }
  }
}

TEST_CASE("plan takes entries in calls of given sizes", "[tool][plan]") {
  const Folder f;
  const Tensors t(f);
  REQUIRE(tool(f, "plan --policy StreamingLLM:sinks=1,budget=10 --k k.npy --chunks 5,20,1,1,9 --json p.json").status ==
          0);
  const Json head = f.json("p.json")["layers"][0]["heads"][0];
  REQUIRE(head["steps"].size() == 5);
  CHECK(positions(head["steps"][0]) == range(0, 5));
  std::vector<int> want = range(16, 25);
  want.insert(want.begin(), 0);
  CHECK(positions(head["steps"][1]) == want);
  want = range(27, 36);
  want.insert(want.begin(), 0);
  CHECK(positions(head["steps"][4]) == want);
  CHECK(head["kept"] == head["steps"][4]);
}

TEST_CASE("plan gives H2O the column sums of the prompt and each step's probabilities over what survived",
          "[tool][plan]") {
  const Folder f;
  const Tensors t(f);
  REQUIRE(tool(f, "plan --policy H2O:budget=10 --k k.npy --q q.npy --prefill 30 --scores s.npy --json p.json")
              .status == 0);
  const Json p = f.json("p.json");
  const auto npy = Npy::load(f / "s.npy");
  REQUIRE(npy);
  CHECK(npy->shape() == std::vector<std::size_t>{2, 2, 30});
  const std::vector<float> scores = npy->as_f32();
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t h = 0; h < 2; ++h) {
      // the naive form: sums over all queries that see the entry, mean over the group; heavy 5 and recent 5
      // stay
      std::vector<double> sum(30, 0.0);
      for (std::size_t g = 2 * h; g < 2 * h + 2; ++g)
        for (int i = 0; i < 30; ++i) {
          const auto a = t.attention(l, g, std::size_t(i), range(0, i + 1));
          for (std::size_t j = 0; j < a.size(); ++j) sum[j] += a[j] / 2;
        }
      for (std::size_t j = 0; j < 25; ++j)
        CHECK(scores[(l * 2 + h) * 30 + j] == Approx(sum[j]).epsilon(1e-4));
      // the 5 largest of all but the last 5
      const auto keep = [](std::vector<int> rows, std::vector<double>& s) {
        std::vector<int> order(rows.size() - 5);
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = int(i);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return s[std::size_t(a)] > s[std::size_t(b)]; });
        order.resize(5);
        for (std::size_t i = rows.size() - 5; i < rows.size(); ++i) order.push_back(int(i));
        std::sort(order.begin(), order.end());
        std::vector<int> kept;
        std::vector<double> left;
        for (const int i : order) {
          kept.push_back(rows[std::size_t(i)]);
          left.push_back(s[std::size_t(i)]);
        }
        s = left;
        return kept;
      };
      const Json& head = p["layers"][l]["heads"][h];
      std::vector<int> rows = keep(range(0, 30), sum);
      CHECK(positions(head["kept"]) == rows);
      for (int step = 0; step < 10; ++step) {
        rows.push_back(30 + step);
        sum.push_back(0);
        for (std::size_t g = 2 * h; g < 2 * h + 2; ++g) {
          const auto a = t.attention(l, g, std::size_t(30 + step), rows);
          for (std::size_t j = 0; j < a.size(); ++j) sum[j] += a[j] / 2;
        }
        rows = keep(rows, sum);
        CHECK(positions(head["steps"][std::size_t(step)]) == rows);
      }
    }
}

TEST_CASE("plan tells the first tier from what moved to another", "[tool][plan]") {
  const Folder f;
  const Tensors t(f);
  REQUIRE(tool(f, "plan --policy MiKV:budget=10 --k k.npy --q q.npy --prefill 40 --json p.json").status == 0);
  const Json p = f.json("p.json");
  for (const Json& layer : p["layers"].elements())
    for (const Json& head : layer["heads"].elements()) {
      CHECK(head["budget"].as_int() == 10);
      CHECK(positions(head["kept"]) == range(0, 40));
      const std::vector<int> moved = positions(head["moved"]);
      CHECK(moved.size() == 30);
      CHECK(std::is_sorted(moved.begin(), moved.end()));
      CHECK(moved.back() < 35);  // half of the first tier is the newest
    }
}

TEST_CASE("plan says what is missing or does not fit", "[tool][plan]") {
  const Folder f;
  const Tensors t(f);
  const auto fails = [&](const std::string& arguments, int status, const std::string& what) {
    INFO(arguments);
    const ToolRun r = tool(f, "plan " + arguments);
    INFO(r.err);
    CHECK(r.status == status);
    CHECK(r.err.find(what) != r.err.npos);
  };
  fails("--policy H2O:budget=10 --k k.npy", 2, "wants queries: --q");
  fails("--policy SnapKV:tolerance=0.3 --k k.npy --q k.npy", 2, "which takes values: --v");
  fails("--policy KeyNorm:budget=10,account_loss=yes --k k.npy --q k.npy", 2, "which takes values: --v");
  fails("--policy SnapKV:budget=10,merge=values --k k.npy --q k.npy", 2, "blends values: --v");
  fails("--policy SnapKV:budget=10,window=32 --k k.npy --q q.npy", 1, "guarded entries");
  fails("--policy full --k k.npy --prefill 41", 2, "from 1 to 40");
  fails("--policy full --k k.npy --chunks 30,20", 2, "adds up to more");
  fails("--policy StreamingLLM --k k.npy", 2, "needs a budget");
  fails("--policy StreamingLLM:budget=1MB --k k.npy", 2, "no store");
  fails("--policy full --k k.npy --q k.npy --v q.npy", 1, "--v is");
  REQUIRE(save_npy(f / "last.npy", {2, 4, 4, 8}, std::span<const float>(t.q).first(256)));
  fails("--policy H2O:budget=10 --k k.npy --q last.npy", 1, "holds those of the last 4");
  REQUIRE(save_npy(f / "flat.npy", {40, 8}, std::span<const float>(t.k).first(320)));
  fails("--policy full --k flat.npy", 1, "axes");
  std::vector<float> bad(320, 0.0f);
  bad[7] = std::nanf("");
  REQUIRE(save_npy(f / "nan.npy", {1, 40, 8}, std::span<const float>(bad)));
  fails("--policy full --k nan.npy", 1, "no number");
}

TEST_CASE("plan keeps of recorded tensors what SnapKV's published code keeps", "[tool][plan][golden]") {
  const auto root = golden_path();
  if (!root || !std::filesystem::exists(*root + "/official/snapkv/manifest.json"))
    KVIST_SKIP("reference values of snapkv");
  const Folder f;
  const auto manifest =
      Json::parse(read_file(*root + "/official/snapkv/manifest.json").value_or(std::string()));
  REQUIRE(manifest);
  int compared = 0;
  for (const Json& c : (*manifest)["cases"].elements()) {
    const std::string name(c["case"].as_string());
    const Json& p = c["parameters"];
    if (name.find("gqa") == name.npos || p["layer"].as_int() == 28) continue;  // three heads, as recorded
    INFO(name);
    const std::string layer = (p["layer"].as_int() < 10 ? "0" : "") + std::to_string(p["layer"].as_int());
    const std::string inputs = *root + "/official/inputs/";
    // the prompt's 512 of 528 recorded tokens
    for (const char* const what : {"k", "q"}) {
      const auto all = Npy::load(inputs + what + layer + ".npy");
      REQUIRE(all);
      const std::vector<float> x = all->as_f32();
      std::vector<float> prompt;
      for (std::size_t h = 0; h < all->dim(0); ++h)
        prompt.insert(prompt.end(), x.begin() + std::ptrdiff_t(h * all->dim(1) * 64),
                      x.begin() + std::ptrdiff_t((h * all->dim(1) + 512) * 64));
      REQUIRE(
          save_npy(f / (std::string(what) + ".npy"), {all->dim(0), 512, 64}, std::span<const float>(prompt)));
    }
    const std::string spec = "SnapKV:window=" + std::to_string(p["window_size"].as_int()) +
                             ",kernel=" + std::to_string(p["kernel_size"].as_int()) +
                             ",pool=" + (p["pooling"].as_string() == "maxpool" ? "max" : "avg") +
                             ",reduce=" + (p["gqa_score_agg"].as_string() == "max" ? "max" : "mean") +
                             ",budget=" + std::to_string(p["max_capacity_prompt"].as_int());
    const ToolRun r =
        tool(f, "plan --policy " + spec + " --k k.npy --q q.npy --rope-base 100000 --json p.json");
    INFO(r.err);
    REQUIRE(r.status == 0);
    const Json plan = f.json("p.json");
    const auto kept = Npy::load(*root + "/official/snapkv/" + name + "_kept.npy");
    const auto margin = Npy::load(*root + "/official/snapkv/" + name + "_margin.npy");
    REQUIRE((kept && margin));
    const std::vector<float> want = kept->as_f32(), margins = margin->as_f32();
    for (std::size_t h = 0; h < 3; ++h) {
      std::vector<int> list;
      for (std::size_t i = 0; i < kept->dim(1); ++i)
        if (want[h * kept->dim(1) + i] >= 0) list.push_back(int(want[h * kept->dim(1) + i]));
      if (margins[h] < 1e-5f) continue;  // a tie crosses the cut
      CHECK(positions(plan["layers"][0]["heads"][h]["kept"]) == list);
      ++compared;
    }
  }
  CHECK(compared > 0);
}
