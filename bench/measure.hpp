#pragma once
// SPDX-License-Identifier: Apache-2.0
// How kvist-bench measures: own threads, clock and repetitions, and a read-only pass over the same bytes between any two
// repetitions, so that a busy neighbour slows both.
#include <kvist/kernels/dispatch.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace kvist::bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// CPU time of this thread: what one thread's work costs even where others share its core.
inline double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

/// Seconds of f(0): CPU time of one thread; with more threads the time until f(0) .. f(threads-1), begun together on a
/// thread each, are all done.
template <class F>
double timed(int threads, F&& f) {
  if (threads == 1) {
    const double t = thread_seconds();
    f(0);
    return thread_seconds() - t;
  }
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<double> end(static_cast<std::size_t>(threads));
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      ++ready;
      while (!go.load(std::memory_order_acquire)) {
      }
      f(t);
      end[std::size_t(t)] = now();
    });
  while (ready.load() < threads) {
  }
  const double start = now();
  go.store(true, std::memory_order_release);
  for (std::thread& t : pool) t.join();
  return *std::max_element(end.begin(), end.end()) - start;
}

inline std::atomic<std::uint64_t> sink{0};

/// Reads every line of a piece of memory and does nothing with it: what the memory itself takes.
inline void read_only(const void* at, std::size_t bytes) {
  typedef std::uint64_t Line __attribute__((vector_size(64), aligned(1), may_alias));
  const char* p = static_cast<const char*>(at);
  Line a[8] = {};
  std::size_t i = 0;
  for (; i + 512 <= bytes; i += 512)
    for (std::size_t k = 0; k < 8; ++k) a[k] ^= *reinterpret_cast<const Line*>(p + i + 64 * k);
  for (; i + 64 <= bytes; i += 64) a[0] ^= *reinterpret_cast<const Line*>(p + i);
  for (std::size_t k = 1; k < 8; ++k) a[0] ^= a[k];
  std::uint64_t x = 0;
  for (std::size_t k = 0; k < 8; ++k) x ^= a[0][k];
  sink.fetch_xor(x, std::memory_order_relaxed);
}

struct Timing {
  double seconds = 0;   ///< median of the work
  double fraction = 0;  ///< median of (read-only time / time of the work), repetition by repetition
};

/// Runs work(thread) and read(thread) alternately.
template <class W, class R>
Timing against_read(int threads, int repetitions, W&& work, R&& read) {
  std::vector<double> seconds, fractions;
  timed(threads, work);
  for (int r = 0; r < repetitions; ++r) {
    const double t = timed(threads, work), u = timed(threads, read);
    seconds.push_back(t);
    fractions.push_back(u / t);
  }
  return {median(seconds), median(fractions)};
}

/// The measured counters of one benchmark.
using Counters = std::map<std::string, double>;

/// Registers `name` exactly as given; `measure` runs once, with its own repetitions, and its counters are reported.
inline void add(const std::string& name, std::function<Counters()> measure) {
  struct Once {
    std::function<Counters()> measure;
    Counters counters;
  };
  auto once = std::make_shared<Once>(Once{std::move(measure), {}});
  benchmark::RegisterBenchmark(name.c_str(), [once](benchmark::State& state) {
    for (auto _ : state)
      if (once->counters.empty()) once->counters = once->measure();
    for (const auto& [key, value] : once->counters) state.counters[key] = value;
  });
}

}  // namespace kvist::bench
