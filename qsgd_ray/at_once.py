"""The perturbation of few coordinates, or by circuits: all signals first, then Adam's step as torch does it.

In: a model with its gradients, and Adam's own step. Out: the parameters one step further, and the next step's circuits
under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor

from qsgd_ray import draws
from qsgd_ray.adam_steps import Piece, next_direction, piece_of, rate, subtract
from qsgd_ray.circuits.backends import CircuitError, Pending
from qsgd_ray.coordinates import Part
from qsgd_ray.layout import Layout, Model, Reading
from qsgd_ray.perturbation import CircuitSignal, Signal
from qsgd_ray.shards import HeldBlocks, own
from qsgd_ray.telemetry import Norms


class Touched(NamedTuple):
    """A part of some blocks, the parameter's memory there, and its Q; `tells`: this process speaks for it."""

    part: Part
    view: Tensor
    q: Tensor
    tells: bool


class Asked(NamedTuple):
    """A signal asked for at `theta_bw` for one step, of use only where theta and the step are still these."""

    theta_bw: Tensor
    step: int
    pending: Pending


class Prefetch:
    """Signals asked for a step ahead, and what that took. `wait_s`: seconds that circuits were waited for."""

    def __init__(self, signal: Signal, seed: int) -> None:
        self.wait_s = 0.0
        self.n_circuits = 0
        self._signal = signal
        self._seed = seed
        self._asked: dict[int, Asked] = {}  # by width of the blocks

    def forget(self) -> None:
        """What was asked, nobody collects."""
        self._asked.clear()

    def ahead(self, layout: Layout, step: int) -> None:
        """Submit the circuits of the next step: theta is known, and the forward and backward pass take time."""
        if not isinstance(self._signal, CircuitSignal):
            return
        for held in layout.blocks:
            theta_bw = held.theta()
            # Without the prefetch the next step asks again, and raises if that fails too. So the last step of a
            # training does not fail for circuits that nobody would have used.
            with suppress(CircuitError):
                self._asked[held.blocks.width] = self._ask(held, theta_bw, step)

    def asked(self, held: HeldBlocks, step: int) -> Asked:
        """What is under way for these blocks, asked now where it was not or theta is another."""
        theta_bw = held.theta()
        asked = self._asked.pop(held.blocks.width, None)
        if asked is None or (asked.step != step and self._signal.keyed) or not torch.equal(asked.theta_bw, theta_bw):
            return self._ask(held, theta_bw, step)
        return asked

    def collect(self, asked: Asked) -> Tensor:
        """The signal, (blocks, width)."""
        started = time.perf_counter()
        s_bw = asked.pending.result()
        self._waited(started)
        return s_bw

    def _ask(self, held: HeldBlocks, theta_bw: Tensor, step: int) -> Asked:
        started = time.perf_counter()
        keys_b = draws.keys(self._seed, step, held.blocks.starts()) if self._signal.keyed else None
        asked = Asked(theta_bw, step, self._signal.submit(theta_bw, keys_b))
        self._waited(started)
        if isinstance(self._signal, CircuitSignal):
            self.n_circuits += len(theta_bw)
        return asked

    def _waited(self, started: float) -> None:
        if isinstance(self._signal, CircuitSignal):
            self.wait_s += time.perf_counter() - started

    def __getstate__(self) -> dict[str, object]:
        # Pickle and deepcopy carry everything but answers under way.
        return {**self.__dict__, "_asked": {}}


def step_at_once(
    model: Model,
    reading: Reading,
    prefetch: Prefetch,
    step: int,
    adam_step: Callable[[], object],
    norms: Norms | None,
) -> None:
    """One step of the whole model; `adam_step` takes Adam's own, `step` counts those before."""
    found = [
        touched
        for held in model.layout.blocks
        if (q := _q(model, reading, held, prefetch, step)) is not None
        for touched in _touched(model, held, q)
    ]
    by_group: dict[int, list[Touched]] = {}
    for touched in found:
        by_group.setdefault(model.layout.numbers[touched.part.parameter], []).append(touched)
    if norms is not None:
        for number, alike in by_group.items():
            if told := [touched.q for touched in alike if touched.tells]:
                lengths = torch._foreach_mul(torch._foreach_norm(told), model.groups[number]["lambda_"])
                norms.perturbation[number].extend(lengths)
    if reading.placement == "moments":
        with _gradients_plus(model, reading, found):
            adam_step()
        return
    adam_step()
    for number, alike in by_group.items():
        group = model.groups[number]
        step_size = reading.sign(group) * group["lambda_"] * rate(group)
        subtract([touched.view for touched in alike], [touched.q for touched in alike], step_size)


