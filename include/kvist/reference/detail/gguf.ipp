// SPDX-License-Identifier: Apache-2.0
// Bodies of reference/gguf.hpp.
#include <kvist/core/little_endian.hpp>
#include <kvist/reference/gguf.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace kvist::inline KVIST_ABI {

namespace detail {

/// Takes numbers and strings from bytes, one after another; every function says whether there were enough bytes.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::size_t at() const { return at_; }
  std::size_t left() const { return bytes_.size() - at_; }

  template <class T>
  bool number(T& out) {
    if (left() < sizeof(T)) return false;
    out = read_le<T>(bytes_.data() + at_);
    at_ += sizeof(T);
    return true;
  }
  bool string(std::string_view& out) {
    std::uint64_t length = 0;
    if (left() < 8 || (length = read_le<std::uint64_t>(bytes_.data() + at_)) > left() - 8) return false;
    out = {reinterpret_cast<const char*>(bytes_.data()) + at_ + 8, static_cast<std::size_t>(length)};
    at_ += 8 + static_cast<std::size_t>(length);
    return true;
  }
  bool skip(std::uint64_t count) {
    if (count > left()) return false;
    at_ += static_cast<std::size_t>(count);
    return true;
  }
  std::span<const std::byte> since(std::size_t start) const { return bytes_.subspan(start, at_ - start); }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

/// Bytes of a value; 0 for strings and arrays (whose size is in the file) and for numbers that are no type.
constexpr std::size_t value_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    default:
      return 0;
  }
}

/// An integer of any width; nothing for other types and for values beyond i64.
inline std::optional<std::int64_t> stored_integer(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::u8:
      return read_le<std::uint8_t>(at);
    case GgufType::i8:
      return read_le<std::int8_t>(at);
    case GgufType::u16:
      return read_le<std::uint16_t>(at);
    case GgufType::i16:
      return read_le<std::int16_t>(at);
    case GgufType::u32:
      return read_le<std::uint32_t>(at);
    case GgufType::i32:
      return read_le<std::int32_t>(at);
    case GgufType::i64:
      return read_le<std::int64_t>(at);
    case GgufType::u64:
      if (const auto value = read_le<std::uint64_t>(at); std::in_range<std::int64_t>(value))
        return static_cast<std::int64_t>(value);
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

inline std::optional<double> stored_number(GgufType type, const std::byte* at) {
  if (type == GgufType::f32) return read_le<float>(at);
  if (type == GgufType::f64) return read_le<double>(at);
  if (type == GgufType::u64) return static_cast<double>(read_le<std::uint64_t>(at));
  if (const auto value = stored_integer(type, at)) return static_cast<double>(*value);
  return std::nullopt;
}

/// Reads one metadata entry, or says what is wrong with it.
inline const char* read_entry(ByteReader& in, GgufEntry& out) {
  std::uint32_t type = 0;
  if (!in.string(out.key)) return "a GGUF file ends inside a metadata key";
  if (!in.number(type)) return "a GGUF file ends inside a metadata type";
  out.type = static_cast<GgufType>(type);
  std::uint64_t count = 1;
  if (out.type == GgufType::array) {
    out.array = true;
    if (!in.number(type) || !in.number(count)) return "a GGUF file ends inside the head of an array";
    out.type = static_cast<GgufType>(type);
  }
  const std::size_t start = in.at();
  if (out.type == GgufType::string) {
    // each string has a length of 8 bytes, so the loop ends with the file even where the count is absurd
    std::string_view ignored;
    for (std::uint64_t i = 0; i < count; ++i)
      if (!in.string(ignored)) return "a GGUF file ends inside a string";
  } else {
    const std::size_t size = value_bytes(out.type);
    if (size == 0) return "a metadata value of a GGUF file has no known type";
    if (count > in.left() / size || !in.skip(count * size)) return "a GGUF file ends inside a metadata value";
  }
  out.count = static_cast<std::size_t>(count);
  out.data = in.since(start);
  return nullptr;
}

/// Reads one entry of the tensor directory, or says what is wrong with it. `offset` is left relative to the data.
inline const char* read_tensor_entry(ByteReader& in, GgufTensor& out) {
  std::uint32_t rank = 0, type = 0;
  std::uint64_t offset = 0;
  if (!in.string(out.name)) return "a GGUF file ends inside a tensor's name";
  if (out.name.size() > 64) return "a tensor's name in a GGUF file is longer than 64 bytes";
  if (!in.number(rank)) return "a GGUF file ends inside the tensor directory";
  if (rank > 4) return "a tensor of a GGUF file has more than 4 dimensions";
  out.rank = static_cast<int>(rank);
  std::size_t elements = 1;
  for (std::uint32_t i = 0; i < rank; ++i) {
    std::uint64_t dim = 0;
    if (!in.number(dim)) return "a GGUF file ends inside the tensor directory";
    if (dim == 0) return "a tensor of a GGUF file has a dimension of 0";
    // the product stays within ptrdiff_t, and so do indices and, with the check against the file, bytes
    if (dim > static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max()) / elements)
      return "the dimensions of a tensor of a GGUF file overflow";
    out.dims[i] = static_cast<std::size_t>(dim);
    elements *= out.dims[i];
  }
  if (!in.number(type) || !in.number(offset)) return "a GGUF file ends inside the tensor directory";
  out.type = static_cast<TensorType>(type);
  if (!std::in_range<std::ptrdiff_t>(offset)) return "a tensor of a GGUF file lies outside of it";
  out.offset = static_cast<std::size_t>(offset);
  return nullptr;
}

