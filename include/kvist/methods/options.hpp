#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// One `name=value` of a SPEC.
using OptionText = std::pair<std::string, std::string>;

/// A name for each value of an enum, in the order of its values: what a SPEC writes for it.
template <class E>
struct EnumNames;  // specialised beside the enum: static constexpr std::array<const char*, n> names

/// How an option is written that is no number, list or enum: specialised beside its type, with
/// static std::string text(const T&), static bool read(std::string_view, T&), static constexpr const char* wanted.
template <class T>
struct OptionForm;

/// An option of a method, as lists show it.
struct OptionInfo {
  std::string name, value, doc;  ///< value: the default as a SPEC would write it
};

/// A method names its options once, in `template <class V> static void fields(V& v, Options& o)`, by calls
/// v("window", o.window, "queries that vote"). These two visitors list them and read them.
class ListOptions {
 public:
  template <class T>
  void operator()(const char* name, const T& value, const char* doc) {
    out.push_back({name, text(value), doc});
  }
  std::vector<OptionInfo> out;

  static std::string text(bool b) { return b ? "yes" : "no"; }
  static std::string text(int i) { return std::to_string(i); }
  static std::string text(std::uint64_t i) { return std::to_string(i); }
  static std::string text(double x) {
    char buffer[32];
    return {buffer, std::to_chars(buffer, buffer + sizeof buffer, x).ptr};
  }
  static std::string text(float x) {
    char buffer[32];
    return {buffer, std::to_chars(buffer, buffer + sizeof buffer, x).ptr};
  }
  static std::string text(const std::vector<int>& v) {
    std::string s;
    for (const int i : v) {
      if (!s.empty()) s += '/';
      s += std::to_string(i);
    }
    return s;
  }
  template <class E>
  requires std::is_enum_v<E>
  static std::string text(E e) { return EnumNames<E>::names[std::size_t(e)]; }
  template <class T>
  requires requires(const T& x) { OptionForm<T>::text(x); }
  static std::string text(const T& x) { return OptionForm<T>::text(x); }
};

/// Sets the options that `given` names; the others keep their defaults. After all fields have been visited, `fault()`
/// tells what was wrong: a value that could not be read, or a name that no field has.
class ReadOptions {
 public:
  explicit ReadOptions(const std::vector<OptionText>& given) : given_(given), used_(given.size(), false) {}

  template <class T>
  void operator()(const char* name, T& value, const char*) {
    // A name that was there before is a method's own option: it says alone what that means.
    if (std::find(seen_.begin(), seen_.end(), name) != seen_.end()) return;
    if (!names_.empty()) names_ += ", ";
    names_ += name;
    seen_.push_back(name);
    for (std::size_t i = 0; i < given_.size(); ++i) {
      if (given_[i].first != name) continue;
      used_[i] = true;
      if (!read(given_[i].second, value) && fault_.empty())
        fault_ = "option " + given_[i].first + "=" + given_[i].second + " wants " + wanted(value);
    }
  }
  /// Empty if all went well.
  std::string fault() const {
    if (!fault_.empty()) return fault_;
    for (std::size_t i = 0; i < given_.size(); ++i)
      if (!used_[i])
        return "unknown option '" + given_[i].first + "'; " +
               (names_.empty() ? "there are no options here" : "the options are " + names_);
    return {};
  }

 private:
  template <class N>
  static bool number(std::string_view s, N& out) {
    N x{};
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), x);
    if (error != std::errc{} || end != s.data() + s.size()) return false;
    if constexpr (std::is_floating_point_v<N>)
      if (!std::isfinite(x)) return false;
    out = x;
    return true;
  }
  static bool read(std::string_view s, int& out) { return number(s, out); }
  static bool read(std::string_view s, std::uint64_t& out) { return number(s, out); }
  static bool read(std::string_view s, float& out) { return number(s, out); }
  static bool read(std::string_view s, double& out) { return number(s, out); }
  static bool read(std::string_view s, bool& out) {
    if (s != "yes" && s != "no") return false;
    out = s == "yes";
    return true;
  }
  static bool read(std::string_view s, std::vector<int>& out) {  // 0/1/29
    out.clear();
    while (!s.empty()) {
      const std::size_t slash = std::min(s.find('/'), s.size());
      int i = 0;
      if (!number(s.substr(0, slash), i)) return false;
      out.push_back(i);
      s.remove_prefix(std::min(slash + 1, s.size()));
    }
    return true;
  }
  template <class E>
  requires std::is_enum_v<E>
  static bool read(std::string_view s, E& out) {
    for (std::size_t i = 0; i < EnumNames<E>::names.size(); ++i)
      if (s == EnumNames<E>::names[i]) {
        out = E(i);
        return true;
      }
    return false;
  }
  template <class T>
  requires requires(std::string_view s, T& x) { OptionForm<T>::read(s, x); }
  static bool read(std::string_view s, T& out) { return OptionForm<T>::read(s, out); }
  template <class T>
  static std::string wanted(const T&) {
    if constexpr (requires { OptionForm<T>::wanted; }) return OptionForm<T>::wanted;
    else if constexpr (std::is_same_v<T, bool>) return "yes or no";
    else if constexpr (std::is_enum_v<T>) {
      std::string s;
      for (const char* n : EnumNames<T>::names) {
        if (!s.empty()) s += ", ";
        s += n;
      }
      return "one of " + s;
    } else if constexpr (std::is_same_v<T, std::vector<int>>) return "whole numbers joined by /";
    else if constexpr (std::is_floating_point_v<T>) return "a number";
    else return "a whole number";
  }

  const std::vector<OptionText>& given_;
  std::vector<bool> used_;
  std::vector<std::string_view> seen_;
  std::string names_, fault_;
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
