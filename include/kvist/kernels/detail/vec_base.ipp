// The vector layer in plain C++: four lanes.
inline constexpr int N = 4;          // f32 lanes of a vector
inline constexpr int registers = 8;  // accumulators that a body may keep

struct F {
  float v[4];
};

template <class T>
KVIST_INLINE F load(const T* p) {
  return {{to_f32(p[0]), to_f32(p[1]), to_f32(p[2]), to_f32(p[3])}};
}
template <class T>
KVIST_INLINE F load_part(const T* p, int n) {
  F x{};
  for (int i = 0; i < n; ++i) x.v[i] = to_f32(p[i]);
  return x;
}
template <class T>
KVIST_INLINE void store(T* p, F x) {
  for (int i = 0; i < N; ++i) p[i] = from_f32<T>(x.v[i]);
}
template <class T>
KVIST_INLINE void store_part(T* p, F x, int n) {
  for (int i = 0; i < n; ++i) p[i] = from_f32<T>(x.v[i]);
}
template <class Op>
KVIST_INLINE F each(F a, F b, Op op) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = op(a.v[i], b.v[i]);
  return r;
}
KVIST_INLINE F set1(float x) { return {{x, x, x, x}}; }
KVIST_INLINE F zero() { return set1(0); }
KVIST_INLINE F add(F a, F b) {
  return each(a, b, [](float x, float y) { return x + y; });
}
KVIST_INLINE F sub(F a, F b) {
  return each(a, b, [](float x, float y) { return x - y; });
}
KVIST_INLINE F mul(F a, F b) {
  return each(a, b, [](float x, float y) { return x * y; });
}
KVIST_INLINE F div(F a, F b) {
  return each(a, b, [](float x, float y) { return x / y; });
}
KVIST_INLINE F max(F a, F b) {
  return each(a, b, [](float x, float y) { return x > y ? x : y; });
}
KVIST_INLINE F min(F a, F b) {
  return each(a, b, [](float x, float y) { return x < y ? x : y; });
}
/// a * b + c
KVIST_INLINE F fma(F a, F b, F c) { return add(mul(a, b), c); }
/// c - a * b
KVIST_INLINE F fnma(F a, F b, F c) { return sub(c, mul(a, b)); }
KVIST_INLINE F abs(F a) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = std::fabs(a.v[i]);
  return r;
}
KVIST_INLINE F sqrt(F a) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = std::sqrt(a.v[i]);
  return r;
}
KVIST_INLINE float reduce_add(F a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
KVIST_INLINE float reduce_max(F a) { return std::max(std::max(a.v[0], a.v[2]), std::max(a.v[1], a.v[3])); }
KVIST_INLINE F round_even(F a) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = std::nearbyint(a.v[i]);
  return r;
}
/// a * 2^n for integral n in [-126, 127]
KVIST_INLINE F scale_by_pow2(F a, F n) {
  F r;
  for (int i = 0; i < N; ++i)
    r.v[i] = a.v[i] * std::bit_cast<float>(std::uint32_t(std::int32_t(n.v[i]) + 127) << 23);
  return r;
}
/// x >= limit ? value : 0, a NaN in x gives value
KVIST_INLINE F zero_below(F value, F x, F limit) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = x.v[i] < limit.v[i] ? 0.0f : value.v[i];
  return r;
}
/// Lanes S .. N-1 of a, then the first S of b. Requires: 0 < S < N.
template <int S>
KVIST_INLINE F shifted(F a, F b) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = i + S < N ? a.v[i + S] : b.v[i + S - N];
  return r;
}
/// Bits of the lanes with a > b, with a >= b; a NaN is neither.
KVIST_INLINE unsigned above(F a, F b) {
  unsigned m = 0;
  for (int i = 0; i < N; ++i) m |= unsigned(a.v[i] > b.v[i]) << i;
  return m;
}
KVIST_INLINE unsigned at_least(F a, F b) {
  unsigned m = 0;
  for (int i = 0; i < N; ++i) m |= unsigned(a.v[i] >= b.v[i]) << i;
  return m;
}
/// first + lane of the lanes in the mask, one after another; N places are written. Returns how many count.
KVIST_INLINE int put_lanes(Index* out, Index first, unsigned mask) {
  int m = 0;
  for (int i = 0; i < N; ++i) {
    out[m] = first + i;
    m += int((mask >> i) & 1u);
  }
  return m;
}
/// The same with the lanes' values.
KVIST_INLINE int put_values(float* out, F x, unsigned mask) {
  int m = 0;
  for (int i = 0; i < N; ++i) {
    out[m] = x.v[i];
    m += int((mask >> i) & 1u);
  }
  return m;
}
KVIST_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