/// Finds the data of a tensor, or says why there is none. `data` is the data section, which starts at `start`.
inline const char* place_tensor(std::span<const std::byte> data, std::size_t start, std::size_t alignment,
                                GgufTensor& t) {
  if (t.offset % alignment != 0) return "a tensor of a GGUF file is not aligned";
  if (t.offset > data.size()) return "a tensor of a GGUF file lies outside of it";
  if (is_decoded(t.type)) {
    if (t.dims[0] % block_elements(t.type) != 0)
      return "a row of a tensor of a GGUF file is no whole number of blocks";
    const std::size_t blocks = t.elements() / block_elements(t.type);
    if (blocks > (data.size() - t.offset) / block_bytes(t.type))
      return "a tensor of a GGUF file ends outside of it";
    t.data = data.subspan(t.offset, blocks * block_bytes(t.type));
  }
  t.offset += start;
  return nullptr;
}

/// Indices into `items` in the order of their names, or nothing where two have the same.
template <class T>
std::optional<std::vector<std::size_t>> order_by(const std::vector<T>& items, std::string_view T::*name) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto of = [&](std::size_t i) { return items[i].*name; };
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return of(a) < of(b); });
  const auto twice = std::adjacent_find(order.begin(), order.end(),
                                        [&](std::size_t a, std::size_t b) { return of(a) == of(b); });
  if (twice != order.end()) return std::nullopt;
  return order;
}

template <class T>
const T* find_by(const std::vector<T>& items, const std::vector<std::size_t>& order,
                 std::string_view T::*name, std::string_view wanted) {
  const auto at =
      std::lower_bound(order.begin(), order.end(), wanted,
                       [&](std::size_t i, std::string_view value) { return items[i].*name < value; });
  return at != order.end() && items[*at].*name == wanted ? &items[*at] : nullptr;
}

}  // namespace detail

inline Result<Gguf> Gguf::open(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return file.error();
  auto out = parse(file->bytes());
  if (out) out->file_ = *std::move(file);  // the bytes stay where they are
  return out;
}

inline Result<Gguf> Gguf::parse(std::span<const std::byte> bytes) {
  detail::ByteReader in(bytes);
  const auto fault = [&](const char* what) {
    return Error{Errc::bad_file, what, 0, static_cast<long long>(in.at())};
  };

  Gguf out;
  std::array<char, 4> magic{};
  for (char& c : magic)
    if (!in.number(c)) return fault("a GGUF file ends inside its head");
  if (magic != std::array<char, 4>{'G', 'G', 'U', 'F'})
    return Error{Errc::bad_file, "no GGUF file (it does not start with GGUF)"};
  std::uint64_t tensor_count = 0, entry_count = 0;
  if (!in.number(out.version_)) return fault("a GGUF file ends inside its head");
  if (out.version_ != 0 && (out.version_ & 0xffffu) == 0)
    return Error{Errc::unsupported, "a big-endian GGUF file"};
  if (out.version_ != 2 && out.version_ != 3)
    return Error{Errc::unsupported, "version of a GGUF file (2 and 3 are read)", 3, (long long)out.version_};
  if (!in.number(tensor_count) || !in.number(entry_count)) return fault("a GGUF file ends inside its head");

  // An entry takes 13 bytes or more and a tensor 24: counts that the file cannot hold are refused at once, and what
  // is left grows as it is read.
  if (entry_count > in.left() / 13) return fault("a GGUF file is too short for its metadata");
  if (tensor_count > in.left() / 24) return fault("a GGUF file is too short for its tensor directory");
  for (std::uint64_t i = 0; i < entry_count; ++i)
    if (const char* what = detail::read_entry(in, out.entries_.emplace_back())) return fault(what);
  for (std::uint64_t i = 0; i < tensor_count; ++i)
    if (const char* what = detail::read_tensor_entry(in, out.tensors_.emplace_back())) return fault(what);

  auto by_key = detail::order_by(out.entries_, &GgufEntry::key);
  if (!by_key) return fault("a GGUF file has a metadata key twice");
  auto by_name = detail::order_by(out.tensors_, &GgufTensor::name);
  if (!by_name) return fault("a GGUF file has a tensor twice");
  out.entries_by_key_ = *std::move(by_key);
  out.tensors_by_name_ = *std::move(by_name);

  if (out.find("general.alignment") != nullptr) {
    const auto alignment = out.u64("general.alignment");
    if (!alignment || *alignment == 0 || (*alignment & (*alignment - 1)) != 0 || *alignment > (1u << 30))
      return fault("the alignment of a GGUF file is no power of two up to 2^30");
    out.alignment_ = static_cast<std::size_t>(*alignment);
  }
  const std::size_t padding = (out.alignment_ - in.at() % out.alignment_) % out.alignment_;
  if (!in.skip(padding) && !out.tensors_.empty()) return fault("a GGUF file ends before its tensors");
  const std::span<const std::byte> data = bytes.subspan(in.at());
  for (GgufTensor& t : out.tensors_)
    if (const char* what = detail::place_tensor(data, in.at(), out.alignment_, t)) return fault(what);
  return out;
}

