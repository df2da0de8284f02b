// A compiled circuit as circuits/programs/_native.py packs it; the fields are those of its arrays.
//
// A vector holds one amplitude of W circuits, or, in a wide program, W amplitudes of one: the last bits of a basis state
// number its lanes, the others the vectors.
#ifndef QSGD_RAY_PROGRAM
#define QSGD_RAY_PROGRAM

#include <cstdint>

struct Rotation {      // also an observable: f is then of P, not of -i P
  uint32_t x, z;       // of vectors, in the coordinates of its block
  uint32_t z_state;    // of vectors, as basis states number them
  uint32_t lanes_x, lanes_z;
  float sign;
  int32_t imaginary;
};

struct Step {  // ONE: rotation a. TWO: a, then b. DIAGONAL: b sets from the set a on
  int32_t kind, a, b;
};
enum { ONE, TWO, DIAGONAL };

struct Set {  // up to four rotations of Z strings
  int32_t size, rotation[4];
  int32_t table;        // into `parities`: for each vector of a block, bit j is the parity of rotation j
  int32_t lanes;        // into `lane_parities`: the same for each lane
};

// Steps that mix only vectors whose numbers differ by sums of `rank` offsets: they are taken a coset at a time, copied to
// a buffer that stays in the cache. A block of all vectors is computed in place.
struct Block {
  int32_t first_step, n_steps, rank;
  int32_t first_offset;  // into `offsets`: 2^rank, what is added (xor) to a coset's first vector
  int32_t first_pivot;   // into `pivots`: the bits, ascending, that are 0 in a coset's first vector
  int32_t n_sets;
};

struct Program {
  int64_t n_qubits, n_vectors, n_slots, n_rotations, n_blocks, n_opened, n_strings, n_diagonal, n_outputs, n_read, buffer, most_steps,
      most_sets;
  const double *offset;        // (n_rotations, 2): cosine and sine of half of what is added to each angle
  const int64_t *first_term;   // n_rotations + 1
  const int32_t *slot;         // of each term
  const double *factor;
  const Rotation *rotations;
  const Step *steps;
  const Set *sets;
  const uint8_t *parities, *lane_parities;
  const Block *blocks;
  const int32_t *offsets, *pivots;
  const int32_t *opened;       // (n_opened, 2): qubit and rotation, by qubit
  const Rotation *strings;     // observables, first the n_diagonal Z strings
  const int64_t *first_string; // n_outputs + 1: the strings of each output, as indices with weights
  const int32_t *output_string;
  const double *weight;
  const int32_t *source;       // n_read: the basis state that is read at each place
  const uint8_t *phase;        // n_read: its power of i
};

#endif
