// Rows and elements from one type and layout to another.

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
