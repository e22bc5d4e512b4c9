// Dot products of rows with a group of queries.

// out[g, i] = scale * q[g] . row[i] for R token-major rows and G queries: each row element is loaded once.
template <class T, int R, int G>
KVIST_INLINE void dot_rows(const T* row, std::ptrdiff_t stride, int d, const float* q, float scale,
                           float* out, std::ptrdiff_t out_stride, std::ptrdiff_t ahead) {
  F acc[G][R];
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int r = 0; r < R; ++r) acc[g][r] = zero();
  }
  int c = 0;
  for (; c + N <= d; c += N) {
    F k[R];
    KVIST_UNROLL
    for (int r = 0; r < R; ++r) {
      k[r] = load(row + r * stride + c);
      prefetch(row + r * stride + c + ahead);
    }
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) {
      const F x = load(q + std::ptrdiff_t(g) * d + c);
      KVIST_UNROLL
      for (int r = 0; r < R; ++r) acc[g][r] = fma(k[r], x, acc[g][r]);
    }
  }
  if (c < d) {
    F k[R];
    KVIST_UNROLL
    for (int r = 0; r < R; ++r) k[r] = load_part(row + r * stride + c, d - c);
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) {
      const F x = load_part(q + std::ptrdiff_t(g) * d + c, d - c);
      KVIST_UNROLL
      for (int r = 0; r < R; ++r) acc[g][r] = fma(k[r], x, acc[g][r]);
    }
  }
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int r = 0; r < R; ++r) out[g * out_stride + r] = scale * reduce_add(acc[g][r]);
  }
}

// The same for U vectors of entries that lie side by side; the last of them may have `lanes` entries only.
template <class T, int U, int G, bool Part>
KVIST_INLINE void dot_lanes(const T* base, std::ptrdiff_t channel_stride, int d, const float* q, float scale,
                            float* out, std::ptrdiff_t out_stride, int part, std::ptrdiff_t ahead) {
  F acc[G][U];
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int u = 0; u < U; ++u) acc[g][u] = zero();
  }
  for (int c = 0; c < d; ++c) {
    F k[U];
    KVIST_UNROLL
    for (int u = 0; u < U; ++u) {
      k[u] = Part ? load_part(base + c * channel_stride, part) : load(base + c * channel_stride + u * N);
      if (u * N * int(sizeof(T)) % 64 == 0) prefetch(base + c * channel_stride + u * N + ahead);
    }
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) {
      const F x = set1(q[std::ptrdiff_t(g) * d + c]);
      KVIST_UNROLL
      for (int u = 0; u < U; ++u) acc[g][u] = fma(k[u], x, acc[g][u]);
    }
  }
  const F s = set1(scale);
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int u = 0; u < U; ++u) {
      float* const p = out + g * out_stride + u * N;
      if (Part) store_part(p, mul(s, acc[g][u]), part);
      else store(p, mul(s, acc[g][u]));
    }
  }
}

template <class T, int G>
inline void dot_g(const Rows<T>& run, const float* q, float scale, float* out, std::ptrdiff_t out_stride,
                  std::ptrdiff_t ahead) {
  constexpr int R = registers / G >= 4 ? 4 : registers / G >= 2 ? 2 : 1;
  const int d = run.d;
  Index i = 0;
  if (run.channel_stride == 1) {
    for (; i + R <= run.n; i += R)
      dot_rows<T, R, G>(run.data + i * run.stride, run.stride, d, q, scale, out + i, out_stride, ahead);
    for (; i < run.n; ++i)
      dot_rows<T, 1, G>(run.data + i * run.stride, run.stride, d, q, scale, out + i, out_stride, ahead);
  } else if (run.stride == 1) {
    for (; i + R * N <= run.n; i += R * N)
      dot_lanes<T, R, G, false>(run.data + i, run.channel_stride, d, q, scale, out + i, out_stride, 0, ahead);
    for (; i + N <= run.n; i += N)
      dot_lanes<T, 1, G, false>(run.data + i, run.channel_stride, d, q, scale, out + i, out_stride, 0, ahead);
    if (i < run.n)
      dot_lanes<T, 1, G, true>(run.data + i, run.channel_stride, d, q, scale, out + i, out_stride, run.n - i,
                               ahead);
  } else {
    for (; i < run.n; ++i) {
      for (int g = 0; g < G; ++g) {
        float s = 0;
        for (int c = 0; c < d; ++c) s += run.at(i, c) * q[std::ptrdiff_t(g) * d + c];
        out[g * out_stride + i] = scale * s;
      }
    }
  }
}

template <class T>
inline void dot_group(const Rows<T>& run, const float* q, int group, float scale, float* out,
                      std::ptrdiff_t out_stride, std::ptrdiff_t ahead) {
  int g = 0;
  for (; g + 4 <= group; g += 4)
    dot_g<T, 4>(run, q + std::ptrdiff_t(g) * run.d, scale, out + g * out_stride, out_stride, ahead);
  const float* const rest = q + std::ptrdiff_t(g) * run.d;
  float* const o = out + g * out_stride;
  if (group - g == 3) dot_g<T, 3>(run, rest, scale, o, out_stride, ahead);
  if (group - g == 2) dot_g<T, 2>(run, rest, scale, o, out_stride, ahead);
  if (group - g == 1) dot_g<T, 1>(run, rest, scale, o, out_stride, ahead);
}
