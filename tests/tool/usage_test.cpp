// SPDX-License-Identifier: Apache-2.0
#include "run_tool.hpp"

#include <kvist/core/version.hpp>

using namespace kvist;
using namespace kvist::test;

namespace {
bool has(const std::string& text, const std::string& what) { return text.find(what) != text.npos; }
}  // namespace

TEST_CASE("Every command has a help text that names its options, and there is a version", "[tool][usage]") {
  const Folder f;
  const ToolRun help = tool(f, "--help");
  CHECK(help.status == 0);
  CHECK(help.err.empty());
  for (const std::string command : {"run", "list", "tokenize", "logits", "generate", "plan"}) {
    CHECK(has(help.out, "kvist-eval " + command));
    const ToolRun own = tool(f, command + " --help");
    CHECK(own.status == 0);
    CHECK(has(own.out, "--json"));
    CHECK(has(own.out, "--help"));
  }
  CHECK(has(tool(f, "run --help").out, "--policy SPEC"));
  const ToolRun version_run = tool(f, "--version");
  CHECK(version_run.status == 0);
  CHECK(version_run.out == "kvist-eval " + std::string(version) + "\n");
}

TEST_CASE("A word that is not known is a usage error that lists the valid ones", "[tool][usage]") {
  const Folder f;
  const auto wrong = [&](const std::string& arguments, const std::string& what) {
    INFO(arguments);
    const ToolRun r = tool(f, arguments);
    INFO(r.err);
    CHECK(r.status == 2);
    CHECK(r.out.empty());
    CHECK(has(r.err, what));
  };
  wrong("nothing", "the commands are run list tokenize");
  wrong("run --polcy full", "the options are --model --task");
  wrong("run full", "'full' is not an option");
  wrong("run --policy", "--policy wants SPEC");
  wrong("run --policy=", "--policy wants SPEC");
  wrong("run --model tiny --model tiny", "given twice");
  wrong("run --task fidelity,poetry", "the tasks are fidelity, facts8, passkey");
  wrong("run --task ''", "--task wants");
  wrong("run --task fidelity,,facts8", "empty part");
  wrong("run --context 1", "whole number from 2");
  wrong("run --context 12x", "whole number");
  wrong("run --samples 0", "whole number from 1");
  wrong("run --threads 0", "whole number from 1");
  wrong("run --question maybe", "unseen or seen");
  wrong("run --decode slow", "frozen or live");
  wrong("run --policy SnapKW:budget=20%", "the names are full random window StreamingLLM H2O SnapKV");
  wrong("run --policy SnapKV:windows=3,budget=20%", "the options are window, kernel, pool");
  wrong("run --policy SnapKV:window=x,budget=20%", "wants a whole number");
  wrong("run --policy SnapKV:tolerance=0", "needs a budget");
  wrong("run --policy SnapKV:tolerance=0.0", "needs a budget");
  wrong("run --policy SnapKV", "needs a budget");
  wrong("run --policy SnapKV:budget=20%,budget=30%", "given twice");
  wrong("run --policy SnapKV:budget=many", "a share such as 20%");
  wrong("run --policy SnapKV --budget 0", "a share such as 20%");
  wrong("run --policy full:budget=20%", "keeps everything");
  wrong("run --policy f16+f32", "two stores");
  wrong("run --model tiny --policy full --json -",
        "run --json wants a file: the table goes to standard output");
  wrong("run --model tiny --policy full --html -", "run --html wants a file");
  wrong("list --json", "--json wants FILE");
  wrong("logits --model tiny", "give one of --ids FILE and --text FILE");
  wrong("logits --model tiny --ids a --text b", "give one of");
  wrong("generate --model tiny", "--prompt TEXT");
  wrong("generate --model tiny --ids a --chat", "--chat wraps a --prompt");
  wrong("tokenize --model tiny", "--text FILE");
  wrong("plan --policy full", "plan wants --k");
  wrong("plan --policy full --k x --prefill 3 --chunks 1", "not both");
}

TEST_CASE("What cannot be read is a failure, not a usage error", "[tool][usage]") {
  const Folder f;
  f.write("latin", "caf\xE9 au lait");
  f.write("ids", "[1, 2, 99999999]");
  f.write("no_ids", "{\"a\": 1}");
  f.write("broken", "[1, 2");
  f.write("not.gguf", "GGUF is what this is not");
  const auto fails = [&](const std::string& arguments, const std::string& what) {
    INFO(arguments);
    const ToolRun r = tool(f, arguments);
    INFO(r.err);
    CHECK(r.status == 1);
    CHECK(has(r.err, what));
  };
  fails("run --model none.gguf --policy full", "tiny, smollm2, or the path");
  fails("run --model not.gguf --policy full", "not.gguf");
  fails("run --model tiny --text none.txt --policy full", "none.txt");
  fails("tokenize --model tiny --text latin", "not UTF-8: byte 3");
  fails("logits --model tiny --ids ids", "element 2 is not a token id");
  fails("logits --model tiny --ids no_ids", "JSON array");
  fails("logits --model tiny --ids broken", "broken");
  fails("tokenize --model tiny --text latin --json /nowhere/at/all", "latin");
  fails("plan --policy full --k none.npy", "none.npy");
  fails("run --model tiny --policy full --json /nowhere/r.json",
        "'/nowhere/r.json.part' cannot be opened for writing");
  fails("run --model tiny --policy full --html /nowhere/r.html",
        "'/nowhere/r.html' cannot be opened for writing");
}

TEST_CASE("The list names every method with its options, and as JSON", "[tool][list]") {
  const Folder f;
  const ToolRun text = tool(f, "list");
  CHECK(text.status == 0);
  CHECK(tool(f, "list --json list.json").status == 0);
  const Json list = f.json("list.json");
  std::size_t policies = 0;
  for (const Json& m : list["methods"].elements()) {
    const std::string name(m["name"].as_string());
    INFO(name);
    CHECK(has(text.out, name + ":"));
    CHECK_FALSE(m["parts"].as_string().empty());
    CHECK_FALSE(m["makes"].as_string().empty());
    const std::string_view fidelity = m["fidelity"].as_string();
    CHECK((fidelity == "exact" || fidelity == "adapted" || fidelity == "simplified"));
    CHECK((fidelity == "exact" || !m["note"].as_string().empty()));
    policies += m["kind"].as_string() == "policy";
    for (const Json& o : m["options"].elements()) CHECK_FALSE(o["doc"].as_string().empty());
  }
  CHECK(policies >= 7);
}
