// SPDX-License-Identifier: Apache-2.0
// expect: nodiscard
// flags: -Werror=unused-result
#include <kvist/core/plan.hpp>

void f(const kvist::HeadPlan& plan);
void f(const kvist::HeadPlan& plan) {
#if defined(KVIST_MISTAKE)
  kvist::check(plan, 8);
#else
  (void)kvist::check(plan, 8);
#endif
}
