// The maps of one wire of a chain of DEPTH layers and their transposes (docs/chain_engine.md has the derivation).
//
// A wire takes the carries of its left neighbour to those for its right one: 4**(DEPTH-1) numbers, the carry of layer 1
// slowest; a carry is one of r, s, d, i. Layer by layer, no map is larger than 16 x 16, and no entry that is zero for
// all rotations is multiplied. Numbers are N: vectors of lanes, or with -DDUAL a vector with its derivative beside it.

#include "chain_lanes.h"

typedef Lanes<REAL>::V V;
static constexpr int W = Lanes<REAL>::W, D = DEPTH;

#ifdef DUAL
struct N {
  V x, d;
};
INLINE N operator+(N a, N b) { return {a.x + b.x, a.d + b.d}; }
INLINE N operator-(N a, N b) { return {a.x - b.x, a.d - b.d}; }
INLINE N operator-(N a) { return {-a.x, -a.d}; }
INLINE N operator*(N a, N b) { return {a.x * b.x, fused(a.x, b.d, a.d * b.x)}; }
INLINE N fused(N a, N b, N c) { return {fused(a.x, b.x, c.x), fused(a.x, b.d, fused(a.d, b.x, c.d))}; }
INLINE N number(REAL x) { return {every_lane(x), V{}}; }
#else
typedef V N;
INLINE N number(REAL x) { return every_lane(x); }
#endif

static constexpr int power4(int k) { return 1 << 2 * k; }
static constexpr int VALUES = power4(D - 1), MIDDLES = D > 2 ? D - 2 : 0;
static constexpr int X = 0, Y = 1, Z = 2;

// A vector of Pauli components: I is 1 in front of the first CNOT, 0 in front of an observable.
struct Vector {
  N at[3];
};

// What a wire's maps are made of, or the derivatives by it.
struct Wire {
  Vector first;                                  // |+> or |0> behind the rotations of layer 1
  Vector matrix[MIDDLES ? MIDDLES : 1][3];       // the rotations of layers 2 to DEPTH-1: images of X, Y and Z
  Vector last;                                   // the observable in front of the rotations of the last layer
};

INLINE Vector cross(Vector a, Vector b) {
  Vector c;
  for (int i = 0; i < 3; i++) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    c.at[i] = fused(a.at[j], b.at[k], -(a.at[k] * b.at[j]));
  }
  return c;
}

// Layer 1, T_c of its carry and the vector behind its rotations: from a carry, x[0], x[S], ..., to the wire's (I, X, Y,
// Z), out[0], out[S], ....
template <int S>
INLINE void first(const N *x, N *out, const Vector &p) {
  out[0] = fused(p.at[X], x[0], x[S]);
  out[S] = fused(p.at[X], x[S], x[0]);
  out[2 * S] = fused(p.at[Y], x[2 * S], -(p.at[Z] * x[3 * S]));
  out[3 * S] = fused(p.at[Y], x[3 * S], p.at[Z] * x[2 * S]);
}

// The transpose: `bar` has the derivatives by `out`, then those by x. GRAD: adds those by p to `p_bar`.
template <int S, bool GRAD>
INLINE void first_bar(const N *x, N *bar, const Vector &p, Vector &p_bar) {
  if (GRAD) {
    p_bar.at[X] = fused(bar[0], x[0], fused(bar[S], x[S], p_bar.at[X]));
    p_bar.at[Y] = fused(bar[2 * S], x[2 * S], fused(bar[3 * S], x[3 * S], p_bar.at[Y]));
    p_bar.at[Z] = fused(bar[3 * S], x[2 * S], fused(-bar[2 * S], x[3 * S], p_bar.at[Z]));
  }
  const N i = bar[0], y = bar[2 * S];
  bar[0] = fused(p.at[X], i, bar[S]);
  bar[S] = fused(p.at[X], bar[S], i);
  bar[2 * S] = fused(p.at[Y], y, p.at[Z] * bar[3 * S]);
  bar[3 * S] = fused(p.at[Y], bar[3 * S], -(p.at[Z] * y));
}

// The last layer, C_j of the carry of layer DEPTH-1 and the observable: from (I, X, Y, Z) to a carry.
INLINE void last(const N *x, N *out, const Vector &e) {
  out[0] = fused(e.at[X], x[1], e.at[Y] * x[2]);
  out[1] = e.at[Z] * x[3];
  out[2] = e.at[Z] * x[0];
  out[3] = fused(e.at[Y], x[1], -(e.at[X] * x[2]));
}

