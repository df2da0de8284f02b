"""How quickly runs went through their data: rows of trials in, medians over them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Throughput:
    """Medians over the runs, None where none tells. Seconds are those of steps, the wait for circuits among them.

    `tokens_per_s`: of all workers. `flop_utilisation`: operations of the model's mathematics over what the workers
    could have done in that time at the speed of a large matrix product (MFU, arXiv 2204.02311). `circuit_share`: of the
    seconds, those spent waiting for circuits. `peak_memory_bytes`: of the largest worker.
    """

    tokens_per_s: float | None
    flop_utilisation: float | None
    circuit_share: float | None
    peak_memory_bytes: float | None


def throughput(rows: Sequence[dict[str, Any]]) -> Throughput:
    """Of these trials."""

    def over(told: Callable[[dict[str, Any]], float]) -> float | None:
        values = []
        for row in rows:
            try:
                values.append(told(row))
            except (TypeError, ZeroDivisionError):  # a number is missing, or there were no steps
                continue
        return median(values) if values else None

    return Throughput(
        tokens_per_s=over(lambda row: row["n_tokens"] / row["wall_s"]),
        flop_utilisation=over(
            lambda row: row["model_flops"] / (row["wall_s"] * row["peak_flops_per_s"] * row["workers_at_end"])
        ),
        circuit_share=over(lambda row: row["circuit_wait_s"] / row["wall_s"]),
        peak_memory_bytes=over(lambda row: float(row["peak_memory_bytes"])),
    )
