"""Perturb every coordinate by a closed form: go through the model run by run, with Adam's step right behind.

In: a model with its gradients. Out: the parameters one step further. Large float32 models on the CPU take one pass over
their memory (_one_pass.py). All others go chunk by chunk: what one operation reads is still in the cache for the next,
and no tensor is longer than a chunk. There lr * lambda * Q / (1 - lr * weight_decay) is subtracted before Adam's step,
which then does the same as Eq. 1 of arXiv 2511.01918 with decoupled weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.native.compiler import NATIVE_FROM
from qsgd_ray.optimizer._adam import CHUNK, Piece, adam_direction, adam_step, learning_rate, subtract_
from qsgd_ray.optimizer._layout import Model, Run, StepOptions
from qsgd_ray.optimizer._norms import StepNorms
from qsgd_ray.optimizer._one_pass import Rule, is_native_piece, one_pass_step
from qsgd_ray.optimizer.signals import ClosedForm
from qsgd_ray.random_keys import block_keys

# Runs with the pieces of parameters that lie there.
_Work = list[tuple[Run, Piece]]


class DrawKey(NamedTuple):
    """The names of a step's random draws; with a block's first coordinate they make its key (random_keys.py)."""

    seed: int
    step: int


def chunked_step(
    model: Model, options: StepOptions, signal: ClosedForm, draw_key: DrawKey, norms: StepNorms | None
) -> None:
    """Take one step of the whole model; the parameters' own step counts stay as they are.

    Norms of the perturbation, and of Adam's direction where they cost nothing, go into `norms`.

    Raises:
        ValueError: lr * weight_decay is 1 or more, where Q is divided by the share of theta that weight decay leaves.
    """
    for group in model.groups:
        lr = learning_rate(group)
        divides = options.placement == "update" and group["lambda_"] != 0
        if divides and isinstance(lr, float) and lr * group["weight_decay"] >= 1:
            raise ValueError(f"lr * weight_decay: got {lr * group['weight_decay']:g}; allowed with scope all: below 1")
    signals = _Signals(model, options, signal, draw_key)
    pieces = model.pieces()
    every = [(run, piece) for run in model.layout.runs if (piece := pieces[run.parameter]) is not None]
    work = [(run, piece) for run, piece in every if piece.group["lambda_"] != 0]
    if model.layout.n_coordinates >= NATIVE_FROM:
        native = [(run, piece) for run, piece in work if is_native_piece(piece)]
        if native and _in_one_pass(model, options, signals, native, norms):
            done = {run for run, _ in native}
            work = [(run, piece) for run, piece in work if run not in done]
    _by_chunks(model, options, signals, work, norms)
    # Not split, since torch's fused kernel rounds by the cut: without a perturbation this is AdamW bit for bit.
    unperturbed = [piece for _, piece in every if piece.group["lambda_"] == 0]
    adam_step([*unperturbed, *model.not_perturbed()], options.formula)


def _in_one_pass(model: Model, options: StepOptions, signals: _Signals, work: _Work, norms: StepNorms | None) -> bool:
    """Step all of `work` by the kernel; return False, with nothing done, where there is none."""
    rule = Rule(signals.kernel, options.formula, options.placement, options.direction)
    if rule.s != "given":
        return _kernel_step(model, rule, work, None, norms)
    for run, whole in work:
        for part in _split(run, options.n_qubits):
            piece = whole.part(part.start, part.stop)
            s = signals.of(part, piece.theta).to(piece.theta.dtype)
            if not _kernel_step(model, rule, [(part, piece)], [s], norms):
                return False  # at the first part or at none
    return True


def _kernel_step(model: Model, rule: Rule, work: _Work, given: list[Tensor] | None, norms: StepNorms | None) -> bool:
    squares = one_pass_step([piece for _, piece in work], rule, given, norms is not None)
    if squares is not None and norms is not None:
        for (run, piece), q, adam in zip(work, squares.q.sqrt(), squares.adam.sqrt(), strict=True):
            _record(model, run, norms, q * piece.group["lambda_"], adam)
    return squares is not None


def _by_chunks(model: Model, options: StepOptions, signals: _Signals, work: _Work, norms: StepNorms | None) -> None:
    """Step `work` with torch's operations, about a chunk of coordinates at a time."""
    waiting: list[Piece] = []
    length = 0
    for run, whole in work:
        for part in _split(run, options.n_qubits):
            piece = whole.part(part.start, part.stop)
            waiting.append(_perturbed(model, options, signals, part, piece, norms))
            length += part.stop - part.start
            if length >= CHUNK:
                adam_step(waiting, options.formula)
                waiting, length = [], 0
    adam_step(waiting, options.formula)


