#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/io/format.hpp>

#include <string>
#include <utility>
#include <variant>

namespace kvist_eval {

/// Why a command ends early: what is printed, and the exit status.
struct Failure {
  std::string message;
  int status = 1;  ///< 1 failed, 2 usage
};
inline Failure usage(std::string message) { return {std::move(message), 2}; }
inline Failure failed(std::string message) { return {std::move(message), 1}; }
/// What was being done, and the library's error as a sentence.
inline Failure failed(std::string_view doing, const kvist::Error& e) {
  return {fmt::format("{}: {}", doing, e), 1};
}

/// A T or a Failure.
template <class T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : v_(std::in_place_index<0>, std::move(value)) {}
  Outcome(Failure f) : v_(std::in_place_index<1>, std::move(f)) {}
  explicit operator bool() const { return v_.index() == 0; }
  T& operator*() & { return *std::get_if<0>(&v_); }
  T&& operator*() && { return std::move(*std::get_if<0>(&v_)); }
  const T& operator*() const& { return *std::get_if<0>(&v_); }
  T* operator->() { return std::get_if<0>(&v_); }
  const T* operator->() const { return std::get_if<0>(&v_); }
  const Failure& failure() const { return *std::get_if<1>(&v_); }

 private:
  std::variant<T, Failure> v_;
};
using Good = kvist::Done;

}  // namespace kvist_eval
