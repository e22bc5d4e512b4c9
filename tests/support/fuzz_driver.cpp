// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer, for compilers that lack it: the given files as they are, then seeded
// mutations of them and seeded random bytes. It takes libFuzzer's own words, so that one command line serves both:
//   target [-runs=N] [-seed=N] [-max_len=N] [-max_total_time=SECONDS] [-rss_limit_mb=N] [file or folder]...
// A finding is a crash or a sanitizer's report; the input at work is kept in the file that KVIST_FUZZ_INPUT names.
#include <kvist/core/random.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Options {
  long runs = 20000;
  std::uint64_t seed = 1;
  std::size_t max_len = 4096;
  double max_total_time = 0;  // seconds; 0: as long as the runs take
};

// Sanitizers' shadow memory needs terabytes of space. GCC says that they are on by a macro, clang by a feature.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool shadow_memory = true;
#elif defined(__has_feature)
constexpr bool shadow_memory = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool shadow_memory = false;
#endif

/// Memory beyond the limit makes an allocation fail, which ends the program: an input must not be able to ask for it.
void limit_memory(double megabytes) {
  if (shadow_memory) return;
  const rlimit limit{rlim_t(megabytes) << 20, rlim_t(megabytes) << 20};
  setrlimit(RLIMIT_AS, &limit);
}

bool read_number(std::string_view argument, std::string_view name, double& out) {
  if (argument.substr(0, name.size()) != name) return false;
  out = std::strtod(std::string(argument.substr(name.size())).c_str(), nullptr);
  return true;
}

void read_inputs(const std::filesystem::path& path, std::vector<Bytes>& inputs) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(path, ignored))
      files.push_back(entry.path());
    std::sort(files.begin(), files.end());  // the order of a folder differs between machines
    for (const auto& file : files) read_inputs(file, inputs);
    return;
  }
  std::ifstream in(path, std::ios::binary);
  inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

/// One small damage: what a broken disk, a cut download or a hostile writer would do.
void mutate(Bytes& bytes, const std::vector<Bytes>& inputs, std::size_t max_len, kvist::Random& random) {
  const auto place = [&](std::size_t n) { return std::size_t(random.below(n)); };
  switch (random.below(8)) {
    case 0:  // flip a bit
      if (!bytes.empty()) bytes[place(bytes.size())] ^= std::uint8_t(1u << random.below(8));
      break;
    case 1:  // another byte
      if (!bytes.empty()) bytes[place(bytes.size())] = std::uint8_t(random.next());
      break;
    case 2:  // cut the end off
      bytes.resize(place(bytes.size() + 1));
      break;
    case 3: {  // remove a stretch
      if (bytes.empty()) break;
      const std::size_t first = place(bytes.size()),
                        n = 1 + place(std::min<std::size_t>(16, bytes.size() - first));
      bytes.erase(bytes.begin() + std::ptrdiff_t(first), bytes.begin() + std::ptrdiff_t(first + n));
      break;
    }
    case 4: {  // insert a stretch of one byte
      const std::size_t n = 1 + place(16);
      bytes.insert(bytes.begin() + std::ptrdiff_t(place(bytes.size() + 1)), n, std::uint8_t(random.next()));
      break;
    }
    case 5: {  // a size field at one of the values where arithmetic overflows
      static constexpr std::uint64_t edges[] = {
          0,          1,           0x7fffffff,          0x80000000,
          0xffffffff, 0x100000000, 0x7fffffffffffffff,  0x8000000000000000,
          0x1000,     0xffff,      0x2000000000000000u, 0xffffffffffffffff};
      const std::uint64_t value = edges[place(std::size(edges))];
      const std::size_t width = random.below(2) ? 8 : 4;
      if (bytes.size() >= width) std::memcpy(bytes.data() + place(bytes.size() - width + 1), &value, width);
      break;
    }
    case 6: {  // the head of this one, the tail of another
      if (inputs.empty()) break;
      const Bytes& other = inputs[place(inputs.size())];
      bytes.resize(place(bytes.size() + 1));
      bytes.insert(bytes.end(), other.begin() + std::ptrdiff_t(place(other.size() + 1)), other.end());
      break;
    }
    default: {  // copy a stretch over another place
      if (bytes.size() < 2) break;
      const std::size_t from = place(bytes.size()), to = place(bytes.size());
      const std::size_t n = std::min({bytes.size() - from, bytes.size() - to, std::size_t(1 + place(32))});
      std::memmove(bytes.data() + to, bytes.data() + from, n);
    }
  }
  if (bytes.size() > max_len) bytes.resize(max_len);
}

std::string crash_file;

void run(const Bytes& bytes) {
  // Written before the call, as nothing can be said after a crash; an exit without one removes it.
  if (!crash_file.empty()) {
    std::ofstream(crash_file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  }
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
  Options options;
  std::vector<Bytes> inputs;
  std::size_t files = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    double number = 0;
    if (read_number(argument, "-runs=", number)) options.runs = long(number);
    else if (read_number(argument, "-seed=", number)) options.seed = std::uint64_t(number);
    else if (read_number(argument, "-max_len=", number)) options.max_len = std::size_t(number);
    else if (read_number(argument, "-max_total_time=", number)) options.max_total_time = number;
    else if (read_number(argument, "-rss_limit_mb=", number)) limit_memory(number);
    else if (argument.substr(0, 1) == "-") continue;  // an option of libFuzzer's that has no meaning here
    else read_inputs(argv[i], inputs);
  }
  files = inputs.size();
  if (const char* keep = std::getenv("KVIST_FUZZ_INPUT")) crash_file = keep;

  run({});
  for (const Bytes& input : inputs) run(input);
  kvist::Random random(options.seed);
  const auto start = std::chrono::steady_clock::now();
  long runs = 0;
  for (; runs < options.runs; ++runs) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    if (options.max_total_time > 0 && spent.count() > options.max_total_time) break;
    Bytes bytes;
    if (!inputs.empty() && random.below(8) != 0) {
      bytes = inputs[std::size_t(random.below(inputs.size()))];
    } else {
      bytes.resize(std::size_t(random.below(std::min<std::size_t>(options.max_len, 512) + 1)));
      for (std::uint8_t& byte : bytes) byte = std::uint8_t(random.next());
    }
    for (std::uint64_t n = random.below(6); n > 0; --n) mutate(bytes, inputs, options.max_len, random);
    run(bytes);
  }
  if (!crash_file.empty()) std::remove(crash_file.c_str());
  std::printf("%zu files and %ld mutated inputs, no finding\n", files, runs);
  return 0;
}
