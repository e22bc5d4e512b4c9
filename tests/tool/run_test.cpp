// SPDX-License-Identifier: Apache-2.0
// The comparison itself, on the bundled model.
#include "run_tool.hpp"

#include <algorithm>
#include <cmath>

using namespace kvist;
using namespace kvist::test;

namespace {

const Json& row(const Json& document, const std::string& policy, const std::string& task = "fidelity") {
  for (const Json& r : document["results"].elements())
    if (r["policy"].as_string() == policy && r["task"].as_string() == task) return r;
  FAIL("no row " << policy << " " << task);
  return document;
}

/// All rows without what clocks say.
std::string without_seconds(const Json& document) {
  std::string out;
  for (Json r : document["results"].elements()) {
    r.set("seconds", nullptr);
    out += r.dump() + "\n";
  }
  return out;
}

constexpr const char* small = "run --model tiny --threads 1 --samples 2 --context 256 ";

}  // namespace

TEST_CASE("The full cache loses nothing, the anchors are in order, and every policy keeps its budget",
          "[tool][run]") {
  const Folder f;
  const ToolRun r =
      tool(f, std::string(small) +
                  "--task fidelity --policy full --policy random:budget=20% --policy window:budget=20% "
                  "--policy StreamingLLM:budget=20% --policy H2O:budget=20% --policy "
                  "SnapKV:budget=20%,window=16 --policy oracle:budget=20% --json r.json");
  INFO(r.err);
  REQUIRE(r.status == 0);
  const Json d = f.json("r.json");
  CHECK(d["kvist"].is_string());
  CHECK(d["isa"].is_string());
  CHECK(d["model"]["name"].as_string() == "tiny");
  for (const char* const key : {"layers", "q_heads", "kv_heads", "head_dim"})
    CHECK(d["model"][key].as_int() > 0);
  REQUIRE(d["results"].size() == 7);
  const Json& full = row(d, "full");
  CHECK(full["metrics"]["kl"].as_double() == 0);
  CHECK(full["metrics"]["top1_agreement"].as_double() == 1);
  CHECK(full["metrics"]["output_error"].as_double() == 0);
  CHECK(full["metrics"]["perplexity"].as_double() == full["metrics"]["perplexity_full"].as_double());
  CHECK(full["kept_fraction"].as_double() == 1);
  CHECK(full["bytes"] == full["bytes_full"]);
  for (const Json& x : d["results"].elements()) {
    INFO(x["policy"].as_string());
    CHECK(x["status"].as_string() == "ok");
    CHECK(x["context"].as_int() == 256);
    CHECK(x["samples"].as_int() == 2);
    CHECK(x["question"].as_string() == "unseen");
    CHECK(x["decode"].as_string() == "frozen");
    CHECK(x["ci"]["kl"].size() == 2);
    CHECK(x["bytes_peak"].as_double() >= x["bytes"].as_double());
    CHECK(x["bytes_full_f16"].as_double() < 0.6 * x["bytes_full"].as_double());
    for (const char* const key : {"prefill", "policy", "decode_per_token", "decode_per_token_full"})
      CHECK(x["seconds"][key].is_number());
    if (x["policy"].as_string() == "full") continue;
    CHECK(x["kept_fraction"].as_double() == Approx(51.0 / 256));  // floor(256 * 20 / 100)
    CHECK(x["metrics"]["kl"].as_double() > 0);
    CHECK(x["bytes"].as_double() < 0.3 * x["bytes_full"].as_double());
    if (x["policy"].as_string() == "random:budget=20%") continue;
    REQUIRE(x["paired"].size() >= 1);
    CHECK(x["paired"][0]["against"].as_string() == "random:budget=20%");
    CHECK(x["paired"][0]["metric"].as_string() == "kl");
    CHECK(x["paired"][0]["n"].as_int() == 2);
  }
  const double oracle = row(d, "oracle:budget=20%")["metrics"]["kl"].as_double();
  for (const char* const other : {"random:budget=20%", "window:budget=20%", "StreamingLLM:budget=20%"})
    CHECK(oracle < 0.5 * row(d, other)["metrics"]["kl"].as_double());
  // the table on standard output has the same rows
  for (const char* const name : {"full", "random:budget=20%", "oracle:budget=20%"})
    CHECK(r.out.find(name) != r.out.npos);
}

