// Selection of the k largest scores: a threshold, then the rows above it. A NaN counts as -infinity.

KVIST_INLINE float plain(float x) { return x == x ? x : -std::numeric_limits<float>::infinity(); }

// The k-th largest of buf [n] (no NaN), and how many of its equals belong to the k largest. The buffer is used up; places
// up to buf[n + N - 1] are written.
inline Threshold quick(float* buf, Index n, Index k) {
  for (int round = 0; n > 2 * N && round < 64; ++round) {
    // A pivot near rank k: the sorted values of eight places tell where that is.
    float some[8];
    for (int i = 0; i < 8; ++i) some[i] = buf[(n / 8) * i + (n / 16)];
    for (int i = 1; i < 8; ++i)
      for (int j = i; j > 0 && some[j] > some[j - 1]; --j) std::swap(some[j], some[j - 1]);
    const float pivot = some[std::min<Index>(7, Index((long long)k * 8 / (n + 1)))];
    const F p = set1(pivot);
    Index more = 0, equal = 0;
    for (Index i = 0; i < n; i += N) {
      const int part = std::min<int>(N, n - i);
      const unsigned all = (1u << part) - 1u;
      const F x = part == N ? load(buf + i) : load_part(buf + i, part);
      const unsigned a = above(x, p) & all;
      more += __builtin_popcount(a);
      equal += __builtin_popcount(at_least(x, p) & all & ~a);
    }
    if (k > more && k <= more + equal) return {pivot, k - more, true};
    const bool up = k <= more;
    if (!up) k -= more + equal;
    Index m = 0;
    for (Index i = 0; i < n; i += N) {  // in place: never ahead of what has been read
      const int part = std::min<int>(N, n - i);
      const unsigned all = (1u << part) - 1u;
      const F x = part == N ? load(buf + i) : load_part(buf + i, part);
      m += put_values(buf + m, x, (up ? above(x, p) : ~at_least(x, p)) & all);
    }
    n = m;
  }
  std::nth_element(buf, buf + (k - 1), buf + n, [](float a, float b) { return a > b; });
  Threshold t{buf[k - 1], 0, true};
  for (Index i = 0; i < k; ++i) t.equal += buf[i] == t.value;
  return t;
}

// The k-th largest of x [n]. `room` holds 3 * select_samples + most + N floats, most >= 2 * select_samples. Not found
// (found = false) where the sample misled or more than `most` values are candidates.
inline Threshold threshold(const float* x, Index n, Index k, const Bracket& b, float* room, Index most) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  float* const candidates = room + 3 * select_samples;
  if (b.samples == 0) {
    for (Index i = 0; i < n; ++i) candidates[i] = plain(x[i]);
    return quick(candidates, n, k);
  }
  // One place in each stretch of the scores, so that no period of theirs can hide.
  const Index stride = n / b.samples;
  std::uint32_t state = 2463534242u;
  for (Index i = 0; i < b.samples; ++i) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    room[i] = plain(x[i * stride + Index(state % std::uint32_t(stride))]);
  }
  float* const copy = room + select_samples + select_samples / 2;
  float hi = inf, lo = -inf;
  if (b.rank - b.margin >= 1) {
    std::copy_n(room, b.samples, copy);
    hi = quick(copy, b.samples, b.rank - b.margin).value;
  }
  if (b.rank + b.margin <= b.samples) lo = quick(room, b.samples, b.rank + b.margin).value;
  if (hi == -inf) {  // NaN are among its equals, and compare as nothing
    Index numbers = 0;
    for (Index i = 0; i < n; ++i) numbers += x[i] > -inf;
    return k > numbers ? Threshold{hi, k - numbers, true} : Threshold{};
  }
  const F h = set1(hi), l = set1(lo);
  Index high = 0, m = 0;
  for (Index i = 0; i < n; i += N) {
    const int part = std::min<int>(N, n - i);
    const unsigned all = (1u << part) - 1u;
    const F v = part == N ? load(x + i) : load_part(x + i, part);
    const unsigned top = at_least(v, h) & all, mid = above(v, l) & all & ~top;
    high += __builtin_popcount(top);
    if (mid != 0) {
      if (m > most) return {};
      m += put_values(candidates + m, v, mid);
    }
  }
  if (m > most) return {};
  if (k > high && k <= high + m) return quick(candidates, m, k - high);
  if (k > high + m) {  // the sample's lower value itself, or below it
    if (lo == -inf) return {lo, k - high - m, true};
    if (lo == hi) return {};
    Index equal = 0;
    for (Index i = 0; i < n; ++i) equal += x[i] == lo;
    return k - high - m <= equal ? Threshold{lo, k - high - m, true} : Threshold{};
  }
  Index equal = 0;  // the upper value, or above it
  for (Index i = 0; i < n; ++i) equal += x[i] == hi;
  return k > high - equal ? Threshold{hi, k - (high - equal), true} : Threshold{};
}

// The rows first + i of x [n] above the threshold and of the first t.equal ones at it, ascending; `rest`: all others.
// Returns how many; places up to out[that + N - 1] are written.
inline Index pick(const float* x, Index n, const Threshold& t, bool rest, Index first, Index* out) {
  const F limit = set1(t.value);
  const bool lowest = t.value == -std::numeric_limits<float>::infinity();
  Index equal = t.equal, m = 0;
  for (Index i = 0; i < n; i += N) {
    const int part = std::min<int>(N, n - i);
    const unsigned all = (1u << part) - 1u;
    const F v = part == N ? load(x + i) : load_part(x + i, part);
    unsigned take = above(v, limit) & all;
    if (equal > 0) {
      unsigned same = (lowest ? all : at_least(v, limit) & all) & ~take;
      if (same != 0) {
        for (; Index(__builtin_popcount(same)) > equal; same &= ~(1u << (31 - __builtin_clz(same)))) {
        }
        equal -= __builtin_popcount(same);
        take |= same;
      }
    }
    m += put_lanes(out + m, first + i, rest ? all & ~take : take);
  }
  return m;
}

inline constexpr SelectTable select_table = {&threshold, &pick, N};
