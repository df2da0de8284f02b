// From angles in memory to wires, and from derivatives by wires to derivatives by angles in memory.

enum Kind { CHAIN, RING, ALL, NONE };

// Read from the last wire to the first and conjugated by H, all pairs are a chain: X and Z swapped, Y reversed.
static constexpr bool MIRRORED = KIND == ALL;
static constexpr int START = MIRRORED ? Z : X, OBSERVABLE = MIRRORED ? X : Z;

struct Task {
  int64_t n, r;
  const int32_t *axes;  // of the rotations of a layer: X, Y or Z
  const REAL *angles, *tangents, *cotangent;
  REAL *z, *gradient;
  bool recorded;       // a gradient is wanted
  int64_t sites;       // wires that are held at a time
  int64_t from, upto;  // rotations of the first layer before `from`, and of the last one behind `upto`, turn nothing

  int axis(int64_t i) const { return MIRRORED ? 2 - axes[i] : axes[i]; }
  bool reversed(int64_t i) const { return MIRRORED && axes[i] == Y; }
  bool used(int layer, int64_t i) const { return (layer || i >= from) && (!layer || layer < D - 1 || i <= upto); }
  bool paper;
  void find_used() {
    for (from = 0; from < r && axis(from) == START;) from++;
    for (upto = r - 1; upto >= 0 && axis(upto) == OBSERVABLE;) upto--;
    paper = r == 2 && axes[0] == Y && axes[1] == Z;
  }
};

INLINE N unit(bool one) { return number(one ? 1 : 0); }

INLINE Vector unit_vector(int axis) { return {{unit(axis == X), unit(axis == Y), unit(axis == Z)}}; }

// Turns a vector about an axis; BACK: by the negative angle.
template <bool BACK>
INLINE void turn(Vector &v, int axis, const N *cos_sin) {
  N &p = v.at[axis == 2 ? 0 : axis + 1], &q = v.at[axis == 0 ? 2 : axis - 1];
  const N c = cos_sin[0], s = BACK ? -cos_sin[1] : cos_sin[1], p_before = p;
  p = fused(p, c, -(q * s));
  q = fused(q, c, p_before * s);
}

// Behind the last wire: |+> and no rotations, so that a CNOT does nothing to it.
static Wire idle_wire() {
  Wire w;
  w.first = w.last = unit_vector(X);
  for (int m = 0; m < MIDDLES; m++)
    for (int q = X; q <= Z; q++) w.matrix[m][q] = unit_vector(q);
  return w;
}

// The rotations of a layer as the compiler may know them: those of the paper, (Ry, Rz), or any.
struct Paper {
  static constexpr int64_t r = 2, from = 0, upto = 0;  // mirrored too: (Ry, Rx) in front of an X
  explicit Paper(const Task &) {}
  static constexpr int axis(int64_t i) { return i == 0 ? Y : MIRRORED ? X : Z; }
};
struct Any {
  const Task &t;
  const int64_t r = t.r, from = t.from, upto = t.upto;
  explicit Any(const Task &task) : t(task) {}
  int axis(int64_t i) const { return t.axis(i); }
};

// cos_sin: of a wire, (layer, rotation, 2).
template <class Rotations>
INLINE void make_wire(const Rotations &of, const N *cos_sin, Wire &out) {
  Wire w;
  w.first = unit_vector(START);
  for (int64_t i = of.from; i < of.r; i++) turn<false>(w.first, of.axis(i), cos_sin + 2 * i);
  for (int m = 0; m < MIDDLES; m++)
    for (int q = X; q <= Z; q++) {
      w.matrix[m][q] = unit_vector(q);
      for (int64_t i = 0; i < of.r; i++) turn<false>(w.matrix[m][q], of.axis(i), cos_sin + 2 * (of.r * (m + 1) + i));
    }
  w.last = unit_vector(OBSERVABLE);
  if (D > 1)
    for (int64_t i = of.upto; i >= 0; i--) turn<true>(w.last, of.axis(i), cos_sin + 2 * (of.r * (D - 1) + i));
  out = w;
}

// The derivatives by a wire's angles, (layer, rotation). That by the angle of the last rotation of a vector v is the
// component along its axis of v x v_bar; undoing the rotation turns this torque too.
template <class Rotations>
INLINE void by_angles(const Rotations &of, const N *cos_sin, const Wire &w, const Wire &w_bar, N *out) {
  for (int layer = 0; layer < (D > 1 ? D - 1 : 1); layer++) {
    const Vector *v = layer ? w.matrix[layer - 1] : &w.first, *v_bar = layer ? w_bar.matrix[layer - 1] : &w_bar.first;
    Vector torque = cross(v[0], v_bar[0]);
    for (int q = 1; q < (layer ? 3 : 1); q++) {
      const Vector more = cross(v[q], v_bar[q]);
      for (int i = 0; i < 3; i++) torque.at[i] = torque.at[i] + more.at[i];
    }
    const int64_t from = layer ? 0 : of.from;
    for (int64_t i = 0; i < from; i++) out[i] = number(0);
    for (int64_t i = of.r - 1; i >= from; i--) {
      out[of.r * layer + i] = torque.at[of.axis(i)];
      if (i > from) turn<true>(torque, of.axis(i), cos_sin + 2 * (of.r * layer + i));
    }
  }
  if (D == 1) return;
  out += of.r * (D - 1);
  Vector torque = cross(w_bar.last, w.last);
  for (int64_t i = 0; i <= of.upto; i++) {
    out[i] = torque.at[of.axis(i)];
    if (i < of.upto) turn<false>(torque, of.axis(i), cos_sin + 2 * (of.r * (D - 1) + i));
  }
  for (int64_t i = of.upto + 1; i < of.r; i++) out[i] = number(0);
}

