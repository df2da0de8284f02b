// Adam's step with a perturbation, seven floats of memory traffic a coordinate (optimizer/_one_pass.py).
//
// Compiled with -D of the rule: PAPER (else adamw), MOMENTS (else update), PRECONDITIONED (else gradient), and of the
// source of s: SINE, GIVEN (else s = 1). _one_pass.py packs Piece and Settings, and reads Squares.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#if defined(__x86_64__) && !defined(__FMA__)
#error "a processor without fused multiplication and addition"
#endif

struct Piece {
  float *theta;
  const float *gradient;
  float *m, *v;
  const float *s;  // only if GIVEN
  int64_t size, settings;
};

struct Settings {
  float sign;  // -1: maximize
  float one_minus_beta1, beta2, one_minus_beta2;
  float unbias_m, unbias_v_root, eps;
  float kept, lr, lambda;
};

struct Squares {
  double q, adam;
};

struct Run {  // the work that one thread takes at a time
  const Piece *piece;
  int64_t from, size;
};

static const int64_t RUN = 1 << 15;   // 4 arrays of 128 KiB; many, so that no thread waits long for the last
static const int64_t LANES = 1 << 10;  // summed in float32, 64 to a lane of 16, before float64 takes over

// Written out, and -ffp-contract=off: what the compiler fused by itself would differ from one loop to the next.
static inline float fused(float x, float y, float z) { return __builtin_fmaf(x, y, z); }

// sin(pi x) within 2e-7 for |x| < 8; torch.sin of the rounded pi * x is within 1.4e-6 there.
// With x = k + r, k the nearest whole number, it is (-1)^k sin(pi r). The polynomial is sin(pi r) / r in r^2 for
// |r| <= 1/2: interpolated at 200 Chebyshev points of r^2, off by 3e-11.
static inline float sin_pi(float x) {
  const float k = std::rint(x), r = x - k, y = r * r, half = 0.5f * k;
  float p = -0.00702838644352765f;
  p = fused(p, y, 0.08205040183478672f);
  p = fused(p, y, -0.5992521978306921f);
  p = fused(p, y, 2.5501633189477793f);
  p = fused(p, y, -5.167712764624566f);
  p = fused(p, y, 3.141592653536291f);
  return p * r * fused(-4.0f, half - std::floor(half), 1.0f);  // half a whole number: k is even
}

static inline float direction(float m, float v, const Settings &o) {
#ifdef PAPER
  return m / std::sqrt(v + o.eps);
#else
  return m / fused(std::sqrt(v), o.unbias_v_root, o.eps) * o.unbias_m;
#endif
}

template <bool NORMS>
static Squares step_run(const Piece &p, int64_t from, int64_t size, const Settings o) {
  float *__restrict theta_ = p.theta + from, *__restrict m_ = p.m + from, *__restrict v_ = p.v + from;
  const float *__restrict gradient = p.gradient + from;
#ifdef GIVEN
  const float *__restrict given = p.s + from;
#endif
  float qq = 0, dd = 0;
#pragma omp simd reduction(+ : qq, dd)
  for (int64_t i = 0; i < size; i++) {
    const float theta = theta_[i], g = o.sign * gradient[i];
#if defined(SINE)
    const float s = sin_pi(theta);
#elif defined(GIVEN)
    const float s = given[i];
#else
    const float s = 1;
#endif
    float m = fused(g - m_[i], o.one_minus_beta1, m_[i]);
    float v = fused(v_[i], o.beta2, g * g * o.one_minus_beta2);
#ifdef PRECONDITIONED
    const float q = s * direction(m, v, o);
#else
    const float q = s * g;
#endif
#ifdef MOMENTS
    const float fed = fused(o.lambda, q, g);
    m = fused(fed - m_[i], o.one_minus_beta1, m_[i]);
    v = fused(v_[i], o.beta2, fed * fed * o.one_minus_beta2);
    const float d = direction(m, v, o), move = d;
#else
    const float d = direction(m, v, o), move = fused(o.lambda, q, d);
#endif
    theta_[i] = fused(-o.lr, move, theta * o.kept);
    m_[i] = m;
    v_[i] = v;
    if (NORMS) {
      qq += q * q;
      dd += d * d;
    }
  }
  return {qq, dd};
}

static Squares direction_run(const Piece &p, int64_t from, int64_t size, const Settings o) {
  const float *m = p.m + from, *v = p.v + from;
  float dd = 0;
#pragma omp simd reduction(+ : dd)
  for (int64_t i = 0; i < size; i++) {
    const float d = direction(m[i], v[i], o);
    dd += d * d;
  }
  return {0, dd};
}

template <class F>
static Squares in_lanes(int64_t size, F part) {
  Squares sum{0, 0};
  for (int64_t from = 0; from < size; from += LANES) {
    const Squares one = part(from, std::min(LANES, size - from));
    sum.q += one.q;
    sum.adam += one.adam;
  }
  return sum;
}

// Calls f(piece, from, size) for every run on that many threads. The sums of a piece are added in the order of its runs,
// so that they do not depend on the number of threads.
template <class F>
static void over_runs(const Piece *pieces, int64_t n, int threads, Squares *squares, F f) {
  std::vector<Run> runs;
  for (int64_t i = 0; i < n; i++)
    for (int64_t from = 0; from < pieces[i].size; from += RUN)
      runs.push_back({pieces + i, from, std::min(RUN, pieces[i].size - from)});
  const int64_t n_runs = runs.size();
  std::vector<Squares> sums(squares ? n_runs : 0);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1 && n_runs > 1)
  for (int64_t i = 0; i < n_runs; i++) {
    const Squares sum = f(*runs[i].piece, runs[i].from, runs[i].size);
    if (squares) sums[i] = sum;
  }
  if (!squares) return;
  std::fill(squares, squares + n, Squares{0, 0});
  for (int64_t i = 0; i < n_runs; i++) {
    Squares &sum = squares[runs[i].piece - pieces];
    sum.q += sums[i].q;
    sum.adam += sums[i].adam;
  }
}

// Takes one step of every piece. squares: null, or room for n of them.
extern "C" void step(const Piece *pieces, int64_t n, const Settings *settings, int threads, Squares *squares) {
  over_runs(pieces, n, threads, squares, [=](const Piece &p, int64_t from, int64_t size) -> Squares {
    const Settings &o = settings[p.settings];
    if (!squares) return step_run<false>(p, from, size, o);
    return in_lanes(size, [&](int64_t at, int64_t lanes) { return step_run<true>(p, from + at, lanes, o); });
  });
}

// Sums the squares of Adam's direction as m and v stand; writes nothing but squares.
extern "C" void directions(const Piece *pieces, int64_t n, const Settings *settings, int threads, Squares *squares) {
  over_runs(pieces, n, threads, squares, [=](const Piece &p, int64_t from, int64_t size) -> Squares {
    const Settings &o = settings[p.settings];
    return in_lanes(size, [&](int64_t at, int64_t lanes) { return direction_run(p, from + at, lanes, o); });
  });
}
