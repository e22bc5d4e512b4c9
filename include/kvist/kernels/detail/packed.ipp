// Attention straight from packed codes: integer dot products of codes with queries (weights) rounded to 8 bits, or to 16
// bits as two passes.

inline constexpr int widest = PackedLayout::max_dim;

// Prefetches `bytes` evenly over `steps` calls.
struct Pace {
  const char* next;
  int rate, credit;  // in 1/256 of a line
  KVIST_INLINE Pace(Ahead a, int steps)
      : next(static_cast<const char*>(a.at)),
        rate(a.at == nullptr ? 0 : int((a.bytes * 4 + std::size_t(steps) - 1) / std::size_t(steps))),
        credit(0) {}
  KVIST_INLINE void step() {
    credit += rate;
    for (; credit >= 256; credit -= 256, next += 64) prefetch(next);
  }
};

// What the rounding of one vector x of n floats left behind. x ~ step * (255 * high + low), or step * high.
struct Rounded {
  float step;   // of one unit
  float units;  // sum of the units
};

// n is a multiple of N. The high part times 255 plus the low part: the radix keeps both within -127..127.
template <bool Wide>
KVIST_INLINE Rounded round_to_bytes(const float* x, int n, std::int8_t* high, std::int8_t* low) {
  F top = abs(load(x));
  for (int i = N; i < n; i += N) top = max(top, abs(load(x + i)));
  const float most = reduce_max(top);
  constexpr float limit = Wide ? 127.0f * 255.0f + 127.0f : 127.0f;
  const float inverse = most > 1e-30f ? limit / most : 0.0f;
  const F by = set1(inverse);
  F sum = zero();
  for (int i = 0; i < n; i += N) {
    const F w = round_even(mul(load(x + i), by));
    sum = add(sum, w);
    if (Wide) {
      const F h = round_even(mul(w, set1(1.0f / 255.0f)));
      store_bytes(high + i, h);
      store_bytes(low + i, fnma(h, set1(255.0f), w));
    } else {
      store_bytes(high + i, w);
    }
  }
  return {most > 1e-30f ? most / limit : 0.0f, reduce_add(sum)};
}

// The middle of the codes: what a rounding error of x is multiplied with on average, so that it can be taken back.
KVIST_INLINE float middle(const PackedLayout& layout) {
  return layout.centre > 0 ? layout.centre : float((1 << layout.bits) - 1) * 0.5f;
}

// sum of x * (code - centre) = step * (sum of units * (code - dot's own centre)) + this; x_sum = sum of x.
KVIST_INLINE float dot_bias(const PackedLayout& layout, Rounded r, float x_sum) {
  const float own = layout.bits == 8 ? float(dot_centre) : 0.0f, mean = middle(layout);
  return r.step * r.units * (own - mean) + (mean - layout.centre) * x_sum;
}

// acc[g][i] = sum over quads of codes of strip I0 + i times q[I0 + i] of query g, for N of the 16 lanes; times 1 as floats
// to out[g * 64 + strip * 16].
template <int B, int G, int S, int I0>
KVIST_INLINE void dot_strips(const std::uint8_t* codes, std::ptrdiff_t quad_bytes, int quads,
                             const std::int8_t* const* q, float* out, Pace& pace) {
  constexpr int P = 8 / B;
  I acc[G][S];
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int i = 0; i < S; ++i) acc[g][i] = izero();
  }
  const std::int8_t* from[S];
  KVIST_UNROLL
  for (int i = 0; i < S; ++i) from[i] = q[I0 + i];
  Pace mine = pace;  // in registers
  for (int k = 0; k < quads; ++k) {
    mine.step();
    C x[S];
    KVIST_UNROLL
    for (int i = 0; i < S; ++i)
      x[i] = plane(load_codes(codes + k * quad_bytes + (I0 + i) / P * 64), B, (I0 + i) % P);
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) {
      KVIST_UNROLL
      for (int i = 0; i < S; ++i)
        acc[g][i] = dot4<B>(acc[g][i], x[i], broadcast4(from[i] + g * widest + 4 * k));
    }
  }
  pace = mine;
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    KVIST_UNROLL
    for (int i = 0; i < S; ++i)
      store(out + g * 64 + (I0 + i) * 16, mul(to_f(acc[g][i]), set1(plane_scale(B, (I0 + i) % P))));
  }
}

