// The vector layer of AArch64 Advanced SIMD: four f32 lanes.
inline constexpr int N = 4;
inline constexpr int registers = 16;

using F = float32x4_t;

KVIST_INLINE F load(const float* p) { return vld1q_f32(p); }
KVIST_INLINE F load(const f16* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p))));
}
KVIST_INLINE F load(const bf16* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p)), 16));
}
template <class T>
KVIST_INLINE F load_part(const T* p, int n) {
  T tmp[N] = {};
  std::memcpy(tmp, p, std::size_t(n) * sizeof(T));
  return load(tmp);
}
KVIST_INLINE void store(float* p, F x) { vst1q_f32(p, x); }
KVIST_INLINE void store(f16* p, F x) {
  vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(x)));
}
KVIST_INLINE void store(bf16* p, F x) {
  const uint32x4_t b = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(b, 16), vdupq_n_u32(1));
  const uint32x4_t even = vshrq_n_u32(vaddq_u32(vaddq_u32(b, odd), vdupq_n_u32(0x7fff)), 16);
  const uint32x4_t nan = vorrq_u32(vshrq_n_u32(b, 16), vdupq_n_u32(0x40));
  vst1_u16(reinterpret_cast<std::uint16_t*>(p), vmovn_u32(vbslq_u32(vceqq_f32(x, x), even, nan)));
}
template <class T>
KVIST_INLINE void store_part(T* p, F x, int n) {
  T tmp[N];
  store(tmp, x);
  std::memcpy(p, tmp, std::size_t(n) * sizeof(T));
}
KVIST_INLINE F set1(float x) { return vdupq_n_f32(x); }
KVIST_INLINE F zero() { return vdupq_n_f32(0); }
KVIST_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
KVIST_INLINE F sub(F a, F b) { return vsubq_f32(a, b); }
KVIST_INLINE F mul(F a, F b) { return vmulq_f32(a, b); }
KVIST_INLINE F div(F a, F b) { return vdivq_f32(a, b); }
KVIST_INLINE F max(F a, F b) { return vmaxq_f32(a, b); }
KVIST_INLINE F min(F a, F b) { return vminq_f32(a, b); }
KVIST_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
KVIST_INLINE F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
KVIST_INLINE F abs(F a) { return vabsq_f32(a); }
KVIST_INLINE F sqrt(F a) { return vsqrtq_f32(a); }
KVIST_INLINE float reduce_add(F a) { return vaddvq_f32(a); }
KVIST_INLINE float reduce_max(F a) { return vmaxvq_f32(a); }
KVIST_INLINE F round_even(F a) { return vrndnq_f32(a); }
KVIST_INLINE F scale_by_pow2(F a, F n) {
  const int32x4_t e = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
  return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(e, 23)));
}
KVIST_INLINE F zero_below(F value, F x, F limit) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), vcltq_f32(x, limit)));
}
template <int S>
KVIST_INLINE F shifted(F a, F b) {
  return vextq_f32(a, b, S);
}
KVIST_INLINE unsigned bits_of(uint32x4_t m) {
  const uint32x4_t bit = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(m, bit));
}
KVIST_INLINE unsigned above(F a, F b) { return bits_of(vcgtq_f32(a, b)); }
KVIST_INLINE unsigned at_least(F a, F b) { return bits_of(vcgeq_f32(a, b)); }
KVIST_INLINE int put_lanes(Index* out, Index first, unsigned mask) {
  int m = 0;
  for (int i = 0; i < N; ++i) {
    out[m] = first + i;
    m += int((mask >> i) & 1u);
  }
  return m;
}
KVIST_INLINE int put_values(float* out, F x, unsigned mask) {
  float v[N];
  store(v, x);
  int m = 0;
  for (int i = 0; i < N; ++i) {
    out[m] = v[i];
    m += int((mask >> i) & 1u);
  }
  return m;
}
KVIST_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

// Bytes: a register holds N words of four codes, or N sums. sdot takes signed bytes: planes are shifted down, 8-bit
// codes lose 128.
using C = uint8x16_t;
using I = int32x4_t;
inline constexpr int dot_centre = 128;
KVIST_INLINE constexpr float plane_scale(int, int) { return 1.0f; }

KVIST_INLINE C load_codes(const std::uint8_t* p) { return vld1q_u8(p); }
KVIST_INLINE C plane(C x, int bits, int p) {
  if (bits == 8) return veorq_u8(x, vdupq_n_u8(128));
  return vandq_u8(vshlq_u8(x, vdupq_n_s8(std::int8_t(-p * bits))), vdupq_n_u8(std::uint8_t((1 << bits) - 1)));
}
KVIST_INLINE C broadcast4(const std::int8_t* q) {
  std::uint32_t w;
  std::memcpy(&w, q, 4);
  return vreinterpretq_u8_u32(vdupq_n_u32(w));
}
template <int Bits>
KVIST_INLINE I dot4(I acc, C codes, C q) {
  // clang 14 offers the intrinsic only where the whole file is built for it
  asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(codes), "w"(q));
  return acc;
}
KVIST_INLINE I izero() { return vdupq_n_s32(0); }
KVIST_INLINE F to_f(I x) { return vcvtq_f32_s32(x); }
KVIST_INLINE void store_bytes(std::int8_t* p, F x) {
  const int16x4_t h = vmovn_s32(vcvtnq_s32_f32(x));
  const int8x8_t b = vmovn_s16(vcombine_s16(h, h));
  std::memcpy(p, &b, 4);
}

KVIST_INLINE F larger(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
KVIST_INLINE F smaller(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
KVIST_INLINE F fused(F a, F b, F c) { return vfmaq_f32(c, a, b); }
template <int H>
KVIST_INLINE F swapped(F a) {
  if constexpr (H == 1) return vrev64q_f32(a);
  else return vextq_f32(a, a, 2);
}
KVIST_INLINE void store_codes(std::uint8_t* p, F x) {
  const uint16x4_t h = vmovn_u32(vcvtnq_u32_f32(x));
  const uint8x8_t b = vmovn_u16(vcombine_u16(h, h));
  std::memcpy(p, &b, 4);
}
KVIST_INLINE void put_words(std::uint8_t* p, F x, int shift, std::uint32_t mask) {
  const uint32x4_t kept = vbicq_u32(vreinterpretq_u32_u8(vld1q_u8(p)), vdupq_n_u32(mask << shift));
  const uint32x4_t codes = vshlq_u32(vcvtnq_u32_f32(x), vdupq_n_s32(shift));
  vst1q_u8(p, vreinterpretq_u8_u32(vorrq_u32(kept, codes)));
}

KVIST_INLINE void unzip(F a, F b, F& x, F& y) {
  x = vuzp1q_f32(a, b);
  y = vuzp2q_f32(a, b);
}
KVIST_INLINE void zip(F x, F y, F& a, F& b) {
  a = vzip1q_f32(x, y);
  b = vzip2q_f32(x, y);
}
