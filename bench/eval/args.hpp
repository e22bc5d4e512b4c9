#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "outcome.hpp"

#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvist_eval {

/// An option of a command: `--name VALUE`, or `--name` alone where `value` is empty.
struct OptionSpec {
  const char* name;
  const char* value;
  const char* help;
  bool repeats = false;
};

/// A command's options as given. Strict: an unknown option, a missing or empty value, or a second value where
/// one is wanted is a usage error that lists what there is.
class Args {
 public:
  static Outcome<Args> parse(std::string_view command, std::span<const OptionSpec> specs,
                             std::span<const std::string> given) {
    Args out;
    for (std::size_t i = 0; i < given.size(); ++i) {
      std::string_view word = given[i];
      const auto wrong = [&](std::string why) { return usage(fmt::format("kvist-eval {}: {}", command, why)); };
      const std::string all = names(specs);
      if (word == "-h") word = "--help";
      if (word.substr(0, 2) != "--")
        return wrong(fmt::format("'{}' is not an option; the options are {}", word, all));
      const std::size_t equals = word.find('=');
      const std::string_view name = word.substr(2, equals == word.npos ? word.npos : equals - 2);
      if (name == "help") {
        out.help_ = true;
        continue;
      }
      const OptionSpec* spec = nullptr;
      for (const OptionSpec& s : specs)
        if (name == s.name) spec = &s;
      if (!spec) return wrong(fmt::format("unknown option '--{}'; the options are {}", name, all));
      std::string value;
      if (*spec->value == 0) {
        if (equals != word.npos) return wrong(fmt::format("--{} takes no value", name));
      } else if (equals != word.npos) {
        value = word.substr(equals + 1);
      } else if (i + 1 < given.size()) {
        value = given[++i];
      } else {
        return wrong(fmt::format("--{} wants {}", name, spec->value));
      }
      if (*spec->value != 0 && value.empty()) return wrong(fmt::format("--{} wants {}", name, spec->value));
      if (!spec->repeats && out.has(name)) return wrong(fmt::format("--{} is given twice", name));
      out.values_.push_back({std::string(name), std::move(value)});
    }
    return out;
  }

  bool help() const { return help_; }
  bool has(std::string_view name) const {
    for (const auto& [n, v] : values_)
      if (n == name) return true;
    return false;
  }
  std::string text(std::string_view name, std::string fallback = {}) const {
    for (const auto& [n, v] : values_)
      if (n == name) return v;
    return fallback;
  }
  std::vector<std::string> all(std::string_view name) const {
    std::vector<std::string> out;
    for (const auto& [n, v] : values_)
      if (n == name) out.push_back(v);
    return out;
  }
  /// A whole number within [lo, hi].
  Outcome<long long> number(std::string_view name, long long fallback, long long lo, long long hi) const {
    if (!has(name)) return fallback;
    return whole(name, text(name), lo, hi);
  }
  static Outcome<long long> whole(std::string_view name, std::string_view s, long long lo, long long hi) {
    long long x = 0;
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), x);
    if (error != std::errc{} || end != s.data() + s.size() || x < lo || x > hi)
      return usage(fmt::format("--{} wants a whole number from {} to {}, not '{}'", name, lo, hi, s));
    return x;
  }
  /// a,b,c as its parts; an empty part is an error.
  static Outcome<std::vector<std::string>> list(std::string_view name, std::string_view s) {
    std::vector<std::string> out;
    for (;;) {
      const std::size_t comma = s.find(',');
      if (s.empty() || comma == 0) return usage(fmt::format("--{} has an empty part", name));
      out.emplace_back(s.substr(0, comma));
      if (comma == s.npos) return out;
      s.remove_prefix(comma + 1);
    }
  }

  static std::string names(std::span<const OptionSpec> specs) {
    std::string out;
    for (const OptionSpec& s : specs) out += fmt::format("--{} ", s.name);
    return out + "--help";
  }
  /// The help text of the options, a line each.
  static std::string help_text(std::span<const OptionSpec> specs) {
    std::size_t width = 6;
    const auto left = [](const OptionSpec& s) {
      return *s.value == 0 ? fmt::format("--{}", s.name) : fmt::format("--{} {}", s.name, s.value);
    };
    for (const OptionSpec& s : specs) width = std::max(width, left(s).size());
    std::string out;
    for (const OptionSpec& s : specs) out += fmt::format("  {:<{}}  {}\n", left(s), width, s.help);
    return out + fmt::format("  {:<{}}  {}\n", "--help", width, "this text");
  }

 private:
  struct Value {
    std::string name, value;
  };
  std::vector<Value> values_;
  bool help_ = false;
};

}  // namespace kvist_eval
