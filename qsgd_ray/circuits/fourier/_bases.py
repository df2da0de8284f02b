"""Bases in which a short real Fourier series is summed, as rows of functions of cos x and sin x.

Integer frequencies, with c = cos x and s = sin x: f = P(c) + s Q(c). Half-integer frequencies, with c and s of x / 2
and u = cos x = 1 - 2 s^2: f = c P(u) + s Q(u). The slopes f' have the same form.

- `ChebyshevBasis`: P and Q in Chebyshev polynomials T_k, one multiplication a row. P and Q at all x, and on the way
  back the gradients in the coefficients, are products with a matrix of few rows. Series of very few waves take Horner's
  rule in powers of u, which is faster and then as exact.
- `_HarmonicBasis`: rows cos(w x) and sin(w x), each pair the one before it rotated by x. An error e of c grows to at
  most k^2 e in T_k(c), but to about w e here, so series of many waves use this basis.

Letters of shapes: h heads, m all x of a head, T coefficients of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Largest degree in Chebyshev polynomials: degree^2 roundings are below 1e-5 in float32 and below 1e-12 in float64.
_POLYNOMIAL_DEGREE = {torch.float32: 8, torch.float64: 32}
# Largest degree in powers of u, which costs (1 + sqrt 2)^degree roundings at most (the sum of a Chebyshev polynomial's
# coefficients): 34 at degree 4, 1,155 at degree 8.
_POWER_DEGREE = {torch.float32: 4, torch.float64: 8}
# Rows of scratch beside those of a basis: two to work in, two for cos and sin.
SPARE_ROWS = 4

_Array = NDArray[Any]


def frequencies(n_waves: int) -> list[float]:
    """Return the frequencies w >= 0 of a series of `n_waves` coefficients."""
    return [k + (0 if n_waves % 2 else 0.5) for k in range((n_waves + 1) // 2)]


class Scratch:
    """Memory for rows of (h, m) numbers, with its views made once: a view costs as much as a small sum."""

    def __init__(self, n_rows: int, heads: int, m: int, like: Tensor) -> None:
        with torch.inference_mode(False):
            self.whole = like.new_empty(n_rows, heads, m)
        self.rows = self.whole.unbind(0)
        self.has_ones = False  # True while row 0 holds ones
        self._by_head: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def heads(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return the rows from start to stop of each head, (stop - start, m)."""
        if (start, stop) not in self._by_head:
            self._by_head[start, stop] = self.whole[start:stop].unbind(1)
        return self._by_head[start, stop]


