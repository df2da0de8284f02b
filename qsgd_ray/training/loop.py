"""The training loop: (trial, workload, circuits, replica) in; a `Measurement` an epoch and an `Outcome` out.

The loop knows neither Ray Train nor Ray Tune. Its caller pulls measurements from a generator and sends back True to
stop. With several replicas each process runs this loop; they differ in nothing but their rank.

    make_parts          make model, optimizer and schedules (training/_state.py)
    restore             continue from the newest checkpoint, where there is one
    for each epoch:
        train_epoch     take its steps; save a checkpoint after some of them
        measure         loss and accuracy on the validation split, clocks, telemetry
    complete            loss, accuracy and answers on the test split
    end                 wait for the last checkpoint; return the outcome
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.config import metrics_of
from qsgd_ray.config.trial import Trial
from qsgd_ray.optimizer import DrivenOptimizer, Telemetry
from qsgd_ray.outcome import AnswerCounts, Ending, Measurement, Outcome
from qsgd_ray.random_keys import text_seed
from qsgd_ray.training._evaluations import Evaluations
from qsgd_ray.training._sharding import full_weights
from qsgd_ray.training._state import Progress, fingerprint, make_parts
from qsgd_ray.training.hardware import _peak_memory_bytes, matmul_flops_per_s
from qsgd_ray.training.replica import _SINGLE_PROCESS, Replica
from qsgd_ray.workloads import Workload

if TYPE_CHECKING:
    from qsgd_ray.training.checkpoints import Checkpoints

# Yields a measurement after each epoch, is sent True to stop there, returns the outcome.
Training = Generator[Measurement, bool | None, Outcome]

# Plain AdamW waits for no circuit and perturbs nothing.
_UNPERTURBED = Telemetry(
    perturbation_norm=None, adam_step_norm=None, circuit_wait_s=0.0, circuit_s=0.0, n_circuits=0, n_samples=0
)


def train(
    trial: Trial,
    workload: Workload,
    circuits: CircuitBackend | None,
    replica: Replica = _SINGLE_PROCESS,
    checkpoints: Checkpoints | None = None,
) -> Training:
    """Train a trial: yield a measurement after each epoch, stop there if True is sent back, return the outcome.

    Weights and data order follow from the trial's seed alone, dropout from the seed and the rank. Nothing that an arm
    does draws from these, so arms with the same seed are paired (protocol, rule 4).

    With `checkpoints` the training continues from the newest one, and first yields the measurements that it holds.
    Parameters and measurements are then, apart from seconds, those of a training that was never interrupted.

    Args:
        trial: arm, seed and number of epochs.
        workload: model, data and loss, made from `trial.workload`.
        circuits: backend of the arm's circuits; None for arms that have none.
        replica: this process among those that train together; default: it trains alone.
        checkpoints: where state is saved and restored; None: the training starts anew and saves nothing.

    Returns:
        A generator. Nothing happens before its first `next`; `run` drives it to its end.

    Raises:
        CircuitError: a circuit failed.
        StorageError: a checkpoint is broken, or was not written in time.
    """
    loop = _Loop(trial, workload, circuits, replica, checkpoints)
    for measurement in loop.progress.measurements:
        stop = yield measurement
        if replica.broadcast(bool(stop)) and measurement.epoch < trial.epochs:
            # The parameters of that epoch are gone.
            return Outcome(Ending.STOPPED_EARLY, loop.progress.measurements[: measurement.epoch])
    for epoch in range(len(loop.progress.measurements) + 1, trial.epochs + 1):
        train_loss = loop.train_epoch(epoch)
        new_measurement = loop.measure(epoch, train_loss)
        if new_measurement is None:
            return loop.end(Ending.DIVERGED)
        stop = yield new_measurement
        if replica.broadcast(bool(stop)) and epoch < trial.epochs:
            return loop.end(Ending.STOPPED_EARLY)
    return loop.complete()


def run(training: Training, report: Callable[[Measurement], bool]) -> Outcome:
    """Drive a training to its end.

    Args:
        training: what `train` returned.
        report: called with each measurement; returns True to stop the training there.

    Returns:
        The outcome of the training.
    """
    stop: bool | None = None
    while True:
        try:
            measurement = training.send(stop)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        stop = report(measurement)


class _Loop:
    """One training in this process: its parts, its progress, and the methods that move it on."""

    def __init__(
        self,
        trial: Trial,
        workload: Workload,
        circuits: CircuitBackend | None,
        replica: Replica,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.trial, self.workload, self.replica, self.checkpoints = trial, workload, replica, checkpoints
        self.parts = make_parts(trial, workload, circuits, replica)
        self.progress = self.restore() or Progress(self._zero())
        self._clock_start_s = 0.0

    def restore(self) -> Progress | None:
        """Restore the newest checkpoint; None: there is none."""
        progress = self.checkpoints.restore(self.parts, self.replica.device) if self.checkpoints is not None else None
        if progress is not None and progress.moved:
            # The generators of the former processes fit no longer; these depend on the step, not on who restarts.
            torch.manual_seed(text_seed(f"dropout {self.trial.seed} {self.replica.rank} {progress.step}"))
        return progress

    def train_epoch(self, epoch: int) -> float:
        """Take the steps of an epoch (from 1) that are left; return its mean training loss over all replicas, nats."""
        workload, replica, progress = self.workload, self.replica, self.progress
        first_step = (epoch - 1) * workload.steps_per_epoch
        self._start_clock()
        if isinstance(self.parts.optimizer, DrivenOptimizer):
            self.parts.optimizer.train()
        for batch in workload.batches(
            self.trial.seed, epoch, replica.rank, replica.world_size, progress.step - first_step
        ):
            self._step(batch)
            if self.checkpoints is not None and self.checkpoints.is_due(progress.step):
                self._save(self.checkpoints)
        # Read once an epoch: reading the loss at every step would make a GPU wait.
        mean_loss = progress.loss_sum.item() / workload.steps_per_epoch
        self._stop_clock()
        return replica.all_reduce_sum(mean_loss)[0] / replica.world_size

    def _step(self, batch: Any) -> None:
        """Take one optimizer step on this replica's part of a batch."""
        workload, parts, progress, world_size = self.workload, self.parts, self.progress, self.replica.world_size
        n_passes = 1
        if isinstance(parts.optimizer, DrivenOptimizer) and parts.optimizer.kind != "plain":
            evaluations = Evaluations(lambda: self._gradients(batch), self.replica)
            parts.optimizer.step(evaluations)
            evaluations.finish()
            assert evaluations.first_loss is not None
            progress.loss_sum += evaluations.first_loss
            n_passes = evaluations.n
        else:
            progress.loss_sum += self._gradients(batch)
            parts.scaler.step(cast(torch.optim.Optimizer, parts.optimizer))
            parts.scaler.update()
        for schedule in parts.schedules:
            schedule.step()
        work = workload.work(batch, world_size)
        progress.step += 1
        progress.n_tokens += work.n_tokens * n_passes
        progress.model_flops += work.model_flops * n_passes

    def _gradients(self, batch: Any) -> Tensor:
        """Compute the gradients of this replica's part of a batch, clipped; return its loss, nats."""
        workload, parts = self.workload, self.parts
        parts.optimizer.zero_grad()
        loss = workload.backward(parts.network, batch, self.replica.world_size, self._backward)
        if workload.clip_norm is not None:
            parts.scaler.unscale_(cast(torch.optim.Optimizer, parts.optimizer))
            nn.utils.clip_grad_norm_(parts.trained, workload.clip_norm)
        return loss

    def _backward(self, loss: Tensor) -> None:
        self.parts.scaler.scale(loss).backward()

    def _save(self, checkpoints: Checkpoints) -> None:
        """Save a checkpoint while the training's clock stands still."""
        if self.replica.device_type == "cuda":
            torch.cuda.synchronize(self.replica.device)
        self._stop_clock()
        checkpoints.save(self.parts, self.progress)
        self._start_clock()

    def _start_clock(self) -> None:
        self._clock_start_s = time.perf_counter()

    def _stop_clock(self) -> None:
        self.progress.wall_s += time.perf_counter() - self._clock_start_s

    def measure(self, epoch: int, train_loss: float) -> Measurement | None:
        """Measure the model after an epoch and append it to the progress; None: a loss is not finite."""
        progress, replica = self.progress, self.replica
        start_s = time.perf_counter()
        validation_loss, validation_accuracy, metrics = self._evaluate("validation")
        progress.evaluation_s += time.perf_counter() - start_s
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            return None
        peak_bytes = _peak_memory_bytes(replica.device)
        optimizer = self.parts.optimizer
        telemetry = optimizer.telemetry() if hasattr(optimizer, "telemetry") else _UNPERTURBED
        measurement = Measurement(
            epoch=epoch,
            step=progress.step,
            wall_s=progress.wall_s,
            train_loss=train_loss,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            evaluation_s=progress.evaluation_s,
            circuit_wait_s=telemetry.circuit_wait_s,
            circuit_s=telemetry.circuit_s,
            n_circuits=telemetry.n_circuits,
            perturbation_norm=telemetry.perturbation_norm,
            adam_step_norm=telemetry.adam_step_norm,
            n_tokens=progress.n_tokens or None,
            model_flops=progress.model_flops or None,
            peak_flops_per_s=matmul_flops_per_s(replica.device, self.workload.matmul_dtype)
            if progress.model_flops
            else None,
            peak_memory_bytes=int(replica.all_reduce_max(peak_bytes)[0]),
            metrics=metrics,
        )
        progress.measurements = (*progress.measurements, measurement)
        progress.loss_sum = self._zero()
        return measurement

    def complete(self) -> Outcome:
        """End the training after its last epoch; read the test split if the trial says so."""
        if not self.trial.reads_test:
            return self.end(Ending.COMPLETED)
        start_s = time.perf_counter()
        test_loss, test_accuracy, test_metrics = self._evaluate("test")
        answers = self._answers()
        test_s = time.perf_counter() - start_s
        return replace(
            self.end(Ending.COMPLETED),
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            test_metrics=test_metrics,
            answers=answers,
            test_s=test_s,
        )

    def end(self, ending: Ending) -> Outcome:
        """Return the outcome, once no checkpoint is being written where the next trial would meet it."""
        if self.checkpoints is not None:
            self.checkpoints.finish()
        return Outcome(
            ending,
            self.progress.measurements,
            parameters_sha256=fingerprint(self.parts.model),
            workers=self.replica.world_size,
        )

    def _evaluate(
        self, split: Literal["validation", "test"]
    ) -> tuple[float, float | None, dict[str, float | None] | None]:
        """Return mean loss (nats), accuracy and other metrics over a split, each replica evaluating its share."""
        replica = self.replica
        if isinstance(self.parts.optimizer, DrivenOptimizer):
            self.parts.optimizer.eval()
        share = self.workload.evaluate(self.parts.model, split, replica.rank, replica.world_size)
        counts = [number for total, count in share.sums.values() for number in (total, count or 0.0)]
        loss_sum, n_correct, n, *totals = replica.all_reduce_sum(share.loss_sum, share.n_correct or 0, share.n, *counts)
        pairs = zip(share.sums.items(), zip(totals[::2], totals[1::2], strict=True), strict=True)
        values = {name: _finite(total, total_n, as_sum=count is None) for (name, (_, count)), (total, total_n) in pairs}
        for metric in metrics_of(self.workload.settings) if values else ():
            if metric.kind == "geometric" and metric.name in values:
                values[metric.name] = _exponential(values[metric.name])
        accuracy = values.pop("accuracy", None) if share.n_correct is None else n_correct / n
        return loss_sum / n, accuracy, values or None

    def _answers(self) -> AnswerCounts | None:
        """Count right answers to test problems, each replica generating its share; None: the workload has none."""
        replica = self.replica
        with full_weights(self.parts.model):
            share = self.workload.answers(self.parts.model, replica.rank, replica.world_size)
        if share is None:
            return None
        return AnswerCounts(*map(int, replica.all_reduce_sum(share.n_right, share.n_without_number, share.n)))

    def _zero(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.replica.device)


def _finite(total: float, count: float, *, as_sum: bool) -> float | None:
    """Return the value of a metric; None where it has none: nothing was counted, or it is not finite."""
    value = total if as_sum else total / count if count else math.nan
    return value if math.isfinite(value) else None


def _exponential(value: float | None) -> float | None:
    """Return e to the value; None where there is none, or it is too large for a number."""
    try:
        return None if value is None else math.exp(value)
    except OverflowError:
        return None
