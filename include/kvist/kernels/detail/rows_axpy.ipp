// Sums of rows, weighted for a group of queries and plain.

// o[g, 0 .. W*N) += sum_i w[g, i] row[i] for token-major rows, W vectors of channels and G queries.
template <class T, int W, int G, bool Part>
KVIST_INLINE void axpy_cols(const T* row, std::ptrdiff_t stride, Index n, const float* w,
                            std::ptrdiff_t w_stride, float* o, std::ptrdiff_t o_stride, int part,
                            std::ptrdiff_t ahead) {
  F acc[G][W];
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int c = 0; c < W; ++c)
      acc[g][c] = Part ? load_part(o + g * o_stride, part) : load(o + g * o_stride + c * N);
  }
  for (Index i = 0; i < n; ++i) {
    F v[W];
    KVIST_UNROLL
    for (int c = 0; c < W; ++c) {
      v[c] = Part ? load_part(row + i * stride, part) : load(row + i * stride + c * N);
      if (c * N * int(sizeof(T)) % 64 == 0) prefetch(row + i * stride + c * N + ahead);
    }
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) {
      const F p = set1(w[g * w_stride + i]);
      KVIST_UNROLL
      for (int c = 0; c < W; ++c) acc[g][c] = fma(v[c], p, acc[g][c]);
    }
  }
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int c = 0; c < W; ++c) {
      if (Part) store_part(o + g * o_stride, acc[g][c], part);
      else store(o + g * o_stride + c * N, acc[g][c]);
    }
  }
}

// o[g, c] += sum over entries side by side of w[g, i] x[i], for one channel.
template <class T, int G>
KVIST_INLINE void axpy_lane(const T* x, Index n, const float* w, std::ptrdiff_t w_stride, float* o,
                            std::ptrdiff_t o_stride) {
  F acc[G];
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) acc[g] = zero();
  Index i = 0;
  for (; i + N <= n; i += N) {
    const F v = load(x + i);
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) acc[g] = fma(v, load(w + g * w_stride + i), acc[g]);
  }
  if (i < n) {
    const F v = load_part(x + i, n - i);
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) acc[g] = fma(v, load_part(w + g * w_stride + i, n - i), acc[g]);
  }
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) o[g * o_stride] += reduce_add(acc[g]);
}

template <class T, int G>
inline void axpy_g(const Rows<T>& run, const float* w, std::ptrdiff_t w_stride, float* o, std::ptrdiff_t ahead) {
  constexpr int W = registers / G >= 4 ? 4 : registers / G >= 2 ? 2 : 1;
  constexpr Index block =
      32;  // rows of which all channels are added before the next: memory is read nearly in order
  const int d = run.d;
  if (run.channel_stride == 1) {
    for (Index i = 0; i < run.n; i += block) {
      const Index n = std::min(block, run.n - i);
      const T* const x = run.data + i * run.stride;
      int c = 0;
      for (; c + W * N <= d; c += W * N)
        axpy_cols<T, W, G, false>(x + c, run.stride, n, w + i, w_stride, o + c, d, 0, ahead);
      for (; c + N <= d; c += N)
        axpy_cols<T, 1, G, false>(x + c, run.stride, n, w + i, w_stride, o + c, d, 0, ahead);
      if (c < d) axpy_cols<T, 1, G, true>(x + c, run.stride, n, w + i, w_stride, o + c, d, d - c, ahead);
    }
  } else if (run.stride == 1) {
    for (int c = 0; c < d; ++c)
      axpy_lane<T, G>(run.data + c * run.channel_stride, run.n, w, w_stride, o + c, d);
  } else {
    for (int g = 0; g < G; ++g)
      for (Index i = 0; i < run.n; ++i)
        for (int k = 0; k < d; ++k) o[std::ptrdiff_t(g) * d + k] += w[g * w_stride + i] * run.at(i, k);
  }
}

template <class T>
inline void axpy_group(const Rows<T>& run, const float* w, std::ptrdiff_t w_stride, int group, float* o,
                       std::ptrdiff_t ahead) {
  int g = 0;
  for (; g + 4 <= group; g += 4)
    axpy_g<T, 4>(run, w + g * w_stride, w_stride, o + std::ptrdiff_t(g) * run.d, ahead);
  const float* const rest = w + g * w_stride;
  float* const out = o + std::ptrdiff_t(g) * run.d;
  if (group - g == 3) axpy_g<T, 3>(run, rest, w_stride, out, ahead);
  if (group - g == 2) axpy_g<T, 2>(run, rest, w_stride, out, ahead);
  if (group - g == 1) axpy_g<T, 1>(run, rest, w_stride, out, ahead);
}

// out[c] += sum over rows.
template <class T>
inline void sum_rows(const Rows<T>& run, float* out) {
  int c = 0;
  if (run.channel_stride == 1) {
    for (; c < run.d; c += N) {
      const int part = std::min<int>(N, run.d - c);
      F a = load_part(out + c, part);
      for (Index i = 0; i < run.n; ++i) {
        const T* const x = run.data + i * run.stride + c;
        a = add(a, part == N ? load(x) : load_part(x, part));
      }
      store_part(out + c, a, part);
    }
  } else if (run.stride == 1) {
    for (; c < run.d; ++c) {
      const T* const x = run.data + c * run.channel_stride;
      F a = zero();
      for (Index i = 0; i < run.n; i += N) a = add(a, load_part(x + i, std::min<int>(N, run.n - i)));
      out[c] += reduce_add(a);
    }
  } else {
    for (; c < run.d; ++c)
      for (Index i = 0; i < run.n; ++i) out[c] += run.at(i, c);
  }
}
