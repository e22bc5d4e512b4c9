// Rows times the Hadamard matrix. Every level adds the same two numbers in the same order: the results are equal bit for bit.

template <int B>
struct Block {
  F v[B];
};

// Neighbours at a distance of H lanes become sum and difference.
template <int H, int B>
KVIST_INLINE void turn_lanes(Block<B>& x) {
  if constexpr (H < N) {
    float sign[N];
    KVIST_UNROLL
    for (int i = 0; i < N; ++i) sign[i] = (i & H) != 0 ? -1.0f : 1.0f;
    const F s = load(sign);
    KVIST_UNROLL
    for (int b = 0; b < B; ++b) x.v[b] = fma(x.v[b], s, swapped<H>(x.v[b]));
    turn_lanes<2 * H>(x);
  }
}

// Neighbours at a distance of H vectors.
template <int H, int B>
KVIST_INLINE void turn_vectors(Block<B>& x) {
  if constexpr (H < B) {
    KVIST_UNROLL
    for (int b = 0; b < B; ++b)
      if ((b & H) == 0) {
        const F a = x.v[b], c = x.v[b + H];
        x.v[b] = add(a, c);
        x.v[b + H] = sub(a, c);
      }
    turn_vectors<2 * H>(x);
  }
}

// B vectors stay in registers for all their steps; what is left of wider rows goes over memory.
template <int B>
inline void turn(float* x, Index rows, int d) {
  const F scale = set1(1.0f / std::sqrt(float(d)));
  for (Index r = 0; r < rows; ++r, x += d) {
    const bool whole = d == B * N;
    for (int i = 0; i < d; i += B * N) {
      Block<B> y;
      KVIST_UNROLL
      for (int b = 0; b < B; ++b) y.v[b] = load(x + i + b * N);
      turn_lanes<1>(y);
      turn_vectors<1>(y);
      KVIST_UNROLL
      for (int b = 0; b < B; ++b) store(x + i + b * N, whole ? mul(y.v[b], scale) : y.v[b]);
    }
    for (int half = B * N; half < d; half *= 2) {
      const bool last = 2 * half == d;
      for (int i = 0; i < d; i += 2 * half)
        for (int j = i; j < i + half; j += N) {
          const F a = load(x + j), b = load(x + j + half), s = add(a, b), t = sub(a, b);
          store(x + j, last ? mul(s, scale) : s);
          store(x + j + half, last ? mul(t, scale) : t);
        }
    }
  }
}

// Rows shorter than a vector.
inline void turn_short(float* x, Index rows, int d) {
  const float scale = 1.0f / std::sqrt(float(d));
  for (Index r = 0; r < rows; ++r, x += d) {
    for (int half = 1; half < d; half *= 2)
      for (int i = 0; i < d; i += 2 * half)
        for (int j = i; j < i + half; ++j) {
          const float a = x[j], b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
    for (int i = 0; i < d; ++i) x[i] *= scale;
  }
}

inline void hadamard(float* x, Index rows, int d) {
  if (d < N) turn_short(x, rows, d);
  else if (d < 2 * N) turn<1>(x, rows, d);
  else if (d < 4 * N) turn<2>(x, rows, d);
  else if (d < 8 * N) turn<4>(x, rows, d);
  else turn<8>(x, rows, d);
}

inline constexpr HadamardTable hadamard_table = {&hadamard};