INLINE void last_bar(const N *x, const N *bar, N *x_bar, const Vector &e, Vector &e_bar) {
  e_bar.at[X] = fused(bar[0], x[1], fused(-bar[3], x[2], e_bar.at[X]));
  e_bar.at[Y] = fused(bar[0], x[2], fused(bar[3], x[1], e_bar.at[Y]));
  e_bar.at[Z] = fused(bar[1], x[3], fused(bar[2], x[0], e_bar.at[Z]));
  x_bar[0] = e.at[Z] * bar[2];
  x_bar[1] = fused(e.at[X], bar[0], e.at[Y] * bar[3]);
  x_bar[2] = fused(e.at[Y], bar[0], -(e.at[X] * bar[3]));
  x_bar[3] = e.at[Z] * bar[1];
}

// A layer between: from (I, X, Y, Z) behind layer m-1 and the carry of layer m, x[4 * S * component + S * carry], to
// the carry of layer m-1 and (I, X, Y, Z) behind layer m, by C_j, the rotations and T_c. C_j leaves two components; a
// component that is turned goes by `turned` and its transpose, one that stays, I, by two additions.
template <int S>
INLINE void turned(const N *x, N *out, const Vector &m, bool minus) {  // x: a component's carries r, s, d, i
  const N a = minus ? -x[0] : x[0], b = minus ? -x[S] : x[S], c = minus ? -x[2 * S] : x[2 * S];
  const N d = minus ? -x[3 * S] : x[3 * S];
  out[0] = fused(m.at[X], a, out[0]);
  out[S] = fused(m.at[X], b, out[S]);
  out[2 * S] = fused(m.at[Y], c, fused(-m.at[Z], d, out[2 * S]));
  out[3 * S] = fused(m.at[Z], c, fused(m.at[Y], d, out[3 * S]));
}

template <int S, bool GRAD>
INLINE void turned_bar(const N *x, const N *bar, N *x_bar, const Vector &m, Vector &m_bar, bool minus) {
  const N a = minus ? -bar[0] : bar[0], b = minus ? -bar[S] : bar[S], c = minus ? -bar[2 * S] : bar[2 * S];
  const N d = minus ? -bar[3 * S] : bar[3 * S];
  x_bar[0] = fused(m.at[X], a, x_bar[0]);
  x_bar[S] = fused(m.at[X], b, x_bar[S]);
  x_bar[2 * S] = fused(m.at[Y], c, fused(m.at[Z], d, x_bar[2 * S]));
  x_bar[3 * S] = fused(m.at[Y], d, fused(-m.at[Z], c, x_bar[3 * S]));
  if (GRAD) {
    m_bar.at[X] = fused(a, x[0], fused(b, x[S], m_bar.at[X]));
    m_bar.at[Y] = fused(c, x[2 * S], fused(d, x[3 * S], m_bar.at[Y]));
    m_bar.at[Z] = fused(d, x[2 * S], fused(-c, x[3 * S], m_bar.at[Z]));
  }
}

template <int S>
INLINE void middle(const N *x, N *out, const Vector *m) {
  const N *i = x, *xs = x + 4 * S, *ys = x + 8 * S, *zs = x + 12 * S;
  N *r = out, *s = out + 4 * S, *d = out + 8 * S, *t = out + 12 * S;
  for (int k = 0; k < 4; k++) r[k * S] = t[k * S] = number(0);
  s[0] = i[S], s[S] = i[0], s[2 * S] = s[3 * S] = number(0);
  d[0] = zs[S], d[S] = zs[0], d[2 * S] = d[3 * S] = number(0);
  turned<S>(xs, r, m[X], false);
  turned<S>(ys, r, m[Y], false);
  turned<S>(zs, s, m[Z], false);
  turned<S>(i, d, m[Z], false);
  turned<S>(ys, t, m[X], true);
  turned<S>(xs, t, m[Y], false);
}

