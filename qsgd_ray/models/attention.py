"""Quantum attention (arXiv 2511.01918, Eq. 3 to 5): query, key, value come in; (softmax(S / sqrt(d)) + Phi(S)) V out.

S = Q K^T, unscaled, enters the circuit as an angle: a_di = theta_di + S on every qubit i of every layer d. The
circuit's response to it is a short Fourier series (circuits/fourier/series.py), so an attention layer simulates 9
circuits of 4 qubits and depth 2 whatever the batch, the number of heads and the length.

Letters in shapes: b batch (any leading dimensions), h heads, q queries, k keys, e width of a head, v width of a value;
of angles c circuits, d depth, n qubits, r rotations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsgd_ray.circuits.fourier.series import FourierSeries, SeriesReadout, fourier_series
from qsgd_ray.circuits.plain_numbers import whole_number_or_none
from qsgd_ray.circuits.spec import CircuitSpec

if TYPE_CHECKING:
    from qsgd_ray.circuits.backends.protocol import CircuitBackend

# exp(-104) is less than half of the smallest float32, 2**-149: it rounds to 0.
_SILENT = 104.0


class QuantumAttention(nn.Module):
    """A drop-in for torch.nn.functional.scaled_dot_product_attention with learned circuit angles.

    It computes (arXiv 2511.01918, Eq. 3 to 5)

        out = ( softmax(S / sqrt(e)) + Phi(S) ) V,                     S = Q K^T
        Phi(x) = Re( psi_0(x) + ... + psi_{n-1}(x) )                   readout "amplitude" (Eq. 4)
        Phi(x) = |psi_0(x)|^2 + ... + |psi_{n-1}(x)|^2                 readout "probability"

    psi_k(x) is the k-th amplitude of the circuit `spec` on |0...0>, whose first rotation of every layer d and qubit i
    turns by angles[c, d, i, 0] + x, the others by their angles alone. The paper leaves open how x enters, how a complex
    amplitude becomes a weight, and what happens at masked positions; here Phi is zero there, so a causal model stays
    causal.

    Args:
        spec: ansatz of the circuit; None: the paper's (4 qubits, depth 2, Ry and Rz on each, CNOT chain).
        readout: "amplitude" as in the paper, which simulators alone can read, or "probability", which can be measured.
        n_heads: number of circuits, one for each head, >= 1; None: one circuit for all heads.
        phi: False: no circuit and no parameter; every call is torch's own function, bit for bit.
        backend: answers the circuits, with shots, noise or a QPU where it has them, for readout "probability"; None:
            exact simulation on the device of the angles.
        dropout: drops weights, (weights, p) -> weights; default: torch's.
        compiled: True: evaluate the series by torch.compile, which takes seconds at first (see `FourierSeries`).

    Attributes:
        angles: parameter, shape (c, d, n, r) in radians, c = `n_heads` or 1; absent where `phi` is False. Drawn from
            torch's global generator with mean 0 and standard deviation 0.1: near the circuit without rotations, and no
            two alike.

    Raises:
        ValueError: an argument of another kind than said, a number of heads below one, or a backend with readout
            "amplitude".

    Example:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> from qsgd_ray.models.attention import QuantumAttention
        >>> query, key, value = torch.randn(3, 2, 4, 16, 8)  # batch 2, 4 heads, 16 tokens, width 8
        >>> attention = QuantumAttention(n_heads=4)
        >>> attention.angles.shape
        torch.Size([4, 2, 4, 2])
        >>> attention(query, key, value, is_causal=True).shape
        torch.Size([2, 4, 16, 8])
        >>> plain = F.scaled_dot_product_attention(query, key, value)
        >>> torch.equal(QuantumAttention(phi=False)(query, key, value), plain)
        True
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
        n_heads = whole_number_or_none("n_heads", n_heads, 1)
        if spec is not None and not isinstance(spec, CircuitSpec):
            raise ValueError(f"spec: got {repr(spec)[:100]}; allowed: a CircuitSpec, or None for the paper's")
        for name, flag in (("phi", phi), ("compiled", compiled)):
            if not isinstance(flag, bool):
                raise ValueError(f"{name}: got {repr(flag)[:100]}; allowed: True or False")
        if backend is not None and not hasattr(backend, "submit"):
            raise ValueError(f"backend: got {repr(backend)[:100]}; allowed: a backend, such as one of make_backend")
        if backend is not None and readout == "amplitude":
            raise ValueError("readout: got 'amplitude' with a backend; allowed: 'probability', which can be measured")
        self.spec = CircuitSpec(4, 2) if spec is None else spec
        self.readout = readout
        self.phi = phi
        self.backend = backend
        self.dropout = dropout
        self.compiled = compiled
        # Left by `_run_circuits_together` for the next call.
        self._prepared_series: FourierSeries | None = None
        if phi:
            self.angles = nn.Parameter(torch.randn(self.spec.angles_shape(n_heads or 1)) * self.INITIAL_STD)

    def series(self) -> FourierSeries:
        """Return the response Phi to the angles as they are now.

        The circuits run here, unless `_run_circuits_together` has run them; its result is used once.
        """
        prepared, self._prepared_series = self._prepared_series, None
        return prepared or fourier_series(self.spec, self.angles, self.readout, backend=self.backend)

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
        """Mix values by softmax weights plus Phi; arguments as torch's function has them.

        Args:
            query: shape (b, h, q, e), any real floating type; any number of leading dimensions.
            key: shape (b, h, k, e).
            value: shape (b, h, k, v).
            attn_mask: shape that broadcasts to (b, h, q, k). bool: True where a query may attend; float: added to
                the scaled scores, where -inf or the lowest number of its type forbids. Weight and Phi are zero at
                forbidden places, and a query that may attend nowhere gets zeros. Phi is also zero where a float mask
                lies more than 104 below the largest number of its row, so that it alone brings the softmax of
                float32 to exactly 0: -1e4 and -1e9 are masks, and a bias such as ALiBi stays soft as far as the softmax
                does. None: no mask.
            dropout_p: probability with which each weight, the sum of softmax and Phi, is dropped, 0 to 1. As with
                torch's function, the caller passes 0 outside training.
            is_causal: True: a query sees the keys up to its own position.
            scale: factor of S in the softmax, not in Phi; None: 1 / sqrt(e).
            enable_gqa: True: keys and values have fewer heads, each shared by h / h_key query heads.

        Returns:
            Shape (b, h, q, v), type of `value`. In half precision and under autocast scores, softmax and Phi are
            computed in float32, since Phi turns by the scores themselves, and their sum is rounded.

        Raises:
            ValueError: `is_causal` together with a mask, or a number of heads that is not `n_heads`.
        """
        if not self.phi:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        device = query.device.type
        # Autocast would round the scores to half precision.
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            weights = self._weights(query, key, attn_mask, is_causal, scale)
        if dropout_p > 0:
            weights = self.dropout(weights, dropout_p)
        return weights.to(value.dtype) @ value

    def _weights(self, query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float) -> Tensor:
        """Return softmax weights plus Phi, (b, h, q, k), in float32 at least."""
        query, key = (x if x.dtype == torch.float64 else x.float() for x in (query, key))
        # The scale goes into the query, which is smaller than the scores, where that rounds nothing (a power of two);
        # the series takes it out again. Phi turns by the scores themselves, so their last digits count.
        folded = scale if abs(math.frexp(scale)[0]) == 0.5 else 1.0
        scores = (query * folded) @ key.transpose(-2, -1)
        logits = scores if folded == scale else scores * scale
        masked, silent = _masked(logits, attn_mask, is_causal), None
        if masked is not None:
            if attn_mask is not None and attn_mask.is_floating_point():
                logits, silent = logits + attn_mask, _silenced(attn_mask)
            # The lowest number, not -inf: a row that is masked throughout must not become nan on its way to zero.
            logits = logits.masked_fill(masked, torch.finfo(logits.dtype).min)
        phi = self.series()(scores, scale=1 / folded, compiled=self.compiled)
        if silent is not None:
            phi = phi.masked_fill(silent, 0)
        weights = torch.softmax(logits, -1) + phi
        return weights if masked is None else weights.masked_fill(masked, 0)


