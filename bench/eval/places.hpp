#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "outcome.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kvist_eval {

/// The file of a model: `tiny` (the bundled one: $KVIST_TINY, the source tree, the installed data), `smollm2`
/// ($KVIST_MODEL, the user's cache folder), or a path. Fails with the places that were looked at.
Outcome<std::string> find_model(std::string_view name);

/// Is the real model on this machine?
bool has_smollm2();

/// A text, the name it goes by in results, and its checksum, which tells it from another of that name.
struct NamedText {
  NamedText(std::string its_name, std::string content);
  std::string name, text, sum;
};
/// The checksum of bytes as results hold it, in hexadecimal.
std::string sum_of(std::span<const std::byte> bytes);
/// The bundled story ("", "story"), the repeated filler sentences ("filler"), or a UTF-8 file.
Outcome<NamedText> find_text(std::string_view name);

/// Reads a file, and fails where it is not UTF-8.
Outcome<std::string> read_text(const std::string& path);

}  // namespace kvist_eval
