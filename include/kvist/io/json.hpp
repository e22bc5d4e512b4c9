#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

struct JsonMember;

/// A JSON value (RFC 8259): reads strictly, writes what every other reader takes.
///
/// Integers that fit are kept exactly (int64), other numbers are doubles; objects keep the order of their members.
/// Reading never throws or guesses: what is missing or of another kind reads as null, and the `as_` functions then
/// answer with the fallback, so `j["a"][3]["b"].as_double()` is safe on any document.
class Json {
 public:
  enum class Kind : std::uint8_t { null, boolean, integer, number, string, array, object };

  Json();  // the special members are defined where Content is complete
  Json(const Json&);
  Json(Json&&) noexcept;
  Json& operator=(const Json&);
  Json& operator=(Json&&) noexcept;
  ~Json();

  Json(std::nullptr_t) : Json() {}
  template <std::same_as<bool> B>
  Json(B value);
  template <std::integral I>
  requires(!std::same_as<I, bool>)
      Json(I value);  ///< an integer, or the nearest double where int64 cannot hold it
  Json(double value);
  Json(const char* text) : Json(std::string(text)) {}
  Json(std::string_view text) : Json(std::string(text)) {}
  Json(std::string text);
  template <class T>
  Json(std::span<const T> values);  ///< an array of what each value makes
  template <class T>
  Json(const std::vector<T>& values) : Json(std::span<const T>(values)) {}

  /// An empty array or object; with values, those.
  static Json array();
  static Json array(std::vector<Json> values);
  static Json object();
  static Json object(std::vector<JsonMember> members);

  /// Reads one document and nothing after it. Strings must be valid UTF-8 and escaped surrogates must come in pairs;
  /// nesting ends at `max_depth`.
  /// Fails with: bad_file; `got` is the byte offset at fault.
  static Result<Json> parse(std::string_view text, int max_depth = 200);

  /// The document as text: on one line, or (`indent` > 0) indented, arrays of plain values kept on one line. Doubles
  /// are the shortest text that reads back as the same double; NaN and infinity, which JSON lacks, become null;
  /// bytes that are not valid UTF-8 become U+FFFD.
  std::string dump(int indent = 0) const;

  Kind kind() const { return kind_; }
  bool is_null() const { return kind() == Kind::null; }
  bool is_bool() const { return kind() == Kind::boolean; }
  bool is_integer() const { return kind() == Kind::integer; }
  bool is_number() const { return kind() == Kind::integer || kind() == Kind::number; }
  bool is_string() const { return kind() == Kind::string; }
  bool is_array() const { return kind() == Kind::array; }
  bool is_object() const { return kind() == Kind::object; }

  bool as_bool(bool fallback = false) const;
  /// Also of a double that is a whole number.
  std::int64_t as_int(std::int64_t fallback = 0) const;
  double as_double(double fallback = 0) const;
  /// Points into this value.
  std::string_view as_string(std::string_view fallback = {}) const;

  /// Elements of an array, members of an object; 0 else.
  std::size_t size() const;
  std::span<const Json> elements() const;       ///< empty where not an array
  std::span<const JsonMember> members() const;  ///< empty where not an object
  /// The member of that name, or nullptr.
  const Json* find(std::string_view name) const;
  Json* find(std::string_view name);
  /// The member or element; null (a shared constant) where there is none.
  const Json& operator[](std::string_view name) const;
  const Json& operator[](const char* name) const { return (*this)[std::string_view(name)]; }
  template <std::integral I>
  const Json& operator[](I index) const {
    return std::in_range<std::size_t>(index) ? at(static_cast<std::size_t>(index)) : none();
  }

  /// Puts `value` in as the last element and returns it there. Requires: an array, or null (which becomes one).
  Json& push_back(Json value);
  /// Sets the member of that name, at its old place or as the last, and returns it there.
  /// Requires: an object, or null (which becomes one).
  Json& set(std::string_view name, Json value);

  friend bool operator==(const Json&, const Json&);

 private:
  struct Content;  // what is not held in a word: a string, elements, members

  explicit Json(Kind kind);
  const Json& at(std::size_t index) const;
  static const Json& none();
  void write(std::string& out, int indent, int depth) const;

  Kind kind_ = Kind::null;
  std::uint64_t word_ = 0;  // a boolean, an integer or the bits of a double
  std::unique_ptr<Content> content_;
};

/// A named value of an object.
struct JsonMember {
  std::string name;
  Json value;
  friend bool operator==(const JsonMember&, const JsonMember&) = default;
};

}  // namespace kvist::inline KVIST_ABI

#include <kvist/io/detail/json.ipp>
