#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "args.hpp"

#include <span>
#include <string>
#include <string_view>

namespace kvist_eval {

/// A command of the tool: its options, and what it does with them.
struct Command {
  const char* name;
  const char* summary;  ///< one line
  const char* about;    ///< what --help says below the usage line
  std::span<const OptionSpec> options;
  Outcome<Good> (*run)(const Args& args, const std::string& command_line);
};

extern const Command run_command, list_command, tokenize_command, logits_command, generate_command,
    plan_command, codec_command;

/// Writes a result to a file, or to standard output where `path` is empty.
Outcome<Good> write_result(const std::string& path, std::string_view text);

/// Fails where a file could not be written there, before the work that it is for; an existing one stays as it is.
Outcome<Good> check_writable(const std::string& path);

/// The level of instruction set that kernels run at, said on standard error; a warning where KVIST_ISA named
/// one that is not to be had.
const char* announce_isa();

/// --threads: 1 to 256, default what the machine has.
Outcome<int> threads_of(const Args& args);

/// --model, default smollm2 where it is on this machine, else tiny.
std::string model_of(const Args& args);

}  // namespace kvist_eval
