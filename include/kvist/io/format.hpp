#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace kvist::inline KVIST_ABI {

/// The kind of an error in words.
constexpr std::string_view describe(Errc code) {
  switch (code) {
    case Errc::bad_shape:
      return "sizes do not agree";
    case Errc::bad_budget:
      return "the budget cannot be met";
    case Errc::bad_option:
      return "an option is wrong";
    case Errc::bad_value:
      return "a value is wrong";
    case Errc::bad_file:
      return "the file is damaged or not of its format";
    case Errc::missing_evidence:
      return "evidence is missing";
    case Errc::unsupported:
      return "not supported";
    case Errc::out_of_capacity:
      return "no room left";
    case Errc::not_found:
      return "not found";
  }
  return "unknown error";
}

/// An Error as a sentence: its kind, what it says, and its two numbers where it has any.
inline std::string sentence(const Error& e) {
  std::string out = fmt::format("{}: {}", describe(e.code), e.what);
  if (e.want != 0 || e.got != 0) out += fmt::format(" (wanted {}, got {})", e.want, e.got);
  return out;
}

/// Bytes for people: 1234 -> "1.23 kB"; powers of 1000, as budgets are.
inline std::string bytes_text(double bytes) {
  const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  int u = 0;
  while (bytes >= 999.5 && u < 4) {
    bytes /= 1000;
    ++u;
  }
  return u == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.3g} {}", bytes, units[u]);
}

}  // namespace kvist::inline KVIST_ABI

/// fmt::print("{}", error) writes its sentence.
template <>
struct fmt::formatter<kvist::Error> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const kvist::Error& e, Context& context) const {
    return fmt::formatter<std::string_view>::format(kvist::sentence(e), context);
  }
};

template <>
struct fmt::formatter<kvist::Shape> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const kvist::Shape& s, Context& context) const {
    return fmt::formatter<std::string_view>::format(
        fmt::format("{} layers, {} query heads, {} KV heads, dim {}", s.layers, s.q_heads, s.kv_heads, s.dim_k),
        context);
  }
};
