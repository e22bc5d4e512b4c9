#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/io/file.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#if __has_include(<sys/mman.h>) && __has_include(<unistd.h>)
#define KVIST_DETAIL_MMAP 1
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace kvist::inline KVIST_ABI {

/// The bytes of a file for reading, mapped into memory where the system can (POSIX), read into memory elsewhere.
///
/// A mapping costs no copy and no memory until it is read, and two programs share it. The file must not be cut
/// short while it is mapped: reading beyond its new end would end the program (SIGBUS).
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept
      : map_(std::exchange(other.map_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        copy_(std::move(other.copy_)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    if (this != &other) {
      unmap();
      map_ = std::exchange(other.map_, nullptr);
      size_ = std::exchange(other.size_, 0);
      copy_ = std::move(other.copy_);
    }
    return *this;
  }
  ~MappedFile() { unmap(); }

  /// Fails with: not_found where there is no such file or it cannot be read.
  static Result<MappedFile> open(const std::string& path) {
    MappedFile out;
#if defined(KVIST_DETAIL_MMAP)
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return Error{Errc::not_found, "a file cannot be opened for reading"};
    struct stat about = {};
    const bool plain = ::fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0 &&
                       std::in_range<std::size_t>(about.st_size);
    if (plain) {
      const auto size = static_cast<std::size_t>(about.st_size);
      void* const map = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
      if (map != MAP_FAILED) {
        out.map_ = static_cast<const std::byte*>(map);
        out.size_ = size;
      }
    }
    ::close(file);
    if (out.map_ != nullptr) return out;
#endif
    auto bytes = read_file(path);  // a pipe, an empty file, or a system without mappings
    if (!bytes) return bytes.error();
    out.copy_ = std::make_unique<std::string>(*std::move(bytes));
    return out;
  }

  /// Valid as long as this object (or the one it is moved to) lives.
  std::span<const std::byte> bytes() const {
    if (map_ != nullptr) return {map_, size_};
    return copy_ ? std::as_bytes(std::span(copy_->data(), copy_->size())) : std::span<const std::byte>();
  }

 private:
  void unmap() {
#if defined(KVIST_DETAIL_MMAP)
    if (map_ != nullptr) ::munmap(const_cast<std::byte*>(map_), size_);
#endif
    map_ = nullptr;
  }

  const std::byte* map_ = nullptr;
  std::size_t size_ = 0;
  std::unique_ptr<std::string> copy_;  // on the heap, so that a move does not move the bytes
};

}  // namespace kvist::inline KVIST_ABI
