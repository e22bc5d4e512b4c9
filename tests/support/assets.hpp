#pragma once
// SPDX-License-Identifier: Apache-2.0
// Where tests find the files that are not part of every checkout. Each function answers with a path that exists, or
// with nothing; a case then calls KVIST_SKIP.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace kvist::test {

namespace detail {

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

inline std::optional<std::string> existing(const std::filesystem::path& path) {
  std::error_code ignored;
  if (path.empty() || !std::filesystem::exists(path, ignored)) return std::nullopt;
  return path.string();
}

}  // namespace detail

/// The root of the source tree.
inline std::filesystem::path source_path() {
#if defined(KVIST_SOURCE_DIR)
  return KVIST_SOURCE_DIR;
#else
  return std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
#endif
}

/// The real model, SmolLM2-135M-Instruct as Q4_1: the file that KVIST_MODEL names (a name without a file means
/// none), else the one that cmake/model.sh puts into the user's cache folder.
inline std::optional<std::string> model_path() {
  if (const std::string named = detail::environment("KVIST_MODEL"); !named.empty())
    return detail::existing(named);
  std::filesystem::path cache = detail::environment("XDG_CACHE_HOME");
  if (cache.empty()) {
    const std::string home = detail::environment("HOME");
    if (home.empty()) return std::nullopt;
    cache = std::filesystem::path(home) / ".cache";
  }
  return detail::existing(cache / "kvist" / "SmolLM2-135M-Instruct.Q4_1.gguf");
}

/// The folder of reference values made with other implementations: the environment variable KVIST_GOLDEN, else the
/// folder that CMake was given under the same name.
inline std::optional<std::string> golden_path() {
  if (const std::string named = detail::environment("KVIST_GOLDEN"); !named.empty())
    return detail::existing(named);
#if defined(KVIST_GOLDEN_DIR)
  return detail::existing(KVIST_GOLDEN_DIR);
#else
  return std::nullopt;
#endif
}

/// The small model of this repository: the first (by name) .gguf file of bench/models/.
inline std::optional<std::string> bundled_model_path() {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(source_path() / "bench" / "models", ignored)) {
    if (entry.path().extension() == ".gguf") found.push_back(entry.path().string());
  }
  if (found.empty()) return std::nullopt;
  return *std::min_element(found.begin(), found.end());
}

}  // namespace kvist::test
