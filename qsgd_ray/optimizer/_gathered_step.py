"""Perturb few coordinates, or many by circuits: gather all signals first, then let torch take Adam's step.

In: a model with its gradients, and Adam's own step. Out: the parameters one step further. The perturbed coordinates lie
here and there in memory; they are read, and written after Adam's step, in one call each (_gather.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from qsgd_ray.optimizer._adam import adam_direction, learning_rate, steps_taken
from qsgd_ray.optimizer._gather import NativeSlices, Scale, Slices
from qsgd_ray.optimizer._layout import Group, Model, StepOptions
from qsgd_ray.optimizer._local_blocks import LocalBlocks
from qsgd_ray.optimizer._norms import StepNorms
from qsgd_ray.optimizer._prefetch import Prefetch
from qsgd_ray.optimizer._shards import local


class _Gathered(NamedTuple):
    """The inputs of a perturbation.

    Attributes:
        blocks: the perturbed blocks.
        s: signals of the parts that this process holds, end to end.
        gradients: the parts' slices of the gradients.
        which: for each parameter group, the indices of its parts that have a gradient.
    """

    blocks: LocalBlocks
    s: Tensor
    gradients: Slices
    which: dict[int, list[int]]


class _Perturbation(NamedTuple):
    """The parts' gradients before the step, and Q, both end to end."""

    gradients: Tensor
    q: Tensor


def gathered_step(
    model: Model,
    options: StepOptions,
    prefetch: Prefetch,
    step: int,
    adam_step: Callable[[], object],
    norms: StepNorms | None,
    native: bool = False,
) -> None:
    """Take one step of the whole model.

    Args:
        model: parameters with their gradients and moments.
        options: the perturbation's.
        prefetch: answers the signals.
        step: steps taken before.
        adam_step: takes Adam's own step of all parameters.
        norms: takes the norms of the perturbation; None where this step is not sampled.
        native: the gradients are such as `_gather.all_native` describes.

    Raises:
        CircuitError: the backend's.
    """
    in_moments = options.placement == "moments"
    with _contiguous_gradients(model) if in_moments and not native else nullcontext():
        blocks = model.layout.blocks
        gathered = None if blocks is None else _gather(model, blocks, prefetch, step, native)
        if gathered is None:
            adam_step()
            return
        if norms is None and not in_moments and _can_multiply_in_place(options, gathered):
            adam_step()  # which leaves gradients as they are
            _add_product(gathered, _scales(model, gathered, options))
            return
        perturbation = _perturbation(model, options, gathered)
        if norms is not None:
            _record(model, gathered, perturbation.q, norms)
        if in_moments:
            _step_with_q(model, options, gathered, perturbation, adam_step)
            return
    adam_step()
    gathered.blocks.thetas.add_(perturbation.q, _scales(model, gathered, options))


def _scales(model: Model, gathered: _Gathered, options: StepOptions) -> list[Scale]:
    """Return -lr * lambda of each parameter group."""
    return [Scale(parts, -_step_size(options, model.groups[n])) for n, parts in gathered.which.items()]


def _step_size(options: StepOptions, group: Group) -> float | Tensor:
    return options.sign(group) * group["lambda_"] * learning_rate(group)


def _gather(model: Model, blocks: LocalBlocks, prefetch: Prefetch, step: int, native: bool) -> _Gathered | None:
    """Return signals and gradients of the blocks; None where none of their parameters has a gradient."""
    parameters = model.layout.parameters
    local_gradients = [parameter.grad for parameter in parameters]
    if not native:
        local_gradients = [None if gradient is None else local(gradient) for gradient in local_gradients]
    if all(local_gradients[segment.parameter] is None for each in blocks.blocks for segment in each.segments):
        blocks.theta()  # processes that have gradients wait for this one's part
        return None
    which = model.layout.parts_by_group
    if any(gradient is None for gradient in local_gradients):
        with_gradient = [local_gradients[part.parameter] is not None for part in blocks.parts]
        which = {number: [index for index in parts if with_gradient[index]] for number, parts in which.items()}
    gradients = blocks.slices(local_gradients, native)
    s = blocks.local(prefetch.collect(blocks, step))
    return _Gathered(blocks, s, gradients, {number: parts for number, parts in which.items() if parts})


def _can_multiply_in_place(options: StepOptions, gathered: _Gathered) -> bool:
    """Return True where Q can be computed as it is added, without a tensor for it."""
    s, slices = gathered.s, (gathered.blocks.thetas, gathered.gradients)
    native = all(isinstance(each, NativeSlices) for each in slices)
    return native and options.direction == "gradient" and s.is_cpu and s.dtype == torch.float64 and s.is_contiguous()


