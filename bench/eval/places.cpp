// SPDX-License-Identifier: Apache-2.0
#include "places.hpp"

#include <kvist/core/utf8.hpp>
#include <kvist/io/checksum.hpp>
#include <kvist/io/file.hpp>
#include <kvist/reference/haystack.hpp>

#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

namespace kvist_eval {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

bool is_file(const fs::path& p) {
  std::error_code ignored;
  return fs::is_regular_file(p, ignored);
}

/// Folders that hold models/ and texts/: the source tree that this was built from, and where it was
/// installed.
std::vector<fs::path> data_folders() {
  std::vector<fs::path> out;
#if defined(KVIST_SOURCE_DIR)
  out.push_back(fs::path(KVIST_SOURCE_DIR) / "bench");
#endif
  std::error_code ignored;
  const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
  if (!self.empty()) out.push_back(self.parent_path().parent_path() / "share" / "kvist");
  return out;
}

std::string first_with(const fs::path& folder, std::string_view extension) {
  std::string best;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == extension && (best.empty() || entry.path().string() < best))
      best = entry.path().string();
  return best;
}

fs::path cached_model() {
  fs::path cache = environment("XDG_CACHE_HOME");
  if (cache.empty()) cache = fs::path(environment("HOME")) / ".cache";
  return cache / "kvist" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace

std::string sum_of(std::span<const std::byte> bytes) {
  kvist::Checksum sum;
  sum.add(bytes.data(), bytes.size());
  return fmt::format("{:016x}", sum.value());
}

NamedText::NamedText(std::string its_name, std::string content)
    : name(std::move(its_name)), text(std::move(content)), sum(sum_of(std::as_bytes(std::span(text)))) {}

bool has_smollm2() { return bool(find_model("smollm2")); }

Outcome<std::string> find_model(std::string_view name) {
  if (name == "tiny") {
    const std::string named = environment("KVIST_TINY");
    if (!named.empty()) {
      if (is_file(named)) return named;
      return failed(fmt::format("model tiny: KVIST_TINY names '{}', which is no file", named));
    }
    std::string looked;
    for (const fs::path& folder : data_folders()) {
      const std::string found = first_with(folder / "models", ".gguf");
      if (!found.empty()) return found;
      looked += " " + (folder / "models").string();
    }
    return failed("model tiny: no .gguf file in" + looked);
  }
  if (name == "smollm2") {
    const std::string named = environment("KVIST_MODEL");
    if (!named.empty()) {
      if (is_file(named)) return named;
      return failed(fmt::format("model smollm2: KVIST_MODEL names '{}', which is no file", named));
    }
    if (is_file(cached_model())) return cached_model().string();
    return failed(
        fmt::format("model smollm2: there is no {}; `sh cmake/model.sh` gets it", cached_model().string()));
  }
  if (is_file(std::string(name))) return std::string(name);
  return failed(
      fmt::format("model '{}': no such file; the names are tiny, smollm2, or the path of a GGUF file", name));
}

Outcome<std::string> read_text(const std::string& path) {
  auto text = kvist::read_file(path, std::size_t{1} << 28);
  if (!text) return failed(fmt::format("text '{}'", path), text.error());
  for (std::size_t at = 0; at < text->size();) {
    const kvist::Utf8 c = kvist::read_utf8(*text, at);
    if (!c.valid) return failed(fmt::format("text '{}' is not UTF-8: byte {} is none of it", path, at));
    at += c.length;
  }
  return *std::move(text);
}

Outcome<NamedText> find_text(std::string_view name) {
  if (name == "filler") return NamedText{"filler", kvist::tasks::filler(400000)};
  if (name.empty() || name == "story") {
    std::string looked;
    for (const fs::path& folder : data_folders()) {
      const std::string found = first_with(folder / "texts", ".txt");
      looked += " " + (folder / "texts").string();
      if (found.empty()) continue;
      auto text = read_text(found);
      if (!text) return text.failure();
      return NamedText{fs::path(found).stem().string(), *std::move(text)};
    }
    return failed("the bundled text: no .txt file in" + looked + "; give one with --text");
  }
  auto text = read_text(std::string(name));
  if (!text) return text.failure();
  return NamedText{fs::path(std::string(name)).filename().string(), *std::move(text)};
}

}  // namespace kvist_eval