// The numbers of some wires in memory, a tile of W at a time.
struct Tiles {
  const Task &t;
  int64_t lane, lo, hi;  // wires, in the order of the sweep

  int64_t count() const { return (hi - lo) * t.r; }
  int64_t row(int layer) const { return ((lane * D + layer) * t.n + (MIRRORED ? t.n - hi : lo)) * t.r; }
  int64_t stride() const { return D * t.n * t.r; }

  // Calls f(k, slot in (wire, layer, rotation), rotation) for the numbers k of a tile that begins at `at`; returns where
  // the next one begins.
  struct Place {
    int64_t wire = 0, rotation = 0;
  };
  template <class F>
  Place each(int layer, int size, Place at, F f) const {
    for (int k = 0; k < size; k++) {
      f(k, ((MIRRORED ? hi - lo - 1 - at.wire : at.wire) * D + layer) * t.r + at.rotation, at.rotation);
      if (++at.rotation == t.r) at = {at.wire + 1, 0};
    }
    return at;
  }
};

// Reads the angles of the wires lo to hi; those from n on are idle. cos_sin: (wire, layer, rotation, 2).
static void read_wires(const Task &t, int64_t lane, int live, int64_t lo, int64_t hi, N *cos_sin, Wire *wires) {
  const int64_t real = hi < t.n ? hi : t.n;
  const Tiles tiles{t, lane, lo, real};
  for (int layer = 0; layer < D; layer++) {
    Tiles::Place at;
    for (int64_t tile = 0; tile < tiles.count(); tile += W) {
      const int size = tiles.count() - tile < W ? tiles.count() - tile : W;
      V x[W], cos[W], sin[W];
      load_columns<REAL>(t.angles + tiles.row(layer) + tile, tiles.stride(), live, size, x);
#ifdef DUAL
      V d[W];
      load_columns<REAL>(t.tangents + tiles.row(layer) + tile, tiles.stride(), live, size, d);
#endif
      Lanes<REAL>::I large{};
      tiles.each(layer, size, at, [&](int k, int64_t, int64_t i) __attribute__((always_inline)) {
        if (t.used(layer, i)) large |= ::cos_sin<REAL>(x[k], cos[k], sin[k]);
      });
      if (any_lane(large))
        for (int k = 0; k < size; k++) {
          const auto mask = ::cos_sin<REAL>(x[k], cos[k], sin[k]);
          cos_sin_of_large<REAL>(mask, x[k], cos[k], sin[k]);
        }
      at = tiles.each(layer, size, at, [&](int k, int64_t slot, int64_t i) __attribute__((always_inline)) {
        if (!t.used(layer, i)) return;
        const V s = t.reversed(i) ? -sin[k] : sin[k];
#ifdef DUAL
        const V dx = t.reversed(i) ? -d[k] : d[k];
        cos_sin[2 * slot] = {cos[k], -s * dx};
        cos_sin[2 * slot + 1] = {s, cos[k] * dx};
#else
        cos_sin[2 * slot] = cos[k];
        cos_sin[2 * slot + 1] = s;
#endif
      });
    }
  }
  const auto make = [&](auto of) {
    for (int64_t k = 0; k < real - lo; k++) make_wire(of, cos_sin + 2 * D * of.r * k, wires[k]);
  };
  if (t.paper) make(Paper(t));
  else make(Any(t));
  for (int64_t wire = real; wire < hi; wire++) wires[wire - lo] = idle_wire();
}

INLINE V answer(N x) {
#ifdef DUAL
  return x.d;
#else
  return x;
#endif
}

// Writes the gradient of the wires lo to hi. by_angle: (wire, layer, rotation).
static void write_gradient(const Task &t, int64_t lane, int live, int64_t lo, int64_t hi, const N *by_angle) {
  const Tiles tiles{t, lane, lo, hi < t.n ? hi : t.n};
  for (int layer = 0; layer < D; layer++) {
    Tiles::Place at;
    for (int64_t tile = 0; tile < tiles.count(); tile += W) {
      const int size = tiles.count() - tile < W ? tiles.count() - tile : W;
      V x[W] = {};
      at = tiles.each(layer, size, at, [&](int k, int64_t slot, int64_t i) __attribute__((always_inline)) {
        x[k] = t.reversed(i) ? -answer(by_angle[slot]) : answer(by_angle[slot]);
      });
      store_columns<REAL>(t.gradient + tiles.row(layer) + tile, tiles.stride(), live, size, x);
    }
  }
}

// Writes z, and reads the cotangent of z: a vector a wire, in the order of the sweep.
static void write_z(const Task &t, int64_t lane, int live, const N *z) {
  for (int64_t tile = 0; tile < t.n; tile += W) {
    const int size = t.n - tile < W ? t.n - tile : W;
    V x[W] = {};
    for (int k = 0; k < size; k++) x[k] = answer(z[MIRRORED ? t.n - 1 - tile - k : tile + k]);
    store_columns<REAL>(t.z + lane * t.n + tile, t.n, live, size, x);
  }
}

static void read_cotangent(const Task &t, int64_t lane, int live, N *z_bar) {
  for (int64_t tile = 0; tile < t.n; tile += W) {
    const int size = t.n - tile < W ? t.n - tile : W;
    V x[W];
    load_columns<REAL>(t.cotangent + lane * t.n + tile, t.n, live, size, x);
    for (int k = 0; k < size; k++) {
      N &to = z_bar[MIRRORED ? t.n - 1 - tile - k : tile + k];
#ifdef DUAL
      to = {x[k], V{}};
#else
      to = x[k];
#endif
    }
  }
}
