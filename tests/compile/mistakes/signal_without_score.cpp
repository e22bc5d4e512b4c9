// SPDX-License-Identifier: Apache-2.0
// expect: static.assert|constraint
#include <kvist/policy/policy.hpp>

struct Silent {
  static constexpr kvist::Role role = kvist::Role::signal;
  using Entry = kvist::Nothing;
  using PerHead = kvist::Nothing;
  kvist::Wants wants() const { return {}; }
#if !defined(KVIST_MISTAKE)
  template <kvist::Head H>
  kvist::Status score(const kvist::HeadContext<H>&, std::span<const Entry>, const PerHead&,
                      std::span<float>) const {
    return kvist::Done{};
  }
#endif
};
kvist::Policy<Silent> policy;
