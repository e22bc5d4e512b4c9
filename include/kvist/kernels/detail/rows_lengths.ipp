// Lengths of rows.

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
