// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"

#include <kvist/kernels/dispatch.hpp>

#include <string>

using namespace kvist;

TEST_CASE("Every machine can run the base level, and the levels ascend", "[kernels][dispatch]") {
  const auto levels = kernels::available_isas();
  REQUIRE(!levels.empty());
  CHECK(levels[0] == kernels::Isa::base);
  for (std::size_t i = 1; i < levels.size(); ++i) CHECK(int(levels[i]) > int(levels[i - 1]));
}

TEST_CASE("A forced level runs, one that the machine lacks is refused", "[kernels][dispatch]") {
  for (int i = 0; i < kernels::isa_count; ++i) {
    const kernels::Isa isa = kernels::Isa(i), before = kernels::current_isa();
    CHECK(kernels::force_isa(isa) == kernels::isa_available(isa));
    CHECK(kernels::current_isa() == (kernels::isa_available(isa) ? isa : before));
    kernels::unforce_isa();
  }
}

TEST_CASE("Without a request the best level runs, with one that exists that one", "[kernels][dispatch]") {
  const char* const wanted = std::getenv("KVIST_ISA");
  bool known = false;
  for (const kernels::Isa isa : kernels::available_isas())
    if (wanted != nullptr && std::string(wanted) == kernels::isa_name(isa)) {
      known = true;
      CHECK(kernels::current_isa() == isa);
    }
  if (!known) CHECK(kernels::current_isa() == kernels::available_isas().back());
  CHECK(kernels::isa_request_failed() == (wanted != nullptr && *wanted != 0 && !known));
}