def _run_circuits_together(attentions: Sequence[QuantumAttention]) -> None:
    """Run the circuits of several layers as one batch; the next call of each layer uses the result.

    The time of small circuits is that of starting their operations, so two layers take little longer than one. Layers
    whose spec, readout or backend differ from the first one's run their circuits by themselves.
    """
    alike = [
        attention
        for attention in dict.fromkeys(attentions)
        if attention.phi
        and not hasattr(attention.angles, "to_local")  # in shards (FSDP2), angles are whole within the layer only
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
        attention._prepared_series = FourierSeries(part)


def _masked(logits: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """Return a bool mask, True where a query must not see a key; None: all see all."""
    if attn_mask is None:
        if not is_causal:
            return None
        return torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
    if is_causal:
        raise ValueError("is_causal: got True with an attn_mask; allowed: one of the two")
    if attn_mask.dtype == torch.bool:
        return ~attn_mask
    return attn_mask <= torch.finfo(attn_mask.dtype).min


def _silenced(attn_mask: Tensor) -> Tensor:
    """Return a bool mask, True where a float mask alone brings the softmax of its row to exactly 0 in float32.

    It depends on the mask and on nothing else, so that Phi does not jump with the scores, and one number added to a
    whole row changes nothing, as in the softmax.
    """
    bias = attn_mask.detach()
    bias = bias if bias.dtype == torch.float64 else bias.float()
    return bias < bias.amax(-1, keepdim=True) - _SILENT
