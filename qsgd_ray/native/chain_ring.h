// Rings: chains whose last carry of each layer enters the first wire, cut between the wires 0 and 1.
//
// Both environments have a column for each value of the carries that cross the cut: `left` of wire k has the wires 1 to k
// with Z measured, `right` those behind k without an observable, then wire 0 with Z. <Z_k> is the sum of left * right,
// and <Z_0> = <Z_1 ... Z_(n-1)> that of the last left with wire 0 unmeasured.

static constexpr int MATRIX = VALUES * VALUES;

// Wire 0: in each layer it is a control, then a target. Level m has 16**m vectors (I, X, Y, Z), one for each value of
// the carries of the layers 1 to m: T_c C_j of the vector of level m-1 behind the rotations.
struct Closing {
  N vectors[MATRIX + MATRIX / 8][4];  // all levels: 1 + 16 + ... + 16**(DEPTH-1)

  static constexpr int level(int m) { return m ? level(m - 1) + power4(2 * (m - 1)) : 0; }

  // Component of T_c C_j that `component` comes from: its number, + 4 with the sign -; -1: it is 0.
  static int source(int c, int j, int component) {
    static const int control[4][4] = {{-1, 1, 2, -1}, {0, -1, -1, 3}, {3, -1, -1, 0}, {-1, 6, 1, -1}};
    static const int target[4][4] = {{1, 0, -1, -1}, {0, 1, -1, -1}, {-1, -1, 2, 3}, {-1, -1, 7, 2}};
    const int to = target[c][component], from = to < 0 ? -1 : control[j][to % 4];
    return from < 0 ? -1 : (from % 4) + 4 * ((from / 4 + to / 4) % 2);
  }

  // Where in a matrix, (column: carries out, row: carries in), a vector of the last level is.
  static int place(int index) {
    int row = 0, column = 0;
    for (int layer = D - 2; layer >= 0; layer--) {
      row = 4 * row + (index >> (4 * layer + 2)) % 4;
      column = 4 * column + (index >> 4 * layer) % 4;
    }
    return VALUES * column + row;
  }

  // Turns a vector by the rotations behind the CNOTs of layer m: those of layer m+1.
  static void rotated(const N *v, int m, const Wire &w, N *out) {
    out[0] = v[0];
    if (m == 0)
      for (int i = 0; i < 3; i++) out[1 + i] = w.first.at[i];
    else
      for (int i = 0; i < 3; i++) {
        out[1 + i] = number(0);
        for (int q = 0; q < 3; q++) out[1 + i] = fused(w.matrix[m - 1][q].at[i], v[1 + q], out[1 + i]);
      }
  }

  void forward(const Wire &w, N *measured, N *unmeasured) {
    vectors[0][0] = number(1);
    for (int i = 1; i < 4; i++) vectors[0][i] = number(0);
    for (int m = 0; m < D - 1; m++)
      for (int k = 0; k < power4(2 * m); k++) {
        N v[4];
        rotated(vectors[level(m) + k], m, w, v);
        for (int cj = 0; cj < 16; cj++)
          for (int i = 0; i < 4; i++) {
            const int from = source(cj / 4, cj % 4, i);
            vectors[level(m + 1) + 16 * k + cj][i] = from < 0 ? number(0) : from < 4 ? v[from] : -v[from - 4];
          }
      }
    for (int k = 0; k < MATRIX; k++) {
      const N *v = vectors[level(D - 1) + k];
      N sum = D == 1 ? w.first.at[Z] : number(0);
      if (D > 1)
        for (int i = 0; i < 3; i++) sum = fused(w.last.at[i], v[1 + i], sum);
      measured[place(k)] = sum;
      unmeasured[place(k)] = v[0];
    }
  }

  // From the derivatives by both matrices to those by the wire; the vectors become derivatives by themselves.
  void backward(const Wire &w, const N *measured_bar, const N *unmeasured_bar, Wire &w_bar) {
    if (D == 1) {
      w_bar.first.at[Z] = w_bar.first.at[Z] + measured_bar[0];
      return;
    }
    for (int k = 0; k < MATRIX; k++) {
      N *v = vectors[level(D - 1) + k];
      const N bar = measured_bar[place(k)];
      v[0] = unmeasured_bar[place(k)];
      for (int i = 0; i < 3; i++) {
        w_bar.last.at[i] = fused(bar, v[1 + i], w_bar.last.at[i]);
        v[1 + i] = w.last.at[i] * bar;
      }
    }
    for (int m = D - 2; m >= 0; m--)
      for (int k = 0; k < power4(2 * m); k++) {
        N bar[4] = {number(0), number(0), number(0), number(0)}, *v = vectors[level(m) + k];
        for (int cj = 0; cj < 16; cj++)
          for (int i = 0; i < 4; i++) {
            const int from = source(cj / 4, cj % 4, i);
            const N b = vectors[level(m + 1) + 16 * k + cj][i];
            if (from >= 0) bar[from % 4] = from < 4 ? bar[from % 4] + b : bar[from % 4] - b;
          }
        if (m == 0) {
          for (int i = 0; i < 3; i++) w_bar.first.at[i] = w_bar.first.at[i] + bar[1 + i];
          continue;
        }
        v[0] = bar[0];
        for (int q = 0; q < 3; q++) {
          N sum = number(0);
          for (int i = 0; i < 3; i++) {
            N &to = w_bar.matrix[m - 1][q].at[i];
            to = fused(bar[1 + i], v[1 + q], to);
            sum = fused(w.matrix[m - 1][q].at[i], bar[1 + i], sum);
          }
          v[1 + q] = sum;
        }
      }
  }
};

