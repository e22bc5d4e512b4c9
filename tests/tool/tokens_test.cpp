// SPDX-License-Identifier: Apache-2.0
// The commands that show one step of the machine each.
#include "run_tool.hpp"

#include <kvist/io/npy.hpp>

#include <cmath>

using namespace kvist;
using namespace kvist::test;

namespace {
constexpr const char* text =
    "It was a bright cold day in the harbour, and the clocks of the old town were striking thirteen. "
    "\"Who goes there?\" asked the guard. Nobody answered him for 12 minutes.";
}

TEST_CASE("tokenize gives ids whose text is the text", "[tool][tokens]") {
  const Folder f;
  f.write("t.txt", text);
  const ToolRun r = tool(f, "tokenize --model tiny --text t.txt");
  REQUIRE(r.status == 0);
  const auto j = Json::parse(r.out);
  REQUIRE(j);
  CHECK((*j)["text"].as_string() == text);
  CHECK((*j)["ids"].size() > 20);
  // no start token is added
  f.write("a.txt", "a");
  REQUIRE(tool(f, "tokenize --model tiny --text a.txt --json a.json").status == 0);
  CHECK(f.json("a.json")["ids"].size() == 1);
  // a special token is one id, or plain text
  f.write("s.txt", "<|endoftext|>");
  REQUIRE(tool(f, "tokenize --model tiny --text s.txt --json s.json").status == 0);
  REQUIRE(tool(f, "tokenize --model tiny --text s.txt --no-special --json p.json").status == 0);
  CHECK(f.json("s.json")["ids"].size() == 1);
  CHECK(f.json("s.json")["ids"][0].as_int() == 0);
  CHECK(f.json("p.json")["ids"].size() > 1);
  CHECK(f.json("p.json")["text"].as_string() == "<|endoftext|>");
}

TEST_CASE("logits lists positions with their log-probabilities, and the full array on request",
          "[tool][tokens]") {
  const Folder f;
  f.write("t.txt", text);
  REQUIRE(tool(f, "tokenize --model tiny --text t.txt --json ids.json").status == 0);
  const Json ids = f.json("ids.json")["ids"];
  f.write("i.json", ids.dump());
  REQUIRE(tool(f, "logits --model tiny --ids i.json --top 3 --full l.npy --json l.json").status == 0);
  const Json l = f.json("l.json");
  const auto npy = Npy::load(f / "l.npy");
  REQUIRE(npy);
  const std::size_t n = ids.size(), vocabulary = npy->dim(1);
  CHECK(npy->dim(0) == n);
  REQUIRE(l["positions"].size() == n);
  CHECK(l["kept_fraction"].as_double() == 1);
  CHECK(l["bytes"].as_double() > 0);
  const std::vector<float> x = npy->as_f32();
  for (std::size_t p = 0; p < n; ++p) {
    const Json& at = l["positions"][p];
    CHECK(at["position"].as_int() == std::int64_t(p));
    double sum = 0;
    std::size_t best = 0;
    for (std::size_t t = 0; t < vocabulary; ++t) {
      sum += std::exp(double(x[p * vocabulary + t]));
      if (x[p * vocabulary + t] > x[p * vocabulary + best]) best = t;
    }
    CHECK(at["logsumexp"].as_double() == Approx(std::log(sum)));
    REQUIRE(at["top"].size() == 3);
    CHECK(at["top"][0][0].as_int() == std::int64_t(best));
    CHECK(at["top"][0][1].as_double() >= at["top"][1][1].as_double());
    if (p + 1 == n) CHECK(at["logprob_next"].is_null());
    else
      CHECK(at["logprob_next"].as_double() ==
            Approx(double(x[p * vocabulary + std::size_t(ids[p + 1].as_int())]) - std::log(sum)).margin(1e-5));
  }
  // the last few only, and from the text itself
  REQUIRE(tool(f, "logits --model tiny --text t.txt --last 4 --json last.json").status == 0);
  const Json last = f.json("last.json");
  REQUIRE(last["positions"].size() == 4);
  CHECK(last["positions"][3]["position"].as_int() == std::int64_t(n) - 1);
  CHECK(last["positions"][3]["logsumexp"].as_double() ==
        Approx(l["positions"][n - 1]["logsumexp"].as_double()).epsilon(1e-4));
}

TEST_CASE("logits after a policy: full changes nothing, an evicting one keeps its budget", "[tool][tokens]") {
  const Folder f;
  f.write("t.txt", text);
  REQUIRE(tool(f, "logits --model tiny --text t.txt --json all.json").status == 0);
  REQUIRE(tool(f, "logits --model tiny --text t.txt --policy full --compress-at 30 --json full.json").status ==
          0);
  REQUIRE(
      tool(
          f,
          "logits --model tiny --text t.txt --policy StreamingLLM:budget=12 --compress-at 30 --json few.json")
          .status == 0);
  const Json all = f.json("all.json"), full = f.json("full.json"), few = f.json("few.json");
  REQUIRE(full["positions"].size() == all["positions"].size() - 30);
  CHECK(full["positions"][0]["position"].as_int() == 30);
  for (std::size_t i = 0; i < full["positions"].size(); ++i)
    CHECK(full["positions"][i]["logsumexp"].as_double() ==
          Approx(all["positions"][i + 30]["logsumexp"].as_double()).epsilon(1e-4));
  CHECK(few["kept_fraction"].as_double() == Approx(12.0 / 30));
  CHECK(few["bytes"].as_double() < full["bytes"].as_double());
  bool differs = false;
  for (std::size_t i = 0; i < few["positions"].size(); ++i)
    differs = differs ||
              few["positions"][i]["logsumexp"].as_double() != full["positions"][i]["logsumexp"].as_double();
  CHECK(differs);
  CHECK(tool(f, "logits --model tiny --text t.txt --policy full --compress-at 4000").status == 2);
  CHECK(tool(f, "logits --model tiny --text t.txt --policy full").status == 2);
}

TEST_CASE("generate is greedy: each new token is the argmax of what stands before it", "[tool][tokens]") {
  const Folder f;
  f.write("t.txt", text);
  REQUIRE(tool(f, "tokenize --model tiny --text t.txt --json t.json").status == 0);
  REQUIRE(tool(f, "generate --model tiny --text t.txt --tokens 6 --json g.json").status == 0);
  const Json g = f.json("g.json");
  REQUIRE(g["ids"].size() == 6);
  Json ids = f.json("t.json")["ids"];
  for (const Json& id : g["ids"].elements()) ids.push_back(id);
  f.write("all.json", ids.dump());
  REQUIRE(tool(f, "logits --model tiny --ids all.json --last 7 --top 2 --json l.json").status == 0);
  const Json l = f.json("l.json");
  for (std::size_t i = 0; i < 6; ++i) {
    const Json& top = l["positions"][i]["top"];
    if (top[0][1].as_double() - top[1][1].as_double() > 1e-3) CHECK(top[0][0] == g["ids"][i]);
  }
  REQUIRE(tool(f,
               "generate --model tiny --prompt 'The pass key is' --tokens 3 --policy StreamingLLM:budget=5 "
               "--json s.json")
              .status == 0);
  CHECK(f.json("s.json")["ids"].size() == 3);
  CHECK(f.json("s.json")["text"].is_string());
}
