// Dot products of rows with the ones behind them.

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
