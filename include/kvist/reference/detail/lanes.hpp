#pragma once
// SPDX-License-Identifier: Apache-2.0
// Sixteen f32 at once, as the compile-time flags allow: one AVX-512 register, two AVX ones, or an array that the
// compiler may vectorise. Only what expanding a file's weights needs.
#include <kvist/core/half.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__) && defined(__F16C__))
#include <immintrin.h>
#endif

namespace kvist::inline KVIST_ABI {
namespace detail {

inline constexpr int lanes = 16;

/// Whether a Lanes is one or two registers here, so that code written with it is as fast as the machine.
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__) && defined(__F16C__))
inline constexpr bool lanes_are_registers = true;
#else
inline constexpr bool lanes_are_registers = false;
#endif

/// How many sums of Lanes stay in registers beside what they are made of.
#if defined(__AVX512F__)
inline constexpr int lane_sums = 8;
#else
inline constexpr int lane_sums = 4;
#endif

/// The f16 at `p` (any alignment) as f32.
inline float load_f16(const std::byte* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#else
  return to_f32(f16{bits});
#endif
}

/// The two f16 at `p` as f32, in one conversion where there is one.
inline void load_two_f16(const std::byte* p, float& a, float& b) {
#if defined(__F16C__)
  std::int32_t both;
  std::memcpy(&both, p, sizeof both);
  const __m128 x = _mm_cvtph_ps(_mm_cvtsi32_si128(both));
  a = _mm_cvtss_f32(x);
  b = _mm_cvtss_f32(_mm_movehdup_ps(x));
#else
  a = load_f16(p);
  b = load_f16(p + 2);
#endif
}

#if defined(__AVX512F__)

struct Lanes {
  // GCC 12 warns of its own headers' undefined values in the plain forms; with a full mask the same instructions come out
  static constexpr __mmask16 every = 0xffff;
  __m512 v;
  static Lanes zero() { return {_mm512_setzero_ps()}; }
  static Lanes all(float x) { return {_mm512_set1_ps(x)}; }
  static Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Lanes from_f32(const std::byte* p) { return {_mm512_loadu_ps(p)}; }
  static Lanes from_f16(const std::byte* p) {
    return {_mm512_maskz_cvtph_ps(every, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Lanes from_i8(const std::byte* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_maskz_cvtepi32_ps(every, _mm512_maskz_cvtepi8_epi32(every, bytes))};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  /// a * b + c, rounded once.
  static Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  friend Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
  float sum() const {
    const __m512d both = _mm512_castps_pd(v);
    const __m256 eight = _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, both, 0)),
                                       _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, both, 1)));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
};

/// first + n of the 32 nibbles n of 16 bytes: low nibbles first.
template <int first>
void nibbles(const std::byte* q, Lanes& low, Lanes& high) {
  const __m512 value = _mm512_set_ps(first + 15, first + 14, first + 13, first + 12, first + 11, first + 10,
                                     first + 9, first + 8, first + 7, first + 6, first + 5, first + 4,
                                     first + 3, first + 2, first + 1, first);
  const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
  const __m512i bytes = _mm512_maskz_cvtepu8_epi32(Lanes::every, packed);
  low.v = _mm512_maskz_permutexvar_ps(Lanes::every, bytes, value);  // looks at the low four bits of each index only
  high.v = _mm512_maskz_permutexvar_ps(Lanes::every, _mm512_maskz_srli_epi32(Lanes::every, bytes, 4), value);
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

struct Lanes {
  __m256 a, b;
  static Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Lanes all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Lanes from_f32(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
  static Lanes from_f16(const std::byte* p) {
    const __m128i* const h = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
  }
  static Lanes from_i8(const std::byte* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))};
  }
  void store(float* p) const {
    _mm256_storeu_ps(p, a);
    _mm256_storeu_ps(p + 8, b);
  }
  static Lanes fma(Lanes x, Lanes y, Lanes z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  friend Lanes operator*(Lanes x, Lanes y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  float sum() const {
    const __m256 eight = _mm256_add_ps(a, b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
};

template <int first>
void nibbles(const std::byte* q, Lanes& low, Lanes& high) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)), mask = _mm_set1_epi8(15);
  const auto widen = [](__m128i n) {
    if constexpr (first != 0) n = _mm_add_epi8(n, _mm_set1_epi8(first));
    return Lanes{_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(n)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(n, 8)))};
  };
  low = widen(_mm_and_si128(bytes, mask));
  high = widen(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask));
}

#else

struct Lanes {
  float v[lanes];
  template <class F>
  static Lanes make(F f) {
    Lanes x;
    for (int i = 0; i < lanes; ++i) x.v[i] = f(i);
    return x;
  }
  static Lanes zero() { return all(0); }
  static Lanes all(float x) {
    return make([x](int) { return x; });
  }
  static Lanes load(const float* p) {
    return make([p](int i) { return p[i]; });
  }
  static Lanes from_f32(const std::byte* p) {
    Lanes x;
    std::memcpy(x.v, p, sizeof x.v);
    return x;
  }
  static Lanes from_f16(const std::byte* p) {
    return make([p](int i) { return load_f16(p + 2 * i); });
  }
  static Lanes from_i8(const std::byte* p) {
    return make([p](int i) { return float(static_cast<std::int8_t>(p[i])); });
  }
  void store(float* p) const { std::memcpy(p, v, sizeof v); }
  /// a * b + c; rounded once or twice as the target does it.
  static Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return make([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  friend Lanes operator*(const Lanes& a, const Lanes& b) {
    return make([&](int i) { return a.v[i] * b.v[i]; });
  }
  float sum() const {
    float s[lanes];
    std::memcpy(s, v, sizeof s);
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) s[i] += s[i + half];
    return s[0];
  }
};

template <int first>
void nibbles(const std::byte* q, Lanes& low, Lanes& high) {
  low = Lanes::make([&](int i) { return float(int(unsigned(q[i]) & 15u) + first); });
  high = Lanes::make([&](int i) { return float(int(unsigned(q[i]) >> 4) + first); });
}

#endif

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
