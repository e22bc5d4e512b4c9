#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/half.hpp>
#include <kvist/core/little_endian.hpp>
#include <kvist/core/result.hpp>
#include <kvist/io/file.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The element types that are read from .npy files; boolean arrays read as u8.
enum class NpyType : std::uint8_t { f16, f32, f64, u8, i32, i64 };

constexpr std::size_t element_bytes(NpyType type) {
  switch (type) {
    case NpyType::f16:
      return 2;
    case NpyType::f32:
    case NpyType::i32:
      return 4;
    case NpyType::u8:
      return 1;
    case NpyType::f64:
    case NpyType::i64:
      return 8;
  }
  return 0;
}

/// An array from a NumPy .npy file: versions 1 and 2, little-endian, C order (last index fastest).
/// Source: NumPy's format document, numpy/lib/format.py.
class Npy {
 public:
  /// Fails with: not_found; else as parse().
  static Result<Npy> load(const std::string& path) {
    auto bytes = read_file(path);
    if (!bytes) return bytes.error();
    return parse(*std::move(bytes));
  }
  /// Takes the bytes of a whole file.
  /// Fails with: bad_file (altered, or not as long as its shape says); unsupported (element type, order, version).
  static Result<Npy> parse(std::string bytes);

  /// Outermost first; empty for a single value.
  const std::vector<std::size_t>& shape() const { return shape_; }
  std::size_t rank() const { return shape_.size(); }
  std::size_t dim(std::size_t axis) const { return axis < shape_.size() ? shape_[axis] : 1; }
  std::size_t size() const { return size_; }  ///< elements
  NpyType type() const { return type_; }

  /// All elements, in order, as f32 (f64 and integers rounded to the nearest).
  std::vector<float> as_f32() const { return all<float>(); }
  std::vector<double> as_f64() const { return all<double>(); }
  /// Fails with: unsupported where the elements are floats; bad_value where one does not fit.
  Result<std::vector<std::int32_t>> as_i32() const;

 private:
  template <class To>
  std::vector<To> all() const {
    std::vector<To> out;
    out.reserve(size_);
    for_each([&](auto value) { out.push_back(static_cast<To>(value)); });
    return out;
  }
  template <class From, class F>
  void for_each_as(F&& f) const {
    const char* at = bytes_.data() + data_;
    for (std::size_t i = 0; i < size_; ++i, at += sizeof(From)) f(read_le<From>(at));
  }
  template <class F>
  void for_each(F&& f) const {
    switch (type_) {
      case NpyType::f16:
        return for_each_as<std::uint16_t>([&](std::uint16_t bits) { f(to_f32(f16{bits})); });
      case NpyType::f32:
        return for_each_as<float>(f);
      case NpyType::f64:
        return for_each_as<double>(f);
      case NpyType::u8:
        return for_each_as<std::uint8_t>(f);
      case NpyType::i32:
        return for_each_as<std::int32_t>(f);
      case NpyType::i64:
        return for_each_as<std::int64_t>(f);
    }
  }

  std::string bytes_;  // of the whole file
  std::size_t data_ = 0, size_ = 0;
  std::vector<std::size_t> shape_;
  NpyType type_ = NpyType::f32;
};

namespace detail {

/// Reads the header of a .npy file: a Python dictionary of three known members.
class NpyHeader {
 public:
  explicit NpyHeader(std::string_view text) : text_(text) {}

  std::string_view descr;
  bool fortran = false;
  std::vector<std::size_t> shape;

  bool read() {
    bool has_descr = false, has_order = false, has_shape = false;
    if (!take('{')) return false;
    while (!take('}')) {
      std::string_view name;
      if (!quoted(name) || !take(':')) return false;
      bool* const seen = name == "descr"           ? &has_descr
                         : name == "fortran_order" ? &has_order
                         : name == "shape"         ? &has_shape
                                                   : nullptr;
      if (!seen || std::exchange(*seen, true)) return false;
      if (seen == &has_descr ? !quoted(descr) : seen == &has_order ? !boolean() : !tuple()) return false;
      if (!take(',') && peek() != '}') return false;
    }
    blanks();
    return at_ == text_.size() && has_descr && has_order && has_shape;
  }