def _touched(model: Model, held: HeldBlocks, q: list[Tensor]) -> list[Touched]:
    """The parts whose parameters have a gradient."""
    return [
        Touched(part, view, piece, tells)
        for part, view, piece, tells in zip(held.parts, held.views, q, held.tells, strict=True)
        if model.layout.parameters[part.parameter].grad is not None
    ]


def _q(model: Model, reading: Reading, held: HeldBlocks, prefetch: Prefetch, step: int) -> list[Tensor] | None:
    """Q = s(theta) * direction for each part, multiplied in float64 and rounded once, to the parameters' dtype.

    Under `maximize` the gradient's sign is not turned yet. None where no parameter of these blocks has a gradient.
    """
    parameters = model.layout.parameters
    if all(parameters[segment.parameter].grad is None for segment in held.blocks.segments):
        return None
    asked = prefetch.asked(held, step)
    gradients = model.gradients()
    direction = held.gather(gradients) if reading.direction == "gradient" else _directions(model, reading, held)
    s = held.held(prefetch.collect(asked))
    q = (s.to(direction.device) * direction).to(asked.theta_bw.dtype)
    return list(q.split(held.sizes))


def _directions(model: Model, reading: Reading, held: HeldBlocks) -> Tensor:
    """Adam's direction that this step's gradient would give, for each part, end to end. Zeros where none."""
    # Those of one group and age go together, as one piece.
    alike: dict[tuple[int, int], list[tuple[int, Piece]]] = {}
    directions = [view.new_zeros(view.shape) for view in held.views]
    for number, part in enumerate(held.parts):
        parameter = model.layout.parameters[part.parameter]
        if parameter.grad is None:
            continue
        piece = piece_of(parameter, model.state.get(parameter) or {}, model.group(part.parameter))
        age = -1 - number if isinstance(piece.age, Tensor) else piece.age
        group = model.layout.numbers[part.parameter]
        alike.setdefault((group, age), []).append((number, piece.part(part.start, part.stop)))
    for same in alike.values():
        pieces = [piece for _, piece in same]
        whole = pieces[0]
        if len(pieces) > 1:
            theta, gradient, m, v = (torch.cat(parts) for parts in zip(*(piece[:4] for piece in pieces), strict=True))
            whole = Piece(theta, gradient, m, v, whole.age, whole.group)
        found = next_direction(whole, reading.formula).split([held.sizes[number] for number, _ in same])
        for (number, _), direction in zip(same, found, strict=True):
            directions[number] = direction
    return torch.cat(directions) if directions else held.gather([])


@contextmanager
def _gradients_plus(model: Model, reading: Reading, found: list[Touched]) -> Iterator[None]:
    """Within it, lambda * Q is added to the gradients; afterwards they are, bit for bit, what they were."""
    parameters = model.layout.parameters
    strided: dict[int, Tensor] = {}  # where a gradient is not contiguous, a copy stands in for it
    kept: list[tuple[Tensor, Tensor]] = []
    for (index, start, stop, _), _, q, _ in found:
        parameter = parameters[index]
        assert parameter.grad is not None
        if not own(parameter.grad).is_contiguous():
            strided[index] = parameter.grad
            parameter.grad = parameter.grad.contiguous()
        group = model.group(index)
        part = own(parameter.grad).view(-1)[start:stop]
        kept.append((part, part.clone()))
        part.add_(q, alpha=reading.moments_sign(group) * group["lambda_"])
    try:
        yield
    finally:
        for part, before in kept:
            part.copy_(before)
        for index, gradient in strided.items():
            parameters[index].grad = gradient
