// Softmax and the online update of an attention state.

KVIST_INLINE float largest(const float* x, Index n) {
  F m = set1(-std::numeric_limits<float>::infinity());
  Index i = 0;
  for (; i + N <= n; i += N) m = max(m, load(x + i));
  float r = reduce_max(m);
  for (; i < n; ++i) r = std::max(r, x[i]);
  return r;
}

// out = exp(x - m), returns the sum.
KVIST_INLINE float exp_minus(const float* x, Index n, float m, float* out) {
  const F shift = set1(m);
  F sum = zero();
  Index i = 0;
  for (; i + N <= n; i += N) {
    const F e = exp(sub(load(x + i), shift));
    sum = add(sum, e);
    store(out + i, e);
  }
  float rest = 0;
  if (i < n) {
    float tmp[N];
    store(tmp, exp(sub(load_part(x + i, n - i), shift)));
    for (Index k = i; k < n; ++k) rest += out[k] = tmp[k - i];
  }
  return reduce_add(sum) + rest;
}

KVIST_INLINE void multiply(float* x, std::ptrdiff_t n, float by) {
  const F b = set1(by);
  std::ptrdiff_t i = 0;
  for (; i + N <= n; i += N) store(x + i, mul(load(x + i), b));
  for (; i < n; ++i) x[i] *= by;
}

inline void softmax(const float* x, Index n, float* out) {
  const float m = largest(x, n);
  if (!(m > -std::numeric_limits<float>::infinity())) {
    std::fill_n(out, n, 0.0f);
    return;
  }
  const float l = exp_minus(x, n, m, out);
  multiply(out, n, 1.0f / l);
}

inline void online(float* x, Index n, float* m, float* l, float* o, int dim) {
  const float top = largest(x, n);
  if (!(top > -std::numeric_limits<float>::infinity())) {
    std::fill_n(x, n, 0.0f);
    return;
  }
  if (top > *m) {
    const float keep = *l > 0 ? std::exp(*m - top) : 0.0f;
    *m = top;
    *l *= keep;
    multiply(o, dim, keep);
  }
  *l += exp_minus(x, n, *m, x);
}

inline void exp_of(const float* x, Index n, float m, float factor, float* out) {
  const F shift = set1(m), by = set1(factor);
  Index i = 0;
  for (; i + N <= n; i += N) store(out + i, mul(exp(sub(load(x + i), shift)), by));
  if (i < n) store_part(out + i, mul(exp(sub(load_part(x + i, n - i), shift)), by), n - i);
}

inline void add_to_pairs(const float* x, Index rows, std::ptrdiff_t stride, Index n, float factor,
                         const float* second, float* pairs) {
  constexpr std::ptrdiff_t ahead = 1024;
  const F by = set1(factor);
  Index i = 0;
  for (; i + N <= n; i += N) {
    F sum, other, a, b;
    // records are read once a step and lie in pages of their own: nothing has asked for them yet
    prefetch(pairs + 2 * i + ahead);
    prefetch(pairs + 2 * i + N + ahead);
    unzip(load(pairs + 2 * i), load(pairs + 2 * i + N), sum, other);
    for (Index r = 0; r < rows; ++r) sum = add(sum, mul(by, load(x + r * stride + i)));
    zip(sum, add(other, second != nullptr ? load(second + i) : set1(1.0f)), a, b);
    store(pairs + 2 * i, a);
    store(pairs + 2 * i + N, b);
  }
  for (; i < n; ++i) {
    for (Index r = 0; r < rows; ++r) pairs[2 * i] += factor * x[r * stride + i];
    pairs[2 * i + 1] += second != nullptr ? second[i] : 1.0f;
  }
}

inline void cap(float* x, Index n, float c) {
  const F limit = set1(c), inverse = set1(1.0f / c);
  for (Index i = 0; i < n; i += N) {
    const int part = std::min<int>(N, n - i);
    store_part(x + i, mul(limit, tanh(mul(load_part(x + i, part), inverse))), part);
  }
}

inline constexpr SoftmaxTable softmax_table = {&softmax, &online, &exp_of, &cap, &add_to_pairs};
