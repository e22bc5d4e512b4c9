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

static_assert(Schedule<AfterPrefill> && Schedule<PerChunk> && Schedule<EveryStep> && Schedule<EverySteps> &&
              Schedule<OverBudget>);

}  // namespace kvist::inline KVIST_ABI
