// The vector layer of AVX-512 (F, BW, VL, DQ): sixteen f32 lanes.
inline constexpr int N = 16;
inline constexpr int registers = 16;

using F = __m512;

KVIST_INLINE __mmask16 lanes(int n) { return __mmask16((1u << n) - 1u); }  // the first n of 16

KVIST_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
KVIST_INLINE F load(const f16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
KVIST_INLINE F widen_bf16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
KVIST_INLINE F load(const bf16* p) {
  return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
KVIST_INLINE F load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
KVIST_INLINE F load_part(const f16* p, int n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes(n), p));
}
KVIST_INLINE F load_part(const bf16* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(lanes(n), p)); }
KVIST_INLINE __m256i narrow_bf16(F x) {
  const __m512i b = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
  const __m512i even =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(b, odd), _mm512_set1_epi32(0x7fff)), 16);
  const __m512i nan = _mm512_or_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(even, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan));
}
KVIST_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
KVIST_INLINE void store(f16* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
KVIST_INLINE void store(bf16* p, F x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(x)); }
KVIST_INLINE void store_part(float* p, F x, int n) { _mm512_mask_storeu_ps(p, lanes(n), x); }
KVIST_INLINE void store_part(f16* p, F x, int n) {
  _mm256_mask_storeu_epi16(p, lanes(n), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
KVIST_INLINE void store_part(bf16* p, F x, int n) { _mm256_mask_storeu_epi16(p, lanes(n), narrow_bf16(x)); }
KVIST_INLINE F set1(float x) { return _mm512_set1_ps(x); }
KVIST_INLINE F zero() { return _mm512_setzero_ps(); }
KVIST_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
KVIST_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
KVIST_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
KVIST_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
KVIST_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
KVIST_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
KVIST_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
KVIST_INLINE F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
KVIST_INLINE F abs(F a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
KVIST_INLINE F sqrt(F a) { return _mm512_sqrt_ps(a); }
KVIST_INLINE float reduce_add(F a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
KVIST_INLINE float reduce_max(F a) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
KVIST_INLINE F round_even(F a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
KVIST_INLINE F scale_by_pow2(F a, F n) { return _mm512_scalef_ps(a, n); }
KVIST_INLINE F zero_below(F value, F x, F limit) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), value);
}
template <int S>
KVIST_INLINE F shifted(F a, F b) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(b), _mm512_castps_si512(a), S));
}
KVIST_INLINE unsigned above(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
KVIST_INLINE unsigned at_least(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
// Compressed in a register and stored whole: compressing stores are slow on some processors.
KVIST_INLINE int put_lanes(Index* out, Index first, unsigned mask) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(
      out, _mm512_maskz_compress_epi32(__mmask16(mask), _mm512_add_epi32(lane, _mm512_set1_epi32(first))));
  return __builtin_popcount(mask);
}
KVIST_INLINE int put_values(float* out, F x, unsigned mask) {
  _mm512_storeu_ps(out, _mm512_maskz_compress_ps(__mmask16(mask), x));
  return __builtin_popcount(mask);
}
KVIST_INLINE void prefetch(const void* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }

// Bytes: a register holds N words of four codes, or N sums.
using C = __m512i;
using I = __m512i;
KVIST_INLINE C load_codes(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
KVIST_INLINE C broadcast4(const std::int8_t* q) {
  int w;
  std::memcpy(&w, q, 4);
  return _mm512_set1_epi32(w);
}
#if defined(KVIST_DETAIL_VNNI)
inline constexpr int dot_centre = 0;
// No shift: the plane stays where it is in its byte, and the sum is divided instead.
KVIST_INLINE constexpr float plane_scale(int bits, int p) { return 1.0f / float(1 << (bits * p)); }
KVIST_INLINE C plane(C x, int bits, int p) {
  return bits == 8 ? x : _mm512_and_si512(x, _mm512_set1_epi8(char(((1 << bits) - 1) << (p * bits))));
}
template <int Bits>
KVIST_INLINE I dot4(I acc, C codes, C q) {
#if defined(__GNUC__) && !defined(__clang__)
  // GCC 12 copies the accumulator around the intrinsic and spills; written like this it does not
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(q));
  return acc;
#else
  return _mm512_dpbusd_epi32(acc, codes, q);
#endif
}
#else
inline constexpr int dot_centre = 128;
KVIST_INLINE constexpr float plane_scale(int, int) { return 1.0f; }
KVIST_INLINE C plane(C x, int bits, int p) {
  if (bits == 8) return _mm512_xor_si512(x, _mm512_set1_epi8(-128));
  return _mm512_and_si512(_mm512_srl_epi16(x, _mm_cvtsi32_si128(p * bits)),
                          _mm512_set1_epi8(char((1 << bits) - 1)));
}
template <int Bits>
KVIST_INLINE I dot4(I acc, C codes, C q) {
  __m512i pairs;
  if constexpr (Bits == 8) {
    const __m512i turned = _mm512_mask_sub_epi8(q, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), q);
    pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(codes), turned);
  } else {
    pairs = _mm512_maddubs_epi16(codes, q);
  }
  return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#endif
KVIST_INLINE I izero() { return _mm512_setzero_si512(); }
KVIST_INLINE F to_f(I x) { return _mm512_cvtepi32_ps(x); }
KVIST_INLINE void store_bytes(std::int8_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

KVIST_INLINE F larger(F a, F b) { return _mm512_max_ps(a, b); }
KVIST_INLINE F smaller(F a, F b) { return _mm512_min_ps(a, b); }
KVIST_INLINE F fused(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
template <int H>
KVIST_INLINE F swapped(F a) {
  if constexpr (H == 1) return _mm512_permute_ps(a, 0xb1);
  else if constexpr (H == 2) return _mm512_permute_ps(a, 0x4e);
  else if constexpr (H == 4) return _mm512_shuffle_f32x4(a, a, 0xb1);
  else return _mm512_shuffle_f32x4(a, a, 0x4e);
}
KVIST_INLINE void store_codes(std::uint8_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}
KVIST_INLINE void put_words(std::uint8_t* p, F x, int shift, std::uint32_t mask) {
  const __m512i kept = _mm512_andnot_si512(_mm512_set1_epi32(int(mask << shift)), _mm512_loadu_si512(p));
  const __m512i codes = _mm512_sll_epi32(_mm512_cvtps_epi32(x), _mm_cvtsi32_si128(shift));
  _mm512_storeu_si512(p, _mm512_or_si512(kept, codes));
}

KVIST_INLINE void unzip(F a, F b, F& x, F& y) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  x = _mm512_permutex2var_ps(a, even, b);
  y = _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
}
KVIST_INLINE void zip(F x, F y, F& a, F& b) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  a = _mm512_permutex2var_ps(x, first, y);
  b = _mm512_permutex2var_ps(x, _mm512_add_epi32(first, _mm512_set1_epi32(8)), y);
}