template <int S, bool GRAD>
INLINE void middle_bar(const N *x, N *bar, const Vector *m, Vector *m_bar) {
  N in[16], out[16], in_bar[16];
  for (int k = 0; k < 16; k++) in[k] = x[k * S], out[k] = bar[k * S], in_bar[k] = number(0);
  const N *r = out, *s = out + 4, *d = out + 8, *t = out + 12;
  in_bar[0] = s[1], in_bar[1] = s[0], in_bar[12] = d[1], in_bar[13] = d[0];
  turned_bar<1, GRAD>(in + 4, r, in_bar + 4, m[X], m_bar[X], false);
  turned_bar<1, GRAD>(in + 8, r, in_bar + 8, m[Y], m_bar[Y], false);
  turned_bar<1, GRAD>(in + 12, s, in_bar + 12, m[Z], m_bar[Z], false);
  turned_bar<1, GRAD>(in, d, in_bar, m[Z], m_bar[Z], false);
  turned_bar<1, GRAD>(in + 8, t, in_bar + 8, m[X], m_bar[X], true);
  turned_bar<1, GRAD>(in + 4, t, in_bar + 4, m[Y], m_bar[Y], false);
  for (int k = 0; k < 16; k++) bar[k * S] = in_bar[k];
}

// Layers 1 to L-1 of a wire of L layers. at[0]: carries; at[m]: behind layer m. `bar`: derivatives by at[L-1], then by
// at[0].
template <int L, int M = 1>
INLINE void layers(N (*at)[power4(L - 1)], const Wire &w) {
  if constexpr (M < L) {
    constexpr int S = power4(L - 1 - M);
    if constexpr (M == 1)
      for (int k = 0; k < S; k++) first<S>(at[0] + k, at[1] + k, w.first);
    else
      for (int lead = 0; lead < power4(L - 1); lead += 16 * S)
        for (int k = lead; k < lead + S; k++) middle<S>(at[M - 1] + k, at[M] + k, w.matrix[M - 2]);
    layers<L, M + 1>(at, w);
  }
}

template <int L, bool GRAD, int M = L - 1>
INLINE void layers_bar(const N (*at)[power4(L - 1)], N *bar, const Wire &w, Wire &w_bar) {
  if constexpr (M > 0) {
    constexpr int S = power4(L - 1 - M);
    if constexpr (M == 1)
      for (int k = 0; k < S; k++) first_bar<S, GRAD>(at[0] + k, bar + k, w.first, w_bar.first);
    else
      for (int lead = 0; lead < power4(L - 1); lead += 16 * S)
        for (int k = lead; k < lead + S; k++)
          middle_bar<S, GRAD>(at[M - 1] + k, bar + k, w.matrix[M - 2], w_bar.matrix[M - 2]);
    layers_bar<L, GRAD, M - 1>(at, bar, w, w_bar);
  }
}

// The end of a wire: with the observable X or Z, or with none, where only I and Z behind layer DEPTH-1 are seen.
static constexpr int NOTHING = -1;

template <int OBSERVABLE>
INLINE void end(const N *x, N *out, const Wire &w) {
  if constexpr (D == 1) {
    out[0] = x[0];
    if constexpr (OBSERVABLE != NOTHING) out[0] = x[0] * w.first.at[OBSERVABLE];
  } else
    for (int k = 0; k < VALUES; k += 4)
      if constexpr (OBSERVABLE == NOTHING)
        out[k] = out[k + 3] = number(0), out[k + 1] = x[k], out[k + 2] = x[k + 3];
      else
        last(x + k, out + k, w.last);
}

template <int OBSERVABLE>
INLINE void end_bar(const N *x, const N *bar, N *x_bar, const Wire &w, Wire &w_bar) {
  if constexpr (D == 1) {
    x_bar[0] = bar[0];
    if constexpr (OBSERVABLE != NOTHING) {
      x_bar[0] = bar[0] * w.first.at[OBSERVABLE];
      w_bar.first.at[OBSERVABLE] = fused(bar[0], x[0], w_bar.first.at[OBSERVABLE]);
    }
  } else
    for (int k = 0; k < VALUES; k += 4)
      if constexpr (OBSERVABLE == NOTHING)
        x_bar[k] = bar[k + 1], x_bar[k + 1] = x_bar[k + 2] = number(0), x_bar[k + 3] = bar[k + 2];
      else
        last_bar(x + k, bar + k, x_bar + k, w.last, w_bar.last);
}

// A whole wire, from carries to carries, and its transpose: `bar` has the derivatives by `out`, then those by x.
#if DEPTH > 2
#define WHOLE static __attribute__((noinline))  // a call is nothing beside it, and its copies would compile long
#else
#define WHOLE INLINE
#endif
template <int OBSERVABLE>
WHOLE void passed(const N *x, N *out, const Wire &w) {
  N at[D][VALUES];
  for (int k = 0; k < VALUES; k++) at[0][k] = x[k];
  layers<D>(at, w);
  end<OBSERVABLE>(at[D - 1], out, w);
}

