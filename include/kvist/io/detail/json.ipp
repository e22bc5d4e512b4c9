// SPDX-License-Identifier: Apache-2.0
// Bodies of io/json.hpp: reading, writing, access.
#include <kvist/core/assert.hpp>
#include <kvist/core/utf8.hpp>
#include <kvist/io/json.hpp>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>

namespace kvist::inline KVIST_ABI {

namespace detail {

/// Recursive descent over one document; stops at the first fault.
class JsonReader {
 public:
  JsonReader(std::string_view text, int max_depth) : text_(text), depth_left_(max_depth) {}

  Result<Json> document() {
    Json value;
    blanks();
    if (!read(value)) return error();
    blanks();
    if (at_ < text_.size()) {
      fault("JSON goes on after its value");
      return error();
    }
    return value;
  }

 private:
  Error error() const { return {Errc::bad_file, fault_, 0, static_cast<long long>(at_)}; }
  bool fault(const char* what) {
    fault_ = what;
    return false;
  }
  bool ended() const { return at_ == text_.size(); }
  char peek() const { return ended() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (ended() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool digit() const { return !ended() && text_[at_] >= '0' && text_[at_] <= '9'; }
  void blanks() {
    while (!ended() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }

  bool read(Json& out) {
    if (ended()) return fault("JSON ends where a value should be");
    switch (text_[at_]) {
      case '{':
        return nested(out, &JsonReader::object);
      case '[':
        return nested(out, &JsonReader::array);
      case '"': {
        std::string text;
        if (!string(text)) return false;
        out = Json(std::move(text));
        return true;
      }
      case 't':
        return word("true", Json(true), out);
      case 'f':
        return word("false", Json(false), out);
      case 'n':
        return word("null", Json(), out);
      default:
        return number(out);
    }
  }

  bool nested(Json& out, bool (JsonReader::*body)(Json&)) {
    if (depth_left_ <= 0) return fault("JSON is nested too deep");
    --depth_left_;
    ++at_;
    const bool good = (this->*body)(out);
    ++depth_left_;
    return good;
  }

  bool word(std::string_view name, Json value, Json& out) {
    if (text_.substr(at_, name.size()) != name) return fault("no such JSON value (true, false, null?)");
    at_ += name.size();
    out = std::move(value);
    return true;
  }

  bool array(Json& out) {
    out = Json::array();
    blanks();
    if (take(']')) return true;
    do {
      blanks();
      if (!read(out.push_back(Json()))) return false;
      blanks();
    } while (take(','));
    return take(']') || fault("a JSON array wants , or ]");
  }

  bool object(Json& out) {
    std::vector<JsonMember> members;
    blanks();
    if (!take('}')) {
      do {
        blanks();
        if (peek() != '"') return fault("a JSON object wants a name in quotes");
        JsonMember& member = members.emplace_back();
        if (!string(member.name)) return false;
        blanks();
        if (!take(':')) return fault("a JSON object wants : after a name");
        blanks();
        if (!read(member.value)) return false;
        blanks();
      } while (take(','));
      if (!take('}')) return fault("a JSON object wants , or }");
    }
    std::vector<std::string_view> names;
    names.reserve(members.size());
    for (const JsonMember& m : members) names.push_back(m.name);
    std::sort(names.begin(), names.end());
    if (std::adjacent_find(names.begin(), names.end()) != names.end())
      return fault("a JSON object names a member twice");
    out = Json::object(std::move(members));
    return true;
  }

  bool hex4(char32_t& code) {
    code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      char32_t value;
      if (c >= '0' && c <= '9') value = char32_t(c - '0');
      else if (c >= 'a' && c <= 'f') value = char32_t(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F') value = char32_t(c - 'A' + 10);
      else return fault("\\u wants four hexadecimal digits");
      code = code * 16 + value;
    }
    return true;
  }

  bool escape(std::string& out) {
    if (ended()) return fault("a JSON string is not closed");
    constexpr std::string_view written = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    if (const std::size_t i = written.find(text_[at_]); i != std::string_view::npos) {
      ++at_;
      out.push_back(meant[i]);
      return true;
    }
    if (!take('u')) return fault("no such escape in a JSON string");
    char32_t code = 0;
    if (!hex4(code)) return false;
    if (code >= 0xd800 && code < 0xe000) {
      char32_t low = 0;
      if (code >= 0xdc00 || !take('\\') || !take('u')) return fault("half a surrogate pair in a JSON string");
      if (!hex4(low)) return false;
      if (low < 0xdc00 || low > 0xdfff) return fault("half a surrogate pair in a JSON string");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(out, code);
    return true;
  }

  bool string(std::string& out) {
    ++at_;
    for (;;) {
      if (ended()) return fault("a JSON string is not closed");
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') return ++at_, true;
      if (c < 0x20) return fault("a control character in a JSON string must be escaped");
      if (c == '\\') {
        ++at_;
        if (!escape(out)) return false;
        continue;
      }
      const Utf8 next = read_utf8(text_, at_);
      if (!next.valid) return fault("a JSON string is not valid UTF-8");
      out.append(text_, at_, next.length);
      at_ += next.length;
    }
  }

  bool number(Json& out) {
    const std::size_t start = at_;
    const bool negative = take('-');
    if (!digit())
      return fault(negative ? "a JSON number wants a digit after -" : "no JSON value starts like this");
    const bool zero = peek() == '0';
    ++at_;
    if (zero && digit()) return fault("a JSON number has no leading zero");
    while (digit()) ++at_;
    bool whole = !(zero && negative);  // -0 is a double, or its sign would be lost
    if (take('.')) {
      whole = false;
      if (!digit()) return fault("a JSON number wants a digit after its point");
      while (digit()) ++at_;
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      if (!digit()) return fault("a JSON number wants a digit in its exponent");
      while (digit()) ++at_;
    }
    const char* const first = text_.data() + start;
    const char* const last = text_.data() + at_;
    std::int64_t integer = 0;
    if (whole && std::from_chars(first, last, integer).ec == std::errc()) {
      out = Json(integer);
      return true;
    }
    double value = 0;
    if (std::from_chars(first, last, value).ec != std::errc()) {
      at_ = start;
      return fault("a JSON number lies outside the range of double");
    }
    out = Json(value);
    return true;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_left_;
  const char* fault_ = "";
};

inline void write_json_string(std::string& out, std::string_view text) {
  out.push_back('"');
  for (std::size_t at = 0; at < text.size();) {
    const Utf8 next = read_utf8(text, at);
    if (!next.valid) {
      append_utf8(out, 0xfffd);
    } else if (next.code == '"' || next.code == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(next.code));
    } else if (next.code == '\n') {
      out += "\\n";
    } else if (next.code == '\r') {
      out += "\\r";
    } else if (next.code == '\t') {
      out += "\\t";
    } else if (next.code < 0x20) {
      constexpr const char* digits = "0123456789abcdef";
      out += "\\u00";
      out.push_back(digits[next.code >> 4]);
      out.push_back(digits[next.code & 15]);
    } else {
      out.append(text, at, next.length);
    }
    at += next.length;
  }
  out.push_back('"');
}

inline void write_json_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char buffer[32];
  const auto [end, failed] = std::to_chars(buffer, buffer + sizeof buffer, value);
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";  // so that it reads back as a double
}

}  // namespace detail

struct Json::Content {
  std::string text;
  std::vector<Json> elements;
  std::vector<JsonMember> members;
};

inline Json::Json() = default;
inline Json::Json(Kind kind) : kind_(kind), content_(std::make_unique<Content>()) {}
inline Json::Json(const Json& other)
    : kind_(other.kind_),
      word_(other.word_),
      content_(other.content_ ? std::make_unique<Content>(*other.content_) : nullptr) {}
inline Json::Json(Json&& other) noexcept
    : kind_(std::exchange(other.kind_, Kind::null)), word_(other.word_), content_(std::move(other.content_)) {}
inline Json& Json::operator=(const Json& other) { return *this = Json(other); }
inline Json& Json::operator=(Json&& other) noexcept {
  Json taken(std::move(other));  // also where `other` is a part of this value
  std::swap(kind_, taken.kind_);
  std::swap(word_, taken.word_);
  std::swap(content_, taken.content_);
  return *this;
}
inline Json::~Json() = default;

template <std::same_as<bool> B>
Json::Json(B value) : kind_(Kind::boolean), word_(value) {}

template <std::integral I>
requires(!std::same_as<I, bool>) Json::Json(I value) {
  if (std::in_range<std::int64_t>(value)) {
    kind_ = Kind::integer;
    word_ = static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
  } else {
    *this = Json(static_cast<double>(value));
  }
}

inline Json::Json(double value) : kind_(Kind::number), word_(std::bit_cast<std::uint64_t>(value)) {}
inline Json::Json(std::string text) : Json(Kind::string) { content_->text = std::move(text); }

template <class T>
Json::Json(std::span<const T> values) : Json(Kind::array) {
  content_->elements.reserve(values.size());
  for (const T& value : values) content_->elements.push_back(Json(value));
}

inline Json Json::array() { return Json(Kind::array); }
inline Json Json::object() { return Json(Kind::object); }

inline Json Json::array(std::vector<Json> values) {
  Json out(Kind::array);
  out.content_->elements = std::move(values);
  return out;
}

inline Json Json::object(std::vector<JsonMember> members) {
  Json out(Kind::object);
  out.content_->members = std::move(members);
  return out;
}

inline Result<Json> Json::parse(std::string_view text, int max_depth) {
  return detail::JsonReader(text, max_depth).document();
}

inline std::string Json::dump(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

inline void Json::write(std::string& out, int indent, int depth) const {
  const auto line = [&](int level) {
    out.push_back('\n');
    out.append(static_cast<std::size_t>(indent * level), ' ');
  };
  switch (kind()) {
    case Kind::null:
      out += "null";
      return;
    case Kind::boolean:
      out += word_ != 0 ? "true" : "false";
      return;
    case Kind::integer: {
      char buffer[24];
      out.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, static_cast<std::int64_t>(word_)).ptr);
      return;
    }
    case Kind::number:
      detail::write_json_double(out, std::bit_cast<double>(word_));
      return;
    case Kind::string:
      detail::write_json_string(out, content_->text);
      return;
    case Kind::array: {
      const std::span<const Json> array = elements();
      const bool lines = indent > 0 && std::any_of(array.begin(), array.end(), [](const Json& element) {
                           return element.is_array() || element.is_object();
                         });
      out.push_back('[');
      for (std::size_t i = 0; i < array.size(); ++i) {
        if (i > 0) out.push_back(',');
        if (lines) line(depth + 1);
        else if (i > 0 && indent > 0) out.push_back(' ');
        array[i].write(out, indent, depth + 1);
      }
      if (lines) line(depth);
      out.push_back(']');
      return;
    }
    case Kind::object: {
      const std::span<const JsonMember> object = members();
      out.push_back('{');
      for (std::size_t i = 0; i < object.size(); ++i) {
        if (i > 0) out.push_back(',');
        if (indent > 0) line(depth + 1);
        detail::write_json_string(out, object[i].name);
        out += indent > 0 ? ": " : ":";
        object[i].value.write(out, indent, depth + 1);
      }
      if (indent > 0 && !object.empty()) line(depth);
      out.push_back('}');
      return;
    }
  }
}

inline bool Json::as_bool(bool fallback) const { return is_bool() ? word_ != 0 : fallback; }

inline std::int64_t Json::as_int(std::int64_t fallback) const {
  if (is_integer()) return static_cast<std::int64_t>(word_);
  if (!is_number()) return fallback;
  const double value = as_double();
  const bool fits = value >= -0x1p63 && value < 0x1p63 && value == std::floor(value);
  return fits ? static_cast<std::int64_t>(value) : fallback;
}

inline double Json::as_double(double fallback) const {
  if (is_integer()) return static_cast<double>(static_cast<std::int64_t>(word_));
  return is_number() ? std::bit_cast<double>(word_) : fallback;
}

inline std::string_view Json::as_string(std::string_view fallback) const {
  return is_string() ? std::string_view(content_->text) : fallback;
}

inline std::span<const Json> Json::elements() const {
  return is_array() ? std::span<const Json>(content_->elements) : std::span<const Json>();
}

inline std::span<const JsonMember> Json::members() const {
  return is_object() ? std::span<const JsonMember>(content_->members) : std::span<const JsonMember>();
}

inline std::size_t Json::size() const { return is_array() ? elements().size() : members().size(); }

inline const Json* Json::find(std::string_view name) const {
  for (const JsonMember& member : members())
    if (member.name == name) return &member.value;
  return nullptr;
}

inline Json* Json::find(std::string_view name) { return const_cast<Json*>(std::as_const(*this).find(name)); }

inline const Json& Json::none() {
  static const Json null;
  return null;
}

inline const Json& Json::operator[](std::string_view name) const {
  const Json* value = find(name);
  return value ? *value : none();
}

inline const Json& Json::at(std::size_t index) const {
  const std::span<const Json> all = elements();
  return index < all.size() ? all[index] : none();
}

inline Json& Json::push_back(Json value) {
  if (is_null()) *this = array();
  KVIST_ASSERT(is_array());
  return content_->elements.emplace_back(std::move(value));
}

inline Json& Json::set(std::string_view name, Json value) {
  if (is_null()) *this = object();
  KVIST_ASSERT(is_object());
  if (Json* old = find(name)) return *old = std::move(value);
  return content_->members.emplace_back(JsonMember{std::string(name), std::move(value)}).value;
}

inline bool operator==(const Json& a, const Json& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Json::Kind::number:
      return a.as_double() == b.as_double();
    case Json::Kind::string:
      return a.as_string() == b.as_string();
    case Json::Kind::array:
      return std::equal(a.elements().begin(), a.elements().end(), b.elements().begin(), b.elements().end());
    case Json::Kind::object:
      return std::equal(a.members().begin(), a.members().end(), b.members().begin(), b.members().end());
    default:
      return a.word_ == b.word_;
  }
}

}  // namespace kvist::inline KVIST_ABI
