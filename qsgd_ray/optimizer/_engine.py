"""Take one step of SuperpositionalAdamW: choose its path, sample its norms, submit the next step's circuits.

adamw.py lists the paths. The optimizer, which is torch's, holds groups, moments and gradients; the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.config import Perturbation
from qsgd_ray.native.compiler import NATIVE_FROM
from qsgd_ray.optimizer._adam import Piece, adam_step, local_piece
from qsgd_ray.optimizer._chunked_step import DrawKey, chunked_step
from qsgd_ray.optimizer._fused_step import FusedStep
from qsgd_ray.optimizer._gathered_step import gathered_step
from qsgd_ray.optimizer._layout import Group, Layout, Model, StepOptions, layout_of
from qsgd_ray.optimizer._norms import NormMeans, StepNorms, direction_norms
from qsgd_ray.optimizer._prefetch import Prefetch
from qsgd_ray.optimizer._reports import means_of, report, report_state, restore_prefetch
from qsgd_ray.optimizer.signals import ClosedForm, make_signal
from qsgd_ray.optimizer.telemetry import Telemetry

# The key, in each parameter group, of the number of steps taken: it names a step's draws, and is saved with the groups.
STEPS = "perturbation_steps"


class Engine:
    """The perturbation of one optimizer, and what is cached of it from step to step."""

    def __init__(
        self, perturbation: Perturbation, circuits: CircuitBackend | None, seed: int, telemetry_every: int | None
    ) -> None:
        """Make the signal; ValueError and CircuitError as `make_signal` raises them."""
        self._signal = make_signal(perturbation, circuits)
        self._options = StepOptions.of(perturbation, self._signal)
        self._seed = seed
        self._prefetch = Prefetch(self._signal, seed)
        self._telemetry_every = telemetry_every
        self._means = NormMeans()
        self._fused_step = FusedStep()
        self._layout: Layout | None = None

    def lay_out(self, groups: list[Group]) -> Layout:
        """Return the layout of the groups as they are now; ValueError as `layout_of` raises it."""
        self._layout = layout_of(groups, self._options, self._layout)
        return self._layout

    def step(self, optimizer: torch.optim.AdamW, native: bool) -> None:
        """Take one step. `native`: the gradients are such as `_gather.all_native` describes.

        Raises:
            ValueError: a group's option or a parameter that `layout_of` refuses; lr * weight_decay of 1 and more in the
                chunked step.
            CircuitError: the backend's.
        """
        groups = optimizer.param_groups
        n_steps = steps_taken(groups)
        norms = None
        sampled = self._telemetry_every is not None and (n_steps + 1) % self._telemetry_every == 0
        if sampled and not _is_captured(groups):
            norms = StepNorms(len(groups))
        layout = self.lay_out(groups)
        model = Model(layout, groups, optimizer.state)
        if layout.chunked:
            assert isinstance(self._signal, ClosedForm)
            for group in groups:
                _make_states(optimizer, group)
            chunked_step(model, self._options, self._signal, DrawKey(self._seed, n_steps), norms)
            for group in groups:
                _count_step(optimizer, group)
        else:
            plain_step = partial(self._plain_step, optimizer, native)
            gathered_step(model, self._options, self._prefetch, n_steps, plain_step, norms, native)
        for group in groups:
            group[STEPS] += 1
        self._prefetch.submit_next(layout, n_steps + 1)
        if norms is not None:
            self._measure(model, norms)

    def _plain_step(self, optimizer: torch.optim.AdamW, native: bool) -> None:
        """Take Adam's step without a perturbation: by the fused kernel, by torch, or as the paper prints it."""
        if self._options.formula == "adamw":
            if not self._fused_step.take(optimizer, native):
                _unhooked_adamw_step()(optimizer)
            return
        for group in optimizer.param_groups:
            _make_states(optimizer, group)
            pieces = _pieces(optimizer, group)
            adam_step((part for piece in pieces for part in piece.split()), self._options.formula)
            _count_step(optimizer, group)

    def _measure(self, model: Model, norms: StepNorms) -> None:
        """Add the norms of Adam's direction where the step has not measured them, and take all into the means."""
        layout = model.layout
        native = layout.n_coordinates >= NATIVE_FROM
        for number, group in enumerate(model.groups):
            parameters = [each for each in layout.reported(group["params"]) if id(each) not in norms.measured]
            norms.adam[number] += direction_norms(parameters, model.state, group, self._options.formula, native)
        device = layout.memory[0].device if layout.memory else torch.device("cpu")
        self._means.add(layout.processes.sum_(norms.squares(device)))

    def telemetry(self) -> Telemetry:
        """Return the report since the last call, and start the next window of the norms."""
        means, self._means = self._means, NormMeans()
        return report(means, self._prefetch)

    def telemetry_state(self) -> dict[str, Any]:
        """Return the state that `load_telemetry_state` takes."""
        return report_state(self._means, self._prefetch)

    def load_telemetry_state(self, groups: list[Group], state: dict[str, Any]) -> None:
        """Restore counts and means; submit the next step's circuits again, where they were under way."""
        self._means = means_of(state)
        restore_prefetch(self._prefetch, state, lambda: self.lay_out(groups), steps_taken(groups))

    def reset(self) -> None:
        """Drop what belongs to the parameters and states of before: layout, cached lists and pending circuits."""
        self._prefetch.discard()
        self._layout = None
        self._fused_step = FusedStep()

    def restart_means(self) -> None:
        """Start a new window of the norms."""
        self._means = NormMeans()

    def __getstate__(self) -> dict[str, Any]:
        """Leave views into these very parameters out of pickles and copies."""
        return {**self.__dict__, "_layout": None, "_fused_step": FusedStep()}


def steps_taken(groups: list[Group]) -> int:
    """Return the number of steps that the optimizer has taken; it is saved and loaded with the groups."""
    return int(groups[0][STEPS])


def _is_captured(groups: list[Group]) -> bool:
    """Return True where a CUDA graph records this step."""
    return any(group["capturable"] for group in groups) and torch.cuda.is_current_stream_capturing()


def _make_states(optimizer: torch.optim.AdamW, group: Group) -> None:
    """Make the state of parameters that have a gradient and no state yet, as torch does it."""
    optimizer._init_group(group, [], [], [], [], [], [])


def _count_step(optimizer: torch.optim.AdamW, group: Group) -> None:
    """Add 1 to the step counts of parameters that have a gradient, as torch's kernels do."""
    counts = [optimizer.state[parameter]["step"] for parameter in group["params"] if parameter.grad is not None]
    if counts:
        torch._foreach_add_(counts, 1)


def _pieces(optimizer: torch.optim.AdamW, group: Group) -> Iterator[Piece]:
    """Yield what this process holds of the group's parameters that have a gradient and moments."""
    parameters: Iterable[Tensor] = group["params"]
    for parameter in parameters:
        if parameter.grad is not None and optimizer.state.get(parameter):
            yield local_piece(parameter, optimizer.state[parameter], group)


def _unhooked_adamw_step() -> Callable[[torch.optim.AdamW], Any]:
    """Return AdamW.step without torch's hook wrapper: SuperpositionalAdamW.step has its own, and hooks run once."""
    step: Any = torch.optim.AdamW.step
    while getattr(step, "hooked", False):
        step = step.__wrapped__
    return cast(Callable[[torch.optim.AdamW], Any], step)
