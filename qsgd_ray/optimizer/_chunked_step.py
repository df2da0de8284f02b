"""The perturbation of every coordinate by a closed form: run by run through the model, Adam's step right behind it.

In: a model with its gradients. Out: the parameters one step further. Large float32 models on the CPU take one pass over
their memory (_one_pass.py). All others go chunk by chunk: what one operation reads is still in the cache for the next,
and no tensor is longer than a chunk. There lr * lambda * Q / (1 - lr * weight_decay) is taken off before Adam's step,
which then does the same as Eq. 1 with decoupled weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.optimizer._adam import CHUNK, Piece, next_direction, rate, subtract, take_steps
from qsgd_ray.optimizer._layout import Model, Reading, Run
from qsgd_ray.optimizer._one_pass import Rule, fits, one_pass
from qsgd_ray.optimizer.native.compiler import NATIVE_FROM
from qsgd_ray.optimizer.signals import ClosedForm
from qsgd_ray.optimizer.telemetry import Norms
from qsgd_ray.random_keys import block_keys

# What this process holds of a parameter, and where that is in the model.
Work = list[tuple[Run, Piece]]


class Draws(NamedTuple):
    """What names the draws of a step (random_keys.py)."""

    seed: int
    step: int


def step_by_runs(model: Model, reading: Reading, signal: ClosedForm, named: Draws, norms: Norms | None) -> None:
    """One step of the whole model; the parameters' own counts of steps stay.

    ValueError: lr * weight_decay of 1 and more, where the perturbation is divided by what is left of theta.
    """
    for group in model.groups:
        lr = rate(group)
        shrinks = reading.placement == "update" and group["lambda_"] != 0
        if shrinks and isinstance(lr, float) and lr * group["weight_decay"] >= 1:
            raise ValueError(f"lr * weight_decay: got {lr * group['weight_decay']:g}; allowed with scope all: below 1")
    signals = _Signals(model, reading, signal, named)
    pieces = model.pieces()
    every = [(run, piece) for run in model.layout.runs if (piece := pieces[run.parameter]) is not None]
    work = [(run, piece) for run, piece in every if piece.group["lambda_"] != 0]
    if model.layout.n_coordinates >= NATIVE_FROM:
        at_once = [(run, piece) for run, piece in work if fits(piece)]
        if at_once and _in_one_pass(model, reading, signals, at_once, norms):
            done = {run for run, _ in at_once}
            work = [(run, piece) for run, piece in work if run not in done]
    _by_chunks(model, reading, signals, work, norms)
    # Uncut, since torch's fused kernel rounds by the cut: without a perturbation this is AdamW bit for bit.
    silent = [piece for _, piece in every if piece.group["lambda_"] == 0]
    take_steps([*silent, *model.not_perturbed()], reading.formula)


def _in_one_pass(model: Model, reading: Reading, signals: _Signals, work: Work, norms: Norms | None) -> bool:
    """False, and nothing done, where there is no kernel."""
    rule = Rule(signals.kernel, reading.formula, reading.placement, reading.direction)
    if rule.s != "given":
        return _kernel_step(model, rule, work, None, norms)
    for run, whole in work:
        for part in _cut(run, reading.n_qubits):
            piece = whole.part(part.start, part.stop)
            s = signals.of(part, piece.theta).to(piece.theta.dtype)
            if not _kernel_step(model, rule, [(part, piece)], [s], norms):
                return False  # at the first, or never
    return True


def _kernel_step(model: Model, rule: Rule, work: Work, given: list[Tensor] | None, norms: Norms | None) -> bool:
    squares = one_pass([piece for _, piece in work], rule, given, norms is not None)
    if squares is not None and norms is not None:
        for (run, piece), q, adam in zip(work, squares.q.sqrt(), squares.adam.sqrt(), strict=True):
            _note(model, run, norms, q * piece.group["lambda_"], adam)
    return squares is not None


def _by_chunks(model: Model, reading: Reading, signals: _Signals, work: Work, norms: Norms | None) -> None:
    waiting: list[Piece] = []
    length = 0
    for run, whole in work:
        for part in _cut(run, reading.n_qubits):
            piece = whole.part(part.start, part.stop)
            waiting.append(_perturbed(model, reading, signals, part, piece, norms))
            length += part.stop - part.start
            if length >= CHUNK:
                take_steps(waiting, reading.formula)
                waiting, length = [], 0
    take_steps(waiting, reading.formula)


def _cut(run: Run, n_qubits: int) -> Iterator[Run]:
    """In parts of about a chunk that end where a block of the model does."""
    index, start, stop, origin = run
    while start < stop:
        end = max((origin + CHUNK) // n_qubits, origin // n_qubits + 1) * n_qubits
        length = min(end - origin, stop - start)
        yield Run(index, start, start + length, origin)
        start, origin = start + length, origin + length


def _perturbed(model: Model, reading: Reading, signals: _Signals, run: Run, piece: Piece, norms: Norms | None) -> Piece:
    """The piece of a run, ready for Adam's step: theta moved, or the gradient replaced."""
    group, lambda_ = piece.group, piece.group["lambda_"]
    direction = piece.gradient if reading.direction == "gradient" else next_direction(piece, reading.formula)
    q = signals.of(run, piece.theta).mul_(direction)
    if norms is not None:
        _note(model, run, norms, torch.linalg.vector_norm(q) * lambda_)
    if reading.placement == "moments":
        weight = reading.moments_sign(group) * lambda_
        return piece._replace(gradient=torch.add(piece.gradient, q.to(piece.gradient.dtype), alpha=weight))
    lr = rate(group)
    subtract([piece.theta], [q], reading.sign(group) * lambda_ * lr / (1 - lr * group["weight_decay"]))
    return piece


