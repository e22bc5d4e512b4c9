#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

namespace kvist::inline KVIST_ABI {

/// Once, when the prompt is complete.
struct AfterPrefill {
  static constexpr Role role = Role::schedule;
  bool due(const Clock& c) const { return c.phase == Phase::prefill && c.last; }
};

/// After every call of the prompt (its chunks), so that the peak stays near budget + chunk; not during decode.
struct PerChunk {
  static constexpr Role role = Role::schedule;
  bool due(const Clock& c) const { return c.phase == Phase::prefill; }
};

/// When the prompt is complete, and after every decode step.
struct EveryStep {
  static constexpr Role role = Role::schedule;
  bool due(const Clock& c) const { return c.phase == Phase::decode || c.last; }
};

/// During decode on each step that is a multiple of `period` (steps count from 1 after the prompt); the prompt itself
/// only where `prompt` is set.
struct EverySteps {
  static constexpr Role role = Role::schedule;
  Index period = 1;
  bool prompt = false;
  bool due(const Clock& c) const {
    return c.phase == Phase::prefill ? prompt && c.last : c.step > 0 && c.step % period == 0;
  }
};

/// Whenever the longest head of the layer holds more than the budget plus `slack` entries.
struct OverBudget {
  static constexpr Role role = Role::schedule;
  Index slack = 0;
  bool due(const Clock& c) const { return c.size > c.budget + slack && (c.phase == Phase::decode || c.last); }
};

/// One of the schedules above by a run-time value, for settings and options that replace a policy's own. `period` is that
/// of every_steps (which includes the end of the prompt here), `slack` that of over_budget; `own` leaves the choice to the
/// policy and is never due by itself.
struct ChosenSchedule {
  static constexpr Role role = Role::schedule;
  enum class Kind : std::uint8_t { own, after_prefill, per_chunk, every_step, every_steps, over_budget };
  Kind kind = Kind::own;
  Index period = 1, slack = 0;

  bool due(const Clock& c) const {
    switch (kind) {
      case Kind::own:
        return false;
      case Kind::after_prefill:
        return AfterPrefill{}.due(c);
      case Kind::per_chunk:
        return PerChunk{}.due(c);
      case Kind::every_step:
        return EveryStep{}.due(c);
      case Kind::every_steps:
        return EverySteps{period, true}.due(c);
      case Kind::over_budget:
        return OverBudget{slack}.due(c);
    }
    return false;
  }
  /// Fails with: bad_option.
  Status validate() const {
    if (kind == Kind::every_steps && period < 1)
      return Error{Errc::bad_option, "a schedule's period counts steps and is at least 1", 1, period};
    if (kind == Kind::over_budget && (slack < 0 || slack > 1 << 29))
      return Error{Errc::bad_option, "a schedule's slack counts entries above the budget", 1 << 29, slack};
    return Done{};
  }
  friend bool operator==(const ChosenSchedule&, const ChosenSchedule&) = default;
};

static_assert(Schedule<AfterPrefill> && Schedule<PerChunk> && Schedule<EveryStep> && Schedule<EverySteps> &&
              Schedule<OverBudget> && Schedule<ChosenSchedule>);

}  // namespace kvist::inline KVIST_ABI
