// SPDX-License-Identifier: Apache-2.0
// Built with -fno-exceptions -fno-rtti: everything is included, and the parts that return errors are used.
#include <kvist/kvist.hpp>

#include <cstdio>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this file must be built with -fno-exceptions -fno-rtti"
#endif

namespace {

int failures = 0;

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what);
  ++failures;
}

kvist::Result<int> half_of(int x) {
  if (x % 2 != 0) return kvist::Error{kvist::Errc::bad_value, "wants an even number", 0, x};
  return x / 2;
}

}  // namespace

int main() {
  const auto even = half_of(42), odd = half_of(43);
  check(even && *even == 21, "a value comes back");
  check(!odd && odd.error().got == 43, "an error comes back as a value");

  kvist::HeadPlan plan;
  plan.drop = {1, 1};
  check(!kvist::check(plan, 4), "a plan that names a row twice is refused without an exception");
  plan.drop = {1, 3};
  check(bool(kvist::check(plan, 4)), "a correct plan passes");
  return failures == 0 ? 0 : 1;
}