// out [G, 64] = dots of `strips` strips of 16 lanes. Where not all four are there, a strip of 8 bits or a pair of 4 bits
// is the unit.
template <int B, int G>
inline void dots(const std::uint8_t* codes, std::ptrdiff_t quad_bytes, int quads, const std::int8_t* const* q,
                 int strips, float* out, Pace& pace) {
  for (int lane = 0; lane < 16; lane += N) {
    const std::uint8_t* const from = codes + lane * 4;
    float* const to = out + lane;
    if (strips == 4) {
      if constexpr (registers / G >= 4) {
        dot_strips<B, G, 4, 0>(from, quad_bytes, quads, q, to, pace);
      } else {
        dot_strips<B, G, 2, 0>(from, quad_bytes, quads, q, to, pace);
        dot_strips<B, G, 2, 2>(from, quad_bytes, quads, q, to, pace);
      }
    } else if constexpr (B == 4) {
      dot_strips<B, G, 2, 0>(from, quad_bytes, quads, q, to, pace);
    } else if constexpr (B == 8) {
      for (int i = 0; i < strips; ++i)
        dot_strips<B, G, 1, 0>(from + i * 64, quad_bytes, quads, q + i, to + i * 16, pace);
    }
  }
}

using Dots = void (*)(const std::uint8_t*, std::ptrdiff_t, int, const std::int8_t* const*, int, float*, Pace&);
inline constexpr Dots dots_of[3][4] = {{&dots<2, 1>, &dots<2, 2>, &dots<2, 3>, &dots<2, 4>},
                                       {&dots<4, 1>, &dots<4, 2>, &dots<4, 3>, &dots<4, 4>},
                                       {&dots<8, 1>, &dots<8, 2>, &dots<8, 3>, &dots<8, 4>}};
KVIST_INLINE Dots pick_dots(int bits, int group) {
  return dots_of[bits == 2 ? 0 : bits == 4 ? 1 : 2][group - 1];
}

// One rounded vector for each of the groups at work (at most four) and each query, with the numbers that go with it.
struct Factors {
  alignas(64) std::int8_t code[2][4][PackedQuery::max_group][widest];
  float step[8][PackedQuery::max_group], bias[8][PackedQuery::max_group];
};

// Rounds x = a[g] * scale (n numbers, n a multiple of 16) for the dots, as numbers `from` and on of the set's vectors; the
// minima's share goes to the bias. Step and bias are those of `slot`. All queries at once: scales and minima are widened
// once, and each query is a chain of waiting for the largest, then for the sums; chains side by side hide that.
template <bool Wide, int G>
inline void fold_queries(const PackedLayout& layout, const float* a, std::ptrdiff_t stride, const f16* scale,
                         const f16* least, int n, int set, int from, int slot, Factors& out) {
  constexpr float limit = Wide ? 127.0f * 255.0f + 127.0f : 127.0f;
  const float own = layout.bits == 8 ? float(dot_centre) : 0.0f, mean = middle(layout);
  alignas(64) float scaled[G][widest];
  F top[G], x_sum[G], z[G];
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) top[g] = x_sum[g] = z[g] = zero();
  for (int c = 0; c < n; c += N) {
    const F s = load(scale + c), low = least != nullptr ? load(least + c) : zero();
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) {
      const F q = load(a + g * stride + c), y = mul(q, s);
      store(scaled[g] + c, y);
      top[g] = max(top[g], abs(y));
      x_sum[g] = add(x_sum[g], y);
      z[g] = fma(q, low, z[g]);
    }
  }
  float step[G];
  F by[G], units[G];
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    const float most = reduce_max(top[g]);
    by[g] = set1(most > 1e-30f ? limit / most : 0.0f);
    step[g] = most * (1.0f / limit);
    units[g] = zero();
  }
  for (int c = 0; c < n; c += N) {
    KVIST_UNROLL
    for (int g = 0; g < G; ++g) {
      const F w = round_even(mul(load(scaled[g] + c), by[g]));
      units[g] = add(units[g], w);
      if (Wide) {
        const F h = round_even(mul(w, set1(1.0f / 255.0f)));
        store_bytes(out.code[0][set][g] + from + c, h);
        store_bytes(out.code[1][set][g] + from + c, fnma(h, set1(255.0f), w));
      } else {
        store_bytes(out.code[0][set][g] + from + c, w);
      }
    }
  }
  KVIST_UNROLL
  for (int g = 0; g < G; ++g) {
    const F bias = fma(x_sum[g], set1(mean - layout.centre), z[g]);
    out.step[slot][g] = step[g];
    out.bias[slot][g] = reduce_add(fma(units[g], set1(step[g] * (own - mean)), bias));
  }
}

