// Vectors of 64 bytes, one circuit (or amplitude) a lane; the same bits on every processor that has fused multiply-add.
//
// Fused operations are written out and -ffp-contract=off holds elsewhere, so that rounding depends on the source alone.
#ifndef QSGD_RAY_LANES
#define QSGD_RAY_LANES

#include <cmath>
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define MEMBER inline __attribute__((always_inline))

typedef double Doubles __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));
typedef int64_t Longs __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef float HalfFloats __attribute__((vector_size(32)));

template <class T> struct Lanes;
template <> struct Lanes<double> {
  typedef Doubles V;
  typedef Longs I;
  static const int W = 8, BITS = 3;
};
template <> struct Lanes<float> {
  typedef Floats V;
  typedef Ints I;
  static const int W = 16, BITS = 4;
};

INLINE Doubles splat(double x) { return Doubles{x, x, x, x, x, x, x, x}; }
INLINE Floats splat(float x) { return Floats{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

// x * y + z, rounded once.
INLINE double fma_(double x, double y, double z) { return __builtin_fma(x, y, z); }
INLINE float fma_(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
#if defined(__AVX512F__)
INLINE Doubles fma_(Doubles x, Doubles y, Doubles z) { return (Doubles)_mm512_fmadd_pd((__m512d)x, (__m512d)y, (__m512d)z); }
INLINE Floats fma_(Floats x, Floats y, Floats z) { return (Floats)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z); }
#elif defined(__FMA__)
union TwoDoubles { Doubles v; __m256d half[2]; };
union TwoFloats { Floats v; __m256 half[2]; };
INLINE Doubles fma_(Doubles x, Doubles y, Doubles z) {
  TwoDoubles a = {x}, b = {y}, c = {z};
  for (int h = 0; h < 2; ++h) c.half[h] = _mm256_fmadd_pd(a.half[h], b.half[h], c.half[h]);
  return c.v;
}
INLINE Floats fma_(Floats x, Floats y, Floats z) {
  TwoFloats a = {x}, b = {y}, c = {z};
  for (int h = 0; h < 2; ++h) c.half[h] = _mm256_fmadd_ps(a.half[h], b.half[h], c.half[h]);
  return c.v;
}
#else
INLINE Doubles fma_(Doubles x, Doubles y, Doubles z) {
  for (int i = 0; i < 8; ++i) z[i] = __builtin_fma(x[i], y[i], z[i]);
  return z;
}
INLINE Floats fma_(Floats x, Floats y, Floats z) {
  for (int i = 0; i < 16; ++i) z[i] = __builtin_fmaf(x[i], y[i], z[i]);
  return z;
}
#endif

// Lane l of the result is lane index[l] of v.
INLINE Doubles permuted(Doubles v, Longs index) {
#if defined(__AVX512F__)
  return (Doubles)_mm512_permutexvar_pd((__m512i)index, (__m512d)v);
#else
  Doubles r;
  for (int i = 0; i < 8; ++i) r[i] = v[index[i]];
  return r;
#endif
}
INLINE Floats permuted(Floats v, Ints index) {
#if defined(__AVX512F__)
  return (Floats)_mm512_permutexvar_ps((__m512i)index, (__m512)v);
#else
  Floats r;
  for (int i = 0; i < 16; ++i) r[i] = v[index[i]];
  return r;
#endif
}

// The sum of all lanes, halves added to halves.
template <class T> INLINE T lane_sum(typename Lanes<T>::V v) {
  T x[Lanes<T>::W];
  __builtin_memcpy(x, &v, sizeof v);
  for (int half = Lanes<T>::W / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

// cos x and sin x, each within 2e-16 of the true value. pi / 2 = A + B + C, where A and B have 27 bits, so that its
// multiples up to 2**26 are exact; a lane beyond LARGE is the library's. The polynomials are interpolated at 400
// Chebyshev points of x^2, |x| <= pi / 4, in extended precision: (sin x / x - 1) / x^2 and (cos x - 1 + x^2 / 2) / x^4.
INLINE void cos_sin(Doubles x, Doubles &cos_x, Doubles &sin_x) {
  const double A = 1.570796325802803, B = 9.920935739593517e-10, C = 5.721188726109832e-18;
  const double LARGE = 1e7, MAGIC = 6755399441055744.0;  // 1.5 * 2**52: its sum with a number rounds that to whole
  const Doubles shifted = x * 0.6366197723675814 + MAGIC, turns = shifted - MAGIC;
  const Longs quarter = (Longs)shifted;
  Doubles r = fma_(turns, splat(-A), x);
  r = fma_(turns, splat(-B), r);
  r = fma_(turns, splat(-C), r);
  const Doubles y = r * r;
  Doubles s = splat(1.5910660505829132e-10), c = splat(-1.1363999961706328e-11);
  s = fma_(s, y, splat(-2.5051005204277985e-08));
  c = fma_(c, y, splat(2.0875830201549696e-09));
  s = fma_(s, y, splat(2.755731532170831e-06));
  c = fma_(c, y, splat(-2.755731532211604e-07));
  s = fma_(s, y, splat(-0.00019841269834652215));
  c = fma_(c, y, splat(2.4801587293504486e-05));
  s = fma_(s, y, splat(0.00833333333332863));
  c = fma_(c, y, splat(-0.0013888888888881604));
  s = fma_(s, y, splat(-0.16666666666666657));
  c = fma_(c, y, splat(0.04166666666666665));
  s = fma_(s, y * r, r);
  c = fma_(c, y * y, fma_(y, splat(-0.5), splat(1.0)));
  const Longs swap = -(quarter & 1);
  const Longs sin_sign = (quarter & 2) << 62, cos_sign = ((quarter + 1) & 2) << 62;
  sin_x = (Doubles)((((Longs)c & swap) | ((Longs)s & ~swap)) ^ sin_sign);
  cos_x = (Doubles)((((Longs)s & swap) | ((Longs)c & ~swap)) ^ cos_sign);
  const Longs large = (Longs)((x > LARGE) | (x < -LARGE));
  if (large[0] | large[1] | large[2] | large[3] | large[4] | large[5] | large[6] | large[7])
    for (int i = 0; i < 8; ++i)
      if (large[i]) cos_x[i] = std::cos(x[i]), sin_x[i] = std::sin(x[i]);
}

#endif
