// Run a program of Pauli rotations over a batch of circuits: states, probabilities, Pauli strings, and their gradients.
//
// circuits/programs/program.py compiles a circuit; circuits/programs/_native.py packs it and calls `run_double` or `run_float`.
// Every gate is a rotation exp(-i a P / 2), or moves basis states and is part of the masks. The gradient is that of the
// adjoint method (Jones and Gacon, arXiv 2009.02823): gates are undone on the way back. Each sum has an order that the
// program fixes, so bits do not depend on the batch, on its cut or on threads.

#include "program.h"
#include "rotations.h"
#include "opening.h"
#include "reading.h"

#include <cstdlib>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { STRINGS, PROBABILITIES, STATES };

// Parts of a large state that threads share; sums are over each part, then over the parts.
static const int64_t PARTS = 16, SMALL = 1 << 10, LARGE = 1 << 14;

template <class T, bool WIDE> struct Simulation {
  typedef typename Lanes<T>::V V;
  typedef typename std::conditional<WIDE, T, V>::type N;
  typedef Complex<V> C;
  static const int W = Lanes<T>::W;

  const Program &p;
  const int threads;
  const int64_t n_parts;
  Reading<T> reading;
  Opening<T, N> opening;
  C *psi, *lambda;
  N *cosine, *sine, *slope, *value_slope;  // of each rotation, and of each slot
  V *sums;                                 // (n_parts, n_strings or n_rotations)
  Turn<T> *turns;                          // of the steps of a block
  C *phases;                               // 16 for each of its sets
  C *buffers;                              // two of a coset for each part

  static int64_t parts(const Program &p) { return p.n_vectors > SMALL ? PARTS : 1; }
  static int64_t layout(const Program &p, bool gradient, Simulation *s, char *memory) {
    int64_t used = 0;
    auto take = [&](int64_t size) {
      char *place = memory + used;
      used += (size + 63) / 64 * 64;
      return place;
    };
    const int64_t n_sums = parts(p) * std::max(p.n_strings, gradient ? p.n_rotations : 0);
    char *places[] = {take(sizeof(C) * p.n_vectors), take(gradient ? sizeof(C) * p.n_vectors : 0), take(sizeof(N) * p.n_rotations),
                      take(sizeof(N) * p.n_rotations), take(sizeof(N) * p.n_rotations), take(sizeof(N) * p.n_slots),
                      take(sizeof(V) * n_sums), take(sizeof(Turn<T>) * 2 * p.most_steps), take(sizeof(C) * 16 * p.most_sets),
                      take(sizeof(C) * 2 * p.buffer * parts(p)), take(sizeof(Complex<N>) * 2 * p.n_qubits),
                      take(sizeof(Complex<N>) * 2 * p.n_qubits)};
    if (s) {
      s->psi = (C *)places[0], s->lambda = (C *)places[1], s->cosine = (N *)places[2], s->sine = (N *)places[3];
      s->slope = (N *)places[4], s->value_slope = (N *)places[5], s->sums = (V *)places[6], s->turns = (Turn<T> *)places[7];
      s->phases = (C *)places[8], s->buffers = (C *)places[9];
      s->opening.amplitudes = (Complex<N> *)places[10], s->opening.slopes = (Complex<N> *)places[11];
    }
    return used;
  }

  Simulation(const Program &program, bool gradient, char *memory, int n_threads)
      : p(program), threads(n_threads), n_parts(parts(program)), reading(program, WIDE) {
    layout(p, gradient, this, memory);
    opening.n_qubits = int(p.n_qubits);
  }

  template <class F> void each_part(F f) {
    if (n_parts == 1) return f(0);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic)
    for (int64_t part = 0; part < n_parts; ++part) f(part);
  }

  // ---- cosines and sines of half the angles; an offset is added to what is left of large angles less their turns
  MEMBER void add_offset(int64_t o, Doubles &c, Doubles &s) const {
    const double *offset = p.offset + 2 * o;
    if (offset[1] == 0 && offset[0] == 1) return;
    const Doubles a = splat(offset[0]), b = splat(offset[1]), c0 = c;
    c = fma_(c0, a, -(s * b)), s = fma_(s, a, c0 * b);
  }
  void angles(const T *values, int64_t circuits, std::true_type) {
    for (int64_t first = 0; first < p.n_rotations; first += 8) {
      Doubles half = splat(0.0), c, s;
      const int size = int(std::min<int64_t>(8, p.n_rotations - first));
      for (int j = 0; j < size; ++j) {
        const int64_t o = first + j;
        double angle = 0;
        for (int64_t t = p.first_term[o]; t < p.first_term[o + 1]; ++t) angle = fma_(double(values[p.slot[t]]), p.factor[t], angle);
        half[j] = 0.5 * angle;
      }
      cos_sin(half, c, s);
      for (int j = 0; j < size; ++j) {
        Doubles one = splat(c[j]), other = splat(s[j]);
        add_offset(first + j, one, other);
        cosine[first + j] = T(one[0]), sine[first + j] = T(other[0]);
      }
    }
  }
  void angles(const T *values, int64_t circuits, std::false_type) {
    for (int64_t o = 0; o < p.n_rotations; ++o)
      for (int part = 0; part < W; part += 8) {
        Doubles half = splat(0.0), c, s;
        for (int64_t t = p.first_term[o]; t < p.first_term[o + 1]; ++t) {
          Doubles value;
          // A short block repeats its last circuit.
          for (int l = 0; l < 8; ++l) value[l] = values[std::min<int64_t>(part + l, circuits - 1) * p.n_slots + p.slot[t]];
          half = fma_(value, splat(p.factor[t]), half);
        }
        cos_sin(half * 0.5, c, s);
        add_offset(o, c, s);
        T *cosines = (T *)&cosine[o] + part, *sines = (T *)&sine[o] + part;
        for (int l = 0; l < 8; ++l) cosines[l] = T(c[l]), sines[l] = T(s[l]);
      }
  }

  // ---- the opening
  void open() {
    opening.clear(N());
    for (int64_t i = 0; i < p.n_opened; ++i) {
      const int32_t o = p.opened[2 * i + 1];
      const Rotation &r = p.rotations[o];
      opening.turn(opening.amplitudes + 2 * p.opened[2 * i], r.x | r.lanes_x, r.z | r.lanes_z, r.imaginary, cosine[o], sine[o] * T(r.sign));
    }
    opening.spread(psi, p.n_vectors);
  }
  void close() {
    opening.gather(psi, lambda, p.n_vectors);
    for (int64_t i = p.n_opened - 1; i >= 0; --i) {
      const int32_t o = p.opened[2 * i + 1];
      const Rotation &r = p.rotations[o];
      Complex<N> *v = opening.amplitudes + 2 * p.opened[2 * i], *w = opening.slopes + 2 * p.opened[2 * i];
      slope[o] = opening.overlap(w, v, r.x | r.lanes_x, r.z | r.lanes_z, r.imaginary) * T(0.5 * r.sign);
      const N back = sine[o] * T(-r.sign);
      opening.turn(v, r.x | r.lanes_x, r.z | r.lanes_z, r.imaginary, cosine[o], back);
      opening.turn(w, r.x | r.lanes_x, r.z | r.lanes_z, r.imaginary, cosine[o], back);
    }
  }

  // ---- blocks of rotations
  MEMBER V widened(T x) { return splat(x); }
  MEMBER V widened(V x) { return x; }
  void prepare(Turn<T> &turn, int32_t o, T direction) {
    const Rotation &r = p.rotations[o];
    const LaneTables<T> &lanes = lane_tables<T>();
    turn.cosine = widened(cosine[o]);
    const V s = widened(sine[o]) * splat(T(r.sign) * direction) * lanes.sign[r.lanes_z];
    turn.sine[0] = s, turn.sine[1] = -s;
    turn.partner = lanes.partner[r.lanes_x];
    turn.x = r.x, turn.z = r.z, turn.flip = parity(r.x & r.z), turn.imaginary = r.imaginary, turn.moved = r.lanes_x;
  }
  // The 16 phases of each set: products of cos +- i sin.
  void prepare(const Set &set, C *place, T direction) {
    Complex<N> x[16];
    const N zero = N();
    x[0] = {zero + T(1), zero};
    for (int j = 0; j < set.size; ++j) {
      const int32_t o = set.rotation[j];
      const Complex<N> even = {cosine[o], sine[o] * T(p.rotations[o].sign * direction)}, odd = {even.re, -even.im};
      for (int e = 0; e < 1 << j; ++e) x[e | 1 << j] = times(odd, x[e]), x[e] = times(even, x[e]);
    }
    for (int e = 0; e < 1 << set.size; ++e) spread(place[e], x, e, p.lane_parities + set.lanes * W);
  }
  MEMBER void spread(C &place, const Complex<V> *x, int e, const uint8_t *) { place = x[e]; }
  MEMBER void spread(C &place, const Complex<T> *x, int e, const uint8_t *lanes) {
    for (int l = 0; l < W; ++l) place.re[l] = x[e ^ lanes[l]].re, place.im[l] = x[e ^ lanes[l]].im;
  }
  void prepare(const Block &block, T direction) {
    C *place = phases;
    for (int i = 0; i < block.n_steps; ++i) {
      const Step &step = p.steps[block.first_step + i];
      if (step.kind == DIAGONAL)
        for (int j = 0; j < step.b; ++j, place += 16) prepare(p.sets[step.a + j], place, direction);
      else {
        prepare(turns[2 * i], step.a, direction);
        if (step.kind == TWO) prepare(turns[2 * i + 1], step.b, direction);
      }
    }
  }
  MEMBER int base(int32_t o, int64_t first) const { return parity(p.rotations[o].z_state & uint32_t(first)); }
  MEMBER int base(const Set &set, int64_t first) const {
    int e = 0;
    for (int j = 0; j < set.size; ++j) e |= base(set.rotation[j], first) << j;
    return e;
  }
  // Call `f` with the loops of the kind of a step's rotations.
  template <class F> MEMBER void with_loops(const Turn<T> *r, int kind, F f) {
    const bool moved = WIDE && (r[0].moved || (kind == TWO && r[1].moved));
    if (moved && r->imaginary) f(Loops<T, true, WIDE>());
    else if (moved) f(Loops<T, false, WIDE>());
    else if (r->imaginary) f(Loops<T, true, false>());
    else f(Loops<T, false, false>());
  }
  void forward(const Block &block, C *x, int64_t first) {
    const int64_t size = int64_t(1) << block.rank;
    const C *place = phases;
    for (int i = 0; i < block.n_steps; ++i) {
      const Step &step = p.steps[block.first_step + i];
      const Turn<T> *r = turns + 2 * i;
      if (step.kind == DIAGONAL)
        for (int j = 0; j < step.b; ++j, place += 16) {
          const Set &set = p.sets[step.a + j];
          const uint8_t *e = p.parities + set.table;
          const int own = base(set, first);
          for (int64_t k = 0; k < size; ++k) x[k] = times(place[e[k] ^ own], x[k]);
        }
      else if (step.kind == ONE)
        with_loops(r, ONE, [&](auto loops) { loops.forward(x, size, r[0], base(step.a, first)); });
      else
        with_loops(r, TWO, [&](auto loops) { loops.forward(x, size, r[0], base(step.a, first), r[1], base(step.b, first)); });
    }
  }
  void backward(const Block &block, C *x, C *y, int64_t first, V *slopes) {
    const int64_t size = int64_t(1) << block.rank;
    const C *place = phases + 16 * block.n_sets;
    for (int i = block.n_steps - 1; i >= 0; --i) {
      const Step &step = p.steps[block.first_step + i];
      const Turn<T> *r = turns + 2 * i;
      if (step.kind == DIAGONAL)
        for (int j = step.b - 1; j >= 0; --j) {
          place -= 16;
          backward(p.sets[step.a + j], place, base(p.sets[step.a + j], first), x, y, size, slopes);
        }
      else if (step.kind == ONE)
        with_loops(r, ONE, [&](auto loops) { loops.backward(x, y, size, r[0], base(step.a, first), slopes[step.a]); });
      else
        with_loops(r, TWO, [&](auto loops) {
          loops.backward(x, y, size, r[0], base(step.a, first), slopes[step.a], r[1], base(step.b, first), slopes[step.b]);
        });
    }
  }
  void backward(const Set &set, const C *place, int own, C *x, C *y, int64_t size, V *slopes) {
    const uint8_t *e = p.parities + set.table;
    V bins[16];
    for (int j = 0; j < 1 << set.size; ++j) bins[j] = splat(T(0));
    for (int64_t k = 0; k < size; ++k) {
      const C a = x[k], b = y[k], turn = place[e[k] ^ own];
      bins[e[k] ^ own] += fma_(b.im, a.re, -(b.re * a.im));
      x[k] = times(turn, a), y[k] = times(turn, b);
    }
    walsh(bins, int64_t(1) << set.size);
    for (int j = 0; j < set.size; ++j) slopes[set.rotation[j]] += bins[1 << j];
  }
  // Take a block, forward, or backward with the slope lambda.
  template <bool BACKWARD> void take(const Block &block) {
    prepare(block, BACKWARD ? T(-1) : T(1));
    const int64_t size = int64_t(1) << block.rank, n_cosets = p.n_vectors >> block.rank;
    const int32_t *offsets = p.offsets + block.first_offset, *pivots = p.pivots + block.first_pivot;
    each_part([&](int64_t part) {
      V *slopes = sums + part * p.n_rotations;
      C *x = buffers + part * 2 * p.buffer, *y = x + p.buffer;
      for (int64_t i = part * n_cosets / n_parts; i < (part + 1) * n_cosets / n_parts; ++i) {
        int64_t first = i;
        for (int b = 0; b < block.rank; ++b) first = spaced(first, pivots[b]);
        if (n_cosets == 1) {
          if (BACKWARD) backward(block, psi, lambda, 0, slopes);
          else forward(block, psi, 0);
          continue;
        }
        for (int64_t k = 0; k < size; ++k) x[k] = psi[first ^ offsets[k]];
        if (BACKWARD)
          for (int64_t k = 0; k < size; ++k) y[k] = lambda[first ^ offsets[k]];
        if (BACKWARD) backward(block, x, y, first, slopes);
        else forward(block, x, first);
        for (int64_t k = 0; k < size; ++k) psi[first ^ offsets[k]] = x[k];
        if (BACKWARD)
          for (int64_t k = 0; k < size; ++k) lambda[first ^ offsets[k]] = y[k];
      }
    });
  }

  // ---- all of a circuit, or of W
  template <class F> void each_range(F f) {  // of vectors
    each_part([&](int64_t part) { f(part, part * p.n_vectors / n_parts, (part + 1) * p.n_vectors / n_parts); });
  }
  void read(int readout, int64_t circuits, T *out) {
    if (readout == PROBABILITIES) return reading.template write_amplitudes<false>(psi, out, circuits);
    if (readout == STATES) return reading.template write_amplitudes<true>(psi, out, circuits);
    each_range([&](int64_t part, int64_t first, int64_t last) { reading.strings(psi, first, last, sums + part * p.n_strings); });
    for (int64_t part = 1; part < n_parts; ++part)
      for (int64_t t = 0; t < p.n_strings; ++t) sums[t] += sums[part * p.n_strings + t];
    reading.write_strings(sums, out, circuits);
  }
  void seed(int readout, int64_t circuits, const T *cotangent) {
    if (readout == PROBABILITIES) return reading.template slope_of_amplitudes<false>(cotangent, psi, lambda, circuits);
    if (readout == STATES) return reading.template slope_of_amplitudes<true>(cotangent, psi, lambda, circuits);
    reading.string_slopes(cotangent, circuits, sums);
    each_range([&](int64_t, int64_t first, int64_t last) { reading.slope_of_strings(sums, psi, lambda, first, last); });
  }
  MEMBER void lanes_summed(V v, T &sum) { sum = lane_sum<T>(v); }
  MEMBER void lanes_summed(V v, V &sum) { sum = v; }

  void run(int readout, const T *values, int64_t circuits, T *out, const T *cotangent, T *gradient) {
    angles(values, circuits, std::integral_constant<bool, WIDE>());
    open();
    for (int64_t i = 0; i < p.n_blocks; ++i) take<false>(p.blocks[i]);
    if (out) read(readout, circuits, out);
    if (!gradient) return;
    seed(readout, circuits, cotangent);
    for (int64_t i = 0; i < n_parts * p.n_rotations; ++i) sums[i] = splat(T(0));
    for (int64_t i = p.n_blocks - 1; i >= 0; --i) take<true>(p.blocks[i]);
    for (int64_t o = 0; o < p.n_rotations; ++o) {
      V sum = sums[o];
      for (int64_t part = 1; part < n_parts; ++part) sum += sums[part * p.n_rotations + o];
      const Rotation &r = p.rotations[o];
      lanes_summed(sum * lane_tables<T>().sign[r.lanes_z], slope[o]);
      slope[o] *= T(0.5 * r.sign);
    }
    close();
    for (int64_t s = 0; s < p.n_slots; ++s) value_slope[s] = N();
    for (int64_t o = 0; o < p.n_rotations; ++o)
      for (int64_t t = p.first_term[o]; t < p.first_term[o + 1]; ++t)
        value_slope[p.slot[t]] = fma_(slope[o], N() + T(p.factor[t]), value_slope[p.slot[t]]);
    for (int64_t l = 0; l < (WIDE ? 1 : circuits); ++l)
      for (int64_t s = 0; s < p.n_slots; ++s) gradient[l * p.n_slots + s] = ((const T *)&value_slope[s])[l];
  }
};