// Bytes: C holds N words of four codes, I holds N sums.
struct C {
  std::uint8_t b[16];
};
struct I {
  std::int32_t v[4];
};
inline constexpr int dot_centre = 128;  // dot4 of 8-bit codes takes this off each code
KVIST_INLINE constexpr float plane_scale(int, int) { return 1.0f; }

KVIST_INLINE C load_codes(const std::uint8_t* p) {
  C c;
  std::memcpy(&c, p, sizeof c);
  return c;
}
KVIST_INLINE C plane(C x, int bits, int p) {
  if (bits == 8) return x;
  C r;
  for (int i = 0; i < 16; ++i) r.b[i] = std::uint8_t((x.b[i] >> (p * bits)) & ((1 << bits) - 1));
  return r;
}
KVIST_INLINE C broadcast4(const std::int8_t* q) {
  C c;
  for (int i = 0; i < 4; ++i) std::memcpy(c.b + 4 * i, q, 4);
  return c;
}
template <int Bits>
KVIST_INLINE I dot4(I acc, C codes, C q) {
  for (int i = 0; i < 16; ++i)
    acc.v[i / 4] += (int(codes.b[i]) - (Bits == 8 ? 128 : 0)) * int(std::int8_t(q.b[i]));
  return acc;
}
KVIST_INLINE I izero() { return {}; }
KVIST_INLINE F to_f(I x) { return {{float(x.v[0]), float(x.v[1]), float(x.v[2]), float(x.v[3])}}; }
/// Integral floats in [-128, 127] as bytes.
KVIST_INLINE void store_bytes(std::int8_t* p, F x) {
  for (int i = 0; i < N; ++i) p[i] = std::int8_t(x.v[i]);
}

/// a > b ? a : b, a < b ? a : b: so b where one is NaN and where they are equal, unlike max and min on ARM.
KVIST_INLINE F larger(F a, F b) { return max(a, b); }
KVIST_INLINE F smaller(F a, F b) { return min(a, b); }
/// a * b + c with its exact sign, rounded.
KVIST_INLINE F fused(F a, F b, F c) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = float(double(a.v[i]) * double(b.v[i]) + double(c.v[i]));
  return r;
}
/// Lane i gets lane i ^ H. Requires: H a power of two below N.
template <int H>
KVIST_INLINE F swapped(F a) {
  F r;
  for (int i = 0; i < N; ++i) r.v[i] = a.v[i ^ H];
  return r;
}
/// Integral floats in [0, 255] as bytes.
KVIST_INLINE void store_codes(std::uint8_t* p, F x) {
  for (int i = 0; i < N; ++i) p[i] = std::uint8_t(x.v[i]);
}
/// The bits under `mask` << shift of N words become the integral floats x, moved up by `shift`.
KVIST_INLINE void put_words(std::uint8_t* p, F x, int shift, std::uint32_t mask) {
  for (int i = 0; i < N; ++i) {
    std::uint32_t w;
    std::memcpy(&w, p + 4 * i, 4);
    w = (w & ~(mask << shift)) | std::uint32_t(x.v[i]) << shift;
    std::memcpy(p + 4 * i, &w, 4);
  }
}

/// a and b hold pairs: their first halves go to x, their second ones to y.
KVIST_INLINE void unzip(F a, F b, F& x, F& y) {
  x = {{a.v[0], a.v[2], b.v[0], b.v[2]}};
  y = {{a.v[1], a.v[3], b.v[1], b.v[3]}};
}
/// The way back.
KVIST_INLINE void zip(F x, F y, F& a, F& b) {
  a = {{x.v[0], y.v[0], x.v[1], y.v[1]}};
  b = {{x.v[2], y.v[2], x.v[3], y.v[3]}};
}
