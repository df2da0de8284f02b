// Slices of float32 tensors here and there in memory, read and written in one call (optimizer/_gather.py).

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && !defined(__FMA__)
#error "a processor without fused multiplication and addition"
#endif

// Copies n slices end to end into `to`; zeros for a null pointer.
extern "C" void gather(const float *const *from, const int64_t *sizes, int64_t n, float *to) {
  for (int64_t i = 0; i < n; to += sizes[i++])
    if (from[i]) std::memcpy(to, from[i], 4 * sizes[i]);
    else std::memset(to, 0, 4 * sizes[i]);
}

// Copies values, which lie end to end, back into the slices.
extern "C" void put(float *const *to, const int64_t *sizes, int64_t n, const float *values) {
  for (int64_t i = 0; i < n; values += sizes[i++])
    if (to[i]) std::memcpy(to[i], values, 4 * sizes[i]);
}

// Returns 1 where the slices hold these values, bit for bit, else 0.
extern "C" int same(const float *const *here, const int64_t *sizes, int64_t n, const float *values) {
  for (int64_t i = 0; i < n; values += sizes[i++])
    if (here[i] && std::memcmp(here[i], values, 4 * sizes[i])) return 0;
  return 1;
}

// Adds times[i] * values to slice i, rounded once, as torch does it.
extern "C" void add(float *const *to, const int64_t *sizes, int64_t n, const float *values, const float *times) {
  for (int64_t i = 0; i < n; values += sizes[i++])
    if (to[i] && times[i] != 0)
      for (int64_t j = 0; j < sizes[i]; j++) to[i][j] = __builtin_fmaf(times[i], values[j], to[i][j]);
}

// Adds times[i] * (values * by[i]) to slice i. The product is in double and rounded once to float, as torch does it for
// tensors of these types.
extern "C" void add_product(float *const *to, const int64_t *sizes, int64_t n, const double *values,
                            const float *const *by, const float *times) {
  for (int64_t i = 0; i < n; values += sizes[i++])
    if (to[i] && by[i] && times[i] != 0)
      for (int64_t j = 0; j < sizes[i]; j++)
        to[i][j] = __builtin_fmaf(times[i], (float)(values[j] * by[i][j]), to[i][j]);
}
