// A program of Pauli rotations over a batch of circuits: states, probabilities, Pauli strings and their gradients.
//
// circuits/_program.py compiles a circuit to a start state, rotations exp(-i a P / 2) in groups, and what is read of the
// final state; circuits/_native_program.py packs it and calls `run`. Every gate of a circuit is such a rotation, or moves basis
// states and is part of the masks.
//
// A mask's low bits number vectors of amplitudes. Either a vector holds one amplitude of W circuits (`WIDE` false), or W
// amplitudes of one circuit, and the last bits of a mask number its lanes. Which of the two is a property of the program,
// and each sum has a fixed order, so bits do not depend on the batch, on its cut or on threads.
//
// The gradient is that of the adjoint method (Jones and Gacon, arXiv 2009.02823): gates are undone on the way back.

#include "lanes.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

struct Rotation {
  uint32_t x, z;       // the string's bits: X or Y, Z or Y
  float sign;          // of s * f, f_k = sign * (-1)^(k.z) * (imaginary ? i : 1), where -i P psi = f_k psi_{k ^ x}
  int32_t imaginary;
};

struct Step {  // ONE: rotation a. TWO: a, then b. DIAGONAL: b sets from the set a on
  int32_t kind, a, b;
};

struct Set {  // up to four rotations of Z strings; `table` names the parities of all vectors
  int32_t size, rotation[4], table;
};

struct Program {
  int64_t n_qubits, n_vectors, n_slots, n_rotations, n_steps, n_opened, n_strings, n_diagonal, n_outputs, n_read;
  const double *offset;        // of each rotation's angle
  const int64_t *first_term;   // n_rotations + 1
  const int32_t *slot;         // of each term
  const double *factor;
  const Rotation *rotations;
  const Step *steps;
  const Set *sets;
  const uint8_t *parities;     // (table, n_vectors): bit j is the parity of rotation j of a set
  const uint8_t *lane_parities;  // (table, W)
  const int32_t *opened;       // (n_opened, 2): qubit and rotation, by qubit
  const Rotation *strings;     // observables: the first n_diagonal are Z strings
  const int64_t *first_string; // n_outputs + 1: the strings of each output, as indices with weights
  const int32_t *output_string;
  const double *weight;
  const int32_t *source;       // n_read: the amplitude that is read at each place
  const uint8_t *phase;        // n_read: its power of i
};

enum { ONE, TWO, DIAGONAL };
enum { STRINGS, PROBABILITIES, STATES };

template <class N> struct Complex {
  N re, im;
};

template <class T> INLINE T sign_of(bool odd) { return odd ? T(-1) : T(1); }

