#pragma once
// SPDX-License-Identifier: Apache-2.0
// Writes GGUF files in memory: small models for tests, and broken files made on purpose.

#include <kvist/core/half.hpp>
#include <kvist/core/little_endian.hpp>
#include <kvist/io/file.hpp>
#include <kvist/reference/gguf.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvist::test {

/// Collects metadata and tensors, then makes the bytes of the file:
/// `GgufWriter().string("general.architecture", "llama").tensor_f32("x", {4, 2}, values).bytes()`.
class GgufWriter {
 public:
  std::uint32_t version = 3;
  std::size_t alignment = 32;  ///< written as general.alignment where it is not 32

  template <class T>
  GgufWriter& number(std::string_view key, GgufType type, T value) {
    return raw(key, type, encoded(value));
  }
  GgufWriter& u32(std::string_view key, std::uint32_t v) { return number(key, GgufType::u32, v); }
  GgufWriter& i32(std::string_view key, std::int32_t v) { return number(key, GgufType::i32, v); }
  GgufWriter& u64(std::string_view key, std::uint64_t v) { return number(key, GgufType::u64, v); }
  GgufWriter& f32(std::string_view key, float v) { return number(key, GgufType::f32, v); }
  GgufWriter& f64(std::string_view key, double v) { return number(key, GgufType::f64, v); }
  GgufWriter& boolean(std::string_view key, bool v) {
    return number(key, GgufType::boolean, std::uint8_t{v});
  }
  GgufWriter& string(std::string_view key, std::string_view v) {
    return raw(key, GgufType::string, encoded(v));
  }

  GgufWriter& strings(std::string_view key, const std::vector<std::string>& values) {
    return array(key, GgufType::string, values);
  }
  GgufWriter& i32s(std::string_view key, const std::vector<std::int32_t>& values) {
    return array(key, GgufType::i32, values);
  }
  GgufWriter& f32s(std::string_view key, const std::vector<float>& values) {
    return array(key, GgufType::f32, values);
  }
  template <class T>
  GgufWriter& array(std::string_view key, GgufType type, const std::vector<T>& values) {
    std::string bytes = encoded(static_cast<std::uint32_t>(type)) + encoded(std::uint64_t{values.size()});
    for (const T& value : values) bytes += encoded(value);
    return raw(key, GgufType::array, bytes);
  }
  /// A value whose bytes are given: also for values that are wrong on purpose.
  GgufWriter& raw(std::string_view key, GgufType type, std::string_view bytes) {
    metadata_ += encoded(key) + encoded(static_cast<std::uint32_t>(type));
    metadata_ += bytes;
    ++entries_;
    return *this;
  }

  /// A tensor of the stored bytes `data`; dims innermost first, as in the file.
  GgufWriter& tensor(std::string_view name, const std::vector<std::uint64_t>& dims, TensorType type,
                     std::string_view data) {
    tensors_.push_back({std::string(name), dims, static_cast<std::uint32_t>(type), std::string(data)});
    return *this;
  }
  GgufWriter& tensor_f32(std::string_view name, const std::vector<std::uint64_t>& dims,
                         std::span<const float> v) {
    std::string data;
    for (const float x : v) data += encoded(x);
    return tensor(name, dims, TensorType::f32, data);
  }
  GgufWriter& tensor_f16(std::string_view name, const std::vector<std::uint64_t>& dims,
                         std::span<const float> v) {
    std::string data;
    for (const float x : v) data += encoded(to_f16(x).bits);
    return tensor(name, dims, TensorType::f16, data);
  }

  std::string bytes() const {
    const std::string own =
        alignment == 32 ? "" : GgufWriter().u32("general.alignment", std::uint32_t(alignment)).metadata_;
    std::string out = "GGUF" + encoded(version) + encoded(std::uint64_t{tensors_.size()}) +
                      encoded(std::uint64_t{entries_ + (own.empty() ? 0u : 1u)}) + own + metadata_;
    std::uint64_t offset = 0;
    for (const Tensor& t : tensors_) {
      out += encoded(std::string_view(t.name)) + encoded(static_cast<std::uint32_t>(t.dims.size()));
      for (const std::uint64_t dim : t.dims) out += encoded(dim);
      out += encoded(t.type) + encoded(offset);
      offset += padded(t.data.size());
    }
    for (const Tensor& t : tensors_) {
      out.resize(padded(out.size()), '\0');
      out += t.data;
    }
    return out;
  }
  Status save(const std::string& path) const { return write_file(path, bytes()); }

  /// The bytes of a number, or of a string with its length.
  template <class T>
  requires std::is_arithmetic_v<T>
  static std::string encoded(T value) {
    std::string out(sizeof(T), '\0');
    write_le(out.data(), value);
    return out;
  }
  static std::string encoded(std::string_view text) {
    return encoded(std::uint64_t{text.size()}).append(text);
  }

 private:
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;
    std::uint32_t type;
    std::string data;
  };

  std::size_t padded(std::size_t size) const { return (size + alignment - 1) / alignment * alignment; }

  std::string metadata_;
  std::uint64_t entries_ = 0;
  std::vector<Tensor> tensors_;
};

/// The bytes of a string as the readers take them. Requires: the string outlives what is read from it.
inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace kvist::test
