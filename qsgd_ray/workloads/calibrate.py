"""Calibration of the text task against the paper's: seeds come in; a table of epochs to the target goes out.

`python -m qsgd_ray.workloads.calibrate`: plain torch.optim.Adam at the paper's settings on the defaults of `TextTask`.
docs/findings.md has the table (2026-11-22) from which these defaults were chosen.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
import torch

from qsgd_ray.config import TextTask
from qsgd_ray.workloads import Workload, make_workload


def main() -> None:
    """Print a row a seed (epochs to the target, final accuracy, seconds), then the quartiles over the seeds."""
    parser = argparse.ArgumentParser(prog="python -m qsgd_ray.workloads.calibrate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 .. SEEDS - 1")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = TextTask()
    workload = make_workload(settings)
    columns = ("seed", f"epochs to {settings.target_accuracy:.0%}", "final validation accuracy")
    print(f"| {' | '.join(columns)} | s per epoch | s per validation |")
    print("|---|---|---|---|---|")
    epochs_to_target, final_accuracies = [], []
    for seed in range(arguments.seeds):
        accuracies, train_s, validation_s = _learning_curve(workload, seed, arguments.epochs)
        first = _epochs_to(settings.target_accuracy, accuracies)
        # A miss is later than every epoch there was.
        epochs_to_target.append(arguments.epochs + 1 if first is None else first)
        final_accuracies.append(accuracies[-1])
        cell = "not reached" if first is None else first
        print(f"| {seed} | {cell} | {accuracies[-1]:.1%} | {train_s:.2f} | {validation_s:.3f} |", flush=True)
    for name, share in (("lower quartile", 0.25), ("median", 0.5), ("upper quartile", 0.75)):
        epoch, final = np.quantile(epochs_to_target, share), np.quantile(final_accuracies, share)
        cell = f"over {arguments.epochs}" if epoch > arguments.epochs else f"{epoch:g}"
        print(f"| {name} | {cell} | {final:.1%} | | |")


def _learning_curve(workload: Workload, seed: int, epochs: int) -> tuple[list[float], float, float]:
    """Return validation accuracy after each epoch, and the mean seconds of an epoch and of a validation pass."""
    model = workload.make_model(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    torch.manual_seed(seed)
    accuracies, train_s, validation_s = [], 0.0, 0.0
    for epoch in range(1, epochs + 1):  # as trials count: the same order of the data
        start_s = perf_counter()
        for batch in workload.batches(seed, epoch, rank=0, world_size=1):
            optimizer.zero_grad()
            workload.backward(model, batch, world_size=1)
            optimizer.step()
        trained_s = perf_counter()
        result = workload.evaluate(model, "validation", rank=0, world_size=1)
        train_s, validation_s = train_s + trained_s - start_s, validation_s + perf_counter() - trained_s
        accuracies.append((result.n_correct or 0) / result.n)
    return accuracies, train_s / epochs, validation_s / epochs


def _epochs_to(target: float, accuracies: list[float]) -> int | None:
    """Return the first epoch, counted from one, that ends at or above the target; None: none does."""
    return next((epoch for epoch, accuracy in enumerate(accuracies, start=1) if accuracy >= target), None)


if __name__ == "__main__":
    main()
