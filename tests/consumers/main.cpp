// SPDX-License-Identifier: Apache-2.0
// What every consumer project compiles: the whole library through its umbrella, and a first use of it.
#include <kvist/kvist.hpp>

#include <cstdio>

int main() {
  kvist::HeadPlan plan;
  plan.drop = {2, 3, 5};
  const auto kept = kvist::survivors(plan, 8);
  std::printf("kvist %s keeps %d of 8 entries\n", kvist::version, int(kept.size()));
  return kvist::check(plan, 8) && kept.size() == 5 ? 0 : 1;
}
