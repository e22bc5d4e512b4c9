// Rows become codes of packed pages: least and largest, scales, codes, places. What a code and a scale are is said by
// storage/codec/affine.hpp and ggml.hpp; every level gives the same bits as those.

inline constexpr int row_room = PackedLayout::max_dim;

// Numbers that have been made codes go to the page: one row of it after the other.
struct CodeRow {
  const PackedLayout& layout;
  std::uint8_t* page;
  Index t;
  std::uint32_t mask;                             // of a code
  alignas(64) std::uint8_t codes[row_room] = {};  // of keys, before they go to their words
  // of values: where the words of each vector of channels begin, and how far they are from those of the next four entries
  std::uint32_t start[row_room / N], step[row_room / N];
  std::uint8_t shift[row_room / N];

  CodeRow(const PackedLayout& l, std::uint8_t* p, Index at)
      : layout(l), page(p), t(at), mask((1u << l.bits) - 1u) {
    for (int c = 0, i = 0; !l.keys && c < l.dim; c += N, ++i) {
      const PackedLayout::Place first = l.place(0, c);
      start[i] = std::uint32_t(first.byte);
      step[i] = std::uint32_t(l.place(4, c).byte) - start[i];
      shift[i] = std::uint8_t(first.shift);
    }
  }

  // Codes of channels c .. c+N-1, 0 where there is no channel.
  KVIST_INLINE void put(int c, F code) {
    const unsigned i = unsigned(c) / unsigned(N), entry = unsigned(t);
    if (layout.keys) store_codes(codes + c, code);
    else
      put_words(page + start[i] + std::size_t(entry / 4) * step[i], code, shift[i] + 8 * int(entry % 4), mask);
  }
  // Keys: four channels of an entry are one word.
  KVIST_INLINE void finish() {
    if (!layout.keys) return;
    const PackedLayout::Place at = layout.place(t, 0);
    const std::size_t quad = std::size_t(32) * std::size_t(layout.bits);
    const std::uint32_t kept = ~(mask * 0x01010101u << at.shift);
    std::uint8_t* to = page + at.byte;
    for (int c = 0; c < layout.dim; c += 4, to += quad) {
      std::uint32_t four, word;
      std::memcpy(&four, codes + c, 4);
      std::memcpy(&word, to, 4);
      word = (word & kept) | four << at.shift;
      std::memcpy(to, &word, 4);
    }
  }
};

KVIST_INLINE F some(const float* x, int n) { return n >= N ? load(x) : load_part(x, n); }

// Lanes of x in [0, top], rounded to the nearest, ties to even; NaN: 0.
KVIST_INLINE F affine_code(F x, F least, F divisor, F top) {
  const F t = div(sub(x, least), divisor);
  return round_even(smaller(larger(t, zero()), top));
}

// Scales and minima of n groups from their bounds, rounded to f16. In place of the bounds come the minimum and what numbers
// are divided by: the scale, or infinity where it is 0, which makes all codes 0.
inline void fit(float* least, float* largest, int n, int top, f16* scales, f16* minima) {
  const F steps = set1(float(top)), most = set1(65504.0f), fewest = set1(-65504.0f);
  const F infinite = set1(std::numeric_limits<float>::infinity());
  for (int i = 0; i < n; i += N) {
    const int part = std::min(N, n - i);
    const F a = some(least + i, part), b = some(largest + i, part);
    const F lo = zero_below(a, b, a), hi = zero_below(b, b, a);  // 0 for a group of NaNs alone
    f16 half[N];
    store(half, smaller(larger(div(sub(hi, lo), steps), fewest), most));
    std::memcpy(scales + i, half, std::size_t(part) * sizeof(f16));
    const F scale = load(half);
    store(half, smaller(larger(lo, fewest), most));
    std::memcpy(minima + i, half, std::size_t(part) * sizeof(f16));
    store_part(least + i, load(half), part);
    store_part(largest + i, add(scale, zero_below(infinite, zero(), scale)), part);
  }
}

inline constexpr float huge = std::numeric_limits<float>::max();

