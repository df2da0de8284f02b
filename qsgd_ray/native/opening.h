// The product state before the first gate on two qubits, and the way back from its slope to the angles'.
#ifndef QSGD_RAY_OPENING
#define QSGD_RAY_OPENING

#include "rotations.h"

#include <algorithm>
#include <type_traits>

// N: a number of each circuit of a block, a vector of W; or of one circuit, a scalar.
template <class T, class N> struct Opening {
  typedef typename Lanes<T>::V V;
  typedef Complex<V> C;
  typedef Complex<N> Amplitude;
  static const bool WIDE = std::is_same<N, T>::value;
  static const int W = Lanes<T>::W, LANE_QUBITS = WIDE ? Lanes<T>::BITS : 0;

  int n_qubits;
  Amplitude *amplitudes, *slopes;  // (n_qubits, 2)

  static MEMBER V widened(T x) { return splat(x); }
  static MEMBER V widened(V x) { return x; }
  static MEMBER T first(T x) { return x; }
  static MEMBER T first(V x) { return x[0]; }
  static MEMBER void sum_lanes(V v, T &sum) { sum = lane_sum<T>(v); }
  static MEMBER void sum_lanes(V v, V &sum) { sum = v; }
  MEMBER C widened(int qubit, int bit) const {
    return {widened(amplitudes[2 * qubit + bit].re), widened(amplitudes[2 * qubit + bit].im)};
  }

  void clear(N zero) {
    for (int q = 0; q < n_qubits; ++q) amplitudes[2 * q] = {zero + T(1), zero}, amplitudes[2 * q + 1] = {zero, zero};
  }

  // Turn a qubit by a rotation that is X, Y or Z; `s`: the sine times the sign of f.
  static void turn(Amplitude *v, bool x, bool z, bool imaginary, N c, N s) {
    const Amplitude a = v[0], b = v[1];
    const N t = z ? -s : s;
    if (!x) {
      v[0] = {fma_(c, a.re, -(s * a.im)), fma_(c, a.im, s * a.re)};
      v[1] = {fma_(c, b.re, -(t * b.im)), fma_(c, b.im, t * b.re)};
    } else if (imaginary) {
      v[0] = {fma_(c, a.re, -(s * b.im)), fma_(c, a.im, s * b.re)};
      v[1] = {fma_(c, b.re, -(t * a.im)), fma_(c, b.im, t * a.re)};
    } else {
      v[0] = {fma_(c, a.re, s * b.re), fma_(c, a.im, s * b.im)};
      v[1] = {fma_(c, b.re, t * a.re), fma_(c, b.im, t * a.im)};
    }
  }
  // Re<slope|f|v> without the sign of f.
  static N overlap(const Amplitude *slope, const Amplitude *v, bool x, bool z, bool imaginary) {
    N term[2];
    for (int k = 0; k < 2; ++k) {
      const Amplitude a = slope[k], b = v[x ? 1 - k : k];
      term[k] = imaginary ? fma_(a.im, b.re, -(a.re * b.im)) : fma_(a.re, b.re, a.im * b.im);
    }
    return z ? term[0] - term[1] : term[0] + term[1];
  }

  // The product of the qubits that number the lanes.
  C lane_product() const {
    C x = {splat(T(1)), splat(T(0))};
    for (int q = 0; q < LANE_QUBITS; ++q) {
      const Amplitude *v = amplitudes + 2 * (n_qubits - LANE_QUBITS + q);
      C factor;
      for (int l = 0; l < W; ++l) factor.re[l] = first(v[l >> q & 1].re), factor.im[l] = first(v[l >> q & 1].im);
      x = times(factor, x);
    }
    return x;
  }

  // Fill x with the product state, `size` vectors.
  void spread(C *x, int64_t size) const {
    x[0] = lane_product();
    int q = 0;
    for (int64_t half = 1; half < size; half *= 2, ++q) {
      const C low = widened(q, 0), high = widened(q, 1);
      for (int64_t k = 0; k < half; ++k) {
        x[half + k] = times(high, x[k]);
        x[k] = times(low, x[k]);
      }
    }
  }

  // From the slope of the product state to those of the qubits. `x`: room for as many vectors; both are overwritten.
  void gather(C *x, C *slope, int64_t size) {
    int n_low = 0;
    while ((int64_t(1) << n_low) < size) ++n_low;
    x[0] = lane_product();  // levels of `spread`: before qubit q, 2^q vectors from 2^q - 1 on
    for (int q = 0; q + 1 < n_low; ++q) {
      const int64_t level = int64_t(1) << q;
      const C *from = x + level - 1;
      C *to = x + 2 * level - 1;
      for (int b = 0; b < 2; ++b) {
        const C v = widened(q, b);
        for (int64_t k = 0; k < level; ++k) to[b * level + k] = times(v, from[k]);
      }
    }
    for (int q = n_low - 1; q >= 0; --q) {
      const int64_t level = int64_t(1) << q;
      const C *before = x + level - 1, low = widened(q, 0), high = widened(q, 1);
      C sum[2] = {{splat(T(0)), splat(T(0))}, {splat(T(0)), splat(T(0))}};
      for (int64_t k = 0; k < level; ++k) {
        add_conjugate_times(sum[0], before[k], slope[k]);
        add_conjugate_times(sum[1], before[k], slope[level + k]);
        const C a = conjugate_times(low, slope[k]), b = conjugate_times(high, slope[level + k]);
        slope[k] = {a.re + b.re, a.im + b.im};
      }
      for (int b = 0; b < 2; ++b) sum_lanes(sum[b].re, slopes[2 * q + b].re), sum_lanes(sum[b].im, slopes[2 * q + b].im);
    }
    gather_lanes(slope[0], std::integral_constant<bool, WIDE>());
  }

 private:
  void gather_lanes(C, std::false_type) {}
  void gather_lanes(C slope, std::true_type) {
    const int n_low = n_qubits - LANE_QUBITS;
    Amplitude level[LANE_QUBITS + 1][W], back[W];
    level[0][0] = {T(1), T(0)};
    for (int q = 0; q < LANE_QUBITS; ++q)
      for (int k = 0; k < 2 << q; ++k)
        level[q + 1][k] = times(amplitudes[2 * (n_low + q) + (k >> q)], level[q][k & ((1 << q) - 1)]);
    for (int l = 0; l < W; ++l) back[l] = {slope.re[l], slope.im[l]};
    for (int q = LANE_QUBITS - 1; q >= 0; --q) {
      Amplitude sum[2] = {}, next[W] = {};
      for (int k = 0; k < 2 << q; ++k) {
        const int bit = k >> q, j = k & ((1 << q) - 1);
        add_conjugate_times(sum[bit], level[q][j], back[k]);
        add_conjugate_times(next[j], amplitudes[2 * (n_low + q) + bit], back[k]);
      }
      slopes[2 * (n_low + q)] = sum[0], slopes[2 * (n_low + q) + 1] = sum[1];
      std::copy(next, next + W, back);
    }
  }
};

#endif
