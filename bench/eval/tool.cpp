// SPDX-License-Identifier: Apache-2.0
// The commands by name, help and exit status. Commands are in files of their own.
#include "tool.hpp"

#include "commands.hpp"

#include <kvist/core/version.hpp>

#include <array>
#include <cstdio>
#include <new>

namespace kvist_eval {
namespace {

const std::array<const Command*, 7> commands{&run_command,    &list_command,     &tokenize_command,
                                             &logits_command, &generate_command, &plan_command,
                                             &codec_command};

std::string usage_text() {
  std::string out =
      "kvist-eval: what KV-cache policies cost in fidelity and save in bytes, on a real model\n\n"
      "  kvist-eval                    a first comparison: anchors, StreamingLLM, H2O and SnapKV at 20 %\n";
  for (const Command* c : commands) out += fmt::format("  kvist-eval {:<18} {}\n", c->name, c->summary);
  return out +
         "  kvist-eval COMMAND --help     the options of a command\n"
         "  kvist-eval --version\n\n"
         "Results go to standard output or to files, progress to standard error.\n"
         "Exit status: 0, 1 (failed), 2 (usage).\n";
}

int fail(const Failure& f) {
  fmt::print(stderr, "kvist-eval: {}\n", f.message);
  return f.status;
}

int main_of(const std::vector<std::string>& words, const std::string& command_line) {
  if (!words.empty() && (words[0] == "--help" || words[0] == "-h" || words[0] == "help")) {
    fmt::print("{}", usage_text());
    return 0;
  }
  if (!words.empty() && words[0] == "--version") {
    fmt::print("kvist-eval {}\n", kvist::version);
    return 0;
  }
  const std::string name = words.empty() ? "run" : words[0];
  for (const Command* c : commands) {
    if (name != c->name) continue;
    const auto rest = std::span(words).subspan(words.empty() ? 0 : 1);
    const auto args = Args::parse(c->name, c->options, rest);
    if (!args) return fail(args.failure());
    if (args->help()) {
      fmt::print("kvist-eval {}: {}\n\n{}\n{}", c->name, c->summary, c->about, Args::help_text(c->options));
      return 0;
    }
    const auto done = c->run(*args, command_line);
    return done ? 0 : fail(done.failure());
  }
  std::string names;
  for (const Command* c : commands) names += fmt::format(" {}", c->name);
  return fail(
      usage(fmt::format("unknown command '{}'; the commands are{} (or --help, --version)", name, names)));
}

}  // namespace

int tool(const std::vector<std::string>& words) {
  std::string line = "kvist-eval";
  for (const std::string& w : words)
    line += w.find_first_of(" \t\n'\"\\$*?;&|<>()") == w.npos && !w.empty() ? " " + w : " '" + w + "'";
  try {
    return main_of(words, line);
  } catch (const std::bad_alloc&) {
    return fail(failed("out of memory: a shorter --context or fewer --samples need less"));
  }
}

}  // namespace kvist_eval
