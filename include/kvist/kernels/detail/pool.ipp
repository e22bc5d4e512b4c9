// Sliding maximum and sum over neighbouring scores.

template <bool Max>
KVIST_INLINE float pool_one(const float* x, Index first, Index last) {
  float a = Max ? x[first] : 0.0f;
  for (Index i = first; i < last; ++i) a = Max ? (x[i] > a ? x[i] : a) : a + x[i];
  return a;
}

// Every score is added (or compared) in ascending order, as the plain loop does it.
template <bool Max>
KVIST_INLINE void pool_vector(const float* x, Index i, Index r, F width, float* out) {
  F a = Max ? load(x + i - r) : add(zero(), load(x + i - r));
  for (Index j = 1 - r; j <= r; ++j) {
    const F y = load(x + i + j);
    a = Max ? max(y, a) : add(a, y);
  }
  store(out + i, Max ? a : div(a, width));
}

// The maxima of windows of 5 or 7 that begin at x[0], x[N], ...: of two neighbours, of four, of all. Shifts between
// registers, since loads across cache lines are what limits the plain form. Returns how many windows are done.
template <int K>
inline Index max_windows(const float* x, Index n, float* out) {
  static_assert(K > 4 && K - 4 < N && N >= 4);
  if (n < 4 * N) return 0;
  F x2 = load(x + 2 * N);
  const F x0 = load(x), x1 = load(x + N), two0 = max(shifted<1>(x0, x1), x0);
  F two1 = max(shifted<1>(x1, x2), x1), four0 = max(shifted<2>(two0, two1), two0);
  Index s = 0;
  for (; s + 4 * N <= n; s += N) {
    const F x3 = load(x + s + 3 * N), two2 = max(shifted<1>(x2, x3), x2),
            four1 = max(shifted<2>(two1, two2), two1);
    store(out + s, max(shifted<K - 4>(four0, four1), four0));
    x2 = x3, two1 = two2, four0 = four1;
  }
  return s;
}

template <int S, int K>
KVIST_INLINE F add_shifted(F sum, F a, F b) {
  if constexpr (S == K) return sum;
  else return add_shifted<S + 1, K>(add(sum, shifted<S>(a, b)), a, b);
}
// The same for means, the scores of a window added in ascending order.
template <int K>
inline Index avg_windows(const float* x, Index n, F width, float* out) {
  if constexpr (K > N) {
    return 0;
  } else {
    Index s = 0;
    if (n < 2 * N) return 0;
    F a = load(x);
    for (; s + 2 * N <= n; s += N) {
      const F b = load(x + s + N);
      store(out + s, div(add_shifted<1, K>(add(zero(), a), a, b), width));
      a = b;
    }
    return s;
  }
}

template <bool Max>
inline void pool(const float* x, Index n, int kernel, float* out) {
  if (n <= 0) return;
  const Index r = kernel / 2;
  const float width = float(kernel);
  const auto plain_one = [&](Index i) {
    const float a =
        pool_one<Max>(x, std::max<Index>(0, i - r), Index(std::min<long long>(n, (long long)i + r + 1)));
    out[i] = Max ? a : a / width;
  };
  Index i = 0;
  for (; i < std::min(r, n); ++i) plain_one(i);
  const F w = set1(width);
  if (kernel == 5) i += Max ? max_windows<5>(x, n, out + r) : avg_windows<5>(x, n, w, out + r);
  if (kernel == 7) i += Max ? max_windows<7>(x, n, out + r) : avg_windows<7>(x, n, w, out + r);
  for (; i + N <= n - r; i += N) pool_vector<Max>(x, i, r, w, out);
  for (; i < n; ++i) plain_one(i);
}

inline constexpr PoolTable pool_table = {&pool<true>, &pool<false>};
