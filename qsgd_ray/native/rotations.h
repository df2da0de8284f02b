// Pauli rotations of vectors of amplitudes, forward, and backward with their slopes.
//
// A rotation is exp(-i a P / 2) = cos(a/2) + sin(a/2) (-i P), and (-i P psi)_k = f_k psi_{k ^ x} with
// f_k = sign * (-1)^(k.z) * (imaginary ? i : 1). Low bits of a mask number vectors, its others a vector's lanes.
#ifndef QSGD_RAY_ROTATIONS
#define QSGD_RAY_ROTATIONS

#include "lanes.h"

template <class N> struct Complex {
  N re, im;
};

template <class N> INLINE Complex<N> times(Complex<N> a, Complex<N> b) {
  return {fma_(a.re, b.re, -(a.im * b.im)), fma_(a.re, b.im, a.im * b.re)};
}
template <class N> INLINE Complex<N> conjugate_times(Complex<N> a, Complex<N> b) {
  return {fma_(a.re, b.re, a.im * b.im), fma_(a.re, b.im, -(a.im * b.re))};
}
template <class N> INLINE void add_conjugate_times(Complex<N> &sum, Complex<N> a, Complex<N> b) {
  sum.re = fma_(a.re, b.re, fma_(a.im, b.im, sum.re));
  sum.im = fma_(a.re, b.im, fma_(-a.im, b.re, sum.im));
}
INLINE int parity(uint32_t x) { return __builtin_parity(x); }

// Signs of lanes whose number has an odd parity with a mask, and lanes in the order of their numbers xor a mask.
template <class T> struct LaneTables {
  typename Lanes<T>::V sign[Lanes<T>::W];
  typename Lanes<T>::I partner[Lanes<T>::W];
  LaneTables() {
    for (int mask = 0; mask < Lanes<T>::W; ++mask)
      for (int l = 0; l < Lanes<T>::W; ++l) sign[mask][l] = parity(l & mask) ? T(-1) : T(1), partner[mask][l] = l ^ mask;
  }
};
template <class T> static const LaneTables<T> &lane_tables() {
  static const LaneTables<T> tables;
  return tables;
}

// One rotation, ready for a loop: its cosine, and its sine times the sign of f where (k.z) is even and where it is odd.
template <class T> struct Turn {
  typename Lanes<T>::V cosine, sine[2];
  typename Lanes<T>::I partner;
  uint32_t x, z;  // of vectors
  int flip;       // parity that a partner has beside its own
  bool imaginary, moved;
};

// a, b -> c a + t f b, c b + u f a, f being 1 or i; MOVED: b's lanes in the order of `partner`, and a's.
template <bool IMAGINARY, bool MOVED, class V, class I>
INLINE void rotate(Complex<V> &a, Complex<V> &b, V c, V t, V u, I partner) {
  const Complex<V> from_a = MOVED ? Complex<V>{permuted(a.re, partner), permuted(a.im, partner)} : a;
  const Complex<V> from_b = MOVED ? Complex<V>{permuted(b.re, partner), permuted(b.im, partner)} : b;
  if (IMAGINARY) {
    a = {fma_(c, a.re, -(t * from_b.im)), fma_(c, a.im, t * from_b.re)};
    b = {fma_(c, b.re, -(u * from_a.im)), fma_(c, b.im, u * from_a.re)};
  } else {
    a = {fma_(c, a.re, t * from_b.re), fma_(c, a.im, t * from_b.im)};
    b = {fma_(c, b.re, u * from_a.re), fma_(c, b.im, u * from_a.im)};
  }
}

// Re<slope|f|state>, f being 1 or i.
template <bool IMAGINARY, bool MOVED, class V, class I> INLINE V overlap(Complex<V> slope, Complex<V> state, I partner) {
  if (MOVED) state = {permuted(state.re, partner), permuted(state.im, partner)};
  if (IMAGINARY) return fma_(slope.im, state.re, -(slope.re * state.im));
  return fma_(slope.re, state.re, slope.im * state.im);
}

INLINE int64_t spaced(int64_t i, int64_t bit) { return ((i & ~(bit - 1)) << 1) | (i & (bit - 1)); }
INLINE int64_t top(uint32_t x) { return int64_t(1) << (31 - __builtin_clz(x)); }

