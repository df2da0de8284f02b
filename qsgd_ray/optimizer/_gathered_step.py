"""The perturbation of few coordinates, or by circuits: all signals first, then Adam's step as torch does it.

In: a model with its gradients, and Adam's own step. Out: the parameters one step further, and the next step's circuits
under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import Pending, busy_s
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.optimizer._adam import age_of, direction_of, rate
from qsgd_ray.optimizer._gather import NativePlaces, Places, Times
from qsgd_ray.optimizer._layout import Group, Layout, Model, Reading
from qsgd_ray.optimizer._shards import HeldBlocks, own
from qsgd_ray.optimizer.signals import CircuitSignal, Signal
from qsgd_ray.optimizer.telemetry import Norms
from qsgd_ray.random_keys import block_keys


class PendingSignals(NamedTuple):
    """Signals asked for at `theta` for one step, of use only where theta and the step are still these; `pending`: one
    for each width of blocks; `n_circuits` are asked for in all."""

    theta: Tensor
    step: int
    pending: list[Pending]
    n_circuits: int


class Prefetch:
    """Signals asked for a step ahead, and what that took.

    `wait_s`: seconds that circuits were waited for. `busy_s`: seconds that engines worked on them, wherever they are;
    None as soon as one does not tell.
    """

    def __init__(self, signal: Signal, seed: int) -> None:
        self.wait_s = 0.0
        self.busy_s: float | None = 0.0
        self.n_circuits = 0
        self._signal = signal
        self._seed = seed
        self._asked: PendingSignals | None = None

    @property
    def n_under_way(self) -> int:
        """Of `n_circuits`, those that are asked for the next step."""
        return self._asked.n_circuits if self._asked is not None else 0

    def forget(self) -> None:
        """What was asked, nobody collects."""
        self._asked = None

    def ahead(self, layout: Layout, step: int) -> None:
        """Submit the circuits of the next step: theta is known, and the forward and backward pass take time."""
        if not isinstance(self._signal, CircuitSignal) or layout.blocks is None:
            return
        theta, before = layout.blocks.theta(), self._asked
        if before is not None and not self._signal.keyed and torch.equal(before.theta, theta):
            return  # nobody collected it, and theta has not moved
        # Without the prefetch the next step asks again, and raises if that fails too. So the last step of a training
        # does not fail for circuits that nobody would have used.
        with suppress(CircuitError):
            self._asked = self._ask(layout.blocks, theta, step)

    def asked(self, held: HeldBlocks, step: int) -> PendingSignals:
        """What is under way for these blocks, asked now where it was not or theta is another."""
        asked, self._asked = self._asked, None
        if asked is not None and asked.step != step and self._signal.keyed:
            asked = None
        theta = held.moved(None if asked is None else asked.theta)
        if theta is not None:
            return self._ask(held, theta, step)
        assert asked is not None
        return asked

    def collect(self, asked: PendingSignals) -> Tensor:
        """The signals of all blocks, end to end."""
        started = time.perf_counter()
        found = [pending.result().reshape(-1) for pending in asked.pending]
        self._waited(started)
        if isinstance(self._signal, CircuitSignal):
            for pending in asked.pending:
                worked_s = busy_s(pending)
                self.busy_s = None if self.busy_s is None or worked_s is None else self.busy_s + worked_s
        return found[0] if len(found) == 1 else torch.cat(found)

    def _ask(self, held: HeldBlocks, theta: Tensor, step: int) -> PendingSignals:
        started = time.perf_counter()
        pending, n_circuits = [], 0
        for alike, theta_bw in zip(held.blocks, held.by_width(theta), strict=True):
            keys_b = block_keys(self._seed, step, alike.starts()) if self._signal.keyed else None
            pending.append(self._signal.submit(theta_bw, keys_b))
            if isinstance(self._signal, CircuitSignal):
                n_circuits += len(theta_bw)
        self.n_circuits += n_circuits
        self._waited(started)
        return PendingSignals(theta, step, pending, n_circuits)

    def _waited(self, started: float) -> None:
        if isinstance(self._signal, CircuitSignal):
            self.wait_s += time.perf_counter() - started

    def __getstate__(self) -> dict[str, object]:
        # Pickle and deepcopy carry everything but answers under way.
        return {**self.__dict__, "_asked": None}


class Signalled(NamedTuple):
    """Blocks, the signals of what is held of them, end to end, the places of their gradients; and, by parameter group,
    which of the parts have a gradient."""

    held: HeldBlocks
    s: Tensor
    gradients: Places
    which: dict[int, list[int]]


class Perturbed(NamedTuple):
    """The gradients of the parts as they came, and Q, both end to end."""

    before: Tensor
    q: Tensor


def step_at_once(
    model: Model,
    reading: Reading,
    prefetch: Prefetch,
    step: int,
    adam_step: Callable[[], object],
    norms: Norms | None,
    fit: bool = False,
) -> None:
    """One step of the whole model; `adam_step` takes Adam's own, `step` counts those before.

    `fit`: the gradients that are there are all such as C++ may point at (_gather.py).
    """
    moments = reading.placement == "moments"
    with _contiguous_gradients(model) if moments and not fit else nullcontext():
        held = model.layout.blocks
        signalled = None if held is None else _signalled(model, held, prefetch, step, fit)
        if signalled is None:
            adam_step()
            return
        if norms is None and not moments and _product_in_place(reading, signalled):
            adam_step()  # which leaves gradients as they are
            _add_product(signalled, _times(model, signalled, reading))
            return
        found = _perturbed(model, reading, signalled)
        if norms is not None:
            _note(model, signalled, found.q, norms)
        if moments:
            _with_q(model, reading, signalled, found, adam_step)
            return
    adam_step()
    signalled.held.thetas.add_(found.q, _times(model, signalled, reading))


def _times(model: Model, signalled: Signalled, reading: Reading) -> list[Times]:
    return [Times(parts, -_step_size(reading, model.groups[n])) for n, parts in signalled.which.items()]


def _step_size(reading: Reading, group: Group) -> float | Tensor:
    return reading.sign(group) * group["lambda_"] * rate(group)


def _signalled(model: Model, held: HeldBlocks, prefetch: Prefetch, step: int, fit: bool) -> Signalled | None:
    """None where no parameter of these blocks has a gradient."""
    parameters = model.layout.parameters
    own_gradients = [parameter.grad for parameter in parameters]
    if not fit:
        own_gradients = [None if gradient is None else own(gradient) for gradient in own_gradients]
    if all(own_gradients[segment.parameter] is None for alike in held.blocks for segment in alike.segments):
        held.theta()  # should the others have gradients, they wait for this process's part
        return None
    asked = prefetch.asked(held, step)
    which = model.layout.parts_by_group
    if any(gradient is None for gradient in own_gradients):
        with_gradient = [own_gradients[part.parameter] is not None for part in held.parts]
        which = {number: [index for index in parts if with_gradient[index]] for number, parts in which.items()}
    gradients = held.places(own_gradients, fit)
    s = held.held(prefetch.collect(asked))
    return Signalled(held, s, gradients, {number: parts for number, parts in which.items() if parts})


def _product_in_place(reading: Reading, signalled: Signalled) -> bool:
    """May Q be made where it is added, without a tensor for it?"""
    s, places = signalled.s, (signalled.held.thetas, signalled.gradients)
    native = all(isinstance(some, NativePlaces) for some in places)
    return native and reading.direction == "gradient" and s.is_cpu and s.dtype == torch.float64 and s.is_contiguous()


def _add_product(signalled: Signalled, times: list[Times]) -> None:
    thetas, gradients = signalled.held.thetas, signalled.gradients
    assert isinstance(thetas, NativePlaces)
    assert isinstance(gradients, NativePlaces)
    thetas.add_product(signalled.s, gradients, times)


def _perturbed(model: Model, reading: Reading, signalled: Signalled) -> Perturbed:
    """Q = s(theta) * direction for each part, multiplied in float64 and rounded once, to the parameters' dtype.

    Under `maximize` the gradient's sign is not turned yet.
    """
    held = signalled.held
    before = signalled.gradients.joined()
    direction = before if reading.direction == "gradient" else _directions(model, reading, held, before)
    return Perturbed(before, held.rounded(signalled.s.to(direction.device) * direction))


def _note(model: Model, signalled: Signalled, q: Tensor, norms: Norms) -> None:
    """|lambda * Q| of the parts for which this process speaks."""
    held, pieces = signalled.held, None
    for number, parts in signalled.which.items():
        told = [index for index in parts if held.tells[index]]
        if len(told) == len(held.parts):
            norms.perturbation[number].append(torch.linalg.vector_norm(q) * model.groups[number]["lambda_"])
        elif told:
            pieces = pieces or q.split(held.sizes)
            lengths = torch._foreach_norm([pieces[index] for index in told])
            norms.perturbation[number].extend(torch._foreach_mul(lengths, model.groups[number]["lambda_"]))


def _directions(model: Model, reading: Reading, held: HeldBlocks, gradient: Tensor) -> Tensor:
    """Adam's direction that this step's gradient would give, for all parts end to end; `gradient`: theirs.

    Where a parameter has none, what its moments give with a gradient of 0: nobody uses it.
    """
    states = [model.state.get(parameter) or {} for parameter in model.layout.parameters]
    moments = (
        held.places([own(state[name]) if name in state else None for state in states]).joined()
        for name in ("exp_avg", "exp_avg_sq")
    )
    fields = (gradient, *moments)
    # Those of one group and age go together; by far the most often that is all.
    alike: dict[tuple[int, int], list[int]] = {}
    for index, part in enumerate(held.parts):
        age = age_of(states[part.parameter])
        key = model.layout.numbers[part.parameter], -1 - index if isinstance(age, Tensor) else age
        alike.setdefault(key, []).append(index)

    def direction(which: list[int], gradient: Tensor, m: Tensor, v: Tensor) -> Tensor:
        first = held.parts[which[0]].parameter
        return direction_of(gradient, m, v, age_of(states[first]), model.group(first), reading.formula)

    if len(alike) == 1:
        return direction(list(range(len(held.parts))), *fields)
    parts = [field.split(held.sizes) for field in fields]
    found = [gradient] * len(held.parts)
    for which in alike.values():
        together = direction(which, *(torch.cat([part[index] for index in which]) for part in parts))
        for index, own_direction in zip(which, together.split([held.sizes[index] for index in which]), strict=True):
            found[index] = own_direction
    return torch.cat(found) if found else gradient


def _with_q(
    model: Model, reading: Reading, signalled: Signalled, found: Perturbed, adam_step: Callable[[], object]
) -> None:
    """Adam's step with lambda * Q added to the gradients; afterwards they are, bit for bit, what they were."""
    weights = {n: reading.moments_sign(model.groups[n]) * model.groups[n]["lambda_"] for n in signalled.which}
    try:
        signalled.gradients.add_(found.q, [Times(parts, weights[n]) for n, parts in signalled.which.items()])
        adam_step()
    finally:
        signalled.gradients.put_(found.before)


@contextmanager
def _contiguous_gradients(model: Model) -> Iterator[None]:
    """Within it, copies stand in for gradients that are not contiguous."""
    strided = {}
    for part in model.layout.blocks.parts if model.layout.blocks is not None else ():
        parameter = model.layout.parameters[part.parameter]
        if parameter.grad is not None and not own(parameter.grad).is_contiguous():
            strided[parameter] = parameter.grad
            parameter.grad = parameter.grad.contiguous()
    try:
        yield
    finally:
        for parameter, gradient in strided.items():
            parameter.grad = gradient
