// Every <Z_i> of a batch of chains, rings and all pairs of CNOTs, and their gradient: one sweep over the wires forward
// and one back (circuits/chain/_native.py calls it; docs/chain_engine.md derives it).
//
// Compiled with -DREAL=double or float, -DDEPTH and -DKIND=CHAIN, RING, ALL or NONE of the circuits, and -DDUAL for the
// derivatives of answers and gradient along a direction of the angles. A lane is a circuit; a block of lanes goes through everything by itself, so bits
// depend on neither the batch nor the threads.

#include <omp.h>

#include <utility>

#include "chain_maps.h"

#include "chain_angles.h"

#include "chain_open.h"

#include "chain_ring.h"

// Returns the vectors of scratch space of one block of lanes, and sets t.sites to the wires that are held at a time.
static int64_t scratch(Task &t, int64_t bytes) {
  const int64_t angles = D * t.r, wire = sizeof(Wire) / sizeof(N);
  if (KIND == RING) {
    const int64_t matrices = (t.n + (t.recorded ? t.n : 2) + 2) * MATRIX, closing = sizeof(Closing) / sizeof(N);
    return t.n * (1 + 3 * angles + 2 * wire) + matrices + closing;
  }
  const int64_t state = Open::SIZE, ends = t.n + D;
  const int64_t each = 2 * angles + wire + (t.recorded ? state : 0), fixed = t.n + W * angles + 4 * state;
  const int64_t room = t.recorded ? (bytes / (int64_t)sizeof(N) - fixed) / each : 32;
  t.sites = room >= ends ? ends : room < W ? W : room / W * W;  // whole tiles of angles
  return t.sites * each + fixed + (ends / t.sites + 1) * state;
}

// Returns the bytes of scratch space of one thread: at most `bytes` where blocks of few wires get along with that.
extern "C" int64_t scratch_bytes(int64_t n, int64_t r, int recorded, int64_t bytes) {
  Task t{};
  t.n = n, t.r = r, t.recorded = recorded;
  return scratch(t, bytes) * sizeof(N);
}

// angles, tangents (-DDUAL) and gradient: (batch, DEPTH, n, r); cotangent and z, or null: (batch, n). gradient: null, or takes
// the derivatives of the sum of cotangent * z. -DDUAL: z and gradient take their derivatives along the tangents.
// space: scratch_bytes(..., bytes) for each thread.
extern "C" void sweep(int64_t n, int64_t r, int64_t batch, const int32_t *axes, const REAL *angles,
                      const REAL *tangents, const REAL *cotangent, REAL *z, REAL *gradient, void *space, int64_t bytes,
                      int threads) {
  Task t{n, r, axes, angles, tangents, cotangent, z, gradient, gradient != nullptr, 0, 0, 0, false};
  t.find_used();
  const int64_t each = scratch(t, bytes), blocks = (batch + W - 1) / W;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    N *mine = (N *)space + each * omp_get_thread_num();
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t lane = block * W;
      const int live = batch - lane < W ? batch - lane : W;
      if constexpr (KIND == RING) ring(t, lane, live, mine);
      else Open::run(t, lane, live, mine);
    }
  }
}