def _add_product(gathered: _Gathered, scales: list[Scale]) -> None:
    thetas, gradients = gathered.blocks.thetas, gathered.gradients
    assert isinstance(thetas, NativeSlices)
    assert isinstance(gradients, NativeSlices)
    thetas.add_product(gathered.s, gradients, scales)


def _perturbation(model: Model, options: StepOptions, gathered: _Gathered) -> _Perturbation:
    """Return Q = s(theta) * direction of each part, multiplied in float64 and rounded once, to the parameters' dtype.

    Under `maximize` the gradient's sign is not turned yet.
    """
    blocks = gathered.blocks
    gradients = gathered.gradients.gather()
    direction = gradients if options.direction == "gradient" else _directions(model, options, blocks, gradients)
    return _Perturbation(gradients, blocks.rounded(gathered.s.to(direction.device) * direction))


def _record(model: Model, gathered: _Gathered, q: Tensor, norms: StepNorms) -> None:
    """Record |lambda * Q| of the parts that this process reports."""
    blocks, pieces = gathered.blocks, None
    for number, parts in gathered.which.items():
        reported = [index for index in parts if blocks.reports[index]]
        if len(reported) == len(blocks.parts):
            norms.perturbation[number].append(torch.linalg.vector_norm(q) * model.groups[number]["lambda_"])
        elif reported:
            pieces = pieces or q.split(blocks.sizes)
            lengths = torch._foreach_norm([pieces[index] for index in reported])
            norms.perturbation[number].extend(torch._foreach_mul(lengths, model.groups[number]["lambda_"]))


def _directions(model: Model, options: StepOptions, blocks: LocalBlocks, gradients: Tensor) -> Tensor:
    """Return Adam's direction, as this step's gradients give it, for all parts end to end.

    Where a parameter has no gradient, it is what its moments give with a gradient of 0, which is not used.
    """
    states = [model.state.get(parameter) or {} for parameter in model.layout.parameters]
    moments = (
        blocks.slices([local(state[name]) if name in state else None for state in states]).gather()
        for name in ("exp_avg", "exp_avg_sq")
    )
    fields = (gradients, *moments)
    # Parts of one group and step count go together; by far the most often that is all of them.
    batches: dict[tuple[int, int], list[int]] = {}
    for index, part in enumerate(blocks.parts):
        n_steps = steps_taken(states[part.parameter])
        key = model.layout.numbers[part.parameter], -1 - index if isinstance(n_steps, Tensor) else n_steps
        batches.setdefault(key, []).append(index)

    def direction(which: list[int], gradient: Tensor, m: Tensor, v: Tensor) -> Tensor:
        first = blocks.parts[which[0]].parameter
        return adam_direction(gradient, m, v, steps_taken(states[first]), model.group(first), options.formula)

    if len(batches) == 1:
        return direction(list(range(len(blocks.parts))), *fields)
    parts = [field.split(blocks.sizes) for field in fields]
    directions = [gradients] * len(blocks.parts)
    for which in batches.values():
        of_batch = direction(which, *(torch.cat([part[index] for index in which]) for part in parts))
        for index, of_part in zip(which, of_batch.split([blocks.sizes[index] for index in which]), strict=True):
            directions[index] = of_part
    return torch.cat(directions) if directions else gradients


def _step_with_q(
    model: Model,
    options: StepOptions,
    gathered: _Gathered,
    perturbation: _Perturbation,
    adam_step: Callable[[], object],
) -> None:
    """Take Adam's step with lambda * Q added to the gradients, then restore these bit for bit."""
    weights = {n: options.moments_sign(model.groups[n]) * model.groups[n]["lambda_"] for n in gathered.which}
    try:
        gathered.gradients.add_(perturbation.q, [Scale(parts, weights[n]) for n, parts in gathered.which.items()])
        adam_step()
    finally:
        gathered.gradients.scatter_(perturbation.gradients)


@contextmanager
def _contiguous_gradients(model: Model) -> Iterator[None]:
    """Replace gradients that are not contiguous by copies, as long as the context lasts."""
    strided = {}
    for part in model.layout.blocks.parts if model.layout.blocks is not None else ():
        parameter = model.layout.parameters[part.parameter]
        if parameter.grad is not None and not local(parameter.grad).is_contiguous():
            strided[parameter] = parameter.grad
            parameter.grad = parameter.grad.contiguous()
    try:
        yield
    finally:
        for parameter, gradient in strided.items():
            parameter.grad = gradient