def _note(model: Model, run: Run, norms: Norms, perturbation: Tensor, adam: Tensor | None = None) -> None:
    """|lambda * Q|, and |Adam's direction| where it is known, of what this process speaks for."""
    if model.layout.speaks_for(run.parameter):
        number = model.layout.numbers[run.parameter]
        norms.perturbation[number].append(perturbation)
        if adam is not None:
            norms.adam[number].append(adam)
    if adam is not None:
        norms.noted.add(id(model.layout.parameters[run.parameter]))


class _Signals:
    """s along runs, as theta is before the step.

    Blocks that lie in more than one run are put together, and their signals computed, before any coordinate moves.
    """

    def __init__(self, model: Model, reading: Reading, signal: ClosedForm, named: Draws) -> None:
        self.kernel = signal.kernel
        self._signal = signal
        self._named = named
        self._width = reading.n_qubits
        self._cut: dict[int, Tensor] = {}  # s of such a block by its first coordinate
        for held in model.layout.cut:
            (alike,) = held.blocks
            starts = alike.starts()
            s_bw = signal.of(held.theta().view(-1, alike.width), self._keys(starts))
            self._cut |= dict(zip(starts.tolist(), s_bw.unbind(0), strict=True))

    def of(self, run: Run, theta: Tensor) -> Tensor:
        """s of each coordinate of the run, a new tensor."""
        if self._signal.pointwise:
            return self._signal.of(theta)
        n, first, last = self._width, run.origin, run.origin + len(theta)
        # Whole blocks from `low` to `high`; what is before and behind them belongs to blocks that are cut.
        low, high = -(-first // n) * n, last // n * n
        if low > high:  # it begins and ends within one block
            return self._cut[high][first - high : last - high].clone()
        signals = []
        if first < low:
            signals.append(self._cut[low - n][first - low + n :])
        if low < high:
            theta_bn = theta[low - first : high - first].view(-1, n)
            signals.append(self._signal.of(theta_bn, self._keys(np.arange(low, high, n))).view(-1))
        if high < last:
            signals.append(self._cut[high][: last - high])
        return signals[0] if len(signals) == 1 and low < high else torch.cat(signals)

    def _keys(self, starts_b: NDArray[np.int64]) -> Tensor | None:
        return block_keys(self._named.seed, self._named.step, starts_b) if self._signal.keyed else None
