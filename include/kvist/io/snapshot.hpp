#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/fields.hpp>
#include <kvist/core/little_endian.hpp>
#include <kvist/io/checksum.hpp>
#include <kvist/io/file.hpp>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// What a reader of snapshots gives at most.
struct SnapshotLimits {
  /// Of memory for what is read; a cache may have reserved more than it holds. 0: four times the snapshot, and a GiB.
  std::uint64_t most_bytes = 0;
};

namespace detail {

inline constexpr char snapshot_magic[8] = {'\x89', 'k', 'v', 'i', 's', 't', '\r', '\n'};
inline constexpr std::uint32_t snapshot_version = 2, snapshot_order = 0x01020304;

/// Where bytes go, or come from: a file, or memory.
struct SnapshotSink {
  std::FILE* file = nullptr;
  std::string* memory = nullptr;
  Checksum sum;

  static bool put(void* to, const void* bytes, std::size_t n) {
    auto& s = *static_cast<SnapshotSink*>(to);
    s.sum.add(bytes, n);
    if (s.file != nullptr) return std::fwrite(bytes, 1, n, s.file) == n;
    s.memory->append(static_cast<const char*>(bytes), n);
    return true;
  }
};
struct SnapshotSource {
  std::FILE* file = nullptr;
  std::string_view memory;
  Checksum sum;

  static bool get(void* from, void* bytes, std::size_t n) {
    auto& s = *static_cast<SnapshotSource*>(from);
    if (s.file != nullptr) {
      if (std::fread(bytes, 1, n, s.file) != n) return false;
    } else {
      if (n > s.memory.size()) return false;
      std::memcpy(bytes, s.memory.data(), n);
      s.memory.remove_prefix(n);
    }
    s.sum.add(bytes, n);
    return true;
  }
  bool at_end() { return file != nullptr ? std::fgetc(file) == EOF : memory.empty(); }
};

template <class T>
Status write_snapshot(SnapshotSink& to, const T& x) {
  FieldWriter v(&SnapshotSink::put, &to);
  v.block(snapshot_magic, sizeof snapshot_magic);
  v.block(&snapshot_version, 1);
  v.block(&snapshot_order, 1);
  visit_fields(v, x);
  const std::uint64_t sum = to.sum.value();
  v.block(&sum, 1);
  return v.status();
}

template <class T>
Result<T> read_snapshot(SnapshotSource& from, std::uint64_t most_bytes, T empty) {
  FieldReader v(&SnapshotSource::get, &from, most_bytes);
  char magic[sizeof snapshot_magic] = {};
  std::uint32_t version = 0, order = 0;
  v.block(magic, sizeof magic);
  if (!v.good() || std::memcmp(magic, snapshot_magic, sizeof magic) != 0)
    return Error{Errc::bad_file, "no snapshot of a cache (its first bytes say otherwise)"};
  v.block(&version, 1);
  v.block(&order, 1);
  if (v.good() && order != snapshot_order)
    return Error{Errc::unsupported, "a snapshot from a machine with another order of bytes"};
  if (v.good() && version != snapshot_version)
    return Error{Errc::unsupported, "version of a snapshot", snapshot_version, version};
  visit_fields(v, empty);
  const std::uint64_t want = from.sum.value();
  std::uint64_t got = 0;
  v.block(&got, 1);
  if (!v.good()) return v.status().error();
  if (got != want || !from.at_end())
    return Error{Errc::bad_file, "a snapshot was altered (its sum over all bytes is another)"};
  return Result<T>(std::move(empty));
}

inline std::uint64_t most_of(const SnapshotLimits& limits, std::uint64_t bytes) {
  return limits.most_bytes != 0
             ? limits.most_bytes
             : std::min<std::uint64_t>(bytes, std::uint64_t{1} << 60) * 4 + (std::uint64_t{1} << 30);
}

}  // namespace detail

// Snapshots: a Cache, a HeadCache or a store as bytes that load again bit for bit: codes, scales, bitmaps of dead rows,
// exact windows, positions, log-weights, tiers, the room behind them (bytes() is the same) and the policy's records, so
// that decoding goes on as if it had never stopped.
//
// What is read is put into an empty object that the caller makes as the saved one was made: same shape, stores and policy.
// The policy's options (its budget, too) and the accuracy of integer kernels are the reader's choice; all that says how
// bytes are to be understood is compared. A cache whose stores were chosen at run time and one whose stores were not are
// the same.
//
// Layout: magic (8 bytes), version and 0x01020304 (u32 each), the fields in the order in which the objects' `fields` name
// them (integers as 64 bits, arrays as they lie in memory), a 64-bit sum over everything before it. Everything is in the
// writer's order of bytes; another order is refused. A change of any `fields` is a new version; others are refused.

/// The bytes of a snapshot. Fails with: unsupported (a part without `fields`).
template <class T>
Result<std::string> snapshot_bytes(const T& x) {
  std::string out;
  detail::SnapshotSink to{nullptr, &out, {}};
  if (Status s = detail::write_snapshot(to, x); !s) return s.error();
  return out;
}

/// What was saved, in an object made as the saved one was.
/// Fails with: bad_file (truncated, altered), bad_shape (another shape, store or policy), unsupported (version, order of
/// bytes), out_of_capacity (wants more memory than `limits` give).
template <class T>
Result<T> from_snapshot(std::string_view bytes, T empty, const SnapshotLimits& limits = {}) {
  detail::SnapshotSource from{nullptr, bytes, {}};
  return detail::read_snapshot(from, detail::most_of(limits, bytes.size()), std::move(empty));
}

/// Writes a snapshot as the whole of a file, `path`.part first: what was there before is replaced by a whole snapshot or
/// stays. Needs no second copy in memory.
/// Fails with: not_found where the file cannot be made; out_of_capacity where it cannot be written to the end; else as
/// snapshot_bytes().
template <class T>
Status save_snapshot(const std::string& path, const T& x) {
  const std::string beside = path + ".part";
  detail::File file(std::fopen(beside.c_str(), "wb"));
  if (!file) return Error{Errc::not_found, "a file cannot be opened for writing"};
  detail::SnapshotSink to{file.get(), nullptr, {}};
  Status done = detail::write_snapshot(to, x);
  if (std::fclose(file.release()) != 0 && done)
    done = Error{Errc::out_of_capacity, "a snapshot cannot be written to the end"};
  if (done && std::rename(beside.c_str(), path.c_str()) != 0)
    done = Error{Errc::not_found, "a snapshot cannot be put in its place"};
  if (!done) std::remove(beside.c_str());
  return done;
}

/// Reads a snapshot from a file. Fails with: not_found where it cannot be opened; else as from_snapshot().
template <class T>
Result<T> load_snapshot(const std::string& path, T empty, const SnapshotLimits& limits = {}) {
  const detail::File file(std::fopen(path.c_str(), "rb"));
  if (!file) return Error{Errc::not_found, "a file cannot be opened for reading"};
  long size = 0;  // stays so where it is no file that one can go back in
  if (std::fseek(file.get(), 0, SEEK_END) == 0) size = std::max(0L, std::ftell(file.get()));
  std::rewind(file.get());
  detail::SnapshotSource from{file.get(), {}, {}};
  return detail::read_snapshot(from, detail::most_of(limits, std::uint64_t(size)), std::move(empty));
}

}  // namespace kvist::inline KVIST_ABI
