// Functions over the vector layer that are the same for every instruction set.

/// e^x to within 2 ulp for x in [-87.33, 88.37]; 0 below (exp(-infinity) included), a finite value above.
/// Source of the polynomial: Moshier, Cephes library, expf.
KVIST_INLINE F exp(F x) {
  const F t = max(min(x, set1(88.37f)), set1(-87.33f));
  const F n = round_even(mul(t, set1(1.44269504088896341f)));
  F r = fnma(n, set1(0.693359375f), t);  // ln 2 in two parts: n times the first is exact
  r = fnma(n, set1(-2.12194440e-4f), r);
  F p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(mul(p, r), r, r), set1(1.0f));
  return zero_below(scale_by_pow2(p, n), x, set1(-87.33f));
}

/// tanh x with an absolute error of at most 2e-7.
KVIST_INLINE F tanh(F x) {
  const F e = exp(add(x, x));  // 1 - 2 / (e^2x + 1); e^2x saturates, and with it the result at -1 and 1
  return sub(set1(1.0f), div(set1(2.0f), add(e, set1(1.0f))));
}
