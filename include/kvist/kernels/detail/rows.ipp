// Kernels over runs of rows. Three layouts: channels side by side (token-major), entries side by side (channel-major),
// and any other strides, element by element.

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

// L1 (Power = 1) or squared L2 (Power = 2) lengths.
template <int Power>
KVIST_INLINE F power_sum(F x, F sum) {
  return Power == 1 ? add(abs(x), sum) : fma(x, x, sum);
}

template <class T, int Power>
inline void lengths(const Rows<T>& run, float* out) {
  const int d = run.d;
  Index i = 0;
  if (run.channel_stride == 1) {
    for (; i < run.n; ++i) {
      const T* const row = run.data + i * run.stride;
      F a = zero(), b = zero();
      int c = 0;
      for (; c + 2 * N <= d; c += 2 * N) {
        a = power_sum<Power>(load(row + c), a);
        b = power_sum<Power>(load(row + c + N), b);
      }
      for (; c < d; c += N) a = power_sum<Power>(load_part(row + c, std::min(N, d - c)), a);
      const float s = reduce_add(add(a, b));
      out[i] = Power == 1 ? s : std::sqrt(s);
    }
  } else if (run.stride == 1) {
    for (; i < run.n; i += N) {
      const int part = std::min<int>(N, run.n - i);
      F a = zero();
      for (int c = 0; c < d; ++c) {
        const T* const x = run.data + i + c * run.channel_stride;
        a = power_sum<Power>(part == N ? load(x) : load_part(x, part), a);
      }
      store_part(out + i, Power == 1 ? a : sqrt(a), part);
    }
  } else {
    for (; i < run.n; ++i) {
      float s = 0;
      for (int c = 0; c < d; ++c) {
        const float x = run.at(i, c);
        s += Power == 1 ? std::fabs(x) : x * x;
      }
      out[i] = Power == 1 ? s : std::sqrt(s);
    }
  }
}

// dots and squares of R rows and the one behind them (Last: there is none, and R - 1 dots).
template <class T, int R, bool Last>
KVIST_INLINE void neighbour_rows(const T* row, std::ptrdiff_t stride, int d, float* dots, float* squares,
                                 std::ptrdiff_t ahead) {
  constexpr int rows = Last ? R : R + 1;
  F dot[R], square[R];
  KVIST_UNROLL
  for (int r = 0; r < R; ++r) dot[r] = square[r] = zero();
  for (int c = 0; c < d; c += N) {
    const int part = std::min<int>(N, d - c);
    F k[R + 1];
    KVIST_UNROLL
    for (int r = 0; r < rows; ++r) {
      k[r] = part == N ? load(row + r * stride + c) : load_part(row + r * stride + c, part);
      if (r < R) prefetch(row + r * stride + c + ahead);
    }
    if (Last) k[R] = zero();
    KVIST_UNROLL
    for (int r = 0; r < R; ++r) {
      square[r] = fma(k[r], k[r], square[r]);
      dot[r] = fma(k[r], k[r + 1], dot[r]);
    }
  }
  KVIST_UNROLL
  for (int r = 0; r < R; ++r) {
    squares[r] = reduce_add(square[r]);
    if (r + 1 < rows) dots[r] = reduce_add(dot[r]);
  }
}

template <class T>
inline void neighbour_dots(const Rows<T>& run, float* dots, float* squares, std::ptrdiff_t ahead) {
  const int d = run.d;
  Index i = 0;
  if (run.channel_stride == 1) {
    constexpr int R = registers >= 16 ? 4 : 2;
    for (; i + R < run.n; i += R)
      neighbour_rows<T, R, false>(run.data + i * run.stride, run.stride, d, dots + i, squares + i, ahead);
    for (; i + 1 < run.n; ++i)
      neighbour_rows<T, 1, false>(run.data + i * run.stride, run.stride, d, dots + i, squares + i, 0);
    if (i < run.n)
      neighbour_rows<T, 1, true>(run.data + i * run.stride, run.stride, d, nullptr, squares + i, 0);
  } else if (run.stride == 1) {
    for (; i < run.n; i += N) {
      const int part = std::min<int>(N, run.n - i), pairs = std::min<int>(N, run.n - 1 - i);
      F dot = zero(), square = zero();
      for (int c = 0; c < d; ++c) {
        const T* const x = run.data + i + c * run.channel_stride;
        const F k = part == N ? load(x) : load_part(x, part);
        square = fma(k, k, square);
        if (pairs > 0) dot = fma(k, pairs == N ? load(x + 1) : load_part(x + 1, pairs), dot);
      }
      store_part(squares + i, square, part);
      if (pairs > 0) store_part(dots + i, dot, pairs);
    }
  } else {
    for (; i < run.n; ++i) {
      float dot = 0, square = 0;
      for (int c = 0; c < d; ++c) {
        const float x = run.at(i, c);
        square += x * x;
        if (i + 1 < run.n) dot += x * run.at(i + 1, c);
      }
      squares[i] = square;
      if (i + 1 < run.n) dots[i] = dot;
    }
  }
}

template <class T>
inline void widen(const T* in, std::ptrdiff_t n, float* out) {
  std::ptrdiff_t i = 0;
  for (; i + N <= n; i += N) store(out + i, load(in + i));
  if (i < n) store_part(out + i, load_part(in + i, int(n - i)), int(n - i));
}

template <class T>
inline void narrow(const float* in, std::ptrdiff_t n, T* out) {
  std::ptrdiff_t i = 0;
  for (; i + N <= n; i += N) store(out + i, load(in + i));
  if (i < n) store_part(out + i, load_part(in + i, int(n - i)), int(n - i));
}

// Rows as contiguous f32 [n, d].
template <class T>
inline void rows_to_f32(const Rows<T>& run, float* out) {
  if (run.channel_stride == 1) {
    if (run.stride == run.d) return widen(run.data, std::ptrdiff_t(run.n) * run.d, out);
    for (Index i = 0; i < run.n; ++i)
      widen(run.data + i * run.stride, run.d, out + std::ptrdiff_t(i) * run.d);
  } else if (run.stride == 1) {
    for (Index i = 0; i < run.n; i += N) {  // a vector of entries per channel, scattered to their rows
      const int part = std::min<int>(N, run.n - i);
      for (int c = 0; c < run.d; ++c) {
        const T* const x = run.data + i + c * run.channel_stride;
        float tmp[N];
        store(tmp, part == N ? load(x) : load_part(x, part));
        for (int k = 0; k < part; ++k) out[std::ptrdiff_t(i + k) * run.d + c] = tmp[k];
      }
    }
  } else {
    for (Index i = 0; i < run.n; ++i)
      for (int c = 0; c < run.d; ++c) out[std::ptrdiff_t(i) * run.d + c] = run.at(i, c);
  }
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

template <class T>
inline constexpr RowsTable<T> rows_table = {&dot_group<T>,      &axpy_group<T>,  &lengths<T, 2>,
                                            &lengths<T, 1>,     &rows_to_f32<T>, &sum_rows<T>,
                                            &neighbour_dots<T>, &widen<T>,       &narrow<T>};