TEST_CASE("One thread and several give the same results", "[tool][run]") {
  const Folder f;
  const std::string rest =
      " --model tiny --samples 2 --context 200 --task fidelity,facts8 --policy full --policy "
      "random:budget=25% --policy H2O:budget=25% --policy SnapKV:budget=25%,window=8";
  REQUIRE(tool(f, "run --threads 1 --json one.json" + rest).status == 0);
  REQUIRE(tool(f, "run --threads 3 --json three.json" + rest).status == 0);
  CHECK(without_seconds(f.json("one.json")) == without_seconds(f.json("three.json")));
}

TEST_CASE("A later run adds what its file lacks and leaves the rest alone", "[tool][run]") {
  const Folder f;
  const std::string base = std::string(small) + "--task fidelity --json r.json ";
  REQUIRE(tool(f, base + "--policy random:budget=20%").status == 0);
  Json first = f.json("r.json");
  REQUIRE(first["results"].size() == 1);
  // a value that only a second measurement would overwrite
  Json marked = first["results"][0];
  marked.set("seconds", "untouched");
  Json changed = first;
  changed.set("results", Json::array({marked}));
  f.write("r.json", changed.dump());
  REQUIRE(tool(f, base + "--policy random:budget=20% --policy StreamingLLM --budget 20%,40%").status == 0);
  const Json second = f.json("r.json");
  REQUIRE(second["results"].size() == 3);
  CHECK(second["results"][0]["seconds"].as_string() == "untouched");
  CHECK(second["results"][1]["policy"].as_string() == "StreamingLLM:budget=20%");
  CHECK(second["results"][2]["policy"].as_string() == "StreamingLLM:budget=40%");
  CHECK(second["results"][1]["paired"][0]["against"].as_string() == "random:budget=20%");
  // another context is another row
  REQUIRE(tool(f,
               "run --model tiny --threads 1 --samples 2 --context 128 --task fidelity --json r.json "
               "--policy full")
              .status == 0);
  CHECK(f.json("r.json")["results"].size() == 4);
  // so is another text of the same name
  f.write("story.txt", read_file(KVIST_SOURCE_DIR "/bench/texts/story.txt")->substr(2000));
  REQUIRE(tool(f, base + "--text story.txt --policy full").status == 0);
  CHECK(f.json("r.json")["results"].size() == 5);
  f.write("story.txt", read_file(KVIST_SOURCE_DIR "/bench/texts/story.txt")->substr(4000));
  REQUIRE(tool(f, base + "--text story.txt --policy full").status == 0);
  CHECK(f.json("r.json")["results"].size() == 6);
  // what other kernels measured is not taken for this run's
  Json elsewhere = f.json("r.json");
  elsewhere.set("isa", "another");
  f.write("elsewhere.json", elsewhere.dump());
  const ToolRun apart = tool(f, std::string(small) + "--task fidelity --policy full --json elsewhere.json");
  CHECK(apart.status == 1);
  CHECK(apart.err.find("another") != std::string::npos);
  // and what is no result file is not overwritten
  f.write("other.json", "{\"mine\": true}");
  const ToolRun refused = tool(f, std::string(small) + "--task fidelity --policy full --json other.json");
  CHECK(refused.status == 1);
  CHECK(f.text("other.json") == "{\"mine\": true}");
}

TEST_CASE("A method whose guards do not fit has an error in its row, and the run goes on", "[tool][run]") {
  const Folder f;
  REQUIRE(tool(f, std::string(small) +
                      "--task fidelity --policy SnapKV:budget=20,window=32 --policy StreamingLLM:budget=20 "
                      "--json r.json")
              .status == 0);
  const Json d = f.json("r.json");
  const Json& bad = row(d, "SnapKV:budget=20,window=32");
  CHECK(bad["status"].as_string() == "error");
  CHECK(bad["error"].as_string().find("guarded entries") != std::string_view::npos);
  CHECK(row(d, "StreamingLLM:budget=20")["status"].as_string() == "ok");
  CHECK(row(d, "StreamingLLM:budget=20")["kept_fraction"].as_double() == Approx(20.0 / 256));
}