inline const GgufEntry* Gguf::find(std::string_view key) const {
  return detail::find_by(entries_, entries_by_key_, &GgufEntry::key, key);
}

inline const GgufTensor* Gguf::find_tensor(std::string_view name) const {
  return detail::find_by(tensors_, tensors_by_name_, &GgufTensor::name, name);
}

inline Result<GgufTensor> Gguf::tensor(std::string_view name) const {
  const GgufTensor* t = find_tensor(name);
  if (t == nullptr) return Error{Errc::not_found, "a tensor that the model needs is not in the GGUF file"};
  if (!is_decoded(t->type)) return unsupported_type(t->type);
  return *t;
}

inline std::optional<std::uint64_t> Gguf::u64(std::string_view key) const {
  const GgufEntry* e = find(key);
  if (e == nullptr || e->array) return std::nullopt;
  if (e->type == GgufType::u64) return read_le<std::uint64_t>(e->data.data());
  const auto value = detail::stored_integer(e->type, e->data.data());
  if (!value || *value < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*value);
}

inline std::optional<std::int64_t> Gguf::i64(std::string_view key) const {
  const GgufEntry* e = find(key);
  if (e == nullptr || e->array) return std::nullopt;
  return detail::stored_integer(e->type, e->data.data());
}

inline std::optional<double> Gguf::f64(std::string_view key) const {
  const GgufEntry* e = find(key);
  if (e == nullptr || e->array) return std::nullopt;
  return detail::stored_number(e->type, e->data.data());
}

inline std::optional<bool> Gguf::boolean(std::string_view key) const {
  const GgufEntry* e = find(key);
  if (e == nullptr || e->array || e->type != GgufType::boolean) return std::nullopt;
  return e->data[0] != std::byte{0};
}

inline std::optional<std::string_view> Gguf::string(std::string_view key) const {
  const GgufEntry* e = find(key);
  std::string_view out;
  if (e == nullptr || e->array || e->type != GgufType::string || !detail::ByteReader(e->data).string(out))
    return std::nullopt;
  return out;
}

inline std::optional<std::vector<std::string_view>> Gguf::strings(std::string_view key) const {
  const GgufEntry* e = find(key);
  if (e == nullptr || !e->array || e->type != GgufType::string) return std::nullopt;
  std::vector<std::string_view> out(e->count);  // at most an eighth of the file's bytes: each has a length of 8
  detail::ByteReader in(e->data);
  for (std::string_view& s : out)
    if (!in.string(s)) return std::nullopt;
  return out;
}

inline std::optional<std::vector<std::int64_t>> Gguf::integers(std::string_view key) const {
  const GgufEntry* e = find(key);
  if (e == nullptr || !e->array) return std::nullopt;
  const std::size_t size = detail::value_bytes(e->type);
  std::vector<std::int64_t> out;
  for (std::size_t i = 0; i < e->count; ++i) {
    const auto value = detail::stored_integer(e->type, e->data.data() + i * size);
    if (!value) return std::nullopt;
    out.push_back(*value);
  }
  return out;
}

inline std::optional<std::vector<double>> Gguf::numbers(std::string_view key) const {
  const GgufEntry* e = find(key);
  if (e == nullptr || !e->array) return std::nullopt;
  const std::size_t size = detail::value_bytes(e->type);
  std::vector<double> out;
  for (std::size_t i = 0; i < e->count; ++i) {
    const auto value = detail::stored_number(e->type, e->data.data() + i * size);
    if (!value) return std::nullopt;
    out.push_back(*value);
  }
  return out;
}

}  // namespace kvist::inline KVIST_ABI