INLINE N inner(const N *a, const N *b) {
  N sum[4];
  for (int i = 0; i < 4; i++) sum[i] = number(0);
  for (int k = 0; k < MATRIX; k++) sum[k % 4] = fused(a[k], b[k], sum[k % 4]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Does one block of lanes.
static void ring(const Task &t, int64_t lane, int live, N *space) {
  const int64_t n = t.n, angles = D * t.r;
  N *z = space, *cos_sin = z + n, *by_angle = cos_sin + 2 * angles * n;
  Wire *wires = (Wire *)(by_angle + angles * n), *wire_bars = wires + n;
  N *right = (N *)(wire_bars + n), *unmeasured = right + n * MATRIX, *bar = unmeasured + MATRIX, *left = bar + MATRIX;
  Closing &closing = *(Closing *)(left + (t.recorded ? n : 2) * MATRIX);
  read_wires(t, lane, live, 0, n, cos_sin, wires);
  closing.forward(wires[0], right + (n - 1) * MATRIX, unmeasured);
  for (int64_t k = n - 1; k > 0; k--)
    for (int i = k * MATRIX; i < (k + 1) * MATRIX; i += VALUES) passed_back(right + i, right + i - MATRIX, wires[k]);
  for (int k = 0; k < MATRIX; k++) left[k] = unit(k % (VALUES + 1) == 0);
  N *before = left, *after = left + MATRIX;
  for (int64_t k = 1; k < n; k++) {
    for (int column = 0; column < MATRIX; column += VALUES) passed<Z>(before + column, after + column, wires[k]);
    z[k] = inner(after, right + k * MATRIX);
    if (t.recorded) before = after, after += MATRIX;
    else std::swap(before, after);
  }
  z[0] = inner(before, unmeasured);
  if (t.z) write_z(t, lane, live, z);
  if (!t.recorded) return;
  read_cotangent(t, lane, live, z);
  std::memset((void *)wire_bars, 0, n * sizeof(Wire));
  // From the first wire on: bar, the derivatives by right of wire k.
  for (int i = 0; i < MATRIX; i++) bar[i] = number(0);
  for (int64_t k = 1; k < n; k++)
    for (int column = 0; column < MATRIX; column += VALUES) {
      N *x = bar + column, from[VALUES], out_bar[VALUES];
      for (int i = 0; i < VALUES; i++) from[i] = x[i], out_bar[i] = right[k * MATRIX + column + i];
      passed_bar<NOTHING>(from, out_bar, wires[k], wire_bars[k]);
      passed<NOTHING>(from, x, wires[k]);
      for (int i = 0; i < VALUES; i++) x[i] = fused(z[k], left[k * MATRIX + column + i], x[i]);
    }
  N *last = left + (n - 1) * MATRIX;
  for (int i = 0; i < MATRIX; i++) {
    const N by_last = z[0] * unmeasured[i];
    unmeasured[i] = z[0] * last[i];
    last[i] = by_last;  // its place is free: from here on, derivatives by left of the last wire
  }
  closing.backward(wires[0], bar, unmeasured, wire_bars[0]);
  for (int64_t k = n - 1; k > 0; k--)
    for (int column = 0; column < MATRIX; column += VALUES) {
      N *x_bar = bar + column;
      for (int i = 0; i < VALUES; i++) {
        const N by_z = z[k] * right[k * MATRIX + column + i];
        x_bar[i] = k == n - 1 ? by_z + last[column + i] : by_z + x_bar[i];
      }
      passed_bar<Z>(left + (k - 1) * MATRIX + column, x_bar, wires[k], wire_bars[k]);
    }
  for (int64_t k = 0; k < n; k++)
    by_angles(Any(t), cos_sin + 2 * angles * k, wires[k], wire_bars[k], by_angle + angles * k);
  write_gradient(t, lane, live, 0, n, by_angle);
}
