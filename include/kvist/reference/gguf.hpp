#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/reference/mapped_file.hpp>
#include <kvist/reference/tensor_type.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The type of a metadata value, numbered as in the file.
enum class GgufType : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

/// One metadata entry: where its value lies in the file.
struct GgufEntry {
  std::string_view key;
  GgufType type = GgufType::u8;     ///< of the value, or of each element of an array
  bool array = false;               ///< is it an array?
  std::size_t count = 1;            ///< elements; 1 where it is no array
  std::span<const std::byte> data;  ///< the value or the elements as stored
};

/// One entry of the tensor directory. `dims[0]` is the length of a row, contiguous in the file (the input width of a
/// matrix), `dims[1]` the number of rows: the reverse of the order in which PyTorch names them. Unused dims are 1.
struct GgufTensor {
  std::string_view name;
  TensorType type = TensorType::f32;
  int rank = 0;
  std::array<std::size_t, 4> dims{1, 1, 1, 1};
  std::size_t offset = 0;           ///< bytes from the start of the file
  std::span<const std::byte> data;  ///< as stored; empty where the type is not decoded here

  std::size_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  std::size_t rows() const { return dims[1] * dims[2] * dims[3]; }
  std::size_t row_bytes() const { return dims[0] / block_elements(type) * block_bytes(type); }
  /// The bytes of one row. Requires: a decoded type, i < rows().
  std::span<const std::byte> row(std::size_t i) const { return data.subspan(i * row_bytes(), row_bytes()); }
};

/// A GGUF file (versions 2 and 3, little-endian): its metadata and its tensor directory, as views into its bytes.
///
/// Reading checks every length against the bytes that are left before it is used, so that a truncated or altered
/// file gives an Error; memory is taken for the directory only, never more than a small multiple of the file's size.
/// Values are decoded when they are asked for. Integer keys are read at any width.
/// Source: ggml, docs/gguf.md and src/gguf.cpp.
class Gguf {
 public:
  Gguf(Gguf&&) = default;
  Gguf& operator=(Gguf&&) = default;

  /// Opens (maps) a file and reads its directory.
  /// Fails with: not_found; else as parse().
  static Result<Gguf> open(const std::string& path);
  /// Reads from memory, which must outlive what is returned.
  /// Fails with: bad_file (`got` is the byte offset at fault); unsupported (version 1, big-endian).
  static Result<Gguf> parse(std::span<const std::byte> bytes);

  std::uint32_t format_version() const { return version_; }
  std::size_t alignment() const { return alignment_; }
  std::span<const GgufEntry> entries() const { return entries_; }   ///< in the order of the file
  std::span<const GgufTensor> tensors() const { return tensors_; }  ///< in the order of the file

  /// The entry or the tensor of that name, or nullptr.
  const GgufEntry* find(std::string_view key) const;
  const GgufTensor* find_tensor(std::string_view name) const;

  /// A tensor whose data can be decoded.
  /// Fails with: not_found; unsupported, with a text that names the tensor's type.
  Result<GgufTensor> tensor(std::string_view name) const;

  // Values, or nothing where the key is absent or of another kind. u64 and i64 read any integer type that holds a
  // value in their range; f64 reads integers, too.
  std::optional<std::uint64_t> u64(std::string_view key) const;
  std::optional<std::int64_t> i64(std::string_view key) const;
  std::optional<double> f64(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  std::optional<std::vector<std::string_view>> strings(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;
  std::optional<std::vector<double>> numbers(std::string_view key) const;

 private:
  Gguf() = default;

  MappedFile file_;  // empty where the bytes are the caller's
  std::uint32_t version_ = 0;
  std::size_t alignment_ = 32;
  std::vector<GgufEntry> entries_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::size_t> entries_by_key_, tensors_by_name_;  // sorted
};

}  // namespace kvist::inline KVIST_ABI

#include <kvist/reference/detail/gguf.ipp>
