#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/executor.hpp>
#include <kvist/core/types.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// A few threads that wait without spinning: an Executor for tools and the reference transformer.
///
/// A spinning barrier is quicker while every thread has a core of its own and ruins the step when it has not; this pool
/// sleeps between jobs instead. The caller works, too, and waits only for workers that have begun: a worker that the
/// system wakes late finds the job closed and costs nothing. Which thread runs which index is not fixed, so work handed
/// to it must not depend on it.
///
/// Cost: one lock and one wake-up a job; no allocation. A call from inside a job, or while another thread's job runs,
/// is done by its caller alone.
class ThreadPool {
 public:
  static constexpr int max_threads = 256;

  /// `threads` counts the caller: 1 (or less) starts none. At most max_threads.
  explicit ThreadPool(int threads = 1) {
    const int workers = std::clamp(threads, 1, max_threads) - 1;
    workers_.reserve(std::size_t(workers));
    for (int i = 0; i < workers; ++i) workers_.emplace_back([this] { work(); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& t : workers_) t.join();
  }

  /// Threads that take part in a job, the caller included.
  int threads() const { return int(workers_.size()) + 1; }

  /// Runs f(0) .. f(n-1) and returns when all are done. Indices are begun in rising order.
  template <class F>
  void for_each(Index n, F&& f) {
    using Function = std::remove_reference_t<F>;
    if (n <= 1 || workers_.empty() || busy_.exchange(true, std::memory_order_acquire)) {
      for (Index i = 0; i < n; ++i) f(i);
      return;
    }
    Job job;
    job.n = n;
    job.context = const_cast<void*>(static_cast<const volatile void*>(std::addressof(f)));
    job.run = [](void* context, Index i) { (*static_cast<Function*>(context))(i); };
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++jobs_;
    }
    wake_.notify_all();
    job.take();
    {
      std::unique_lock lock(mutex_);
      job_ = nullptr;  // who has not begun by now need not: every index is taken
      done_.wait(lock, [&] { return at_work_ == 0; });
    }
    busy_.store(false, std::memory_order_release);
  }

 private:
  struct Job {
    Index n = 0;
    void* context = nullptr;
    void (*run)(void*, Index) = nullptr;
    std::atomic<Index> next{0};

    void take() {
      for (Index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) run(context, i);
    }
  };

  void work() {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || (job_ && jobs_ != seen); });
      if (stop_) return;
      seen = jobs_;
      Job& job = *job_;
      ++at_work_;
      lock.unlock();
      job.take();
      lock.lock();
      if (--at_work_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;      // null: closed
  std::uint64_t jobs_ = 0;  // jobs opened so far
  int at_work_ = 0;         // workers inside the open job
  bool stop_ = false;
  std::atomic<bool> busy_{false};
  std::vector<std::thread> workers_;
};
static_assert(Executor<ThreadPool>);

}  // namespace kvist::inline KVIST_ABI
