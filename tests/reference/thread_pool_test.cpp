// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/thread_pool.hpp>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using namespace kvist;

TEST_CASE("ThreadPool runs every index exactly once, with any number of threads", "[reference][ThreadPool]") {
  for (const int threads : {-1, 1, 2, 3, 7}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == (threads < 1 ? 1 : threads));
    for (const Index n : {0, 1, 2, 5, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(n));
      pool.for_each(n, [&](Index i) { ++runs[static_cast<std::size_t>(i)]; });
      bool once = true;
      for (const auto& r : runs) once = once && r == 1;
      CHECK(once);
    }
  }
}

TEST_CASE("ThreadPool returns only when all work of a job is done, job after job",
          "[reference][ThreadPool]") {
  ThreadPool pool(3);
  long total = 0;  // written by the caller only, from what the job left behind
  for (int round = 0; round < 2000; ++round) {
    long part[4] = {};
    pool.for_each(4, [&](Index i) { part[i] = round + i; });
    total += part[0] + part[1] + part[2] + part[3];
  }
  CHECK(total == 4L * (2000L * 1999 / 2) + 6L * 2000);
}

TEST_CASE("ThreadPool lets several threads work on one job", "[reference][ThreadPool]") {
  ThreadPool pool(2);
  std::atomic<int> inside{0};
  std::thread::id who[2];
  pool.for_each(2, [&](Index i) {  // each index waits for the other: only two threads can end this
    who[i] = std::this_thread::get_id();
    ++inside;
    while (inside < 2) std::this_thread::yield();
  });
  CHECK(who[0] != who[1]);
}

TEST_CASE("ThreadPool does a call from inside a job on the spot", "[reference][ThreadPool]") {
  ThreadPool pool(2);
  std::atomic<int> count{0};
  pool.for_each(4, [&](Index) { pool.for_each(5, [&](Index) { ++count; }); });
  CHECK(count == 20);
}

TEST_CASE("ThreadPool serves callers on several threads at once", "[reference][ThreadPool]") {
  ThreadPool pool(2);
  std::atomic<int> count{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      for (int r = 0; r < 200; ++r) pool.for_each(7, [&](Index) { ++count; });
    });
  for (std::thread& t : callers) t.join();
  CHECK(count == 3 * 200 * 7);
}
