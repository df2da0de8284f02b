// What is read of a state, and the slope of a loss in the state from the slope in what is read.
#ifndef QSGD_RAY_READING
#define QSGD_RAY_READING

#include "program.h"
#include "rotations.h"

#include <cstring>

// Sums over all signs of `size` numbers, a power of 2: x_m = sum_k (-1)^(k.m) x_k.
template <class V> INLINE void walsh(V *x, int64_t size) {
  for (int64_t half = 1; half < size; half *= 2)
    for (int64_t j = 0; j < size; ++j)
      if (!(j & half)) {
        const V a = x[j], b = x[j | half];
        x[j] = a + b, x[j | half] = a - b;
      }
}

template <class T> struct Reading {
  typedef typename Lanes<T>::V V;
  typedef Complex<V> C;
  static const int W = Lanes<T>::W;

  const Program &p;
  bool wide;
  V signs[2];
  Reading(const Program &program, bool is_wide) : p(program), wide(is_wide), signs{splat(T(1)), splat(T(-1))} {}

  // Expectation values of the strings over the vectors from `first` to `last`, a multiple of 8 or all, lane by lane.
  void strings(const C *psi, int64_t first, int64_t last, V *sums) const {
    const int64_t block = p.n_vectors < 8 ? p.n_vectors : 8;
    for (int64_t t = 0; t < p.n_strings; ++t) sums[t] = splat(T(0));
    for (int64_t k = first; k < last && p.n_diagonal; k += block) {
      V x[8];
      for (int64_t j = 0; j < block; ++j) x[j] = fma_(psi[k + j].re, psi[k + j].re, psi[k + j].im * psi[k + j].im);
      walsh(x, block);
      for (int64_t t = 0; t < p.n_diagonal; ++t) {
        const uint32_t z = p.strings[t].z_state;
        sums[t] = fma_(x[z & (block - 1)], signs[parity(uint32_t(k) & z)], sums[t]);
      }
    }
    for (int64_t t = p.n_diagonal; t < p.n_strings; ++t)
      for (int64_t k = first; k < last; ++k) {
        const C a = psi[k], b = applied(p.strings[t], psi, k);
        sums[t] += fma_(a.re, b.re, a.im * b.im);
      }
    for (int64_t t = 0; t < p.n_strings; ++t) sums[t] *= lane_signs(p.strings[t]) * splat(T(p.strings[t].sign));
  }

  void write_strings(const V *sums, T *out, int64_t circuits) const {
    for (int64_t o = 0; o < p.n_outputs; ++o) {
      V sum = splat(T(0));
      for (int64_t i = p.first_string[o]; i < p.first_string[o + 1]; ++i)
        sum = fma_(sums[p.output_string[i]], splat(T(p.weight[i])), sum);
      if (wide) out[o] = lane_sum<T>(sum);
      else
        for (int64_t l = 0; l < circuits; ++l) out[l * p.n_outputs + o] = sum[l];
    }
  }

  // The slope of each string, with its sign and its lanes': from those of the outputs that it is part of.
  void string_slopes(const T *cotangent, int64_t circuits, V *slopes) const {
    for (int64_t t = 0; t < p.n_strings; ++t) slopes[t] = splat(T(0));
    for (int64_t o = 0; o < p.n_outputs; ++o) {
      V w;
      for (int l = 0; l < W; ++l) w[l] = wide ? cotangent[o] : cotangent[(l < circuits ? l : circuits - 1) * p.n_outputs + o];
      for (int64_t i = p.first_string[o]; i < p.first_string[o + 1]; ++i) {
        const int32_t t = p.output_string[i];
        slopes[t] = fma_(w, splat(T(2 * p.weight[i] * p.strings[t].sign)), slopes[t]);
      }
    }
    for (int64_t t = 0; t < p.n_strings; ++t) slopes[t] *= lane_signs(p.strings[t]);
  }

  void slope_of_strings(const V *slopes, const C *psi, C *lambda, int64_t first, int64_t last) const {
    const int64_t block = p.n_vectors < 8 ? p.n_vectors : 8;
    for (int64_t k = first; k < last; k += block) {
      V x[8];
      for (int j = 0; j < 8; ++j) x[j] = splat(T(0));
      for (int64_t t = 0; t < p.n_diagonal; ++t) {
        const uint32_t z = p.strings[t].z_state;
        V &place = x[z & (block - 1)];
        place = fma_(slopes[t], signs[parity(uint32_t(k) & z)], place);
      }
      walsh(x, block);
      for (int64_t j = 0; j < block; ++j) lambda[k + j] = {x[j] * psi[k + j].re, x[j] * psi[k + j].im};
    }
    for (int64_t t = p.n_diagonal; t < p.n_strings; ++t)
      for (int64_t k = first; k < last; ++k) {
        const C b = applied(p.strings[t], psi, k);
        lambda[k] = {fma_(slopes[t], b.re, lambda[k].re), fma_(slopes[t], b.im, lambda[k].im)};
      }
  }

  // Probabilities, or amplitudes times their power of i.
  template <bool STATES> void write_amplitudes(const C *psi, T *out, int64_t circuits) const {
    const T *numbers = (const T *)psi;
    for (int64_t l = 0; l < (wide ? 1 : circuits); ++l)
      for (int64_t i = 0; i < p.n_read; ++i, out += STATES ? 2 : 1) {
        const T *re = numbers + place(i, l), *im = re + W;
        if (!STATES) {
          *out = fma_(*re, *re, *im * *im);
          continue;
        }
        switch (p.phase[i]) {
          case 0: out[0] = *re, out[1] = *im; break;
          case 1: out[0] = -*im, out[1] = *re; break;
          case 2: out[0] = -*re, out[1] = -*im; break;
          default: out[0] = *im, out[1] = -*re;
        }
      }
  }

  template <bool STATES> void slope_of_amplitudes(const T *cotangent, const C *psi, C *lambda, int64_t circuits) const {
    std::memset((void *)lambda, 0, sizeof(C) * p.n_vectors);
    for (int64_t l = 0; l < (wide ? 1 : circuits); ++l)
      for (int64_t i = 0; i < p.n_read; ++i, cotangent += STATES ? 2 : 1) {
        const int64_t at = place(i, l);
        T *re = (T *)lambda + at, *im = re + W;
        const T *w = cotangent;
        if (!STATES) {
          *re = 2 * *w * ((const T *)psi)[at], *im = 2 * *w * ((const T *)psi)[at + W];
          continue;
        }
        switch (p.phase[i]) {  // times the power's conjugate
          case 0: *re = w[0], *im = w[1]; break;
          case 1: *re = w[1], *im = -w[0]; break;
          case 2: *re = -w[0], *im = -w[1]; break;
          default: *re = -w[1], *im = w[0];
        }
      }
  }

 private:
  V lane_signs(const Rotation &s) const { return lane_tables<T>().sign[s.lanes_z]; }
  MEMBER int64_t place(int64_t i, int64_t circuit) const {
    const int64_t state = p.source[i], k = state & (p.n_vectors - 1);
    return 2 * W * k + (wide ? state >> __builtin_ctzll(p.n_vectors) : circuit);
  }
  // (P psi)_k without the sign of P and the lanes'.
  MEMBER C applied(const Rotation &s, const C *psi, int64_t k) const {
    C b = psi[k ^ s.x];
    if (s.lanes_x) b = {permuted(b.re, lane_tables<T>().partner[s.lanes_x]), permuted(b.im, lane_tables<T>().partner[s.lanes_x])};
    const V sign = signs[parity(uint32_t(k) & s.z_state)];
    if (s.imaginary) return {-(b.im * sign), b.re * sign};
    return {b.re * sign, b.im * sign};
  }
};

#endif
