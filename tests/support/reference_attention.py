"""Naive twins of attention: one query, one score and one circuit at a time, in float64."""

import math

import torch
from torch import Tensor

from support import reference_circuits


def naive_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(Q K^T / sqrt(d)) V, one query at a time; all are (batch, n_heads, length, d_head)."""
    query, key, value = query.double(), key.double(), value.double()
    mixed = torch.zeros_like(query)
    n_batch, n_heads, length, d_head = query.shape
    for b in range(n_batch):
        for h in range(n_heads):
            for i in range(length):
                scores = [float(query[b, h, i] @ key[b, h, j]) / math.sqrt(d_head) for j in range(length)]
                total = sum(math.exp(score) for score in scores)
                for j in range(length):
                    mixed[b, h, i] += math.exp(scores[j]) / total * value[b, h, j]
    return mixed


def naive_response(spec, angles_dnr: Tensor, readout: str, score: float) -> float:
    """Return the circuit's readout with `score` added to the first rotation of every layer, by Kronecker products."""
    angles = angles_dnr.detach().double().numpy().copy()
    angles[:, :, 0] += score
    psi = reference_circuits.state(spec.n_qubits, spec.depth, spec.entangle, angles, spec.rotations)[: spec.n_qubits]
    return float(psi.real.sum() if readout == "amplitude" else (abs(psi) ** 2).sum())


def naive_quantum_attention(query: Tensor, key: Tensor, value: Tensor, allowed, spec, angles_hdnr, readout) -> Tensor:
    """Return (softmax(S / sqrt(d)) + Phi(S)) V over the keys j with `allowed(i, j)`, one circuit a score."""
    mixed = torch.zeros_like(query)
    n_batch, n_heads, length, d_head = query.shape
    for b in range(n_batch):
        for h in range(n_heads):
            angles = angles_hdnr[h % len(angles_hdnr)]
            for i in range(length):
                scores = {j: float(query[b, h, i] @ key[b, h, j]) for j in range(length) if allowed(i, j)}
                total = sum(math.exp(score / math.sqrt(d_head)) for score in scores.values())
                for j, score in scores.items():
                    softmax = math.exp(score / math.sqrt(d_head)) / total
                    mixed[b, h, i] += (softmax + naive_response(spec, angles, readout, score)) * value[b, h, j]
    return mixed
