// Vectors of 64 bytes that hold a circuit a lane: 8 doubles or 16 floats. Fused operations are written out (and
// -ffp-contract=off), so that the rounding depends on the source alone.

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>  // some compilers take a loop over lanes apart
#endif

#if defined(__x86_64__) && !defined(__FMA__)
#error "a processor without fused multiplication and addition"
#endif

#define INLINE static inline __attribute__((always_inline))

template <class T>
struct Lanes;

// pi / 2 = HIGH + LOW. HIGH times whole numbers up to 2**17 differs from x by a number of few bits: no rounding there.
// SIN and COS are (sin r - r) / r^3 and (cos r - 1 + r^2 / 2) / r^4 in r^2 for |r| <= pi / 4, interpolated at Chebyshev
// points: off by 1e-17 (doubles) and 1e-8 (floats). x + ROUND - ROUND is the nearest whole number.
template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(64)));
  typedef int64_t I __attribute__((vector_size(64)));
  static constexpr int W = 8, TERMS = 6;
  static constexpr double HIGH = 1.5707963267948966, LOW = 6.123233995736766e-17, ROUND = 6755399441055744.0;
  static constexpr double SIN[] = {-0.16666666666666666,   0.008333333333330948,    -0.00019841269836756774,
                                   2.7557316101617874e-06, -2.505113165023518e-08, 1.5918115263265974e-10};
  static constexpr double COS[] = {0.041666666666666664,    -0.0013888888888887398, 2.480158729876456e-05,
                                   -2.7557317271145144e-07, 2.087614614655861e-09,  -1.1382623647474604e-11};
};
template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(64)));
  typedef int32_t I __attribute__((vector_size(64)));
  static constexpr int W = 16, TERMS = 3;
  static constexpr float HIGH = 1.5707964f, LOW = -4.371139e-08f, ROUND = 12582912.0f;
  static constexpr float SIN[] = {-0.16666664661714697f, 0.008332748154085032f, -0.00019587865702101875f};
  static constexpr float COS[] = {0.041666664658901405f, -0.0013888302919113633f, 2.4547916853691016e-05f};
};
typedef Lanes<double>::V Doubles;
typedef Lanes<float>::V Floats;

// a * b + c, rounded once.
#if defined(__AVX512F__)
INLINE Doubles fused(Doubles a, Doubles b, Doubles c) { return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
INLINE Floats fused(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#else
INLINE Doubles fused(Doubles a, Doubles b, Doubles c) {
  for (int i = 0; i < 8; i++) c[i] = __builtin_fma(a[i], b[i], c[i]);
  return c;
}
INLINE Floats fused(Floats a, Floats b, Floats c) {
  for (int i = 0; i < 16; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}
#endif

template <class T>
INLINE typename Lanes<T>::V every_lane(T x) {
  return x - typename Lanes<T>::V{};
}

// Computes cos x and sin x where |x| < 1e5; returns the mask of the other lanes, which `cos_sin_of_large` does.
template <class T>
INLINE typename Lanes<T>::I cos_sin(typename Lanes<T>::V x, typename Lanes<T>::V &cos, typename Lanes<T>::V &sin) {
  typedef Lanes<T> L;
  typedef typename L::V V;
  typedef typename L::I I;
  const V shifted = fused(x, every_lane(T(0.6366197723675814)), every_lane(L::ROUND)), quarters = shifted - L::ROUND;
  const V r = fused(-quarters, every_lane(L::LOW), fused(-quarters, every_lane(L::HIGH), x)), y = r * r;
  V s = every_lane(L::SIN[L::TERMS - 1]), c = every_lane(L::COS[L::TERMS - 1]);
  for (int i = L::TERMS - 2; i >= 0; i--) s = fused(s, y, every_lane(L::SIN[i])), c = fused(c, y, every_lane(L::COS[i]));
  s = fused(s, y * r, r);
  c = fused(c, y * y, fused(y, every_lane(T(-0.5)), every_lane(T(1))));
  const I quarter = (I)shifted, sign = (I)every_lane(T(-0.0));
  const I odd = -(quarter & 1);
  sin = (V)(((odd & (I)c) | (~odd & (I)s)) ^ ((quarter << (8 * sizeof(T) - 2)) & sign));
  cos = (V)(((odd & (I)s) | (~odd & (I)c)) ^ (((quarter + 1) << (8 * sizeof(T) - 2)) & sign));
  return ~(I)((x < T(1e5)) & (x > T(-1e5)));
}

template <class T>
static void cos_sin_of_large(typename Lanes<T>::I mask, typename Lanes<T>::V x, typename Lanes<T>::V &cos,
                             typename Lanes<T>::V &sin) {
  for (int i = 0; i < Lanes<T>::W; i++)
    if (mask[i]) cos[i] = (T)std::cos((double)x[i]), sin[i] = (T)std::sin((double)x[i]);
}

template <class I>
INLINE bool any_lane(I mask) {
  auto all = mask[0];
  for (unsigned i = 1; i < sizeof(I) / sizeof(all); i++) all |= mask[i];
  return all;
}

// Transposes a square of numbers: x[i][j] becomes x[j][i].
template <class T>
INLINE void transpose(typename Lanes<T>::V *x) {
  constexpr int W = Lanes<T>::W;
  typename Lanes<T>::V y[W];
  for (int half = W / 2; half; half /= 2) {  // interleaves the first half of the rows with the second, log2(W) times
    for (int i = 0; i < W / 2; i++) {
      const auto a = x[i], b = x[i + W / 2];
#if defined(__clang__) || __GNUC__ >= 12
      if constexpr (W == 8) {
        y[2 * i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        y[2 * i + 1] = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
      } else {
        y[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        y[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      }
#else
      for (int j = 0; j < W; j++) y[2 * i][j] = j % 2 ? b[j / 2] : a[j / 2];
      for (int j = 0; j < W; j++) y[2 * i + 1][j] = j % 2 ? b[(W + j) / 2] : a[(W + j) / 2];
#endif
    }
    for (int i = 0; i < W; i++) x[i] = y[i];
  }
}

// Reads `size` <= W numbers from each of W rows `stride` apart, a row a lane; rows from `live` on repeat the first.
template <class T>
INLINE void load_columns(const T *from, int64_t stride, int live, int size, typename Lanes<T>::V *x) {
  constexpr int W = Lanes<T>::W;
  for (int i = 0; i < W; i++) {
    x[i] = typename Lanes<T>::V{};
    std::memcpy(x + i, from + (i < live ? i : 0) * stride, size == W ? sizeof *x : size * sizeof(T));
  }
  transpose<T>(x);
}

// Writes them back to the live rows. Leaves x transposed.
template <class T>
INLINE void store_columns(T *to, int64_t stride, int live, int size, typename Lanes<T>::V *x) {
  transpose<T>(x);
  for (int i = 0; i < live; i++) std::memcpy(to + i * stride, x + i, size == Lanes<T>::W ? sizeof *x : size * sizeof(T));
}
