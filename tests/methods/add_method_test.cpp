// SPDX-License-Identifier: Apache-2.0
// A program's own method enters the registry: examples/05_your_own_signal.cpp does it; here, what is refused.
#include <kvist/methods/registry.hpp>
#include <kvist/methods/snapkv.hpp>

#include "support/catch.hpp"

using namespace kvist;

namespace {

struct TakenByTheOracle : methods::SnapKV {
  static constexpr methods::MethodInfo info{.name = "oracle"};
};
struct TakenByAStore : methods::SnapKV {
  static constexpr methods::MethodInfo info{.name = "f16"};
};

}  // namespace

TEST_CASE("A name that is taken is refused, and the registry stays as it was", "[methods][registry]") {
  const std::size_t size = methods::registry().size();
  for (const Status& s : {methods::add_method<methods::SnapKV>(), methods::add_method<TakenByTheOracle>(),
                          methods::add_method<TakenByAStore>()}) {
    REQUIRE(!s);
    CHECK(s.error().code == Errc::bad_option);
  }
  CHECK(methods::registry().size() == size);
}
