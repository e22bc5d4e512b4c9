#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <unistd.h>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

namespace kvist_eval {

/// One line on standard error that is written over again while work goes on; silent where that is no
/// terminal.
class Progress {
 public:
  Progress() : on_(isatty(fileno(stderr)) != 0) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { clear(); }

  void show(std::string_view text) {
    if (!on_) return;
    const std::size_t columns = 100;
    fmt::print(stderr, "\r\033[K{}", text.substr(0, columns));
    std::fflush(stderr);
    shown_ = true;
  }
  void clear() {
    if (!shown_) return;
    fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
    shown_ = false;
  }

 private:
  bool on_, shown_ = false;
};

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace kvist_eval