template <class T, bool WIDE> struct Simulation {
  typedef typename Lanes<T>::V V;
  typedef typename Lanes<T>::I I;
  typedef typename std::conditional<WIDE, T, V>::type N;  // an angle's cosine: of one circuit, or of W
  typedef Complex<V> C;
  static const int W = Lanes<T>::W;

  const Program &p;
  C *psi, *lambda;
  N *cosine, *sine, *slope;  // slope: of the loss, in each rotation's angle
  N *value_slope;            // in each slot
  Complex<N> *opening;       // (n_qubits, 2), each qubit before the first gate on two
  Complex<N> *opening_slope;
  V *sums;                   // n_strings
  C *table;                  // 16 phases a set of the step at hand
  V signs[2];

  static int64_t bytes(const Program &p, bool gradient) {
    return sizeof(C) * p.n_vectors * (gradient ? 2 : 1) + sizeof(N) * (3 * p.n_rotations + p.n_slots) +
           sizeof(C) * 4 * p.n_qubits + sizeof(V) * p.n_strings + sizeof(C) * 16 * most_sets(p) + 64 * 16;
  }
  static int64_t most_sets(const Program &p) {
    int64_t most = 0;
    for (int64_t i = 0; i < p.n_steps; ++i)
      if (p.steps[i].kind == DIAGONAL) most = std::max<int64_t>(most, p.steps[i].b);
    return most;
  }

  Simulation(const Program &program, char *memory, bool gradient) : p(program) {
    auto take = [&](int64_t size) {
      char *start = memory;
      memory += (size + 63) / 64 * 64;
      return start;
    };
    psi = (C *)take(sizeof(C) * p.n_vectors);
    lambda = (C *)take(gradient ? sizeof(C) * p.n_vectors : 0);
    cosine = (N *)take(sizeof(N) * p.n_rotations);
    sine = (N *)take(sizeof(N) * p.n_rotations);
    slope = (N *)take(sizeof(N) * p.n_rotations);
    value_slope = (N *)take(sizeof(N) * p.n_slots);
    opening = (Complex<N> *)take(sizeof(Complex<N>) * 2 * p.n_qubits);
    opening_slope = (Complex<N> *)take(sizeof(Complex<N>) * 2 * p.n_qubits);
    sums = (V *)take(sizeof(V) * p.n_strings);
    table = (C *)take(sizeof(C) * 16 * most_sets(p));
    signs[0] = splat(T(1)), signs[1] = splat(T(-1));
  }

  MEMBER V wide(T x) { return splat(x); }
  MEMBER V wide(V x) { return x; }

  // ---- lanes that are amplitudes
  static MEMBER int lane_of(uint32_t mask, int64_t n_vectors) { return WIDE ? int(mask / n_vectors) : 0; }
  I partner_lanes(uint32_t x) const {
    I index;
    for (int l = 0; l < W; ++l) index[l] = l ^ lane_of(x, p.n_vectors);
    return index;
  }
  V lane_signs(uint32_t z) const {
    V v;
    for (int l = 0; l < W; ++l) v[l] = sign_of<T>(__builtin_parity(l & lane_of(z, p.n_vectors)));
    return v;
  }
  MEMBER V moved(V v, I index) { return WIDE ? permuted(v, index) : v; }
  uint32_t low(uint32_t mask) const { return mask & uint32_t(p.n_vectors - 1); }

  // ---- cosines and sines of half the angles
  void angles(const T *values, int64_t stride, int64_t circuits) {
    if (WIDE) {
      for (int64_t o = 0; o < p.n_rotations; o += 8) {
        Doubles half = splat(0.0), c, s;
        const int size = int(std::min<int64_t>(8, p.n_rotations - o));
        for (int j = 0; j < size; ++j) half[j] = 0.5 * angle(o + j, [&](int32_t slot) { return double(values[slot]); });
        cos_sin(half, c, s);
        for (int j = 0; j < size; ++j) ((T *)cosine)[o + j] = T(c[j]), ((T *)sine)[o + j] = T(s[j]);
      }
      return;
    }
    for (int64_t o = 0; o < p.n_rotations; ++o)
      for (int part = 0; part < W; part += 8) {
        Doubles half = splat(p.offset[o]), c, s;
        for (int64_t t = p.first_term[o]; t < p.first_term[o + 1]; ++t) {
          Doubles value;
          // A short block repeats its last circuit.
          for (int l = 0; l < 8; ++l) value[l] = values[std::min<int64_t>(part + l, circuits - 1) * stride + p.slot[t]];
          half = fma_(value, splat(p.factor[t]), half);
        }
        half *= 0.5;
        cos_sin(half, c, s);
        T *cosines = (T *)&cosine[o] + part, *sines = (T *)&sine[o] + part;
        for (int l = 0; l < 8; ++l) cosines[l] = T(c[l]), sines[l] = T(s[l]);
      }
  }
  template <class F> double angle(int64_t o, F value) const {
    double sum = p.offset[o];
    for (int64_t t = p.first_term[o]; t < p.first_term[o + 1]; ++t) sum = fma_(value(p.slot[t]), p.factor[t], sum);
    return sum;
  }

  // ---- the product state before the first gate on two qubits
  // Apply one rotation to one qubit; `turn`: 1, or -1 to undo it.
  MEMBER void turn_qubit(const Rotation &r, N c, N s, Complex<N> *v) {
    for (int k = 0; k < (r.x ? 1 : 2); ++k) {  // exchanges both amplitudes, or turns each phase
      const N t = s * sign_of<T>(k && r.z);
      Complex<N> &a = v[k], &b = v[r.x ? 1 : k];
      const N u = r.x && r.z ? -t : t;
      const Complex<N> a0 = a, b0 = b;
      if (r.imaginary) {
        a.re = fma_(c, a0.re, -(t * b0.im)), a.im = fma_(c, a0.im, t * b0.re);
        if (r.x) b.re = fma_(c, b0.re, -(u * a0.im)), b.im = fma_(c, b0.im, u * a0.re);
      } else {
        a.re = fma_(c, a0.re, t * b0.re), a.im = fma_(c, a0.im, t * b0.im);
        if (r.x) b.re = fma_(c, b0.re, u * a0.re), b.im = fma_(c, b0.im, u * a0.im);
      }
    }
  }
  // Return Re<slope|f|v>, f as at Rotation, without its sign.
  MEMBER N qubit_overlap(const Rotation &r, const Complex<N> *v, const Complex<N> *slope_v) {
    N sum = v[0].re * T(0);
    for (int k = 0; k < 2; ++k) {
      const Complex<N> &a = slope_v[k], &b = v[r.x ? 1 - k : k];
      const N term = r.imaginary ? fma_(a.im, b.re, -(a.re * b.im)) : fma_(a.re, b.re, a.im * b.im);
      sum = fma_(term, term * T(0) + sign_of<T>(k && r.z), sum);
    }
    return sum;
  }

  void open() {
    const N zero = cosine[0] * T(0);
    for (int64_t q = 0; q < p.n_qubits; ++q) {
      opening[2 * q] = {zero + T(1), zero};
      opening[2 * q + 1] = {zero, zero};
    }
    for (int64_t i = 0; i < p.n_opened; ++i) {
      const int32_t o = p.opened[2 * i + 1];
      const Rotation &r = p.rotations[o];
      turn_qubit(r, cosine[o], sine[o] * T(r.sign), opening + 2 * p.opened[2 * i]);
    }
    spread(psi, p.n_vectors);
  }
  MEMBER C times(C a, C b) {
    return {fma_(a.re, b.re, -(a.im * b.im)), fma_(a.re, b.im, a.im * b.re)};
  }
  MEMBER C conjugate_times(C a, C b) {
    return {fma_(a.re, b.re, a.im * b.im), fma_(a.re, b.im, -(a.im * b.re))};
  }
  // Fill the first `size` vectors of x with the product of the qubits that number them, and of those of the lanes.
  void spread(C *x, int64_t size) {
    x[0] = lane_product();
    for (int64_t q = 0, half = 1; half < size; ++q, half *= 2) {
      const C v0 = {wide(opening[2 * q].re), wide(opening[2 * q].im)};
      const C v1 = {wide(opening[2 * q + 1].re), wide(opening[2 * q + 1].im)};
      for (int64_t k = 0; k < half; ++k) {
        x[half + k] = times(v1, x[k]);
        x[k] = times(v0, x[k]);
      }
    }
  }
  C lane_product() {
    C x = {splat(T(1)), splat(T(0))};
    if (!WIDE) return x;
    for (int q = 0; q < Lanes<T>::BITS; ++q) {
      const Complex<N> *v = opening + 2 * (p.n_qubits - Lanes<T>::BITS + q);
      C factor;
      for (int l = 0; l < W; ++l) factor.re[l] = scalar(v[l >> q & 1].re), factor.im[l] = scalar(v[l >> q & 1].im);
      x = times(factor, x);
    }
    return x;
  }
  MEMBER T scalar(T x) { return x; }
  MEMBER T scalar(V x) { return x[0]; }
  MEMBER T summed(V v, T) { return lane_sum<T>(v); }
  MEMBER V summed(V v, V) { return v; }
  N summed(V v) { return summed(v, N()); }

  // Slopes of the opening's rotations from lambda; overwrites psi and lambda.
  void close() {
    // Levels of the spreading: psi[2^q - 1 ...] of 2^q vectors, before qubit q.
    int n_low = 0;
    while ((int64_t(1) << n_low) < p.n_vectors) ++n_low;
    psi[0] = lane_product();
    for (int q = 0; q + 1 < n_low; ++q) {
      const int64_t size = int64_t(1) << q;
      const C *from = psi + size - 1;
      C *to = psi + 2 * size - 1;
      for (int b = 0; b < 2; ++b) {
        const C v = {wide(opening[2 * q + b].re), wide(opening[2 * q + b].im)};
        for (int64_t k = 0; k < size; ++k) to[b * size + k] = times(v, from[k]);
      }
    }
    for (int q = n_low - 1; q >= 0; --q) {
      const int64_t size = int64_t(1) << q;
      const C *level = psi + size - 1;
      const C v0 = {wide(opening[2 * q].re), wide(opening[2 * q].im)};
      const C v1 = {wide(opening[2 * q + 1].re), wide(opening[2 * q + 1].im)};
      C sum[2] = {{splat(T(0)), splat(T(0))}, {splat(T(0)), splat(T(0))}};
      for (int64_t k = 0; k < size; ++k) {
        const C low = lambda[k], high = lambda[size + k], x = level[k];
        add_conjugate_times(sum[0], x, low);
        add_conjugate_times(sum[1], x, high);
        const C a = conjugate_times(v0, low), b = conjugate_times(v1, high);
        lambda[k] = {a.re + b.re, a.im + b.im};
      }
      for (int b = 0; b < 2; ++b) opening_slope[2 * q + b] = {summed(sum[b].re), summed(sum[b].im)};
    }
    if (WIDE) close_lanes(lambda[0]);
    for (int64_t i = p.n_opened - 1; i >= 0; --i) {
      const int32_t q = p.opened[2 * i], o = p.opened[2 * i + 1];
      const Rotation &r = p.rotations[o];
      slope[o] = qubit_overlap(r, opening + 2 * q, opening_slope + 2 * q) * T(0.5 * r.sign);
      const N back = sine[o] * T(-r.sign);
      turn_qubit(r, cosine[o], back, opening + 2 * q);
      turn_qubit(r, cosine[o], back, opening_slope + 2 * q);
    }
  }
  MEMBER void add_conjugate_times(C &sum, C a, C b) {
    sum.re = fma_(a.re, b.re, fma_(a.im, b.im, sum.re));
    sum.im = fma_(a.re, b.im, fma_(-a.im, b.re, sum.im));
  }
  // The same for the qubits of the lanes, one amplitude at a time.
  void close_lanes(C slope_of_product) {
    typedef Complex<T> S;
    S level[Lanes<T>::BITS + 1][W], back[W];
    const int first = int(p.n_qubits) - Lanes<T>::BITS;
    auto qubit = [&](int q, int b) -> S { return {scalar(opening[2 * (first + q) + b].re), scalar(opening[2 * (first + q) + b].im)}; };
    level[0][0] = {T(1), T(0)};
    for (int q = 0; q < Lanes<T>::BITS; ++q)
      for (int k = 0; k < 2 << q; ++k) {
        const S v = qubit(q, k >> q), x = level[q][k & ((1 << q) - 1)];
        level[q + 1][k] = {fma_(v.re, x.re, -(v.im * x.im)), fma_(v.re, x.im, v.im * x.re)};
      }
    for (int l = 0; l < W; ++l) back[l] = {slope_of_product.re[l], slope_of_product.im[l]};
    for (int q = Lanes<T>::BITS - 1; q >= 0; --q) {
      S sum[2] = {};
      S next[W] = {};
      for (int k = 0; k < 2 << q; ++k) {
        const int bit = k >> q, j = k & ((1 << q) - 1);
        const S v = qubit(q, bit), x = level[q][j], l = back[k];
        sum[bit].re = fma_(x.re, l.re, fma_(x.im, l.im, sum[bit].re));
        sum[bit].im = fma_(x.re, l.im, fma_(-x.im, l.re, sum[bit].im));
        next[j].re += fma_(v.re, l.re, v.im * l.im);
        next[j].im += fma_(v.re, l.im, -(v.im * l.re));
      }
      for (int b = 0; b < 2; ++b) assign(opening_slope[2 * (first + q) + b], sum[b]);
      std::copy(next, next + W, back);
    }
  }
  MEMBER void assign(Complex<T> &to, Complex<T> from) { to = from; }
  MEMBER void assign(Complex<V> &, Complex<T>) {}

  // ---- rotations
  struct Turn {  // of one rotation, ready for a loop
    V c, t[2];   // cosine; sine times the sign of f, for an even and an odd parity
    uint32_t x, z;
    I partner;
    bool is_lane;  // moves amplitudes between lanes
    int flip;      // parity that the partner has beside its own
  };
  Turn turn(int32_t o, T direction) {
    const Rotation &r = p.rotations[o];
    Turn a;
    a.c = wide(cosine[o]);
    V t = wide(sine[o]) * splat(T(r.sign) * direction);
    if (WIDE) t *= lane_signs(r.z);
    a.t[0] = t, a.t[1] = -t;
    a.x = low(r.x), a.z = low(r.z);
    a.is_lane = WIDE && lane_of(r.x, p.n_vectors);
    if (WIDE) a.partner = partner_lanes(r.x);
    a.flip = __builtin_parity(a.x & a.z);
    return a;
  }
  // a, b -> c a + t f b, c b + u f a: f is 1, or i
  template <bool IMAGINARY, bool MOVED> MEMBER void rotate(C &a, C &b, V c, V t, V u, I partner) {
    const C from_b = MOVED ? C{permuted(b.re, partner), permuted(b.im, partner)} : b;
    const C from_a = MOVED ? C{permuted(a.re, partner), permuted(a.im, partner)} : a;
    if (IMAGINARY) {
      a = {fma_(c, a.re, -(t * from_b.im)), fma_(c, a.im, t * from_b.re)};
      b = {fma_(c, b.re, -(u * from_a.im)), fma_(c, b.im, u * from_a.re)};
    } else {
      a = {fma_(c, a.re, t * from_b.re), fma_(c, a.im, t * from_b.im)};
      b = {fma_(c, b.re, u * from_a.re), fma_(c, b.im, u * from_a.im)};
    }
  }
  // Re<slope|f|state>, f without its sign: 1, or i.
  template <bool IMAGINARY, bool MOVED> MEMBER V overlap(C slope_a, C b, I partner) {
    if (MOVED) b = {permuted(b.re, partner), permuted(b.im, partner)};
    if (IMAGINARY) return fma_(slope_a.im, b.re, -(slope_a.re * b.im));
    return fma_(slope_a.re, b.re, slope_a.im * b.im);
  }
  static MEMBER int64_t spaced(int64_t i, int64_t bit) { return ((i & ~(bit - 1)) << 1) | (i & (bit - 1)); }
  static int64_t top(uint32_t x) { return int64_t(1) << (31 - __builtin_clz(x)); }

  template <bool IMAGINARY, bool MOVED> void forward_one(const Turn &r) {
    if (!r.x) {  // within each vector
      for (int64_t k = 0; k < p.n_vectors; ++k) {
        const V t = r.t[__builtin_parity(uint32_t(k) & r.z)];
        C other = psi[k];
        rotate<IMAGINARY, MOVED>(psi[k], other, r.c, t, t, r.partner);
      }
      return;
    }
    const int64_t pivot = top(r.x);
    for (int64_t i = 0; i < p.n_vectors / 2; ++i) {
      const int64_t k = spaced(i, pivot);
      const int e = __builtin_parity(uint32_t(k) & r.z);
      rotate<IMAGINARY, MOVED>(psi[k], psi[k ^ r.x], r.c, r.t[e], r.t[e ^ r.flip], r.partner);
    }
  }
  // Undo a rotation of state and slope; return its own slope.
  template <bool IMAGINARY, bool MOVED> V backward_one(const Turn &r) {
    V sum = splat(T(0));
    if (!r.x) {
      for (int64_t k = 0; k < p.n_vectors; ++k) {
        const int e = __builtin_parity(uint32_t(k) & r.z);
        sum = fma_(overlap<IMAGINARY, MOVED>(lambda[k], psi[k], r.partner), signs[e], sum);
        C state = psi[k], adjoint = lambda[k];
        rotate<IMAGINARY, MOVED>(psi[k], state, r.c, r.t[e], r.t[e], r.partner);
        rotate<IMAGINARY, MOVED>(lambda[k], adjoint, r.c, r.t[e], r.t[e], r.partner);
      }
      return sum;
    }
    const int64_t pivot = top(r.x);
    for (int64_t i = 0; i < p.n_vectors / 2; ++i) {
      const int64_t k = spaced(i, pivot), j = k ^ r.x;
      undo<IMAGINARY, MOVED>(psi[k], psi[j], lambda[k], lambda[j], r, __builtin_parity(uint32_t(k) & r.z), sum);
    }
    return sum;
  }
  template <bool IMAGINARY, bool MOVED> MEMBER void undo(C &a, C &b, C &slope_a, C &slope_b, const Turn &r, int e, V &sum, const V *signs) {
    sum = fma_(overlap<IMAGINARY, MOVED>(slope_a, b, r.partner), signs[e], sum);
    sum = fma_(overlap<IMAGINARY, MOVED>(slope_b, a, r.partner), signs[e ^ r.flip], sum);
    rotate<IMAGINARY, MOVED>(a, b, r.c, r.t[e], r.t[e ^ r.flip], r.partner);
    rotate<IMAGINARY, MOVED>(slope_a, slope_b, r.c, r.t[e], r.t[e ^ r.flip], r.partner);
  }
  template <bool IMAGINARY, bool MOVED> MEMBER void undo(C &a, C &b, C &slope_a, C &slope_b, const Turn &r, int e, V &sum) {
    undo<IMAGINARY, MOVED>(a, b, slope_a, slope_b, r, e, sum, signs);
  }

  struct Quads {  // four vectors at a time that two rotations mix among themselves
    int64_t first, second;
    Quads(uint32_t x, uint32_t y) {
      const int64_t a = top(x);
      const int64_t b = top(y & a ? y ^ x : y);
      first = std::min(a, b), second = std::max(a, b);
    }
    int64_t operator()(int64_t i) const { return spaced(spaced(i, first), second); }
  };
  template <bool IMAGINARY, bool MOVED> void forward_two(const Turn &r, const Turn &q) {
    const Quads at(r.x, q.x);
    const int r_flip = __builtin_parity(q.x & r.z), q_flip = __builtin_parity(r.x & q.z);
    for (int64_t i = 0; i < p.n_vectors / 4; ++i) {
      const int64_t k = at(i);
      const int e = __builtin_parity(uint32_t(k) & r.z), f = __builtin_parity(uint32_t(k) & q.z);
      C a = psi[k], b = psi[k ^ r.x], c = psi[k ^ q.x], d = psi[k ^ r.x ^ q.x];
      rotate<IMAGINARY, MOVED>(a, b, r.c, r.t[e], r.t[e ^ r.flip], r.partner);
      rotate<IMAGINARY, MOVED>(c, d, r.c, r.t[e ^ r_flip], r.t[e ^ r_flip ^ r.flip], r.partner);
      rotate<IMAGINARY, MOVED>(a, c, q.c, q.t[f], q.t[f ^ q.flip], q.partner);
      rotate<IMAGINARY, MOVED>(b, d, q.c, q.t[f ^ q_flip], q.t[f ^ q_flip ^ q.flip], q.partner);
      psi[k] = a, psi[k ^ r.x] = b, psi[k ^ q.x] = c, psi[k ^ r.x ^ q.x] = d;
    }
  }
  template <bool IMAGINARY, bool MOVED> void backward_two(const Turn &r, const Turn &q, V &r_sum, V &q_sum) {
    const Quads at(r.x, q.x);
    const int r_flip = __builtin_parity(q.x & r.z), q_flip = __builtin_parity(r.x & q.z);
    V sum_r = splat(T(0)), sum_q = splat(T(0));
    for (int64_t i = 0; i < p.n_vectors / 4; ++i) {
      const int64_t k = at(i), l = k ^ r.x, m = k ^ q.x, n = l ^ q.x;
      const int e = __builtin_parity(uint32_t(k) & r.z), f = __builtin_parity(uint32_t(k) & q.z);
      undo<IMAGINARY, MOVED>(psi[k], psi[m], lambda[k], lambda[m], q, f, sum_q);
      undo<IMAGINARY, MOVED>(psi[l], psi[n], lambda[l], lambda[n], q, f ^ q_flip, sum_q);
      undo<IMAGINARY, MOVED>(psi[k], psi[l], lambda[k], lambda[l], r, e, sum_r);
      undo<IMAGINARY, MOVED>(psi[m], psi[n], lambda[m], lambda[n], r, e ^ r_flip, sum_r);
    }
    r_sum = sum_r, q_sum = sum_q;
  }
  // Call f<imaginary, moved>() with both known to the compiler.
  template <class F> MEMBER void chosen(bool imaginary, bool moved, F f) {
    if (WIDE && moved) {
      if (imaginary) f.template call<true, true>();
      else f.template call<false, true>();
    } else if (imaginary) f.template call<true, false>();
    else f.template call<false, false>();
  }
  struct ForwardOne {
    Simulation &s; const Turn &r;
    template <bool A, bool B> void call() { s.template forward_one<A, B>(r); }
  };
  struct BackwardOne {
    Simulation &s; const Turn &r; V &sum;
    template <bool A, bool B> void call() { sum = s.template backward_one<A, B>(r); }
  };
  struct ForwardTwo {
    Simulation &s; const Turn &r, &q;
    template <bool A, bool B> void call() { s.template forward_two<A, B>(r, q); }
  };
  struct BackwardTwo {
    Simulation &s; const Turn &r, &q; V &r_sum, &q_sum;
    template <bool A, bool B> void call() { s.template backward_two<A, B>(r, q, r_sum, q_sum); }
  };

  // ---- runs of Z strings: up to four share one table of 16 phases
  void phases(const Step &step, T direction) {
    for (int i = 0; i < step.b; ++i) {
      const Set &set = p.sets[step.a + i];
      Complex<N> x[16];
      const N zero = cosine[0] * T(0);
      x[0] = {zero + T(1), zero};
      for (int j = 0; j < set.size; ++j) {
        const int32_t o = set.rotation[j];
        const N c = cosine[o], s = sine[o] * T(p.rotations[o].sign * direction);
        for (int e = 0; e < 1 << j; ++e) {  // times c -+ i s
          const Complex<N> y = x[e];
          x[e | 1 << j] = {fma_(c, y.re, s * y.im), fma_(c, y.im, -(s * y.re))};
          x[e] = {fma_(c, y.re, -(s * y.im)), fma_(c, y.im, s * y.re)};
        }
      }
      for (int e = 0; e < 1 << set.size; ++e) spread_lanes(table[16 * i + e], x, e, p.lane_parities + set.table * W);
    }
  }
  MEMBER void spread_lanes(Complex<V> &to, const Complex<V> *x, int e, const uint8_t *) { to = x[e]; }
  MEMBER void spread_lanes(Complex<V> &to, const Complex<T> *x, int e, const uint8_t *lanes) {
    for (int l = 0; l < W; ++l) to.re[l] = x[e ^ lanes[l]].re, to.im[l] = x[e ^ lanes[l]].im;
  }
  void forward_diagonal(const Step &step) {
    phases(step, T(1));
    for (int i = 0; i < step.b; ++i) {
      const uint8_t *e = p.parities + p.sets[step.a + i].table * p.n_vectors;
      for (int64_t k = 0; k < p.n_vectors; ++k) psi[k] = times(table[16 * i + e[k]], psi[k]);
    }
  }
  void backward_diagonal(const Step &step) {
    phases(step, T(-1));
    for (int i = 0; i < step.b; ++i) {
      const Set &set = p.sets[step.a + i];
      const uint8_t *e = p.parities + set.table * p.n_vectors;
      const int size = 1 << set.size;
      V bins[16];
      for (int j = 0; j < size; ++j) bins[j] = splat(T(0));
      for (int64_t k = 0; k < p.n_vectors; ++k) {
        const C x = psi[k], y = lambda[k], turn = table[16 * i + e[k]];
        bins[e[k]] += fma_(y.im, x.re, -(y.re * x.im));
        psi[k] = times(turn, x);
        lambda[k] = times(turn, y);
      }
      for (int j = 0; j < set.size; ++j) {
        V sum = splat(T(0));
        for (int b = 0; b < size; ++b) sum = fma_(bins[b], signs[b >> j & 1], sum);
        add_slope(set.rotation[j], sum);
      }
    }
  }
  void add_slope(int32_t o, V sum) {
    const Rotation &r = p.rotations[o];
    if (WIDE) sum *= lane_signs(r.z);
    slope[o] = summed(sum) * T(0.5 * r.sign);
  }

  void forward() {
    open();
    for (int64_t i = 0; i < p.n_steps; ++i) {
      const Step &step = p.steps[i];
      if (step.kind == DIAGONAL) {
        forward_diagonal(step);
        continue;
      }
      const Turn r = turn(step.a, T(1));
      if (step.kind == ONE) {
        chosen(p.rotations[step.a].imaginary, r.is_lane, ForwardOne{*this, r});
      } else {
        const Turn q = turn(step.b, T(1));
        chosen(p.rotations[step.a].imaginary, r.is_lane || q.is_lane, ForwardTwo{*this, r, q});
      }
    }
  }
  void backward() {
    for (int64_t i = p.n_steps - 1; i >= 0; --i) {
      const Step &step = p.steps[i];
      if (step.kind == DIAGONAL) {
        backward_diagonal(step);
        continue;
      }
      const Turn r = turn(step.a, T(-1));
      V r_sum, q_sum;
      if (step.kind == ONE) {
        chosen(p.rotations[step.a].imaginary, r.is_lane, BackwardOne{*this, r, r_sum});
      } else {
        const Turn q = turn(step.b, T(-1));
        chosen(p.rotations[step.a].imaginary, r.is_lane || q.is_lane, BackwardTwo{*this, r, q, r_sum, q_sum});
        add_slope(step.b, q_sum);
      }
      add_slope(step.a, r_sum);
    }
    close();
  }

  // ---- what is read
  // Sum P psi of Z strings, eight vectors at a time: their sums over all signs, then each string's own.
  void read_strings() {
    const int64_t block = std::min<int64_t>(8, p.n_vectors);
    for (int64_t t = 0; t < p.n_strings; ++t) sums[t] = splat(T(0));
    for (int64_t k = 0; k < p.n_vectors && p.n_diagonal; k += block) {
      V x[8];
      for (int64_t j = 0; j < block; ++j) x[j] = fma_(psi[k + j].re, psi[k + j].re, psi[k + j].im * psi[k + j].im);
      walsh(x, block);
      for (int64_t t = 0; t < p.n_diagonal; ++t) {
        const uint32_t z = p.strings[t].z;
        sums[t] = fma_(x[z & (block - 1)], signs[__builtin_parity(uint32_t(k) & low(z))], sums[t]);
      }
    }
    for (int64_t t = p.n_diagonal; t < p.n_strings; ++t) {
      const Rotation &s = p.strings[t];
      const I partner = partner_lanes(s.x);
      for (int64_t k = 0; k < p.n_vectors; ++k) {
        const C a = psi[k], b = observed(s, k, partner);
        sums[t] += fma_(a.re, b.re, a.im * b.im);
      }
    }
    for (int64_t t = 0; t < p.n_strings; ++t) {
      if (WIDE) sums[t] *= lane_signs(p.strings[t].z);
      sums[t] *= splat(T(p.strings[t].sign));
    }
  }
  MEMBER void walsh(V *x, int64_t size) {
    for (int64_t half = 1; half < size; half *= 2)
      for (int64_t j = 0; j < size; ++j)
        if (!(j & half)) {
          const V a = x[j], b = x[j | half];
          x[j] = a + b, x[j | half] = a - b;
        }
  }
  // (P psi)_k of an observable, without its sign and the lanes': f is 1, or i, as of a rotation.
  MEMBER C observed(const Rotation &s, int64_t k, I partner) {
    C b = psi[k ^ low(s.x)];
    b = {moved(b.re, partner), moved(b.im, partner)};
    const V sign = signs[__builtin_parity(uint32_t(k) & low(s.z))];
    if (s.imaginary) return {-(b.im * sign), b.re * sign};
    return {b.re * sign, b.im * sign};
  }
  void slope_of_strings(const T *cotangent, int64_t stride, int64_t circuits) {
    const int64_t block = std::min<int64_t>(8, p.n_vectors);
    // The slope of each string: of its outputs' cotangents, with its sign and those of its lanes.
    for (int64_t t = 0; t < p.n_strings; ++t) sums[t] = splat(T(0));
    for (int64_t o = 0; o < p.n_outputs; ++o) {
      V w;
      for (int l = 0; l < W; ++l) w[l] = WIDE ? cotangent[o] : cotangent[std::min<int64_t>(l, circuits - 1) * stride + o];
      for (int64_t i = p.first_string[o]; i < p.first_string[o + 1]; ++i) {
        const int32_t t = p.output_string[i];
        sums[t] = fma_(w, splat(T(2 * p.weight[i] * p.strings[t].sign)), sums[t]);
      }
    }
    if (WIDE)
      for (int64_t t = 0; t < p.n_strings; ++t) sums[t] *= lane_signs(p.strings[t].z);
    for (int64_t k = 0; k < p.n_vectors; k += block) {
      V x[8];
      for (int j = 0; j < 8; ++j) x[j] = splat(T(0));
      for (int64_t t = 0; t < p.n_diagonal; ++t) {
        const uint32_t z = p.strings[t].z;
        V &place = x[z & (block - 1)];
        place = fma_(sums[t], signs[__builtin_parity(uint32_t(k) & low(z))], place);
      }
      walsh(x, block);
      for (int64_t j = 0; j < block; ++j) lambda[k + j] = {x[j] * psi[k + j].re, x[j] * psi[k + j].im};
    }
    for (int64_t t = p.n_diagonal; t < p.n_strings; ++t) {
      const Rotation &s = p.strings[t];
      const I partner = partner_lanes(s.x);
      for (int64_t k = 0; k < p.n_vectors; ++k) {
        const C b = observed(s, k, partner);
        lambda[k] = {fma_(sums[t], b.re, lambda[k].re), fma_(sums[t], b.im, lambda[k].im)};
      }
    }
  }
  void write_strings(T *out, int64_t circuits) {
    for (int64_t o = 0; o < p.n_outputs; ++o) {
      V sum = splat(T(0));
      for (int64_t i = p.first_string[o]; i < p.first_string[o + 1]; ++i)
        sum = fma_(sums[p.output_string[i]], splat(T(p.weight[i])), sum);
      if (WIDE) out[o] = lane_sum<T>(sum);
      else
        for (int64_t l = 0; l < circuits; ++l) out[l * p.n_outputs + o] = sum[l];
    }
  }
  // Amplitudes as they are read; `power` of i turns a state's.
  template <bool STATE> void write_amplitudes(T *out, int64_t circuits) {
    for (int64_t l = 0; l < (WIDE ? 1 : circuits); ++l)
      for (int64_t i = 0; i < p.n_read; ++i) {
        const int64_t from = p.source[i], lane = WIDE ? from / p.n_vectors : l;
        const C &x = psi[from & (p.n_vectors - 1)];
        const T re = x.re[lane], im = x.im[lane];
        T *place = out + (l * p.n_read + i) * (STATE ? 2 : 1);
        if (!STATE) *place = fma_(re, re, im * im);
        else {
          const int power = p.phase[i];
          const T a = power & 1 ? im : re, b = power & 1 ? re : im;  // times i: (-im, re)
          place[0] = power == 1 || power == 2 ? -a : a;
          place[1] = power == 2 || power == 3 ? -b : b;
        }
      }
  }
  template <bool STATE> void slope_of_amplitudes(const T *cotangent, int64_t stride, int64_t circuits) {
    std::memset((void *)lambda, 0, sizeof(C) * p.n_vectors);
    for (int64_t l = 0; l < (WIDE ? 1 : circuits); ++l)
      for (int64_t i = 0; i < p.n_read; ++i) {
        const int64_t from = p.source[i], lane = WIDE ? from / p.n_vectors : l, k = from & (p.n_vectors - 1);
        const T *w = cotangent + l * stride + i * (STATE ? 2 : 1);
        if (!STATE) {
          lambda[k].re[lane] = 2 * *w * psi[k].re[lane];
          lambda[k].im[lane] = 2 * *w * psi[k].im[lane];
        } else {  // times i^-power
          const int power = p.phase[i];
          const T a = power & 1 ? w[1] : w[0], b = power & 1 ? w[0] : w[1];
          lambda[k].re[lane] = power == 2 || power == 3 ? -a : a;
          lambda[k].im[lane] = power == 1 || power == 2 ? -b : b;
        }
      }
  }

  void run(int readout, const T *values, int64_t stride, int64_t circuits, T *out, const T *cotangent, int64_t cotangent_stride, T *gradient) {
    angles(values, stride, circuits);
    forward();
    if (readout == STRINGS && out) read_strings(), write_strings(out, circuits);
    if (readout == PROBABILITIES && out) write_amplitudes<false>(out, circuits);
    if (readout == STATES && out) write_amplitudes<true>(out, circuits);
    if (!gradient) return;
    if (readout == STRINGS) slope_of_strings(cotangent, cotangent_stride, circuits);
    if (readout == PROBABILITIES) slope_of_amplitudes<false>(cotangent, cotangent_stride, circuits);
    if (readout == STATES) slope_of_amplitudes<true>(cotangent, cotangent_stride, circuits);
    backward();
    const N zero = cosine[0] * T(0);
    for (int64_t s = 0; s < p.n_slots; ++s) value_slope[s] = zero;
    for (int64_t o = 0; o < p.n_rotations; ++o)
      for (int64_t t = p.first_term[o]; t < p.first_term[o + 1]; ++t) {
        N &place = value_slope[p.slot[t]];
        place = fma_(slope[o], zero + T(p.factor[t]), place);
      }
    for (int64_t l = 0; l < (WIDE ? 1 : circuits); ++l)
      for (int64_t s = 0; s < p.n_slots; ++s) gradient[l * p.n_slots + s] = ((const T *)&value_slope[s])[l];
  }
};