TEST_CASE("Facts are found in the full cache and lost without their entries", "[tool][run]") {
  const Folder f;
  const std::string base = "run --model tiny --threads 1 --samples 4 --context 256 --json r.json ";
  REQUIRE(tool(f, base + "--task needle --policy full --policy random:budget=10 --policy random:budget=40 "
                         "--policy oracle:budget=50%")
              .status == 0);
  const Json d = f.json("r.json");
  const Json& full = row(d, "full", "facts8");
  REQUIRE(full["status"].as_string() == "ok");
  CHECK(full["metrics"]["accuracy"] == full["metrics"]["accuracy_full"]);
  CHECK(full["metrics"]["accuracy"].as_double() > 0.9);
  CHECK(full["questions"].as_int() == 32);
  CHECK(full["hits"].size() == 32);
  const Json& random = row(d, "random:budget=40", "facts8");
  CHECK(random["metrics"]["accuracy"].as_double() < 0.5);
  CHECK(random["metrics"]["accuracy_full"] == full["metrics"]["accuracy"]);
  CHECK(random["ci"]["accuracy"][1].as_double() < 1);
  // guards of 4 + 32 do not fit in 10
  CHECK(row(d, "random:budget=10", "facts8")["status"].as_string() == "error");
  // passkey asks one question in each of two contexts a sample
  CHECK(row(d, "full", "passkey")["metrics"]["accuracy_full"].is_number());
}

TEST_CASE("A question that is seen is kept on top of the budget", "[tool][run]") {
  const Folder f;
  const std::string base =
      "run --model tiny --threads 1 --samples 3 --context 256 --task facts8 --question seen --json r.json ";
  REQUIRE(
      tool(f,
           base +
               "--policy full --policy random:budget=20% --policy SnapKV:budget=20% --policy H2O:budget=20%")
          .status == 0);
  const Json d = f.json("r.json");
  for (const Json& x : d["results"].elements()) {
    INFO(x["policy"].as_string() << ": " << x["error"].as_string());
    REQUIRE(x["status"].as_string() == "ok");
    CHECK(x["question"].as_string() == "seen");
    if (x["policy"].as_string() == "full") CHECK(x["metrics"]["accuracy"] == x["metrics"]["accuracy_full"]);
    else CHECK(x["budget"].as_int() > 51);  // and the question's entries
  }
}

TEST_CASE("What a policy sees of a question does not depend on who else runs", "[tool][run]") {
  const Folder f;
  const std::string base =
      "run --model tiny --threads 1 --samples 2 --context 256 --task facts8 --question seen --policy "
      "SnapKV:budget=20% --policy RKV:budget=20% ";
  REQUIRE(tool(f, base + "--json alone.json").status == 0);
  REQUIRE(tool(f, base + "--policy ExpectedAttention:budget=20% --json beside.json").status == 0);
  const Json alone = f.json("alone.json"), beside = f.json("beside.json");
  for (const char* const policy : {"SnapKV:budget=20%", "RKV:budget=20%"}) {
    INFO(policy);
    CHECK(row(alone, policy, "facts8")["hits"] == row(beside, policy, "facts8")["hits"]);
  }
  // The question is observed: more is found than without it.
  REQUIRE(tool(f,
               "run --model tiny --threads 1 --samples 2 --context 256 --task facts8 --policy "
               "SnapKV:budget=20% --json unseen.json")
              .status == 0);
  CHECK(row(alone, "SnapKV:budget=20%", "facts8")["metrics"]["accuracy"].as_double() >
        row(f.json("unseen.json"), "SnapKV:budget=20%", "facts8")["metrics"]["accuracy"].as_double());
}