using Fold = void (*)(const PackedLayout&, const float*, std::ptrdiff_t, const f16*, const f16*, int, int,
                      int, int, Factors&);
inline constexpr Fold fold_of[2][4] = {
    {&fold_queries<false, 1>, &fold_queries<false, 2>, &fold_queries<false, 3>, &fold_queries<false, 4>},
    {&fold_queries<true, 1>, &fold_queries<true, 2>, &fold_queries<true, 3>, &fold_queries<true, 4>}};

// The two passes of 16-bit factors as one sum, in place: high [G, 64] = 255 * high + low.
KVIST_INLINE void join(float* high, const float* low, int n) {
  for (int i = 0; i < n; i += N) store(high + i, fma(load(high + i), set1(255.0f), load(low + i)));
}

inline void prepare(const PackedLayout& layout, const float* q, int group, float scale, bool wide,
                    PackedQuery& out) {
  out.group = group;
  out.wide = wide;
  const int dim = layout.dim, padded = (dim + 15) / 16 * 16;
  for (int g = 0; g < group; ++g) {
    for (int c = 0; c < dim; ++c) out.q[g][c] = q[std::ptrdiff_t(g) * dim + c] * scale;
    std::fill(out.q[g] + dim, out.q[g] + padded, 0.0f);
  }
  if (layout.along == GroupAlong::entries) return;
  for (int s = 0; s * layout.group < dim; ++s) {
    const int c = s * layout.group, n = std::min(layout.group, dim - c), up = (n + 15) / 16 * 16;
    for (int g = 0; g < group; ++g) {
      alignas(64) float x[widest];
      alignas(64) std::int8_t high[widest], low[widest];
      float sum = 0;
      for (int i = 0; i < n; ++i) sum += x[i] = out.q[g][c + i];
      std::fill(x + n, x + up, 0.0f);
      const Rounded r = wide ? round_to_bytes<true>(x, up, high, low) : round_to_bytes<false>(x, up, high, low);
      const int quads = std::min((n + 3) / 4 * 4, widest - c);
      std::memcpy(out.code[0][g] + c, high, std::size_t(quads));
      if (wide) std::memcpy(out.code[1][g] + c, low, std::size_t(quads));
      out.step[s][g] = r.step;
      out.bias[s][g] = dot_bias(layout, r, sum);
      out.sum[s][g] = sum;
    }
  }
}

