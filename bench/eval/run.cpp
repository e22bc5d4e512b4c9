// SPDX-License-Identifier: Apache-2.0
// kvist-eval run: the comparison.
#include "commands.hpp"
#include "runner.hpp"
#include "table.hpp"

#include <kvist/reference/mapped_file.hpp>
#include <kvist/reference/tasks.hpp>

#include <algorithm>
#include <array>

namespace kvist_eval {
namespace {

Outcome<Json> model_json(const Engine& engine) {
  const kvist::ModelConfig& c = engine.config();
  auto path = find_model(engine.name());
  if (!path) return path.failure();
  auto file = kvist::MappedFile::open(*path);
  if (!file) return failed(fmt::format("model '{}'", *path), file.error());
  Json j = Json::object();
  j.set("name", engine.name());
  j.set("bytes", file->bytes().size());
  j.set("sum", sum_of(file->bytes()));
  j.set("title", c.name);
  j.set("arch", c.architecture);
  j.set("layers", c.shape.layers);
  j.set("q_heads", c.shape.q_heads);
  j.set("kv_heads", c.shape.kv_heads);
  j.set("head_dim", c.shape.dim_k);
  return j;
}

Outcome<std::vector<std::string>> tasks_of(const Args& args) {
  if (!args.has("task")) return std::vector<std::string>{"fidelity", "facts8"};
  auto list = Args::list("task", args.text("task"));
  if (!list) return list.failure();
  std::vector<std::string> out;
  const auto add = [&](const std::string& t) {
    if (std::find(out.begin(), out.end(), t) == out.end()) out.push_back(t);
  };
  for (const std::string& t : *list) {
    if (t == "needle") {
      add("facts8");
      add("passkey");
    } else if (t == "fidelity" || t == "facts8" || t == "passkey") {
      add(t);
    } else {
      return usage(fmt::format(
          "unknown task '{}'; the tasks are fidelity, facts8, passkey, needle (facts8 and passkey)", t));
    }
  }
  return out;
}

Outcome<bool> choice(const Args& args, const char* option, const char* no, const char* yes) {
  const std::string value = args.text(option, no);
  if (value == no) return false;
  if (value == yes) return true;
  return usage(fmt::format("--{} is {} or {}, not '{}'", option, no, yes, value));
}

Outcome<Good> run(const Args& args, const std::string& command_line) {
  // Without policies and tasks: the first comparison, small enough to be waited for.
  const bool first_look = !args.has("policy") && !args.has("task");
  RunSettings s;
  auto tasks = tasks_of(args);
  if (!tasks) return tasks.failure();
  s.tasks = *std::move(tasks);
  auto contexts = Args::list("context", args.text("context", "512"));
  if (!contexts) return contexts.failure();
  for (const std::string& c : *contexts) {
    auto n = Args::whole("context", c, 2, 1 << 20);
    if (!n) return n.failure();
    s.contexts.push_back(Index(*n));
  }
  auto samples = args.number("samples", first_look ? 4 : 8, 1, 100000);
  if (!samples) return samples.failure();
  s.samples = Index(*samples);
  auto chunk = args.number("chunk", 0, 1, 1 << 20);
  if (!chunk) return chunk.failure();
  s.chunk = Index(*chunk);
  auto seed = args.number("seed", 1, 0, 1ll << 62);
  if (!seed) return seed.failure();
  s.seed = std::uint64_t(*seed);
  auto seen = choice(args, "question", "unseen", "seen");
  if (!seen) return seen.failure();
  s.seen = *seen;
  auto live = choice(args, "decode", "frozen", "live");
  if (!live) return live.failure();
  s.live = *live;
  auto threads = threads_of(args);
  if (!threads) return threads.failure();
  std::vector<std::string> budgets;
  if (args.has("budget")) {
    auto list = Args::list("budget", args.text("budget"));
    if (!list) return list.failure();
    budgets = *std::move(list);
  }
  std::vector<std::string> specs = args.all("policy");
  if (specs.empty()) {
    specs = {"full", "random", "window", "StreamingLLM", "H2O", "SnapKV", "oracle"};
    if (budgets.empty()) budgets = {"20%"};
  }
  auto who = contestants(specs, budgets);
  if (!who) return who.failure();
  s.contestants = *std::move(who);
  for (const char* const file : {"json", "html"})
    if (args.text(file) == "-")
      return usage(fmt::format("run --{} wants a file: the table goes to standard output", file));

  const char* const isa = announce_isa();
  auto text = find_text(args.text("text"));
  if (!text) return text.failure();
  auto engine = Engine::load(model_of(args), *threads);
  if (!engine) return engine.failure();
  const std::string html = args.text("html", args.has("json") || !first_look ? "" : "kvist-report.html");
  if (!html.empty())
    if (auto able = check_writable(html); !able) return able;
  if (!args.has("samples") && std::find(s.tasks.begin(), s.tasks.end(), "fidelity") != s.tasks.end()) {
    const Index length = Index((*engine)->encode(text->text).size());
    for (const Index context : s.contexts) {
      const Index fit = kvist::tasks::windows_that_fit(length, context, s.samples);
      if (fit == s.samples || fit == 0) continue;  // none: the error that says so comes later
      s.windows[context] = fit;
      fmt::print(stderr, "kvist-eval: the text '{}' has {} windows at context {}\n", text->name, fit, context);
    }
  }
  auto about = model_json(**engine);
  if (!about) return about.failure();
  auto results = Results::open(args.text("json"), *std::move(about), isa);
  if (!results) return results.failure();
  Progress progress;
  if (auto done = run_all(**engine, *text, s, *results, progress); !done) {
    progress.clear();
    return done;
  }

  // The table shows what was asked for, in that order; the file may hold more.
  std::vector<Json> rows;
  for (const std::string& task : s.tasks)
    for (const Index context : s.contexts)
      for (const Contestant& c : s.contestants)
        for (const Json& row : results->rows())
          if (Results::same(row, row_key(s, *text, task, context, c.text))) rows.push_back(row);
  std::string out = fmt::format("{} ({}), kernels at {}\n", (*engine)->name(), (*engine)->config().name, isa);
  for (const ResultTable& t : result_tables(rows)) {
    out += fmt::format("\n{}\n{}", t.title, t.table.text());
    std::string last;
    for (const Json* row : t.rows) {
      const std::string why((*row)["error"].as_string());
      if (why.empty() || why == last) continue;
      const bool all = (*row)["status"].as_string() == "model_cannot";
      out += all ? fmt::format("not compared: {}\n", why)
                 : fmt::format("{}: {}\n", (*row)["policy"].as_string(), why);
      last = why;
    }
  }
  if (auto done = write_result("", out); !done) return done;
  if (!html.empty()) {
    if (auto done = write_result(html, report_html(results->document(), command_line, rows)); !done)
      return done;
    fmt::print(stderr, "kvist-eval: report in {}\n", html);
  }
  return Good{};
}

constexpr std::array options{
    OptionSpec{"model", "M",
               "tiny (bundled), smollm2, or a GGUF file; default smollm2 where it is found, else tiny"},
    OptionSpec{"task", "T,...",
               "fidelity, facts8, passkey, needle (facts8 and passkey); default fidelity,facts8"},
    OptionSpec{"text", "FILE",
               "UTF-8 text to take prompts from; default the bundled story; filler: five sentences repeated"},
    OptionSpec{"policy", "SPEC", "a policy (`kvist-eval list`), or all; may be given several times", true},
    OptionSpec{"budget", "B,...",
               "fills every SPEC without one: entries per KV head (204), a share (20%), bytes (64MB)"},
    OptionSpec{"context", "N,...", "prompt length in tokens; default 512"},
    OptionSpec{"samples", "W",
               "text windows, or contexts with questions; default 8, or as many windows as the text has"},
    OptionSpec{"question", "Q",
               "unseen: the context is compressed before the question; seen: the question is its end"},
    OptionSpec{
        "chunk", "C",
        "the prompt comes in calls of C tokens, between which schedule=per_chunk evicts; default at once"},
    OptionSpec{"decode", "D", "frozen: nothing is evicted while tokens are scored; live: the policy goes on"},
    OptionSpec{"seed", "N", "of contexts and intervals; default 1"},
    OptionSpec{"threads", "N", "default what the machine has; results do not depend on it"},
    OptionSpec{"json", "FILE",
               "results; what the file holds already is not run again; one model, version and instruction "
               "set a file"},
    OptionSpec{"html", "FILE", "report"}};

}  // namespace

const Command run_command{
    "run", "policies on a model against full-cache attention",
    "fidelity: text windows are compressed, the next 64 tokens scored against the full cache (KL, top-1, "
    "perplexity).\n"
    "facts8, passkey: facts hidden in the text, asked for after compression (accuracy).\n"
    "Without --policy and --task: anchors, StreamingLLM, H2O and SnapKV at 20 %, 4 samples, "
    "kvist-report.html.\n",
    options, &run};

}  // namespace kvist_eval
