// SPDX-License-Identifier: Apache-2.0
// expect: two parts fill the same role
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/accumulated_attention.hpp>

#if defined(KVIST_MISTAKE)
using Parts = kvist::Policy<kvist::AccumulatedAttention, kvist::Recency>;
#else
using Parts = kvist::Policy<kvist::AccumulatedAttention>;
#endif
Parts policy;