// Keys with scales along entries: the scale of each channel goes into the query, once per group of entries.
inline void channel_logits(const PackedLayout& layout, const std::uint8_t* page, const PackedQuery& query,
                           float* logits, std::ptrdiff_t stride, Ahead ahead) {
  const int padded = (layout.dim + 15) / 16 * 16, quads = (layout.dim + 3) / 4, G = query.group,
            B = layout.bits;
  const int per_half = layout.group >= 64 ? 1 : 64 / layout.group;  // groups of entries in half a page
  const std::ptrdiff_t quad_bytes = 64 * 4 * B / 8;
  const Dots run = pick_dots(B, G);
  const Fold fold = fold_of[query.wide][G - 1];
  Factors f;
  alignas(64) float high[PackedQuery::max_group * 64], low[PackedQuery::max_group * 64];
  const int calls = registers / G >= 4 ? 16 / N : 32 / N;
  Pace pace(ahead, 2 * (query.wide ? 2 : 1) * calls * quads + int(PackedLayout::page) / layout.group * G);
  for (int half = 0; half < 2; ++half) {
    for (int s = 0; s < per_half && (half == 0 || layout.group < 128); ++s) {
      const int set = layout.group >= 64 ? half * 64 / layout.group : half * per_half + s;
      const f16* const scale = layout.scales(page) + set * layout.scale_row();
      const f16* const least = layout.minima ? layout.minimums(page) + set * layout.scale_row() : nullptr;
      for (int g = 0; g < G; ++g) pace.step();
      fold(layout, query.q[0], widest, scale, least, padded, s, 0, s, f);
    }
    int set_of[4];
    for (int i = 0; i < 4; ++i) set_of[i] = layout.group >= 64 ? 0 : i * 16 / layout.group;
    const std::int8_t* q[4];
    const std::uint8_t* const codes = page + half * quads * quad_bytes;
    for (int i = 0; i < 4; ++i) q[i] = f.code[0][set_of[i]][0];
    run(codes, quad_bytes, quads, q, 4, high, pace);
    if (query.wide) {
      for (int i = 0; i < 4; ++i) q[i] = f.code[1][set_of[i]][0];
      run(codes, quad_bytes, quads, q, 4, low, pace);
      join(high, low, G * 64);
    }
    for (int g = 0; g < G; ++g) {
      for (int i = 0; i < 4; ++i) {
        const F step = set1(f.step[set_of[i]][g]), bias = set1(f.bias[set_of[i]][g]);
        for (int lane = i * 16; lane < i * 16 + 16; lane += N)
          store(logits + g * stride + half * 64 + lane, fma(load(high + g * 64 + lane), step, bias));
      }
    }
  }
}

// Keys with scales along channels: the query was rounded once; each group of channels has its own sum, scaled per entry.
inline void token_logits(const PackedLayout& layout, const std::uint8_t* page, const PackedQuery& query,
                         float* logits, std::ptrdiff_t stride, Ahead ahead) {
  const int quads = (layout.dim + 3) / 4, sets = layout.scale_rows(), G = query.group, B = layout.bits;
  const std::ptrdiff_t quad_bytes = 64 * 4 * B / 8;
  const Dots run = pick_dots(B, G);
  alignas(64) float high[PackedQuery::max_group * 64], low[PackedQuery::max_group * 64];
  const int calls = registers / G >= 4 ? 16 / N : 32 / N;
  Pace pace(ahead, 2 * (query.wide ? 2 : 1) * calls * quads);
  const f16* const scales = layout.scales(page);
  const f16* const minima = layout.minima ? layout.minimums(page) : nullptr;
  for (int half = 0; half < 2; ++half) {
    for (int s = 0; s < sets; ++s) {
      const int c = s * layout.group, n = (std::min(layout.group, layout.dim - c) + 3) / 4;
      const std::uint8_t* const codes = page + (half * quads + c / 4) * quad_bytes;
      const std::int8_t* q[4];
      std::fill_n(q, 4, query.code[0][0] + c);
      run(codes, quad_bytes, n, q, 4, high, pace);
      if (query.wide) {
        std::fill_n(q, 4, query.code[1][0] + c);
        run(codes, quad_bytes, n, q, 4, low, pace);
        join(high, low, G * 64);
      }
      for (int lane = 0; lane < 64; lane += N) {
        const int t = s * int(PackedLayout::page) + half * 64 + lane;
        const F scale = load(scales + t), least = minima != nullptr ? load(minima + t) : zero();
        for (int g = 0; g < G; ++g) {
          float* const to = logits + g * stride + half * 64 + lane;
          F y = fma(load(high + g * 64 + lane), set1(query.step[s][g]), set1(query.bias[s][g]));
          y = fma(least, set1(query.sum[s][g]), mul(y, scale));
          store(to, s == 0 ? y : add(load(to), y));
        }
      }
    }
  }
}