// Memory of a thread, kept from call to call while it is small.
struct Scratch {
  char *memory = nullptr;
  int64_t size = 0;
  char *get(int64_t wanted) {
    if (wanted > size) {
      std::free(memory);
      size = (wanted + 4095) / 4096 * 4096;
      memory = (char *)std::aligned_alloc(4096, size);
      if (!memory) size = 0;
    }
    return memory;
  }
  void shrink() {
    if (size <= int64_t(1) << 26) return;
    std::free(memory);
    memory = nullptr, size = 0;
  }
  ~Scratch() { std::free(memory); }
};
static thread_local Scratch scratch;

template <class T, bool WIDE>
static int run_all(const Program &p, int readout, const T *values, int64_t stride, int64_t circuits, T *out, const T *cotangent,
                   int64_t cotangent_stride, T *gradient, int threads) {
  const int64_t block = WIDE ? 1 : Lanes<T>::W, n_blocks = (circuits + block - 1) / block;
  const int64_t row = readout == STRINGS ? p.n_outputs : p.n_read * (readout == STATES ? 2 : 1);
  int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1 && n_blocks > 1)
  {
    char *memory = scratch.get(Simulation<T, WIDE>::bytes(p, gradient));
    if (!memory) {
#pragma omp atomic write
      failed = 1;
    }
    Simulation<T, WIDE> simulation(p, memory, gradient);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < n_blocks; ++i) {
      const int64_t first = i * block;
      if (memory)
        simulation.run(readout, values + first * stride, stride, std::min(block, circuits - first), out ? out + first * row : nullptr,
                       cotangent ? cotangent + first * cotangent_stride : nullptr, cotangent_stride,
                       gradient ? gradient + first * p.n_slots : nullptr);
    }
    scratch.shrink();
  }
  return failed;
}

// Simulate `circuits` rows of values, `stride` numbers apart. `out` and `gradient` may be null. Returns 0, or 1: no memory.
extern "C" int run_double(const Program *p, int wide, int readout, const double *values, int64_t stride, int64_t circuits, double *out,
                          const double *cotangent, int64_t cotangent_stride, double *gradient, int threads) {
  return (wide ? run_all<double, true> : run_all<double, false>)(*p, readout, values, stride, circuits, out, cotangent, cotangent_stride, gradient, threads);
}
extern "C" int run_float(const Program *p, int wide, int readout, const float *values, int64_t stride, int64_t circuits, float *out,
                         const float *cotangent, int64_t cotangent_stride, float *gradient, int threads) {
  return (wide ? run_all<float, true> : run_all<float, false>)(*p, readout, values, stride, circuits, out, cotangent, cotangent_stride, gradient, threads);
}
