#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Scratch memory for tasks that run at once: a task takes a T, works in it and gives it back; there are never more of
/// them than tasks running at one time. What a T holds when it is taken is left over from another task.
template <class T>
class Workspaces {
 public:
  class Taken {
   public:
    Taken(Workspaces& home, std::unique_ptr<T> mine) : home_(&home), mine_(std::move(mine)) {}
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    ~Taken() { home_->give(std::move(mine_)); }
    T& operator*() const { return *mine_; }
    T* operator->() const { return mine_.get(); }

   private:
    Workspaces* home_;
    std::unique_ptr<T> mine_;
  };

  Taken take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<T> one = std::move(idle_.back());
        idle_.pop_back();
        return {*this, std::move(one)};
      }
    }
    return {*this, std::make_unique<T>()};
  }

 private:
  void give(std::unique_ptr<T> one) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(one));
  }
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