TEST_CASE("A policy that evicts between the calls of a prompt keeps its peak near budget and call",
          "[tool][run][chunk]") {
  const Folder f;
  const std::string base =
      "run --model tiny --threads 1 --samples 1 --context 512 --task fidelity --json r.json "
      "--policy full --policy SnapKV:budget=64,window=16 "
      "--policy SnapKV:budget=64,window=16,schedule=per_chunk --policy "
      "StreamingLLM:budget=64,schedule=per_chunk "
      "--policy CAKE:budget=64,window=16,schedule=per_chunk ";
  const ToolRun r = tool(f, base + "--chunk 64");
  INFO(r.err);
  REQUIRE(r.status == 0);
  const Json d = f.json("r.json");
  const double whole = row(d, "full")["bytes_full"].as_double();
  CHECK(row(d, "full")["chunk"].as_int() == 64);
  CHECK(row(d, "SnapKV:budget=64,window=16")["bytes_peak"].as_double() > 0.9 * whole);
  for (const char* const policy :
       {"SnapKV:budget=64,window=16,schedule=per_chunk", "StreamingLLM:budget=64,schedule=per_chunk",
        "CAKE:budget=64,window=16,schedule=per_chunk"}) {
    INFO(policy);
    CHECK(row(d, policy)["status"].as_string() == "ok");
    CHECK(row(d, policy)["kept_fraction"].as_double() == Approx(64.0 / 512));
    // 64 entries and a call of 64 are a quarter of the prompt; what else is held is room that buffers grew into.
    CHECK(row(d, policy)["bytes_peak"].as_double() < 0.5 * whole);
  }
  CHECK(r.out.find("prompt in calls of 64") != r.out.npos);
  // The same at once is another row.
  REQUIRE(tool(f, base).status == 0);
  CHECK(f.json("r.json")["results"].size() == 10);
}

TEST_CASE("A policy that would never evict says so instead of passing for one that does", "[tool][run]") {
  const Folder f;
  REQUIRE(
      tool(f, std::string(small) + "--task fidelity --policy LazyEviction:budget=64,window=300 --json r.json")
          .status == 0);
  const Json d = f.json("r.json");
  const Json& x = row(d, "LazyEviction:budget=64,window=300");
  CHECK(x["status"].as_string() == "error");
  CHECK(x["error"].as_string().find("keep everything") != std::string_view::npos);
}

TEST_CASE("A task that the full cache fails is not compared", "[tool][run]") {
  const Folder f;
  // one sample: even 2 of 2 passkeys say too little
  REQUIRE(tool(f,
               "run --model tiny --threads 1 --samples 1 --context 256 --task passkey --policy full --policy "
               "random:budget=20% --json r.json")
              .status == 0);
  const Json d = f.json("r.json");
  CHECK(row(d, "random:budget=20%", "passkey")["status"].as_string() == "model_cannot");
  CHECK(row(d, "random:budget=20%", "passkey")["paired"].size() == 0);
}

TEST_CASE("Live decoding goes on evicting, frozen decoding does not", "[tool][run]") {
  const Folder f;
  REQUIRE(
      tool(f,
           std::string(small) +
               "--task fidelity --decode live --policy full --policy StreamingLLM:budget=20% --json r.json")
          .status == 0);
  REQUIRE(tool(f, std::string(small) + "--task fidelity --policy StreamingLLM:budget=20% --json r.json").status ==
          0);
  const Json d = f.json("r.json");
  REQUIRE(d["results"].size() == 3);
  CHECK(d["results"][0]["decode"].as_string() == "live");
  // token by token differs from all at once by rounding alone
  CHECK(d["results"][0]["metrics"]["kl"].as_double() < 1e-6);
  CHECK(d["results"][1]["metrics"]["kl"].as_double() != d["results"][2]["metrics"]["kl"].as_double());
}