template <int OBSERVABLE>
WHOLE void passed_bar(const N *x, N *bar, const Wire &w, Wire &w_bar) {
  N at[D][VALUES], x_bar[VALUES];
  for (int k = 0; k < VALUES; k++) at[0][k] = x[k];
  layers<D>(at, w);
  end_bar<OBSERVABLE>(at[D - 1], bar, x_bar, w, w_bar);
  layers_bar<D, true>(at, x_bar, w, w_bar);
  for (int k = 0; k < VALUES; k++) bar[k] = x_bar[k];
}

// The transpose of `passed` without an observable and without derivatives.
WHOLE void passed_back(const N *bar, N *x_bar, const Wire &w) {
  Wire unused;
  if constexpr (D == 1)
    x_bar[0] = bar[0];
  else {
    N from[VALUES];
    for (int k = 0; k < VALUES; k++) from[k] = bar[k];
    end_bar<NOTHING>(nullptr, from, x_bar, w, unused);
    layers_bar<D, false>((N(*)[VALUES])x_bar, x_bar, w, unused);
  }
}

// A wire behind the observables, seen through its first L layers: from 4**L carries, STRIDE numbers apart by the last
// one, to 4**(L-1). Only the values r and s of the last carry matter, here and to the next wire, so only they are kept.
template <int L, int STRIDE>
WHOLE void traced(const N *x, N *out, const Wire &w) {
  if constexpr (L == 1)
    out[0] = fused(w.first.at[X], x[0], x[1]);
  else {
    constexpr int SIZE = power4(L - 1);
    N r[L][SIZE], s[L][SIZE];
    for (int k = 0; k < SIZE; k++) r[0][k] = x[STRIDE * k], s[0][k] = x[STRIDE * k + 1];
    layers<L>(r, w);
    layers<L>(s, w);
    const Vector *m = w.matrix[L - 2];
    for (int k = 0; k < SIZE; k += 4) {
      const N *a = r[L - 1] + k, *b = s[L - 1] + k;
      out[k / 2] = fused(m[X].at[X], a[1], m[Y].at[X] * a[2]);
      out[k / 2 + 1] = fused(m[Z].at[X], a[3], b[0]);
    }
  }
}

// The transpose; adds to `x_bar`.
template <int L, int STRIDE>
WHOLE void traced_bar(const N *x, const N *bar, N *x_bar, const Wire &w, Wire &w_bar) {
  if constexpr (L == 1) {
    x_bar[0] = fused(w.first.at[X], bar[0], x_bar[0]);
    x_bar[1] = x_bar[1] + bar[0];
    w_bar.first.at[X] = fused(bar[0], x[0], w_bar.first.at[X]);
  } else {
    constexpr int SIZE = power4(L - 1);
    N r[L][SIZE], s[L][SIZE], r_bar[SIZE], s_bar[SIZE];
    for (int k = 0; k < SIZE; k++) r[0][k] = x[STRIDE * k], s[0][k] = x[STRIDE * k + 1];
    layers<L>(r, w);
    layers<L>(s, w);
    const Vector *m = w.matrix[L - 2];
    Vector *m_bar = w_bar.matrix[L - 2];
    for (int k = 0; k < SIZE; k += 4) {
      const N *a = r[L - 1] + k, *bar_k = bar + k / 2;
      r_bar[k] = s_bar[k + 1] = s_bar[k + 2] = s_bar[k + 3] = number(0);
      r_bar[k + 1] = m[X].at[X] * bar_k[0], r_bar[k + 2] = m[Y].at[X] * bar_k[0];
      r_bar[k + 3] = m[Z].at[X] * bar_k[1], s_bar[k] = bar_k[1];
      m_bar[X].at[X] = fused(bar_k[0], a[1], m_bar[X].at[X]);
      m_bar[Y].at[X] = fused(bar_k[0], a[2], m_bar[Y].at[X]);
      m_bar[Z].at[X] = fused(bar_k[1], a[3], m_bar[Z].at[X]);
    }
    layers_bar<L, true>(r, r_bar, w, w_bar);
    layers_bar<L, true>(s, s_bar, w, w_bar);
    for (int k = 0; k < SIZE; k++) {
      x_bar[STRIDE * k] = x_bar[STRIDE * k] + r_bar[k];
      x_bar[STRIDE * k + 1] = x_bar[STRIDE * k + 1] + s_bar[k];
    }
  }
}
