#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/detail/coded.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/dispose/demote.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/accumulated_attention.hpp>
#include <kvist/storage/store/balanced.hpp>

#include <cmath>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// How MiKV keeps its important entries.
enum class HighTier : std::uint8_t { f32, f16, int8, int4 };
template <>
struct EnumNames<HighTier> {
  static constexpr std::array<const char*, 4> names{"f32", "f16", "int8", "int4"};
};

struct MikvOptions {
  int bits = 2;   // 3 and 4 in the paper's ablations
  int group = 0;  // half of the head dimension
  HighTier high = HighTier::f16;
  bool balance = true;
  kernels::Accuracy accuracy = kernels::Accuracy::exact;
};

/// AccumulatedAttention that also asks for the prompt's largest queries, which the balancer of the low tier needs.
struct AttentionForBalancer : AccumulatedAttention {
  Wants wants() const {
    Wants w = AccumulatedAttention::wants();
    w.prefill = w.prefill | Needs::max_query;
    return w;
  }
};
static_assert(Signal<AttentionForBalancer>);

/// Half of the budget, rounded down, is the newest entries.
struct RecentHalf {
  static constexpr Role role = Role::guard;
  Guards resolve(Index budget) const { return {0, budget / 2}; }
};
static_assert(Guard<RecentHalf>);

/// MiKV's choice: in decode the high tier's budget follows the length of the sequence, at the share that the prompt had.
class MikvPolicy : public Policy<AttentionForBalancer, RecentHalf, Demote, EveryStep> {
 public:
  using Base = Policy<AttentionForBalancer, RecentHalf, Demote, EveryStep>;
  using Base::Base;
  struct State : Base::State {
    std::vector<Index> prompt,
        high;  ///< [layers] tokens of the prompt, and entries kept of them; prompt 0: none yet
  };

  Result<State> start(const Shape& shape) const {
    auto base = Base::start(shape);
    if (!base) return base.error();
    State st;
    static_cast<Base::State&>(st) = *std::move(base);
    st.prompt.assign(std::size_t(shape.layers), 0);
    st.high.assign(std::size_t(shape.layers), 0);
    return st;
  }
  template <LayerView L>
  Status observe(const LayerCall<L>& call, State& st) const {
    return Base::observe(call, st);
  }
  /// For snapshots.
  template <class V, class St>
  void more_fields(V& v, St& st) const {
    for (auto& n : st.prompt) v.number(n, 0, 1 << 30);
    for (auto& n : st.high) v.number(n, 0, 1 << 30);
  }
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
    const std::size_t l = std::size_t(call.layer);
    if (call.layer < 0 || call.layer >= st.shape.layers || call.view.heads() != st.shape.kv_heads)
      return Base::plan(call, st, out);        // says what is wrong
    const Index length = st.layers[l].tokens;  // nothing is ever dropped
    Index& budget = st.layers[l].budget;
    if (call.now.phase == Phase::decode && st.prompt[l] > 0 && budget >= 0)
      budget = Index((long long)st.high[l] * length / st.prompt[l]);
    if (Status s = Base::plan(call, st, out); !s) return s;
    if (call.now.phase == Phase::prefill) {
      st.prompt[l] = length;
      st.high[l] = std::max<Index>(budget, 0);
    }
    return Done{};
  }
};

/// Nothing is dropped: entries that H2O would evict move to a second tier of few bits, whose keys are balanced per channel
/// against the prompt's queries.
///
/// Open in the paper and chosen here: scores and query maxima over the group (sum, largest); the share of high entries is
/// budget / prompt length, of which half, rounded down, are the newest; it is met again at each step.
/// Source: Yang et al. 2024, arXiv 2402.18096 (no official code).
struct Mikv {
  static constexpr MethodInfo info{
      "MiKV",
      "No Token Left Behind: Reliable KV Cache Compression via Importance-Aware Mixed Precision Quantization",
      "Yang et al. 2024, arXiv 2402.18096",
      "AccumulatedAttention + RecentHalf + TopK + Demote + EveryStep; BalancedStore of IntToken as tier 1",
      "column sums and largest queries of the prompt, probabilities of each step",
      "moves",
      Fidelity::adapted,
      "what the paper leaves open (reduction over query groups, growth of the high tier) is chosen"};
  static constexpr bool evicts = true;
  using Options = MikvOptions;
  using Type = MikvPolicy;
  template <class V>
  static void fields(V& v, Options& o) {
    v("bits", o.bits, "of demoted entries, 1 to 8");
    v("group", o.group, "channels of a demoted entry that share a scale; 0: half of the head dimension");
    v("high", o.high, "store of important entries: f32, f16, int8 or int4");
    v("balance", o.balance, "scale demoted keys per channel by the prompt's maxima");
    v("accuracy", o.accuracy, "of queries and weights at the codes: fast (8 bits) or exact (16)");
  }
  static Result<Type> make(const Options& o) {
    if (Status s = IntToken<f16>{o.bits, std::max(o.group, 0)}.validate(1); !s) return s.error();
    if (o.group < 0)
      return Error{Errc::bad_option, "a group has at least one channel (0: half of them)", 0, o.group};
    return Type();
  }
  static Result<StoreFactory> make_stores(const Options& o) {
    return StoreFactory([o](const Shape& s, int, int) -> Result<std::vector<AnyStore>> {
      if (s.dim_k > BalancedStore<AnyStore>::most)
        return Error{Errc::bad_shape, "keys of more channels than can be balanced",
                     BalancedStore<AnyStore>::most, s.dim_k};
      const auto width = [&](int d) { return o.group > 0 ? std::min(o.group, d) : std::max(1, d / 2); };
      auto k = detail::token_form(true, o.bits, width(s.dim_k), s.dim_k);
      auto v = detail::token_form(false, o.bits, width(s.dim_v), s.dim_v);
      if (!k) return k.error();
      if (!v) return v.error();
      std::vector<AnyStore> tiers;
      if (o.high == HighTier::f32) {
        tiers.push_back(AnyStore(DenseStore<float>(s.dim_k, s.dim_v)));
      } else if (o.high == HighTier::f16) {
        tiers.push_back(AnyStore(DenseStore<f16>(s.dim_k, s.dim_v)));
      } else {
        const int bits = o.high == HighTier::int8 ? 8 : 4;
        auto hk = detail::token_form(true, bits, width(s.dim_k), s.dim_k),
             hv = detail::token_form(false, bits, width(s.dim_v), s.dim_v);
        if (!hk) return hk.error();
        if (!hv) return hv.error();
        tiers.push_back(detail::coded_store(*hk, *hv, s, 0, o.accuracy));
      }
      AnyStore low = detail::coded_store(*k, *v, s, 0, o.accuracy);
      tiers.push_back(o.balance ? AnyStore(BalancedStore<AnyStore>(std::move(low), s.dim_k)) : std::move(low));
      return tiers;
    });
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