TEST_CASE("A budget in bytes is what is stored", "[tool][run]") {
  const Folder f;
  REQUIRE(tool(f, std::string(small) + "--task fidelity --policy StreamingLLM:budget=200kB --policy "
                                       "StreamingLLM:budget=100kB+f16 --json r.json")
              .status == 0);
  const Json d = f.json("r.json");
  CHECK(d["results"][0]["bytes"].as_double() == Approx(200e3).epsilon(0.1));
  CHECK(d["results"][1]["bytes"].as_double() == Approx(100e3).epsilon(0.1));
  // half the bytes an entry, half the bytes: as many entries
  CHECK(d["results"][0]["kept_fraction"].as_double() ==
        Approx(d["results"][1]["kept_fraction"].as_double()).epsilon(0.05));
}

TEST_CASE("A budget in bytes holds with pages, exact windows, tiers and whole layers, or the row is an error",
          "[tool][run]") {
  const Folder f;
  struct Fits {
    const char* policy;
    double bytes, least;  ///< pages of 128 rows and tiers are steps
  };
  const Fits fits[] = {{"SnapKV:budget=100kB,window=8+int8", 100e3, 60e3},
                       {"SnapKV:budget=60kB,window=8+KIVI:bits=4", 60e3, 57e3},
                       {"SnapKV:budget=100kB,window=8+KIVI:bits=4,group=32,residual=32", 100e3, 95e3},
                       {"MiKV:budget=200kB", 200e3, 100e3},
                       {"StreamingLLM:budget=150kB+MiniCache:start=0", 150e3, 120e3},
                       {"SnapKV:budget=300kB,skip_layers=1,window=8", 300e3, 280e3},
                       {"H2O:budget=100kB+q8_0", 100e3, 60e3}};
  const char* const too_little[] = {"SnapKV:budget=60kB+KIVI:bits=4", "MiKV:budget=60kB"};
  std::string command = std::string(small) + "--task fidelity --json r.json";
  for (const Fits& x : fits) command += std::string(" --policy ") + x.policy;
  for (const char* const x : too_little) command += std::string(" --policy ") + x;
  REQUIRE(tool(f, command).status == 0);
  const Json d = f.json("r.json");
  for (const Fits& x : fits) {
    INFO(x.policy);
    const Json& r = row(d, x.policy);
    REQUIRE(r["status"].as_string() == "ok");
    CHECK(r["bytes"].as_double() <= x.bytes);
    CHECK(r["bytes"].as_double() >= x.least);
  }
  for (const char* const x : too_little) {
    INFO(x);
    CHECK(row(d, x)["status"].as_string() == "error");
    CHECK(row(d, x)["error"].as_string().find("cannot be met: the cache takes ") != std::string_view::npos);
  }
}

TEST_CASE("Too little text says how many windows fit", "[tool][run]") {
  const Folder f;
  std::string text;
  for (int i = 0; i < 300; ++i) text += "The sun goes up and the sun goes down over the old town. ";
  f.write("short.txt", text);
  const ToolRun r =
      tool(f, "run --model tiny --text short.txt --context 256 --samples 500 --policy full --task fidelity");
  CHECK(r.status == 1);
  CHECK(r.err.find("enough for") != r.err.npos);
  // not asked for a number: as many as there are, and the row says how many
  const ToolRun fewer =
      tool(f, "run --model tiny --text short.txt --context 1024 --policy full --task fidelity --json r.json");
  INFO(fewer.err);
  REQUIRE(fewer.status == 0);
  const Json row = f.json("r.json")["results"][0];
  CHECK(row["samples"].as_int() < 8);
  CHECK(row["samples"].as_int() == std::int64_t(row["windows"]["kl"].size()));
}

TEST_CASE("Without arguments the first comparison runs and leaves a report", "[tool][run]") {
  const Folder f;
  const ToolRun r = tool(f, "run --model tiny --samples 2 --context 256");
  INFO(r.err);
  CHECK(r.status == 0);
  for (const char* const name :
       {"full", "random", "window", "StreamingLLM", "H2O", "SnapKV", "oracle", "facts8", "fidelity"})
    CHECK(r.out.find(name) != r.out.npos);
  const std::string html = f.text("kvist-report.html");
  CHECK(html.find("<svg") != html.npos);
  CHECK(html.find("SnapKV:budget=20%") != html.npos);
}
