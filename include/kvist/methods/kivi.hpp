#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/detail/coded.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct KiviOptions {
  int bits = 2, group = 32, residual = 128;  // README and LongBench tables of the official code
  int k_bits = 0, v_bits = 0;
  kernels::Accuracy accuracy = kernels::Accuracy::exact;
};

/// Keys in groups of consecutive tokens per channel, values in groups of channels per token, least to largest; the newest
/// tokens stay exact. Of a prompt of T tokens, the keys of T - T mod residual and the values of T - residual are coded; in
/// decode the keys of `residual` tokens at once, and one value a step.
///
/// Scales and minima are f16, and codes are fitted to them as stored (the official code divides by the unrounded scale: at
/// ties the codes may differ by one). The window is f32. Value groups are at most the head dimension.
/// Source: Liu et al. 2024, arXiv 2402.02750; jy-yuan/KIVI, quant/new_pack.py and models/llama_kivi.py.
struct Kivi {
  static constexpr MethodInfo info{"KIVI",
                                   "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache",
                                   "Liu et al. 2024, arXiv 2402.02750",
                                   "BlockedStore of IntChannel keys, IntToken values",
                                   "nothing",
                                   "a store",
                                   Fidelity::exact,
                                   ""};
  using Options = KiviOptions;
  template <class V>
  static void fields(V& v, Options& o) {
    v("bits", o.bits, "1 to 8; 2, 4 and 8 are read without decoding; 16: f16");
    v("group", o.group, "tokens (keys), channels (values) that share a scale");
    v("residual", o.residual, "newest tokens that stay exact; a multiple of group");
    v("k_bits", o.k_bits, "bits of keys, where not `bits`");
    v("v_bits", o.v_bits, "bits of values, where not `bits`");
    v("accuracy", o.accuracy, "of queries and weights at the codes: fast (8 bits) or exact (16)");
  }
  static Result<StoreFactory> make(const Options& o) {
    const int kb = o.k_bits != 0 ? o.k_bits : o.bits, vb = o.v_bits != 0 ? o.v_bits : o.bits;
    for (const int b : {kb, vb})  // 16: no codes, but the group still has to be one
      if (Status s = IntChannel<f16>{b == 16 ? 8 : b, o.group}.validate(1); !s) return s.error();
    if (o.residual < 0 || o.residual > 1 << 20 || o.residual % o.group != 0)
      return Error{Errc::bad_option, "residual is a multiple of group, at most 1048576", o.group, o.residual};
    return StoreFactory([o, kb, vb](const Shape& s, int, int) -> Result<std::vector<AnyStore>> {
      auto k = detail::channel_form(true, kb, o.group, s.dim_k);
      auto v = detail::token_form(false, vb, std::min(o.group, s.dim_v), s.dim_v);
      if (!k) return k.error();
      if (!v) return v.error();
      return detail::one(detail::coded_store(*k, *v, s, o.residual, o.accuracy));
    });
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
