"""Naive twins of the fast paths: loops that a reader checks at a glance, in float64."""

import math

import torch
from torch import Tensor


def naive_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, one query at a time; all (batch, n_heads, length, d_head)."""
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