inline void key_logits(const PackedLayout& l, const std::uint8_t* page, const PackedQuery& q, float* logits,
                       std::ptrdiff_t stride, Ahead ahead) {
  if (l.along == GroupAlong::entries) channel_logits(l, page, q, logits, stride, ahead);
  else token_logits(l, page, q, logits, stride, ahead);
}

// Values: the scale of each entry goes into its weight, once per group of channels. Weights of 8 bits are rounded for each
// half page by itself, because one large weight makes the steps of its neighbours coarse.
inline void value_sum(const PackedLayout& layout, const std::uint8_t* page, const float* w,
                      std::ptrdiff_t stride, int group, bool wide, float* o, Ahead ahead) {
  constexpr int T = int(PackedLayout::page);
  const int dim = layout.dim, blocks = (dim + 63) / 64, G = group, B = layout.bits, P = 8 / B;
  const int parts = wide ? 1 : 2, length = T / parts;
  const Dots run = pick_dots(B, G);
  const Fold fold = fold_of[wide][G - 1];
  Factors f;
  alignas(64) float high[PackedQuery::max_group * 64], low[PackedQuery::max_group * 64];
  int held[4] = {-1, -1, -1, -1};  // which group of channels each of the four sets holds
  const int calls = registers / G >= 4 ? 16 / N : 32 / N;
  Pace pace(ahead, blocks * (wide ? 2 : 1) * calls * (T / 4) + layout.scale_rows() * parts * G);
  for (int b = 0; b < blocks; ++b) {
    const int channels = std::min(64, dim - b * 64), vectors = (channels + 16 * P - 1) / (16 * P);
    const int first = b * 64 / layout.group, last = (b * 64 + channels - 1) / layout.group;
    for (int i = first; i <= last; ++i) {
      if (held[i % 4] == i) continue;
      held[i % 4] = i;
      for (int part = 0; part < parts; ++part) {
        const int t = part * length;
        const f16* const scale = layout.scales(page) + i * T + t;
        const f16* const least = layout.minima ? layout.minimums(page) + i * T + t : nullptr;
        for (int g = 0; g < G; ++g) pace.step();
        fold(layout, w + t, stride, scale, least, length, i % 4, t, i % 4 + 4 * part, f);
      }
    }
    // strips behind the last channel repeat its group: computed, never stored
    int set_of[4];
    for (int i = 0; i < 4; ++i) set_of[i] = std::min(b * 64 + i * 16, dim - 1) / layout.group % 4;
    const std::ptrdiff_t quad_bytes = vectors * 64;
    for (int part = 0; part < parts; ++part) {
      const int t = part * length;
      const std::uint8_t* const codes = page + std::ptrdiff_t(b) * (4 / P) * 64 * T / 4 + t / 4 * quad_bytes;
      const std::int8_t* q[4];
      for (int i = 0; i < 4; ++i) q[i] = f.code[0][set_of[i]][0] + t;
      run(codes, quad_bytes, length / 4, q, vectors * P, high, pace);
      if (wide) {
        for (int i = 0; i < 4; ++i) q[i] = f.code[1][set_of[i]][0] + t;
        run(codes, quad_bytes, length / 4, q, vectors * P, low, pace);
        join(high, low, G * 64);
      }
      for (int g = 0; g < G; ++g) {
        for (int c = 0; c < channels; c += N) {
          const int slot = set_of[c / 16] + 4 * part;
          float* const to = o + std::ptrdiff_t(g) * dim + b * 64 + c;
          const F y = fma(load(high + g * 64 + c), set1(f.step[slot][g]), set1(f.bias[slot][g]));
          if (c + N <= channels) store(to, add(load(to), y));
          else store_part(to, add(load_part(to, channels - c), y), channels - c);
        }
      }
    }
  }
}

inline constexpr PackedTable packed_table = {&prepare, &key_logits, &value_sum};
