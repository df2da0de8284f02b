"""Quantum attention (arXiv 2511.01918, Eq. 3 to 5): query, key, value come in; (softmax(S / sqrt(d)) + Phi(S)) V out.

S = Q K^T, unscaled, enters the circuit as an angle: a_di = theta_di + S on every qubit of every layer. The circuit's
response to it is a short Fourier series (circuits/fourier/series.py), so a layer simulates 9 circuits of 4 qubits and
depth 2 whatever the batch, the heads and the length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsgd_ray.circuits.fourier.series import FourierSeries, SeriesReadout, fourier_series
from qsgd_ray.circuits.spec import CircuitSpec

if TYPE_CHECKING:
    from qsgd_ray.circuits.backends.protocol import CircuitBackend


class QuantumAttention(nn.Module):
    """A drop-in for torch.nn.functional.scaled_dot_product_attention with learned circuit angles.

    `spec`: the ansatz; None is the paper's (4 qubits, depth 2, Ry and Rz, CNOT chain). `readout`: "amplitude", the real
    part of psi_0 + ... + psi_{n-1} (Eq. 4; simulators only), or "probability", |psi_0|^2 + ... + |psi_{n-1}|^2, which
    can be measured. `n_heads`: a circuit for each of so many heads; None: one circuit for all. `phi` False: no circuit
    and no parameter; every call is torch's own function's, bit for bit. `backend` answers the circuits (probabilities
    only); None simulates them exactly. `dropout`: what drops weights, (weights, p) -> weights. `compiled`: evaluate the
    series by torch.compile (see `FourierSeries`).

    The angles, (circuits, depth, n_qubits, rotations) in radians, start as normal draws of standard deviation 0.1 from
    torch's global generator: near the circuit without rotations, and no two alike. ValueError: an unknown readout, a
    number of heads below one, or amplitudes asked of a backend.
    """

    INITIAL_STD = 0.1

    def __init__(
        self,
        spec: CircuitSpec | None = None,
        *,
        readout: SeriesReadout = "amplitude",
        n_heads: int | None = None,
        phi: bool = True,
        backend: CircuitBackend | None = None,
        dropout: Callable[[Tensor, float], Tensor] = F.dropout,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if readout not in get_args(SeriesReadout):
            raise ValueError(f"readout: got {readout!r}; allowed: {', '.join(get_args(SeriesReadout))}")
        if n_heads is not None and n_heads < 1:
            raise ValueError(f"n_heads: got {n_heads}; allowed: a whole number >= 1, or None for one circuit")
        if backend is not None and readout == "amplitude":
            raise ValueError("readout: got 'amplitude' with a backend; allowed: 'probability', which can be measured")
        self.spec = CircuitSpec(4, 2) if spec is None else spec
        self.readout = readout
        self.phi = phi
        self.backend = backend
        self.dropout = dropout
        self.compiled = compiled
        self._asked: FourierSeries | None = None
        if phi:
            self.angles = nn.Parameter(torch.randn(self.spec.angles_shape(n_heads or 1)) * self.INITIAL_STD)

    def series(self) -> FourierSeries:
        """The response Phi of the circuits as they are now; this is where they run, unless `run_circuits_together` was."""
        asked, self._asked = self._asked, None
        return asked or fourier_series(self.spec, self.angles, self.readout, backend=self.backend)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The arguments of torch's function, (..., n_heads, length, d) each, and its meaning of them.

        `scale` (None: 1 / sqrt(d)) divides in the softmax only. `attn_mask`: bool, True where attention is allowed, or
        added to the scaled scores. What is masked (False, or the lowest number of its type and below) has weight and
        Phi zero; a query that may attend nowhere gets zeros. `dropout_p`: each weight, the sum of softmax and Phi, is
        dropped as torch drops softmax's alone; as there, whoever calls passes 0 outside training. In half precision
        Phi is computed in float32 and then rounded. ValueError: is_causal together with a mask; heads that are not
        `n_heads`.
        """
        if not self.phi:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        # Where it can, the scale goes into the query, which is smaller than the scores; the series takes it out again.
        folded = scale if scale != 0 and query.dtype in (torch.float32, torch.float64) else 1.0
        scores = (query * folded) @ key.transpose(-2, -1)
        logits = scores if folded == scale else scores * scale
        masked = _masked(logits, attn_mask, is_causal)
        if masked is not None:
            if attn_mask is not None and attn_mask.is_floating_point():
                logits = logits + attn_mask
            # The lowest number, not -inf: a row that is masked throughout must not become nan on its way to zero.
            logits = logits.masked_fill(masked, torch.finfo(logits.dtype).min)
        weights = torch.softmax(logits, -1)
        weights = weights + self.series()(scores, scale=1 / folded, compiled=self.compiled).to(weights.dtype)
        if masked is not None:
            weights = weights.masked_fill(masked, 0)
        if dropout_p > 0:
            weights = self.dropout(weights, dropout_p)
        return weights.to(value.dtype) @ value


def run_circuits_together(attentions: Sequence[QuantumAttention]) -> None:
    """Run the circuits of several layers as one batch; the next call of each finds its own there.

    Small circuits cost what their operations cost to start, so two layers take little longer than one. Layers whose
    spec, readout or backend differ from the first one's are left to themselves.
    """
    alike = [
        attention
        for attention in dict.fromkeys(attentions)
        if attention.phi
        and not hasattr(attention.angles, "to_local")  # in shards, they are whole within the layer only
        and (attention.spec, attention.readout) == (attentions[0].spec, attentions[0].readout)
        and attention.backend is attentions[0].backend
    ]
    if len(alike) < 2:
        return
    first = alike[0]
    angles = torch.cat([attention.angles for attention in alike])
    series = fourier_series(first.spec, angles, first.readout, backend=first.backend)
    parts = series.coefficients.split([len(attention.angles) for attention in alike])
    for attention, part in zip(alike, parts, strict=True):
        attention._asked = FourierSeries(part)


def _masked(logits: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """True where a query must not see a key; None where all see all."""
    if attn_mask is None:
        if not is_causal:
            return None
        return torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
    if is_causal:
        raise ValueError("is_causal: got True with an attn_mask; allowed: one of the two")
    if attn_mask.dtype == torch.bool:
        return ~attn_mask
    return attn_mask <= torch.finfo(attn_mask.dtype).min
