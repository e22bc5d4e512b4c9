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
KVIST_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