// The loops over `size` vectors. `base`: parity that all of them have beside their own. TWO: r, then q; r.x and q.x
// differ and are not 0.
template <class T, bool IMAGINARY, bool MOVED> struct Loops {
  typedef typename Lanes<T>::V V;
  typedef Complex<V> C;
  typedef Turn<T> R;

  static void forward(C *x, int64_t size, const R &r, int base) {
    if (!r.x) {
      for (int64_t k = 0; k < size; ++k) {
        const V t = r.sine[parity(uint32_t(k) & r.z) ^ base];
        C own = x[k];
        rotate<IMAGINARY, MOVED>(x[k], own, r.cosine, t, t, r.partner);
      }
      return;
    }
    const int64_t pivot = top(r.x);
    for (int64_t i = 0; i < size / 2; ++i) {
      const int64_t k = spaced(i, pivot);
      const int e = parity(uint32_t(k) & r.z) ^ base;
      C a = x[k], b = x[k ^ r.x];
      rotate<IMAGINARY, MOVED>(a, b, r.cosine, r.sine[e], r.sine[e ^ r.flip], r.partner);
      x[k] = a, x[k ^ r.x] = b;
    }
  }

  static void forward(C *x, int64_t size, const R &r, int r_base, const R &q, int q_base) {
    int64_t first, second;
    quads(r.x, q.x, first, second);
    const int r_other = parity(q.x & r.z), q_other = parity(r.x & q.z);
    for (int64_t i = 0; i < size / 4; ++i) {
      const int64_t k = spaced(spaced(i, first), second), l = k ^ r.x, m = k ^ q.x, n = l ^ q.x;
      const int e = parity(uint32_t(k) & r.z) ^ r_base, f = parity(uint32_t(k) & q.z) ^ q_base;
      C a = x[k], b = x[l], c = x[m], d = x[n];
      rotate<IMAGINARY, MOVED>(a, b, r.cosine, r.sine[e], r.sine[e ^ r.flip], r.partner);
      rotate<IMAGINARY, MOVED>(c, d, r.cosine, r.sine[e ^ r_other], r.sine[e ^ r_other ^ r.flip], r.partner);
      rotate<IMAGINARY, MOVED>(a, c, q.cosine, q.sine[f], q.sine[f ^ q.flip], q.partner);
      rotate<IMAGINARY, MOVED>(b, d, q.cosine, q.sine[f ^ q_other], q.sine[f ^ q_other ^ q.flip], q.partner);
      x[k] = a, x[l] = b, x[m] = c, x[n] = d;
    }
  }

  // Undo rotations of state x and slope y; add each one's overlap to its sum.
  static void backward(C *x, C *y, int64_t size, const R &r, int base, V &sum) {
    V total = sum;
    if (!r.x) {
      for (int64_t k = 0; k < size; ++k) {
        const int e = parity(uint32_t(k) & r.z) ^ base;
        total = fma_(overlap<IMAGINARY, MOVED>(y[k], x[k], r.partner), sign(e), total);
        C state = x[k], slope = y[k];
        rotate<IMAGINARY, MOVED>(x[k], state, r.cosine, r.sine[e], r.sine[e], r.partner);
        rotate<IMAGINARY, MOVED>(y[k], slope, r.cosine, r.sine[e], r.sine[e], r.partner);
      }
    } else {
      const int64_t pivot = top(r.x);
      for (int64_t i = 0; i < size / 2; ++i) {
        const int64_t k = spaced(i, pivot), l = k ^ r.x;
        undo(x[k], x[l], y[k], y[l], r, parity(uint32_t(k) & r.z) ^ base, total);
      }
    }
    sum = total;
  }

  static void backward(C *x, C *y, int64_t size, const R &r, int r_base, V &r_sum, const R &q, int q_base, V &q_sum) {
    int64_t first, second;
    quads(r.x, q.x, first, second);
    const int r_other = parity(q.x & r.z), q_other = parity(r.x & q.z);
    V r_total = r_sum, q_total = q_sum;
    for (int64_t i = 0; i < size / 4; ++i) {
      const int64_t k = spaced(spaced(i, first), second), l = k ^ r.x, m = k ^ q.x, n = l ^ q.x;
      const int e = parity(uint32_t(k) & r.z) ^ r_base, f = parity(uint32_t(k) & q.z) ^ q_base;
      undo(x[k], x[m], y[k], y[m], q, f, q_total);
      undo(x[l], x[n], y[l], y[n], q, f ^ q_other, q_total);
      undo(x[k], x[l], y[k], y[l], r, e, r_total);
      undo(x[m], x[n], y[m], y[n], r, e ^ r_other, r_total);
    }
    r_sum = r_total, q_sum = q_total;
  }

 private:
  static MEMBER V sign(int e) { return e ? splat(T(-1)) : splat(T(1)); }
  static MEMBER void undo(C &a, C &b, C &slope_a, C &slope_b, const R &r, int e, V &sum) {
    sum = fma_(overlap<IMAGINARY, MOVED>(slope_a, b, r.partner), sign(e), sum);
    sum = fma_(overlap<IMAGINARY, MOVED>(slope_b, a, r.partner), sign(e ^ r.flip), sum);
    rotate<IMAGINARY, MOVED>(a, b, r.cosine, r.sine[e], r.sine[e ^ r.flip], r.partner);
    rotate<IMAGINARY, MOVED>(slope_a, slope_b, r.cosine, r.sine[e], r.sine[e ^ r.flip], r.partner);
  }
  // The two bits that are 0 in one vector of each four.
  static void quads(uint32_t x, uint32_t y, int64_t &first, int64_t &second) {
    const int64_t a = top(x), b = top(y & a ? y ^ x : y);
    first = a < b ? a : b, second = a < b ? b : a;
  }
};

#endif