// Memory of a thread, kept from call to call while it is small.
struct Scratch {
  char *memory = nullptr;
  int64_t size = 0;
  static const int64_t KEPT = int64_t(1) << 24, HUGE = int64_t(1) << 21;
  char *get(int64_t wanted) {
    if (wanted > size) {
      std::free(memory);
      const int64_t page = wanted < HUGE ? 4096 : HUGE;
      size = (wanted + page - 1) / page * page;
      memory = (char *)std::aligned_alloc(page, size);
      if (!memory) size = 0;
#if defined(__linux__)
      // One fault of 2 MiB in place of 512, where the system has such pages.
      else if (page == HUGE) madvise(memory, size, MADV_HUGEPAGE);
#endif
    }
    return memory;
  }
  void shrink() {
    if (size > KEPT) std::free(memory), memory = nullptr, size = 0;
  }
  ~Scratch() { std::free(memory); }
};
static thread_local Scratch scratch;

template <class T, bool WIDE>
static int run_all(const Program &p, int readout, const T *values, int64_t circuits, T *out, const T *cotangent, T *gradient, int threads) {
  typedef Simulation<T, WIDE> S;
  const int64_t block = WIDE ? 1 : S::W, n_blocks = (circuits + block - 1) / block;
  const int64_t row = readout == STRINGS ? p.n_outputs : p.n_read * (readout == STATES ? 2 : 1);
  // Threads share the circuits where there are enough of them and their states are small, else each circuit.
  const bool shares_circuits = S::parts(p) == 1 || (n_blocks >= threads && p.n_vectors <= LARGE);
  const int outer = shares_circuits ? int(std::min<int64_t>(threads, n_blocks)) : 1;
  const int inner = outer > 1 ? 1 : threads;
  int failed = 0;
#pragma omp parallel num_threads(outer) if (outer > 1)
  {
    char *memory = scratch.get(S::layout(p, gradient, nullptr, nullptr));
    if (!memory) {
#pragma omp atomic write
      failed = 1;
    }
    S simulation(p, gradient, memory, inner);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < n_blocks; ++i) {
      const int64_t first = i * block;
      if (memory)
        simulation.run(readout, values + first * p.n_slots, std::min(block, circuits - first), out ? out + first * row : nullptr,
                       cotangent ? cotangent + first * row : nullptr, gradient ? gradient + first * p.n_slots : nullptr);
    }
    scratch.shrink();
  }
  return failed;
}

// Simulate `circuits` rows of values. `out`, and `cotangent` with `gradient`, may be null. Returns 0, or 1: no memory.
extern "C" int run_double(const Program *p, int wide, int readout, const double *values, int64_t circuits, double *out,
                          const double *cotangent, double *gradient, int threads) {
  return (wide ? run_all<double, true> : run_all<double, false>)(*p, readout, values, circuits, out, cotangent, gradient, threads);
}
extern "C" int run_float(const Program *p, int wide, int readout, const float *values, int64_t circuits, float *out,
                         const float *cotangent, float *gradient, int threads) {
  return (wide ? run_all<float, true> : run_all<float, false>)(*p, readout, values, circuits, out, cotangent, gradient, threads);
}