 private:
  void blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  char peek() {
    blanks();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  bool word(std::string_view name) {
    blanks();
    if (text_.substr(at_, name.size()) != name) return false;
    at_ += name.size();
    return true;
  }
  bool quoted(std::string_view& out) {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return false;
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) return false;
    out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return true;
  }
  bool boolean() {
    fortran = word("True");
    return fortran || word("False");
  }
  bool tuple() {
    if (!take('(')) return false;
    while (!take(')')) {
      if (shape.size() == 32) return false;  // NumPy's own limit
      std::size_t value = 0;
      const std::size_t start = (blanks(), at_);
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
        const std::size_t digit = static_cast<std::size_t>(text_[at_] - '0');
        if (value > (std::numeric_limits<std::size_t>::max() - digit) / 10) return false;
        value = value * 10 + digit;
      }
      if (at_ == start) return false;
      shape.push_back(value);
      if (!take(',') && peek() != ')') return false;
    }
    return true;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace detail

inline Result<Npy> Npy::parse(std::string bytes) {
  constexpr std::string_view magic = "\x93NUMPY";
  if (bytes.size() < 10 || std::string_view(bytes).substr(0, magic.size()) != magic)
    return Error{Errc::bad_file, "no .npy file (its first bytes are not \\x93NUMPY)"};
  const int major = static_cast<unsigned char>(bytes[6]);
  if (major != 1 && major != 2) return Error{Errc::unsupported, "version of a .npy file", 2, major};
  const std::size_t start = major == 1 ? 10 : 12;
  if (bytes.size() < start) return Error{Errc::bad_file, "a .npy file ends inside its header"};
  const std::size_t length =
      major == 1 ? read_le<std::uint16_t>(bytes.data() + 8) : read_le<std::uint32_t>(bytes.data() + 8);
  if (length > bytes.size() - start)
    return Error{Errc::bad_file, "a .npy file ends inside its header", (long long)length,
                 (long long)(bytes.size() - start)};

  detail::NpyHeader header(std::string_view(bytes).substr(start, length));
  if (!header.read())
    return Error{Errc::bad_file,
                 "the header of a .npy file is not a dictionary of descr, fortran_order, shape"};
  Npy out;
  if (header.descr == "<f4") out.type_ = NpyType::f32;
  else if (header.descr == "<f2") out.type_ = NpyType::f16;
  else if (header.descr == "<f8") out.type_ = NpyType::f64;
  else if (header.descr == "<i4") out.type_ = NpyType::i32;
  else if (header.descr == "<i8") out.type_ = NpyType::i64;
  else if (header.descr == "|u1" || header.descr == "|b1") out.type_ = NpyType::u8;
  else
    return Error{Errc::unsupported,
                 "element type of a .npy file (f2, f4, f8, i4, i8, u1, all little-endian, are read)"};
  if (header.fortran && header.shape.size() > 1)
    return Error{Errc::unsupported, "a .npy file in Fortran order"};

  const std::size_t left = bytes.size() - start - length;
  std::size_t size = 1;
  bool empty = false, overflow = false;
  for (const std::size_t dim : header.shape) {
    if (dim == 0) empty = true;
    else if (size > std::numeric_limits<std::size_t>::max() / dim) overflow = true;
    else size *= dim;
  }
  if (empty) size = 0, overflow = false;
  if (overflow || size > left / element_bytes(out.type_) || size * element_bytes(out.type_) != left)
    return Error{Errc::bad_file, "a .npy file is not as long as its shape says",
                 overflow ? -1 : (long long)size, (long long)(left / element_bytes(out.type_))};
  out.shape_ = std::move(header.shape);
  out.size_ = size;
  out.data_ = start + length;
  out.bytes_ = std::move(bytes);
  return out;
}

inline Result<std::vector<std::int32_t>> Npy::as_i32() const {
  if (type_ == NpyType::f16 || type_ == NpyType::f32 || type_ == NpyType::f64)
    return Error{Errc::unsupported, "a .npy file of floats read as integers"};
  if (type_ == NpyType::i64) {
    Status fits = Done{};
    for_each_as<std::int64_t>([&](std::int64_t value) {
      if (!std::in_range<std::int32_t>(value))
        fits = Error{Errc::bad_value, "an integer of a .npy file does not fit into 32 bits", 0, value};
    });
    if (!fits) return fits.error();
  }
  return all<std::int32_t>();
}

/// The bytes of a .npy file (version 1) with these values, C order. T is float, std::int32_t or std::uint8_t.
/// Fails with: bad_shape where the product of `shape` (outermost first) is not the number of values.
template <class T>
Result<std::string> npy_bytes(const std::vector<std::size_t>& shape, std::span<const T> values) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::int32_t> || std::is_same_v<T, std::uint8_t>);
  std::size_t size = 1;
  for (const std::size_t dim : shape) {
    if (dim != 0 && size > std::numeric_limits<std::size_t>::max() / dim)
      return Error{Errc::bad_shape, "the shape of a .npy file overflows"};
    size *= dim;
  }
  if (size != values.size())
    return Error{Errc::bad_shape, "values of a .npy file against its shape", (long long)size,
                 (long long)values.size()};
  std::string header = "{'descr': '";
  header += std::is_same_v<T, float> ? "<f4" : std::is_same_v<T, std::int32_t> ? "<i4" : "|u1";
  header += "', 'fortran_order': False, 'shape': (";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    header += std::to_string(shape[i]);
    if (i + 1 < shape.size()) header += ", ";
    else if (shape.size() == 1) header += ",";
  }
  header += "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');  // the data starts at a multiple of 64
  header += '\n';
  if (header.size() > 0xffff) return Error{Errc::bad_shape, "the shape of a .npy file has too many axes"};

  std::string out = "\x93NUMPY";
  out += {'\x01', '\x00', '\x00', '\x00'};
  write_le(out.data() + 8, static_cast<std::uint16_t>(header.size()));
  out += header;
  const std::size_t start = out.size();
  out.resize(start + values.size_bytes());
  for (std::size_t i = 0; i < values.size(); ++i) write_le(out.data() + start + i * sizeof(T), values[i]);
  return out;
}

/// Writes a .npy file. `shape` outermost first.
/// Fails with: bad_shape as npy_bytes(); not_found, out_of_capacity as write_file().
template <class T>
Status save_npy(const std::string& path, const std::vector<std::size_t>& shape, std::span<const T> values) {
  const auto bytes = npy_bytes(shape, values);
  if (!bytes) return bytes.error();
  return write_file(path, *bytes);
}
inline Status save_npy(const std::string& path, const std::vector<std::size_t>& shape,
                       const std::vector<float>& values) {
  return save_npy(path, shape, std::span<const float>(values));
}
inline Status save_npy(const std::string& path, const std::vector<std::size_t>& shape,
                       const std::vector<std::int32_t>& values) {
  return save_npy(path, shape, std::span<const std::int32_t>(values));
}

}  // namespace kvist::inline KVIST_ABI
