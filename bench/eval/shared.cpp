// SPDX-License-Identifier: Apache-2.0
// What several commands need.
#include "commands.hpp"
#include "places.hpp"

#include <kvist/io/file.hpp>
#include <kvist/kernels/dispatch.hpp>
#include <kvist/reference/thread_pool.hpp>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

namespace kvist_eval {

Outcome<Good> write_result(const std::string& path, std::string_view text) {
  if (path.empty() || path == "-") {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
      return failed("standard output cannot be written");
    return Good{};
  }
  if (const auto done = kvist::write_file(path, text); !done)
    return failed(fmt::format("'{}'", path), done.error());
  return Good{};
}

Outcome<Good> check_writable(const std::string& path) {
  std::error_code ignored;
  const bool existed = std::filesystem::exists(path, ignored);
  std::FILE* const file = std::fopen(path.c_str(), "ab");
  if (!file) return failed(fmt::format("'{}' cannot be opened for writing", path));
  std::fclose(file);
  if (!existed) std::filesystem::remove(path, ignored);
  return Good{};
}

const char* announce_isa() {
  const char* const isa = kvist::kernels::isa_name(kvist::kernels::current_isa());
  if (kvist::kernels::isa_request_failed())
    fmt::print(stderr, "kvist-eval: KVIST_ISA={} cannot run here\n", std::getenv("KVIST_ISA"));
  fmt::print(stderr, "kvist-eval: kernels at {}\n", isa);
  return isa;
}

Outcome<int> threads_of(const Args& args) {
  const unsigned machine = std::max(1u, std::thread::hardware_concurrency());
  auto n = args.number("threads", machine, 1, kvist::ThreadPool::max_threads);
  if (!n) return n.failure();
  return int(*n);
}

std::string model_of(const Args& args) { return args.text("model", has_smollm2() ? "smollm2" : "tiny"); }

}  // namespace kvist_eval
