"""Is the text task as hard as the paper's? Seeds come in; a table of epochs to the target and final accuracy goes out.

`python -m qsgd_ray.workloads.calibrate`: plain torch.optim.Adam at the paper's settings on the defaults of `TextTask`.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
import torch

from qsgd_ray.config import TextTask
from qsgd_ray.workloads import Workload, make_workload


def learning_curve(workload: Workload, seed: int, epochs: int) -> tuple[list[float], float, float]:
    """Validation accuracy after each epoch, and the mean seconds of an epoch and of a validation pass."""
    model = workload.make_model(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    torch.manual_seed(seed)
    accuracies, train_s, validation_s = [], 0.0, 0.0
    for epoch in range(epochs):
        started = perf_counter()
        for batch in workload.batches(seed, epoch, rank=0, world_size=1):
            optimizer.zero_grad()
            workload.backward(model, batch, world_size=1)
            optimizer.step()
        trained = perf_counter()
        result = workload.evaluate(model, "validation", rank=0, world_size=1)
        train_s, validation_s = train_s + trained - started, validation_s + perf_counter() - trained
        accuracies.append(result.n_correct / result.n)
    return accuracies, train_s / epochs, validation_s / epochs


def epochs_to(target: float, accuracies: list[float]) -> int | None:
    """The first epoch, counted from one, that ends at or above the target; None for a miss."""
    return next((epoch for epoch, accuracy in enumerate(accuracies, start=1) if accuracy >= target), None)


def main() -> None:
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
    reached, finals = [], []
    for seed in range(arguments.seeds):
        accuracies, train_s, validation_s = learning_curve(workload, seed, arguments.epochs)
        first = epochs_to(settings.target_accuracy, accuracies)
        # A miss is later than every epoch there was.
        reached.append(arguments.epochs + 1 if first is None else first)
        finals.append(accuracies[-1])
        told = "not reached" if first is None else first
        print(f"| {seed} | {told} | {accuracies[-1]:.1%} | {train_s:.2f} | {validation_s:.3f} |", flush=True)
    for name, place in (("lower quartile", 0.25), ("median", 0.5), ("upper quartile", 0.75)):
        epoch, final = np.quantile(reached, place), np.quantile(finals, place)
        told = f"over {arguments.epochs}" if epoch > arguments.epochs else f"{epoch:g}"
        print(f"| {name} | {told} | {final:.1%} | | |")


if __name__ == "__main__":
    main()