// Bounds of each of d channels over n rows; NaN is passed over.
inline void bounds_of_channels(const float* rows, Index n, int d, float* least, float* largest) {
  constexpr int V = 4;
  int c = 0;
  for (; c + V * N <= d; c += V * N) {
    F lo[V], hi[V];
    KVIST_UNROLL
    for (int v = 0; v < V; ++v) lo[v] = set1(huge), hi[v] = set1(-huge);
    const float* x = rows + c;
    for (Index i = 0; i < n; ++i, x += d) {
      KVIST_UNROLL
      for (int v = 0; v < V; ++v) {
        const F y = load(x + v * N);
        lo[v] = smaller(y, lo[v]), hi[v] = larger(y, hi[v]);
      }
    }
    KVIST_UNROLL
    for (int v = 0; v < V; ++v) store(least + c + v * N, lo[v]), store(largest + c + v * N, hi[v]);
  }
  for (; c < d; c += N) {
    const int part = std::min(N, d - c);
    F lo = set1(huge), hi = set1(-huge);
    for (Index i = 0; i < n; ++i) {
      const F y = some(rows + std::ptrdiff_t(i) * d + c, part);
      lo = smaller(y, lo), hi = larger(y, hi);
    }
    store_part(least + c, lo, part), store_part(largest + c, hi, part);
  }
}

// Bounds of n numbers; NaN is passed over. Of equal numbers (zeros of both signs) the first counts.
KVIST_INLINE void bounds(const float* x, int n, float& least, float& largest) {
  float a = huge, b = -huge;
  int i = 0;
  if (n >= N) {
    F lo = set1(huge), hi = set1(-huge);
    for (; i + N <= n; i += N) {
      const F y = load(x + i);
      lo = smaller(y, lo), hi = larger(y, hi);
    }
    a = -reduce_max(sub(zero(), lo)), b = reduce_max(hi);
  }
  for (; i < n; ++i) {
    if (x[i] < a) a = x[i];
    if (x[i] > b) b = x[i];
  }
  if (a == 0) {
    a = huge, b = -huge;
    for (i = 0; i < n; ++i) {
      if (x[i] < a) a = x[i];
      if (x[i] > b) b = x[i];
    }
  }
  least = a, largest = b;
}

// One scale for n rows of a channel.
inline void affine_channels(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n) {
  const int d = layout.dim, top = (1 << layout.bits) - 1;
  alignas(64) float least[row_room], divisor[row_room];
  bounds_of_channels(rows, n, d, least, divisor);
  const std::size_t s = layout.scale_index(t, 0);
  fit(least, divisor, d, top, layout.scales(page) + s, layout.minimums(page) + s);
  for (int c = d; c % N != 0; ++c) least[c] = 0, divisor[c] = std::numeric_limits<float>::infinity();
  const F most = set1(float(top));
  CodeRow out(layout, page, t);
  for (Index i = 0; i < n; ++i, ++out.t, rows += d) {
    for (int c = 0; c < d; c += N)
      out.put(c, affine_code(some(rows + c, d - c), load(least + c), load(divisor + c), most));
    out.finish();
  }
}

// A scale for each row, or for each group of its channels: a few rows at once, for one bound waits for the other.
inline void affine_tokens(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n) {
  constexpr int at_once = 16, room = 256;
  const int d = layout.dim, top = (1 << layout.bits) - 1, group = layout.group, groups = layout.scale_rows();
  const int rows_at_once = std::max(1, std::min(at_once, room / groups));
  const F most = set1(float(top));
  alignas(64) float least[row_room], divisor[row_room];  // [groups][rows_at_once]
  CodeRow out(layout, page, t);
  while (n > 0) {
    const int count = int(std::min<Index>(n, rows_at_once));
    for (int g = 0; g < groups; ++g) {
      for (int i = 0; i < count; ++i)
        bounds(rows + std::ptrdiff_t(i) * d + g * group, std::min(group, d - g * group), least[g * count + i],
               divisor[g * count + i]);
      const std::size_t s = layout.scale_index(out.t, g * group);
      fit(least + g * count, divisor + g * count, count, top, layout.scales(page) + s,
          layout.minimums(page) + s);
    }
    for (int i = 0; i < count; ++i, ++out.t, rows += d) {
      for (int c = 0, g = 0, end = group; c < d; c += N) {
        while (c >= end) ++g, end += group;
        if (c + N <= std::min(end, d)) {
          out.put(
              c, affine_code(load(rows + c), set1(least[g * count + i]), set1(divisor[g * count + i]), most));
          continue;
        }
        float a[N], b[N];  // a vector of several groups, or with lanes behind the row
        for (int k = 0; k < N; ++k) {
          const int at = (c + k) / group * count + i;
          a[k] = c + k < d ? least[at] : 0.0f;
          b[k] = c + k < d ? divisor[at] : std::numeric_limits<float>::infinity();
        }
        out.put(c, affine_code(some(rows + c, d - c), load(a), load(b), most));
      }
      out.finish();
    }
    n -= count;
  }
}

