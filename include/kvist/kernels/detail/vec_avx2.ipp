// The vector layer of AVX2 + FMA + F16C: eight f32 lanes.
inline constexpr int N = 8;
inline constexpr int registers = 8;

using F = __m256;

KVIST_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
KVIST_INLINE F load(const f16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
KVIST_INLINE F load(const bf16* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
template <class T>
KVIST_INLINE F load_part(const T* p, int n) {
  T tmp[N] = {};
  std::memcpy(tmp, p, std::size_t(n) * sizeof(T));
  return load(tmp);
}
KVIST_INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x); }
KVIST_INLINE void store(f16* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
KVIST_INLINE void store(bf16* p, F x) {
  const __m256i b = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
  const __m256i even =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(b, odd), _mm256_set1_epi32(0x7fff)), 16);
  const __m256i nan = _mm256_or_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(0x40));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i r = _mm256_blendv_epi8(even, nan, is_nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
template <class T>
KVIST_INLINE void store_part(T* p, F x, int n) {
  T tmp[N];
  store(tmp, x);
  std::memcpy(p, tmp, std::size_t(n) * sizeof(T));
}
KVIST_INLINE F set1(float x) { return _mm256_set1_ps(x); }
KVIST_INLINE F zero() { return _mm256_setzero_ps(); }
KVIST_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
KVIST_INLINE F sub(F a, F b) { return _mm256_sub_ps(a, b); }
KVIST_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
KVIST_INLINE F div(F a, F b) { return _mm256_div_ps(a, b); }
KVIST_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
KVIST_INLINE F min(F a, F b) { return _mm256_min_ps(a, b); }
KVIST_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
KVIST_INLINE F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
KVIST_INLINE F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
KVIST_INLINE F sqrt(F a) { return _mm256_sqrt_ps(a); }
KVIST_INLINE float reduce_add(F a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
KVIST_INLINE float reduce_max(F a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
KVIST_INLINE F round_even(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KVIST_INLINE F scale_by_pow2(F a, F n) {
  const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}
KVIST_INLINE F zero_below(F value, F x, F limit) {
  return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), value);
}
template <int S>
KVIST_INLINE F shifted(F a, F b) {
  const __m256i x = _mm256_castps_si256(a), y = _mm256_castps_si256(b),
                middle = _mm256_permute2x128_si256(x, y, 0x21);
  if constexpr (S < 4) return _mm256_castsi256_ps(_mm256_alignr_epi8(middle, x, 4 * S));
  else if constexpr (S == 4) return _mm256_castsi256_ps(middle);
  else return _mm256_castsi256_ps(_mm256_alignr_epi8(y, middle, 4 * (S - 4)));
}
KVIST_INLINE unsigned above(F a, F b) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}
KVIST_INLINE unsigned at_least(F a, F b) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
}
/// Numbers of the set bits of each byte, ascending, a byte each.
struct LanesOfMask {
  std::uint64_t of[256] = {};
  constexpr LanesOfMask() {
    for (unsigned mask = 0; mask < 256; ++mask)
      for (unsigned lane = 0, m = 0; lane < 8; ++lane)
        if ((mask >> lane) & 1u) of[mask] |= std::uint64_t(lane) << (8 * m++);
  }
};
inline constexpr LanesOfMask lanes_of_mask{};
KVIST_INLINE __m256i lanes_in(unsigned mask) {
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(lanes_of_mask.of[mask])));
}
KVIST_INLINE int put_lanes(Index* out, Index first, unsigned mask) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                      _mm256_add_epi32(lanes_in(mask), _mm256_set1_epi32(first)));
  return __builtin_popcount(mask);
}
KVIST_INLINE int put_values(float* out, F x, unsigned mask) {
  _mm256_storeu_ps(out, _mm256_permutevar8x32_ps(x, lanes_in(mask)));
  return __builtin_popcount(mask);
}
KVIST_INLINE void prefetch(const void* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }

// Bytes: a register holds N words of four codes, or N sums. vpmaddubsw saturates at 16 bits, so planes are shifted down
// to 0..15 first, and 8-bit codes are multiplied with their sign moved to the other factor (|code - 128| <= 128, and
// 128 * 127 * 2 still fits).
using C = __m256i;
using I = __m256i;
inline constexpr int dot_centre = 128;  // dot4 of 8-bit codes takes this off each code
KVIST_INLINE constexpr float plane_scale(int, int) { return 1.0f; }

KVIST_INLINE C load_codes(const std::uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
KVIST_INLINE C plane(C x, int bits, int p) {
  if (bits == 8) return _mm256_xor_si256(x, _mm256_set1_epi8(-128));
  return _mm256_and_si256(_mm256_srli_epi16(x, p * bits), _mm256_set1_epi8(char((1 << bits) - 1)));
}
KVIST_INLINE C broadcast4(const std::int8_t* q) {
  int w;
  std::memcpy(&w, q, 4);
  return _mm256_set1_epi32(w);
}
template <int Bits>
KVIST_INLINE I dot4(I acc, C codes, C q) {
  const __m256i pairs = Bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(q, codes))
                                  : _mm256_maddubs_epi16(codes, q);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
KVIST_INLINE I izero() { return _mm256_setzero_si256(); }
KVIST_INLINE F to_f(I x) { return _mm256_cvtepi32_ps(x); }
KVIST_INLINE void store_bytes(std::int8_t* p, F x) {
  const __m256i i = _mm256_cvtps_epi32(x);
  const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(h, h));
}

KVIST_INLINE F larger(F a, F b) { return _mm256_max_ps(a, b); }
KVIST_INLINE F smaller(F a, F b) { return _mm256_min_ps(a, b); }
KVIST_INLINE F fused(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
template <int H>
KVIST_INLINE F swapped(F a) {
  if constexpr (H == 1) return _mm256_permute_ps(a, 0xb1);
  else if constexpr (H == 2) return _mm256_permute_ps(a, 0x4e);
  else return _mm256_permute2f128_ps(a, a, 0x01);
}
KVIST_INLINE void store_codes(std::uint8_t* p, F x) {
  const __m256i i = _mm256_cvtps_epi32(x);
  const __m128i h = _mm_packus_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(h, h));
}
KVIST_INLINE void put_words(std::uint8_t* p, F x, int shift, std::uint32_t mask) {
  __m256i* const at = reinterpret_cast<__m256i*>(p);
  const __m256i kept = _mm256_andnot_si256(_mm256_set1_epi32(int(mask << shift)), _mm256_loadu_si256(at));
  const __m256i codes = _mm256_sll_epi32(_mm256_cvtps_epi32(x), _mm_cvtsi32_si128(shift));
  _mm256_storeu_si256(at, _mm256_or_si256(kept, codes));
}

KVIST_INLINE F in_order(F x) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8)); }
KVIST_INLINE void unzip(F a, F b, F& x, F& y) {
  x = in_order(_mm256_shuffle_ps(a, b, 0x88));
  y = in_order(_mm256_shuffle_ps(a, b, 0xdd));
}
KVIST_INLINE void zip(F x, F y, F& a, F& b) {
  const F low = _mm256_unpacklo_ps(x, y), high = _mm256_unpackhi_ps(x, y);
  a = _mm256_permute2f128_ps(low, high, 0x20);
  b = _mm256_permute2f128_ps(low, high, 0x31);
}
