// From angles in memory to wires, and from derivatives by wires to derivatives by angles in memory.

enum Kind { CHAIN, RING, ALL, NONE };

struct Task {
  int64_t n, r;
  int kind;
  const int32_t *axes;  // of the rotations of a layer: X, Y or Z
  const REAL *angles, *tangents, *cotangent;
  REAL *z, *gradient;
  bool recorded;       // a gradient is wanted
  int64_t sites;       // wires that are held at a time
  int64_t from, upto;  // rotations of the first layer before `from`, and of the last one behind `upto`, turn nothing

  // Read from the last wire to the first and conjugated by H, all pairs are a chain: X and Z swapped, Y reversed.
  bool mirrored() const { return kind == ALL; }
  int axis(int64_t i) const { return mirrored() ? 2 - axes[i] : axes[i]; }
  int start() const { return mirrored() ? Z : X; }
  int observable() const { return mirrored() ? X : Z; }
  bool used(int layer, int64_t i) const { return (layer || i >= from) && (!layer || layer < D - 1 || i <= upto); }
  void find_used() {
    for (from = 0; from < r && axis(from) == start();) from++;
    for (upto = r - 1; upto >= 0 && axis(upto) == observable();) upto--;
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

// cos_sin: of a wire, (layer, rotation, 2).
INLINE Wire wire_of(const Task &t, const N *cos_sin) {
  Wire w;
  w.first = unit_vector(t.start());
  for (int64_t i = t.from; i < t.r; i++) turn<false>(w.first, t.axis(i), cos_sin + 2 * i);
  for (int m = 0; m < MIDDLES; m++)
    for (int q = X; q <= Z; q++) {
      w.matrix[m][q] = unit_vector(q);
      for (int64_t i = 0; i < t.r; i++) turn<false>(w.matrix[m][q], t.axis(i), cos_sin + 2 * (t.r * (m + 1) + i));
    }
  w.last = unit_vector(t.observable());
  if (D > 1)
    for (int64_t i = t.upto; i >= 0; i--) turn<true>(w.last, t.axis(i), cos_sin + 2 * (t.r * (D - 1) + i));
  return w;
}

// The derivatives by a wire's angles, (layer, rotation). That by the angle of the last rotation of a vector v is the
// component along its axis of v x v_bar; undoing the rotation turns this torque too.
INLINE void by_angles(const Task &t, const N *cos_sin, const Wire &w, const Wire &w_bar, N *out) {
  for (int layer = 0; layer < (D > 1 ? D - 1 : 1); layer++) {
    const Vector *v = layer ? w.matrix[layer - 1] : &w.first, *v_bar = layer ? w_bar.matrix[layer - 1] : &w_bar.first;
    Vector torque = cross(v[0], v_bar[0]);
    for (int q = 1; q < (layer ? 3 : 1); q++) {
      const Vector more = cross(v[q], v_bar[q]);
      for (int i = 0; i < 3; i++) torque.at[i] = torque.at[i] + more.at[i];
    }
    for (int64_t i = t.r - 1; i >= 0; i--) {
      out[t.r * layer + i] = t.used(layer, i) ? torque.at[t.axis(i)] : number(0);
      if (t.used(layer, i)) turn<true>(torque, t.axis(i), cos_sin + 2 * (t.r * layer + i));
    }
  }
  if (D == 1) return;
  Vector torque = cross(w_bar.last, w.last);
  for (int64_t i = 0; i < t.r; i++) {
    out[t.r * (D - 1) + i] = t.used(D - 1, i) ? torque.at[t.axis(i)] : number(0);
    if (t.used(D - 1, i)) turn<false>(torque, t.axis(i), cos_sin + 2 * (t.r * (D - 1) + i));
  }
}

// The numbers of some wires in memory, a tile of W at a time.
struct Tiles {
  const Task &t;
  int64_t lane, lo, hi;  // wires, in the order of the sweep

  int64_t count() const { return (hi - lo) * t.r; }
  int64_t row(int layer) const { return ((lane * D + layer) * t.n + (t.mirrored() ? t.n - hi : lo)) * t.r; }
  int64_t stride() const { return D * t.n * t.r; }

  // Calls f(number of the tile's numbers so far, slot in (wire, layer, rotation), rotation) for each number of a tile.
  template <class F>
  void each(int layer, int64_t tile, F f) const {
    int64_t wire = tile / t.r, i = tile % t.r;
    for (int k = 0; k < W && tile + k < count(); k++) {
      f(k, ((t.mirrored() ? hi - lo - 1 - wire : wire) * D + layer) * t.r + i, i);
      if (++i == t.r) i = 0, wire++;
    }
  }
};

// Reads the angles of the wires lo to hi; those from n on are idle. cos_sin: (wire, layer, rotation, 2).
static void read_wires(const Task &t, int64_t lane, int live, int64_t lo, int64_t hi, N *cos_sin, Wire *wires) {
  const int64_t real = hi < t.n ? hi : t.n;
  const Tiles tiles{t, lane, lo, real};
  for (int layer = 0; layer < D; layer++)
    for (int64_t tile = 0; tile < tiles.count(); tile += W) {
      const int size = tiles.count() - tile < W ? tiles.count() - tile : W;
      V x[W], cos[W], sin[W];
      load_columns<REAL>(t.angles + tiles.row(layer) + tile, tiles.stride(), live, size, x);
#ifdef DUAL
      V d[W];
      load_columns<REAL>(t.tangents + tiles.row(layer) + tile, tiles.stride(), live, size, d);
#endif
      Lanes<REAL>::I large{};
      tiles.each(layer, tile, [&](int k, int64_t, int64_t i) __attribute__((always_inline)) {
        if (t.used(layer, i)) large |= ::cos_sin<REAL>(x[k], cos[k], sin[k]);
      });
      if (any_lane(large))
        for (int k = 0; k < size; k++) {
          const auto mask = ::cos_sin<REAL>(x[k], cos[k], sin[k]);
          cos_sin_of_large<REAL>(mask, x[k], cos[k], sin[k]);
        }
      tiles.each(layer, tile, [&](int k, int64_t slot, int64_t i) __attribute__((always_inline)) {
        if (!t.used(layer, i)) return;
        const V s = t.mirrored() && t.axes[i] == Y ? -sin[k] : sin[k];
#ifdef DUAL
        const V dx = t.mirrored() && t.axes[i] == Y ? -d[k] : d[k];
        cos_sin[2 * slot] = {cos[k], -s * dx};
        cos_sin[2 * slot + 1] = {s, cos[k] * dx};
#else
        cos_sin[2 * slot] = cos[k];
        cos_sin[2 * slot + 1] = s;
#endif
      });
    }
  for (int64_t wire = lo; wire < real; wire++) wires[wire - lo] = wire_of(t, cos_sin + 2 * D * t.r * (wire - lo));
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
  for (int layer = 0; layer < D; layer++)
    for (int64_t tile = 0; tile < tiles.count(); tile += W) {
      V x[W] = {};
      tiles.each(layer, tile, [&](int k, int64_t slot, int64_t i) __attribute__((always_inline)) {
        x[k] = t.mirrored() && t.axes[i] == Y ? -answer(by_angle[slot]) : answer(by_angle[slot]);
      });
      const int size = tiles.count() - tile < W ? tiles.count() - tile : W;
      store_columns<REAL>(t.gradient + tiles.row(layer) + tile, tiles.stride(), live, size, x);
    }
}

// Writes z, and reads the cotangent of z: a vector a wire, in the order of the sweep.
static void write_z(const Task &t, int64_t lane, int live, const N *z) {
  for (int64_t tile = 0; tile < t.n; tile += W) {
    const int size = t.n - tile < W ? t.n - tile : W;
    V x[W] = {};
    for (int k = 0; k < size; k++) x[k] = answer(z[t.mirrored() ? t.n - 1 - tile - k : tile + k]);
    store_columns<REAL>(t.z + lane * t.n + tile, t.n, live, size, x);
  }
}

static void read_cotangent(const Task &t, int64_t lane, int live, N *z_bar) {
  for (int64_t tile = 0; tile < t.n; tile += W) {
    const int size = t.n - tile < W ? t.n - tile : W;
    V x[W];
    load_columns<REAL>(t.cotangent + lane * t.n + tile, t.n, live, size, x);
    for (int k = 0; k < size; k++) {
      N &to = z_bar[t.mirrored() ? t.n - 1 - tile - k : tile + k];
#ifdef DUAL
      to = {x[k], V{}};
#else
      to = x[k];
#endif
    }
  }
}
