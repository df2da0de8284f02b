// Chains, all pairs (mirrored chains) and wires alone: one sweep forward, and one back.
//
// The state between two wires is all that the wires behind see: the carries L of Z_0 ... Z_k, and those of the last
// DEPTH-2 observables, which end in ever fewer layers. Of all pairs, where <Z_k> = <X_(k-1) X_k> of the mirrored chain,
// it has L with the last two wires measured, then the carries without an observable and with X on the last wire alone.

// What is held of an observable that the next wire sees through l layers, and where in a state.
static constexpr int width(int l) { return l == D - 1 ? VALUES : 2 * power4(l - 1); }
static constexpr int offset(int l) { return l >= D - 1 ? 0 : offset(l + 1) + width(l + 1); }

struct Open {
  static constexpr int SEEN = D - 1;  // layers through which the next wire sees L
  static constexpr int LAG = KIND == NONE ? 0 : KIND == ALL ? D : D - 1;
  static constexpr int FREE = D == 1 ? 1 : offset(0), ONE_MEASURED = FREE + VALUES;
  static constexpr int SIZE = KIND == ALL ? FREE + 2 * VALUES : FREE;

  // The first wire is no target: the carries s and d together, as T_s + T_d is the identity.
  static void start(N *state) {
    for (int k = 0; k < SIZE; k++) state[k] = number(0);
    for (int k = 0; k < VALUES; k++) {
      bool kept = true;
      for (int rest = k, layer = 1; layer < D; layer++, rest /= 4) kept &= rest % 4 == 1 || rest % 4 == 2;
      state[(KIND == ALL ? FREE : 0) + k] = unit(kept);
    }
  }

  template <int L>
  INLINE void see(const N *before, N *after, N &z, const Wire &w) {
    if constexpr (L > 0) {
      traced<L, L == SEEN ? 4 : 2>(before + offset(L), L == 1 ? &z : after + offset(L - 1), w);
      see<L - 1>(before, after, z, w);
    }
  }

  template <int L>
  INLINE void see_bar(const N *before, const N *bar, const N &z_bar, N *before_bar, const Wire &w, Wire &w_bar) {
    if constexpr (L > 0) {
      traced_bar<L, L == SEEN ? 4 : 2>(before + offset(L), L == 1 ? &z_bar : bar + offset(L - 1),
                                       before_bar + offset(L), w, w_bar);
      see_bar<L - 1>(before, bar, z_bar, before_bar, w, w_bar);
    }
  }

  // Passes a wire; returns the answer that the state ends with it.
  INLINE N step(const N *before, N *after, const Wire &w) {
    N z = number(0);
    see<SEEN>(before, after, z, w);
    if constexpr (KIND == NONE) after[0] = w.first.at[Z];
    if constexpr (KIND == CHAIN) passed<Z>(before, after, w);
    if constexpr (KIND == ALL) {
      passed<X>(before + ONE_MEASURED, after, w);
      passed<X>(before + FREE, after + ONE_MEASURED, w);
      passed<NOTHING>(before + FREE, after + FREE, w);
    }
    return D == 1 ? after[0] : z;
  }

  // `bar`: the derivatives by the state behind the wire, then by that in front of it.
  INLINE void step_bar(const N *before, N *bar, N z_bar, const Wire &w, Wire &w_bar) {
    if (D == 1) bar[0] = bar[0] + z_bar;
    N before_bar[SIZE];
    for (int k = 0; k < FREE; k++) before_bar[k] = number(0);
    if constexpr (KIND == NONE) w_bar.first.at[Z] = w_bar.first.at[Z] + bar[0];
    if constexpr (KIND == CHAIN) {
      for (int k = 0; k < VALUES; k++) before_bar[k] = bar[k];
      passed_bar<Z>(before, before_bar, w, w_bar);
    }
    if constexpr (KIND == ALL) {
      N *free = before_bar + FREE, *one_measured = before_bar + ONE_MEASURED, also[VALUES];
      for (int k = 0; k < VALUES; k++) one_measured[k] = bar[k], free[k] = bar[FREE + k], also[k] = bar[ONE_MEASURED + k];
      passed_bar<X>(before + ONE_MEASURED, one_measured, w, w_bar);
      passed_bar<X>(before + FREE, also, w, w_bar);
      passed_bar<NOTHING>(before + FREE, free, w, w_bar);
      for (int k = 0; k < VALUES; k++) free[k] = free[k] + also[k];
    }
    see_bar<SEEN>(before, bar, z_bar, before_bar, w, w_bar);
    for (int k = 0; k < SIZE; k++) bar[k] = before_bar[k];
  }

  // Does one block of lanes. Without a gradient, or where the wires do not fit into `space`, some are held at a time;
  // the way back then computes each block of wires again, from the state in front of it.
  static void run(const Task &t, int64_t lane, int live, N *space) {
    const int64_t ends = t.n + LAG, angles = D * t.r, blocks = (ends + t.sites - 1) / t.sites;
    N *z = space, *bar = z + t.n, *edges = bar + SIZE, *cos_sin = edges + blocks * SIZE;
    Wire *wires = (Wire *)(cos_sin + 2 * angles * t.sites);
    N *states = (N *)(wires + t.sites), *by_angle = states + (t.recorded ? t.sites + 1 : 2) * SIZE;
    const bool again = t.recorded && blocks > 1;
    start(edges);
    for (int64_t lo = 0; lo < ends; lo += t.sites) {
      const int64_t hi = lo + t.sites < ends ? lo + t.sites : ends, block = lo / t.sites;
      read_wires(t, lane, live, lo, hi, cos_sin, wires);
      N *before = states, *after = states + SIZE;
      std::memcpy((void *)before, edges + block * SIZE, SIZE * sizeof(N));
      for (int64_t k = lo; k < hi; k++) {
        const N answer = step(before, after, wires[k - lo]);
        if (k >= LAG) z[k - LAG] = answer;
        if (t.recorded) before = after, after += SIZE;
        else std::swap(before, after);
      }
      if (block + 1 < blocks) std::memcpy((void *)(edges + (block + 1) * SIZE), before, SIZE * sizeof(N));
    }
    if (t.z) write_z(t, lane, live, z);
    if (!t.recorded) return;
    read_cotangent(t, lane, live, z);
    for (int k = 0; k < SIZE; k++) bar[k] = number(0);
    for (int64_t block = blocks - 1; block >= 0; block--) {
      const int64_t lo = block * t.sites, hi = lo + t.sites < ends ? lo + t.sites : ends;
      if (again) {
        read_wires(t, lane, live, lo, hi, cos_sin, wires);
        std::memcpy((void *)states, edges + block * SIZE, SIZE * sizeof(N));
        for (int64_t k = 0; k < hi - lo; k++) step(states + k * SIZE, states + (k + 1) * SIZE, wires[k]);
      }
      for (int64_t k = hi - 1; k >= lo; k--) {
        const int64_t at = k - lo;
        Wire w_bar{};
        step_bar(states + at * SIZE, bar, k >= LAG ? z[k - LAG] : number(0), wires[at], w_bar);
        if (k >= t.n) continue;
        const int64_t tile = at / W * W, end = tile + W < hi - lo ? tile + W : hi - lo;
        N *to = by_angle + angles * (at - tile);
        if (t.paper) by_angles(Paper(t), cos_sin + 2 * angles * at, wires[at], w_bar, to);
        else by_angles(Any(t), cos_sin + 2 * angles * at, wires[at], w_bar, to);
        if (at == tile) write_gradient(t, lane, live, lo + tile, lo + end, by_angle);
      }
    }
  }
};