def _split(run: Run, n_qubits: int) -> Iterator[Run]:
    """Yield the run in parts of about a chunk, each of which ends where a block of the model does."""
    index, start, stop, origin = run
    while start < stop:
        end = max((origin + CHUNK) // n_qubits, origin // n_qubits + 1) * n_qubits
        length = min(end - origin, stop - start)
        yield Run(index, start, start + length, origin)
        start, origin = start + length, origin + length


def _perturbed(
    model: Model, options: StepOptions, signals: _Signals, run: Run, piece: Piece, norms: StepNorms | None
) -> Piece:
    """Return a run's piece, ready for Adam's step: with theta moved by Q, or with Q in its gradient."""
    group, lambda_ = piece.group, piece.group["lambda_"]
    direction = piece.gradient
    if options.direction == "preconditioned":
        direction = adam_direction(piece.gradient, piece.m, piece.v, piece.n_steps, group, options.formula)
    q = signals.of(run, piece.theta).mul_(direction)
    if norms is not None:
        _record(model, run, norms, torch.linalg.vector_norm(q) * lambda_)
    if options.placement == "moments":
        weight = options.moments_sign(group) * lambda_
        return piece._replace(gradient=torch.add(piece.gradient, q.to(piece.gradient.dtype), alpha=weight))
    lr = learning_rate(group)
    subtract_([piece.theta], [q], options.sign(group) * lambda_ * lr / (1 - lr * group["weight_decay"]))
    return piece


def _record(model: Model, run: Run, norms: StepNorms, perturbation: Tensor, adam: Tensor | None = None) -> None:
    """Record |lambda * Q|, and |Adam's direction| where it is known, if this process reports the parameter."""
    if model.layout.reports(run.parameter):
        number = model.layout.numbers[run.parameter]
        norms.perturbation[number].append(perturbation)
        if adam is not None:
            norms.adam[number].append(adam)
    if adam is not None:
        norms.measured.add(id(model.layout.parameters[run.parameter]))


class _Signals:
    """s along runs, as theta is before the step.

    Blocks that lie in more than one run are put together, and their signals computed, before any coordinate moves.
    """

    def __init__(self, model: Model, options: StepOptions, signal: ClosedForm, draw_key: DrawKey) -> None:
        self.kernel = signal.kernel
        self._signal = signal
        self._draw_key = draw_key
        self._width = options.n_qubits
        self._cut: dict[int, Tensor] = {}  # s of each cut block, by its first coordinate
        for cut in model.layout.cut:
            (blocks,) = cut.blocks
            starts = blocks.starts()
            s_bw = signal.of(cut.theta().view(-1, blocks.width), self._keys(starts))
            self._cut |= dict(zip(starts.tolist(), s_bw.unbind(0), strict=True))

    def of(self, run: Run, theta: Tensor) -> Tensor:
        """Return s of each coordinate of the run, a new tensor."""
        if self._signal.pointwise:
            return self._signal.of(theta)
        n, first, last = self._width, run.origin, run.origin + len(theta)
        # Whole blocks lie from `low` to `high`; coordinates before and behind belong to cut blocks.
        low, high = -(-first // n) * n, last // n * n
        if low > high:  # the run begins and ends within one block
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
        return block_keys(self._draw_key.seed, self._draw_key.step, starts_b) if self._signal.keyed else None
