#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

namespace kvist_eval {

/// kvist-eval as a function: `words` are the words of its command line behind the program's name. Returns the exit status.
/// Programs that add methods of their own (kvist::methods::add_method) are measured by it as the built-in ones are.
int tool(const std::vector<std::string>& words);

}  // namespace kvist_eval
