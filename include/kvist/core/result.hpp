#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>

#include <cstdint>
#include <utility>
#include <variant>

namespace kvist::inline KVIST_ABI {

/// What kind of thing went wrong.
enum class Errc : std::uint8_t {
  bad_shape,         ///< two sizes that must agree do not
  bad_budget,        ///< a budget that the guards or the method cannot meet
  bad_option,        ///< an option outside its range, or unknown
  bad_value,         ///< NaN or infinity where a number is needed
  bad_file,          ///< a file that is truncated, altered or not of its format
  missing_evidence,  ///< a part wants what the engine did not give
  unsupported,       ///< a correct request that this build, engine or file cannot meet
  out_of_capacity,   ///< no room left where nothing may be allocated
  not_found,         ///< a name or a file that does not exist
};

/// An error as a value: trivially copyable, made without allocating. `what` is literal text (a string that lives
/// for the whole program) and says what was wanted; `want` and `got` are the two numbers where there are any
/// (both 0 otherwise). io/format.hpp makes a sentence of it.
struct Error {
  Errc code = Errc::bad_option;
  const char* what = "";
  long long want = 0;
  long long got = 0;
  friend constexpr bool operator==(const Error&, const Error&) = default;
};

/// A T or an Error; the member names are those of std::expected, so that it can become one in C++23.
///
/// Requires: `*r`, `r->` and `value()` only where has_value(); `error()` only where not.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  using error_type = Error;

  constexpr Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}
  constexpr Result(Error error) : v_(std::in_place_index<1>, error) {}

  constexpr bool has_value() const noexcept { return v_.index() == 0; }
  constexpr explicit operator bool() const noexcept { return has_value(); }

  constexpr T& operator*() & noexcept { return *get(); }
  constexpr const T& operator*() const& noexcept { return *get(); }
  constexpr T&& operator*() && noexcept { return std::move(*get()); }
  constexpr T* operator->() noexcept { return get(); }
  constexpr const T* operator->() const noexcept { return get(); }
  constexpr T& value() & noexcept { return *get(); }
  constexpr const T& value() const& noexcept { return *get(); }
  constexpr T&& value() && noexcept { return std::move(*get()); }

  constexpr const Error& error() const noexcept {
    KVIST_ASSERT(!has_value());
    return *std::get_if<1>(&v_);
  }
  template <class U>
  constexpr T value_or(U&& other) const& {
    return has_value() ? *get() : static_cast<T>(std::forward<U>(other));
  }

 private:
  constexpr T* get() noexcept {
    KVIST_ASSERT(has_value());
    return std::get_if<0>(&v_);
  }
  constexpr const T* get() const noexcept {
    KVIST_ASSERT(has_value());
    return std::get_if<0>(&v_);
  }
  std::variant<T, Error> v_;
};

/// The value of a Status that went well.
struct Done {
  friend constexpr bool operator==(Done, Done) = default;
};

/// Done or an Error.
using Status = Result<Done>;

}  // namespace kvist::inline KVIST_ABI
