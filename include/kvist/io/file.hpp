#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>

#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace kvist::inline KVIST_ABI {

namespace detail {
struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;
}  // namespace detail

/// The bytes of a whole file (a pipe, too), never more than `limit`.
///
/// Fails with: not_found where it cannot be opened or read; bad_file where it is larger than `limit` bytes.
inline Result<std::string> read_file(const std::string& path, std::size_t limit = std::size_t{1} << 32) {
  const detail::File file(std::fopen(path.c_str(), "rb"));
  if (!file) return Error{Errc::not_found, "a file cannot be opened for reading"};
  std::string out;
  for (char chunk[1 << 16];;) {
    const std::size_t n = std::fread(chunk, 1, sizeof chunk, file.get());
    if (n > limit - out.size())
      return Error{Errc::bad_file, "a file is larger than its reader takes", (long long)limit};
    out.append(chunk, n);
    if (n < sizeof chunk) break;
  }
  if (std::ferror(file.get())) return Error{Errc::not_found, "a file cannot be read (is it a folder?)"};
  return out;
}

/// Writes `bytes` as the whole of a file, replacing what was there.
/// Fails with: not_found where the file cannot be made; out_of_capacity where it cannot be written to the end.
inline Status write_file(const std::string& path, std::string_view bytes) {
  detail::File file(std::fopen(path.c_str(), "wb"));
  if (!file) return Error{Errc::not_found, "a file cannot be opened for writing"};
  const std::size_t n = std::fwrite(bytes.data(), 1, bytes.size(), file.get());
  if (n != bytes.size() || std::fclose(file.release()) != 0)
    return Error{Errc::out_of_capacity, "a file cannot be written to the end", (long long)bytes.size(),
                 (long long)n};
  return Done{};
}

}  // namespace kvist::inline KVIST_ABI