inline void affine(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n) {
  if (layout.along == GroupAlong::entries) affine_channels(layout, page, t, rows, n);
  else affine_tokens(layout, page, t, rows, n);
}

// What a block of 32 numbers is divided by, before the format's own factor: its largest magnitude, for q4_0 with the sign of
// the first number that has it.
template <bool Signed>
KVIST_INLINE float extreme(const float* x) {
  F a[32 / N], m = zero();
  KVIST_UNROLL
  for (int j = 0; j < 32 / N; ++j) a[j] = abs(load(x + j * N)), m = larger(a[j], m);
  const float most = reduce_max(m);
  if constexpr (!Signed) return most;
  std::uint32_t there = 0;
  KVIST_UNROLL
  for (int j = 0; j < 32 / N; ++j) there |= std::uint32_t(at_least(a[j], set1(most))) << (j * N);
  return most > 0 ? x[std::countr_zero(there) & 31] : 0.0f;
}

// Numbers times `inverse` become codes 1 .. 255 around 128; halves go away from 0; NaN: 128.
KVIST_INLINE F q8_0_code(F x, F inverse) {
  const F half = set1(0.5f), one = set1(1.0f), most = set1(127.0f);
  F y = mul(x, inverse);
  y = add(larger(y, zero()), smaller(y, zero()));  // NaN: 0
  F r = round_even(y);                             // where that took a half towards 0, one further
  r = add(r, zero_below(one, y, larger(add(r, half), half)));
  r = sub(r, zero_below(one, sub(zero(), y), larger(sub(half, r), half)));
  return add(smaller(larger(r, sub(zero(), most)), most), set1(128.0f));
}

// floor(x * inverse + 8.5) of the exact product, 0 .. 15; NaN: 0.
KVIST_INLINE F q4_0_code(F x, F inverse) {
  const F half = set1(0.5f), one = set1(1.0f);
  const F r = round_even(mul(x, inverse));  // may be one off: the signs of what is left of the exact product say
  const F up = fused(x, inverse, sub(zero(), add(r, half))), down = fused(x, inverse, sub(half, r));
  const F c = add(r, sub(zero_below(one, up, zero()), sub(one, zero_below(one, down, zero()))));
  return smaller(larger(add(c, set1(8.0f)), zero()), set1(15.0f));
}

// Rows of blocks of 32 channels. The scales of several are found first, then used: one waits long for its own.
template <bool Four>
inline void blocks_of_32(const PackedLayout& layout, std::uint8_t* page, Index t, const float* rows, Index n) {
  constexpr int room = 64;
  const int blocks = layout.dim / 32;
  const F by = set1(Four ? -8.0f : 127.0f), one = set1(1.0f);
  alignas(64) float inverse[room];
  f16 scale[room];
  CodeRow out(layout, page, t);
  while (n > 0) {
    const Index count = std::min<Index>(n, room / blocks);
    const int all = int(count) * blocks;
    for (int b = 0; b < all; ++b) inverse[b] = extreme<Four>(rows + b * 32);
    for (int b = all; b % N != 0; ++b) inverse[b] = 0;
    for (int b = 0; b < all; b += N) {
      const F d = div(load(inverse + b), by);
      store(scale + b, d);
      const F of_d = div(one, d);
      store(inverse + b,
            zero_below(of_d, abs(d), set1(std::numeric_limits<float>::denorm_min())));  // 0 where d is 0
    }
    for (Index i = 0; i < count; ++i, ++out.t) {
      for (int b = 0; b < blocks; ++b, rows += 32) {
        const int at = int(i) * blocks + b;
        layout.scales(page)[layout.scale_index(out.t, b * 32)] = scale[at];
        const F times = set1(inverse[at]);
        KVIST_UNROLL
        for (int j = 0; j < 32; j += N) {
          const F x = load(rows + j);
          out.put(b * 32 + j, Four ? q4_0_code(x, times) : q8_0_code(x, times));
        }
      }
      out.finish();
    }
    n -= count;
  }
}

inline constexpr EncodeTable encode_table = {&affine, &blocks_of_32<false>, &blocks_of_32<true>};
