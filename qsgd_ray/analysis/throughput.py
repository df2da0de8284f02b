"""Throughput of training: rows of trials in; medians of tokens, FLOP, waiting and memory over them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Throughput:
    """Medians over runs, None where no run has the number; seconds are those of training steps, evaluation aside.

    Attributes:
        tokens_per_s: of all workers together.
        flop_utilisation: operations of the model's mathematics over what the workers could have done in that time at
            the speed of a large matrix product (MFU, arXiv:2204.02311), 0 to 1.
        circuit_share: share of the seconds that was spent waiting for circuits, 0 to 1.
        peak_memory_bytes: of the largest worker.
    """

    tokens_per_s: float | None
    flop_utilisation: float | None
    circuit_share: float | None
    peak_memory_bytes: float | None


def median_throughput(rows: Sequence[dict[str, Any]]) -> Throughput:
    """Return the throughput of these trials."""

    def median_of(quantity: Callable[[dict[str, Any]], float]) -> float | None:
        values = []
        for row in rows:
            try:
                values.append(quantity(row))
            except (TypeError, ZeroDivisionError):  # a number is missing, or there were no steps
                continue
        return median(values) if values else None

    return Throughput(
        tokens_per_s=median_of(lambda row: row["n_tokens"] / row["wall_s"]),
        flop_utilisation=median_of(
            lambda row: row["model_flops"] / (row["wall_s"] * row["peak_flops_per_s"] * row["workers_at_end"])
        ),
        circuit_share=median_of(lambda row: row["circuit_wait_s"] / row["wall_s"]),
        peak_memory_bytes=median_of(lambda row: float(row["peak_memory_bytes"])),
    )