class ChebyshevBasis:
    """f = P + s Q, or c P + s Q for half-integers, with P and Q in the rows +-T_k(cos x), k = 0, 1, ... .

    The signs + + - - + + - - ... make each row one addcmul of the two before it.

    Args:
        n_waves: number of coefficients T.
        dtype: of x.
        device: of x.
    """

    def __init__(self, n_waves: int, dtype: torch.dtype, device: torch.device) -> None:
        self.integer = n_waves % 2 == 1
        self.n_rows = (n_waves + 1) // 2
        self.dtype = dtype
        self.matrix = _to_chebyshev(n_waves).to(device)  # (T, 2 * n_rows)
        self.back = self.matrix.t().contiguous()
        self.slopes_matrix = derivative(n_waves, device) @ self.matrix
        self._scaled_slopes: dict[float, Tensor] = {}
        self.in_powers: Tensor | None = None  # (T, 2 * n_rows): P and Q in powers of u
        if self.n_rows - 1 <= _POWER_DEGREE[dtype]:
            powers = np.zeros((self.n_rows, self.n_rows))
            for k in range(self.n_rows):
                powers[k, : k + 1] = (1, 1, -1, -1)[k % 4] * np.polynomial.chebyshev.cheb2poly(np.eye(k + 1)[k])
            in_rows = self.matrix.cpu().view(n_waves, 2, self.n_rows)
            self.in_powers = (in_rows @ torch.from_numpy(powers)).reshape(n_waves, -1).to(device)

    def weights(self, coefficients: Tensor, slopes: float | None = None) -> Tensor:
        """Return P and Q of f, or of `slopes` times its slope, (h, 2, n_rows)."""
        matrix = self.matrix
        if slopes is not None:
            if slopes not in self._scaled_slopes:
                self._scaled_slopes = {slopes: slopes * self.slopes_matrix}
            matrix = self._scaled_slopes[slopes]
        return (coefficients @ matrix).to(self.dtype).view(-1, 2, self.n_rows)

    def power_weights(self, coefficients: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the coefficients of P and of Q in powers of u, lowest first, (h, 1) each."""
        assert self.in_powers is not None
        powers = (coefficients @ self.in_powers).to(self.dtype).view(-1, 2 * self.n_rows, 1).unbind(1)
        return powers[: self.n_rows], powers[self.n_rows : 2 * self.n_rows - self.integer] or powers[-1:]

    def combine_powers(
        self, p: tuple[Tensor, ...], q: tuple[Tensor, ...], c: Tensor, s: Tensor, scratch: Scratch, out: Tensor
    ) -> None:
        """Write f into `out` (h, m) by Horner's rule, in fewer passes over memory than the rows take."""
        scratch.has_ones = False
        u, q_value = scratch.rows[:2]
        u = c if self.integer else torch.mul(c, c, out=u).mul_(2).sub_(1)
        for powers, value in ((p, out), (q, q_value)):
            if len(powers) == 1:
                value.copy_(powers[0].expand_as(value))
                continue
            torch.addcmul(powers[-2], powers[-1], u, out=value)
            for power in powers[-3::-1]:
                torch.addcmul(power, value, u, out=value)
        if not self.integer:
            out.mul_(c)
        out.addcmul_(q_value, s)

    def fill(self, c: Tensor, s: Tensor, scratch: Scratch) -> None:
        """Write the rows, from cos and sin of x, or of x / 2 for half-integers."""
        rows = scratch.rows
        if not scratch.has_ones:
            rows[0].fill_(1)
            scratch.has_ones = True
        if self.n_rows > 1:
            if self.integer:
                rows[1].copy_(c)
            else:
                torch.mul(s, s, out=rows[1]).mul_(-2).add_(1)
        for k in range(2, self.n_rows):
            torch.addcmul(rows[k - 2], rows[1], rows[k - 1], value=2 if k % 2 else -2, out=rows[k])

    def combine(self, weights: Tensor, scratch: Scratch, c: Tensor, s: Tensor, out: Tensor) -> None:
        """Write f, or its slope, into `out` (h, m)."""
        p, q = scratch.rows[self.n_rows : self.n_rows + 2]
        for head, pq in enumerate(scratch.heads(self.n_rows, self.n_rows + 2)):
            torch.mm(weights[head], scratch.heads(0, self.n_rows)[head], out=pq)
        torch.addcmul(p if self.integer else p.mul_(c), q, s, out=out)

    def sums(self, grad: Tensor, scratch: Scratch, c: Tensor, s: Tensor) -> Tensor:
        """Return the gradient in the coefficients of P and Q, (h, 2 * n_rows) float64."""
        p_grad, q_grad = scratch.rows[self.n_rows : self.n_rows + 2]
        if self.integer:
            p_grad.copy_(grad)
        else:
            torch.mul(grad, c, out=p_grad)
        torch.mul(grad, s, out=q_grad)
        rows, both = scratch.heads(0, self.n_rows), scratch.heads(self.n_rows, self.n_rows + 2)
        if len(rows) == 1:
            return torch.mm(both[0], rows[0].t()).view(1, -1).double()
        return torch.stack([torch.mm(g, row.t()) for g, row in zip(both, rows, strict=True)]).flatten(1).double()

    def to_waves(self, sums: Tensor) -> Tensor:
        """Return the gradient in the coefficients of f, (h, T), from that in P and Q."""
        return sums @ self.back


class _HarmonicBasis:
    """f as a sum over the rows cos(w x), then sin(w x) without sin(0 x).

    Args:
        n_waves: number of coefficients T.
        dtype: of x.
        device: of x.
    """

    def __init__(self, n_waves: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n_waves, self.dtype = n_waves, dtype
        self.n_rows = n_waves
        self.derivative = derivative(n_waves, device)

    def weights(self, coefficients: Tensor, slopes: float | None = None) -> Tensor:
        """Return the weights of the rows of f, or of `slopes` times its slope, (h, 1, T)."""
        weights = coefficients if slopes is None else coefficients @ (slopes * self.derivative)
        return weights.to(self.dtype)[:, None]

    def fill(self, c: Tensor, s: Tensor, scratch: Scratch) -> None:
        """Write the rows, from cos and sin of x, or of x / 2 for half-integers."""
        scratch.has_ones = False  # a ChebyshevBasis may use this scratch next
        _fill_waves(c, s, self.n_waves, scratch.rows)

    def combine(self, weights: Tensor, scratch: Scratch, c: Tensor, s: Tensor, out: Tensor) -> None:  # noqa: ARG002
        """Write f, or its slope, into `out` (h, m)."""
        for head, rows in enumerate(scratch.heads(0, self.n_rows)):
            out[head] = torch.mm(weights[head], rows)[0]

    def sums(self, grad: Tensor, scratch: Scratch, c: Tensor, s: Tensor) -> Tensor:  # noqa: ARG002
        """Return the gradient in the weights of the rows, (h, T) float64."""
        rows = scratch.heads(0, self.n_rows)
        return torch.stack([torch.mv(row, g) for row, g in zip(rows, grad.unbind(0), strict=True)]).double()

    def to_waves(self, sums: Tensor) -> Tensor:
        """Return the gradient in the coefficients of f, which are the weights of the rows."""
        return sums


def basis_of(n_waves: int, x: Tensor) -> ChebyshevBasis | _HarmonicBasis:
    """Return the basis for `n_waves` coefficients and the dtype and device of x; each is made once."""
    return _cached_basis(n_waves, x.dtype, x.device)


@lru_cache(maxsize=64)
def _cached_basis(n_waves: int, dtype: torch.dtype, device: torch.device) -> ChebyshevBasis | _HarmonicBasis:
    with torch.inference_mode(False):
        kind = ChebyshevBasis if (n_waves - 1) // 2 <= _POLYNOMIAL_DEGREE[dtype] else _HarmonicBasis
        return kind(n_waves, dtype, device)


def _fill_waves(cos: Tensor, sin: Tensor, n_waves: int, scratch: Sequence[Tensor]) -> None:
    """Write cos(w x) by rising w, then sin(w x) without sin(0 x), into the first T of T + 2 rows.

    `cos`, `sin`: of x, or of x / 2 for half-integers. Each pair is the one before it rotated by x: an error of a few
    roundings times w.
    """
    n_cosines = (n_waves + 1) // 2
    cosines, sines = list(scratch[:n_cosines]), list(scratch[n_cosines:n_waves])
    if n_waves % 2:
        cosines.pop(0).fill_(1)
        c, s = cos, sin
    else:
        c = torch.mul(sin, sin, out=scratch[n_waves]).mul_(-2).add_(1)
        s = torch.mul(sin, cos, out=scratch[n_waves + 1]).mul_(2)
    cosines[0].copy_(cos)
    sines[0].copy_(sin)
    for k in range(1, len(cosines)):
        torch.mul(cosines[k - 1], c, out=cosines[k]).addcmul_(sines[k - 1], s, value=-1)
        torch.mul(sines[k - 1], c, out=sines[k]).addcmul_(cosines[k - 1], s)


@lru_cache(maxsize=32)
def _to_chebyshev(n_waves: int) -> Tensor:
    """Return the matrix (T, 2 * rows) from the coefficients of f to those of P and Q in the rows of `ChebyshevBasis`.

    Integer frequencies: cos kx = T_k(c) and sin kx = s U_{k-1}(c). Half-integer: Chebyshev polynomials of the third and
    fourth kind. Each follows from p_{k+1} = 2 c p_k - p_{k-1}, and 2 c T_j = T_{j+1} + T_{|j-1|}.
    """
    n_rows, integer = (n_waves + 1) // 2, n_waves % 2
    matrix = np.zeros((n_waves, 2, n_rows))

    def times_2c(p: _Array) -> _Array:
        product = np.zeros_like(p)
        for j in np.flatnonzero(p):
            product[abs(j - 1)] += p[j]
            if j + 1 < len(p):
                product[j + 1] += p[j]
        return product

    for half, rows in enumerate((range(n_rows), range(n_rows, n_waves))):
        previous, current = np.zeros(n_rows + 1), np.eye(1, n_rows + 1)[0]
        if integer:  # T_{-1} = c, so that T_1 = 2 c - c; U_{-1} = 0
            previous[1] = 1 - half
        else:  # V_{-1} = 1, W_{-1} = -1
            previous[0] = 1 - 2 * half
        for row in rows:
            matrix[row, half] = current[:n_rows]
            previous, current = current, times_2c(current) - previous
    signs = np.array([1.0, 1.0, -1.0, -1.0])[np.arange(n_rows) % 4]
    with torch.inference_mode(False):
        return torch.from_numpy((matrix * signs).reshape(n_waves, 2 * n_rows))


@lru_cache(maxsize=32)
def derivative(n_waves: int, device: torch.device) -> Tensor:
    """Return the matrix (T, T) from the coefficients of f to those of f'."""
    with torch.inference_mode(False):
        matrix = torch.zeros(n_waves, n_waves, dtype=torch.float64)
        for k, frequency in enumerate(frequencies(n_waves)):
            sine = (n_waves + 1) // 2 + k - n_waves % 2
            if frequency:
                matrix[sine, k], matrix[k, sine] = frequency, -frequency
        return matrix.to(device)
