"""AdamW with a perturbation: parameters, gradients and a signal in; parameters one step further out.

    theta <- theta - lr * (Adam step) - lr * weight_decay * theta - lr * lambda * Q,     Q = s(theta) * g

(arXiv 2511.01918, Eq. 1 and 2), and the other readings of the paper that config.Perturbation names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, cast, overload

import torch
from pydantic import ValidationError
from torch import Tensor
from torch._compile import _disable_dynamo

from qsgd_ray import config
from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.config.base import SPACES
from qsgd_ray.config.circuit import Entangle, Rotation, entangle_by_name
from qsgd_ray.optimizer._adam import Moments, Piece, age_of, direction_norms, piece_of, take_steps
from qsgd_ray.optimizer._chunked_step import Draws, step_by_runs
from qsgd_ray.optimizer._fused_step import QuickStep
from qsgd_ray.optimizer._gather import fit_native
from qsgd_ray.optimizer._gathered_step import Prefetch, step_at_once
from qsgd_ray.optimizer._layout import Layout, Model, Reading, layout_of
from qsgd_ray.optimizer._one_pass import direction_squares
from qsgd_ray.optimizer._shards import gradients_like_parameters, own
from qsgd_ray.optimizer.native.compiler import NATIVE_FROM
from qsgd_ray.optimizer.signals import ClosedForm, make_signal
from qsgd_ray.optimizer.telemetry import Means, Norms, Telemetry

__all__ = ["SuperpositionalAdamW", "Telemetry"]


# torch's own: a step in a CUDA graph wants `capturable`. Older versions have it by the second name only.
GRAPH_CHECK = next(
    name
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
    if hasattr(torch.optim.Optimizer, name)
)
# In each parameter group: how many steps were taken. What is drawn at a step is named by it.
STEPS = "perturbation_steps"


class SuperpositionalAdamW(torch.optim.AdamW):
    """torch.optim.AdamW with lr * lambda * Q taken off besides its step, Q = s(theta before the step) * g.

    g is the gradient that Adam sees (its sign turned under `maximize`). `direction` "preconditioned" takes Adam's
    direction in its place, as this step's plain gradient gives it; `placement` "moments" adds lambda * Q to the
    gradient before Adam sees it (`.grad` is afterwards what it was); `formula` "paper" is Eq. 1 as printed. The options
    are those of config.Perturbation.

    lr, weight_decay and lambda_ may differ from parameter group to parameter group, and change between steps (for
    lambda: schedules.py); where lambda_ is 0, or the source is `zero`, the parameters are torch.optim.AdamW's bit for
    bit and no circuit is asked. Coordinates (`scope`, see coordinates.py) are counted through the parameters that
    require a gradient; those without one at a step are not perturbed in it. Sources that draw do so by (`seed`, step,
    coordinate) alone (random_keys.py); the count of steps is saved with the groups.

    Circuits depend on theta alone, so those for the next step are submitted at the end of this one and collected when
    the gradient is there. theta is compared then: had anything else moved it, the circuits are asked afresh
    (_gathered_step.py). Closed forms at scope `all` go run by run through the model (_chunked_step.py).

    Parameters may be sharded by rows (FSDP2's fully_shard): every process then steps what it holds, and takes the few
    coordinates that a block needs besides from the others (_shards.py). `capturable`, for CUDA graphs: the sources
    sine, gradient and zero only, after a first step outside of it. A graph's replays keep the lambda of its capture,
    are not counted as steps and not sampled for telemetry. Shards that are no DTensors (FSDP1, ZeRO) count as whole
    parameters.

    ValueError in one line: an option that config.Perturbation refuses, a parameter that _shards.py refuses, a sparse
    gradient, lr * weight_decay of 1 and more at scope `all`. CircuitError: what the circuits' backend raises.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        lambda_: float = 0.5,
        n_qubits: int = 4,
        depth: int = 2,
        entangle: Entangle | bool = "chain",
        rotations: Sequence[Rotation] = ("ry", "rz"),
        source: config.Source = "sine",
        scope: config.Scope = "tensor",
        formula: config.Formula = "adamw",
        placement: config.Placement = "update",
        direction: config.Direction = "gradient",
        shots: int | None = None,
        noise: config.NoiseSettings | None = None,
        seed: int = 0,
        circuits: CircuitBackend | None = None,
        telemetry_every: int | None = 128,
        foreach: bool | None = None,
        fused: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        try:
            perturbation = config.Perturbation(
                source=source,
                lambda_=lambda_,
                n_qubits=n_qubits,
                depth=depth,
                entangle=entangle_by_name(entangle),
                rotations=tuple(rotations),
                scope=scope,
                formula=formula,
                placement=placement,
                direction=direction,
                shots=shots,
                noise=noise,
            )
        except ValidationError as error:
            raise ValueError(config.validation_message(error)) from None
        for name in config.Perturbation.model_fields:
            if isinstance(getattr(perturbation, name), SPACES):
                raise ValueError(f"Perturbation.{name}: got a space; allowed: a value")
        if telemetry_every is not None and telemetry_every < 1:
            raise ValueError(f"telemetry_every: got {telemetry_every}; allowed: a whole number >= 1, or None")
        self._signal = make_signal(perturbation, circuits)
        closed = isinstance(self._signal, ClosedForm)
        self._reading = Reading(
            scope,
            n_qubits,
            formula,
            placement,
            direction,
            silent=source == "zero",
            by_runs=scope == "all" and closed,
            pointwise=isinstance(self._signal, ClosedForm) and self._signal.pointwise,
            capturable=closed and not self._signal.keyed,
        )
        self._seed = seed
        self._prefetch = Prefetch(self._signal, seed)
        self._telemetry_every = telemetry_every
        self._means = Means()
        self._quick = QuickStep()
        self._layout: Layout | None = None
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            fused=fused,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
        )
        # Set by fused AdamW; a gradient scaler would then leave the gradients scaled, and Q with them.
        self._step_supports_amp_scaling = False
        self.defaults |= {"lambda_": lambda_, STEPS: 0}
        for group in self.param_groups:
            group.setdefault("lambda_", lambda_)
            group.setdefault(STEPS, 0)
        self._layout = layout_of(self.param_groups, self._reading, None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if "lambda_" in self.defaults:
            param_group.setdefault("lambda_", self.defaults["lambda_"])
            param_group.setdefault(STEPS, self._steps)
        super().add_param_group(param_group)

    @property
    def _steps(self) -> int:
        """Taken so far; kept with the groups, so that it is saved and loaded with them."""
        return int(self.param_groups[0][STEPS])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_disable_dynamo  # as torch's own kernels are: a compiled training step calls it as it is
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; returns what `closure` returned, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        getattr(self, GRAPH_CHECK)()
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if fit_native([parameter.grad for parameter in parameters]):
            self._step(fit=True)
            return loss
        _refuse_sparse(parameters)
        with gradients_like_parameters(parameters):
            self._step(fit=False)
        return loss

    def _step(self, fit: bool) -> None:
        """`fit`: the gradients that are there are float32 in plain memory."""
        norms = None
        sampled = self._telemetry_every is not None and (self._steps + 1) % self._telemetry_every == 0
        if sampled and not self._captured():
            norms = Norms(len(self.param_groups))
        self._layout = layout = layout_of(self.param_groups, self._reading, self._layout)
        model = Model(layout, self.param_groups, self.state)
        if layout.by_runs:
            assert isinstance(self._signal, ClosedForm)
            for group in self.param_groups:
                self._make_states(group)
            step_by_runs(model, self._reading, self._signal, Draws(self._seed, self._steps), norms)
            for group in self.param_groups:
                self._count_step(group)
        else:
            adam_step = partial(self._adam_step, fit)
            step_at_once(model, self._reading, self._prefetch, self._steps, adam_step, norms, fit)
        for group in self.param_groups:
            group[STEPS] += 1
        self._prefetch.ahead(layout, self._steps)
        if norms is not None:
            self._note_directions(layout, norms)
            device = layout.memory[0].device if layout.memory else torch.device("cpu")
            self._means.add(layout.ranks.sum_(norms.squares(device)))

    def telemetry(self) -> Telemetry:
        """What was done since the last call (see `Telemetry`); starts the norms' next window."""
        means, self._means = self._means, Means()
        return Telemetry.of(means, self._prefetch.wait_s, self._prefetch.busy_s, self._prefetch.n_circuits)

    def telemetry_state(self) -> dict[str, Any]:
        """What was told and counted so far, as plain numbers: `load_telemetry_state` goes on from there."""
        prefetch = self._prefetch
        return {
            "means": self._means.state(),
            "wait_s": prefetch.wait_s,
            "busy_s": prefetch.busy_s,
            "n_circuits": prefetch.n_circuits,
            "under_way": prefetch.n_under_way > 0,
        }

    def load_telemetry_state(self, state: dict[str, Any]) -> None:
        """After parameters and groups are loaded: circuits that were under way for the next step are asked again."""
        prefetch = self._prefetch
        prefetch.forget()
        self._means = Means.from_state(state["means"])
        prefetch.wait_s, prefetch.busy_s = state["wait_s"], state["busy_s"]
        if state["under_way"]:
            self._layout = layout_of(self.param_groups, self._reading, self._layout)
            with torch.no_grad():
                prefetch.ahead(self._layout, self._steps)
        prefetch.n_circuits = state["n_circuits"]  # those asked again are counted already

    def _adam_step(self, fit: bool) -> None:
        """Without a perturbation."""
        if self._reading.formula == "adamw":
            if not self._quick.take(self, fit):
                _plain_adamw_step()(self)
            return
        for group in self.param_groups:
            self._make_states(group)
            pieces = self._pieces(group["params"], group)
            take_steps((part for piece in pieces for part in piece.cut()), self._reading.formula)
            self._count_step(group)

    def _note_directions(self, layout: Layout, norms: Norms) -> None:
        for number, group in enumerate(self.param_groups):
            parameters = [parameter for parameter in layout.told(group["params"]) if id(parameter) not in norms.noted]
            norms.adam[number] += self._direction_norms(parameters, group, layout.n_coordinates)

    def _direction_norms(self, parameters: list[Tensor], group: dict[str, Any], n_coordinates: int) -> list[Tensor]:
        """Norms of Adam's direction."""
        formula = self._reading.formula
        if n_coordinates >= NATIVE_FROM:
            squares = direction_squares(list(self._pieces(parameters, group)), formula)
            if squares is not None:
                return list(squares.sqrt().unbind())
        states = [self.state.get(parameter) for parameter in parameters if parameter.grad is not None]
        return direction_norms(
            (
                Moments(
                    own(state["exp_avg"]), own(state.get("max_exp_avg_sq", state["exp_avg_sq"])), age_of(state), group
                )
                for state in states
                if state
            ),
            formula,
        )

    def _captured(self) -> bool:
        """Does a CUDA graph record this step?"""
        return any(group["capturable"] for group in self.param_groups) and torch.cuda.is_current_stream_capturing()

    def _make_states(self, group: dict[str, Any]) -> None:
        self._init_group(group, [], [], [], [], [], [])

    def _count_step(self, group: dict[str, Any]) -> None:
        """As torch's kernels do."""
        counts = [self.state[parameter]["step"] for parameter in group["params"] if parameter.grad is not None]
        if counts:
            torch._foreach_add_(counts, 1)

    def _pieces(self, parameters: Iterable[Tensor], group: dict[str, Any]) -> Iterator[Piece]:
        """What this process holds of the parameters that have a gradient and moments."""
        for parameter in parameters:
            if parameter.grad is not None and self.state.get(parameter):
                state = self.state[parameter]
                piece = piece_of(parameter, state, group)
                if "max_exp_avg_sq" in state:
                    piece = piece._replace(v=own(state["max_exp_avg_sq"]).view(-1))
                yield piece

    def __getstate__(self) -> dict[str, Any]:
        # Pickle and deepcopy carry everything but an answer under way and views into these very parameters.
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _CARRIED}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # load_state_dict comes this way too: what was asked before it is discarded.
        lambdas = [group.get("lambda_") for group in self.__dict__.get("param_groups", [])]
        super().__setstate__(state)
        self._prefetch.forget()
        self._layout = None
        self._quick = QuickStep()
        if "_means" not in state:
            self._means = Means()
        # A state of channels_last parameters, say: Adam would take it as it is, _chunked_step.py and the telemetry not.
        for own_state in self.state.values():
            for name, value in own_state.items():
                if isinstance(value, Tensor) and not own(value).is_contiguous():
                    own_state[name] = value.contiguous()
        # A state of plain AdamW has no lambda: each group keeps its own.
        lambdas += [self.defaults["lambda_"]] * (len(self.param_groups) - len(lambdas))
        for group, lambda_ in zip(self.param_groups, lambdas, strict=False):
            group.setdefault("lambda_", lambda_)
            group.setdefault(STEPS, 0)


_CARRIED = (
    "_reading",
    "_seed",
    "_signal",
    "_prefetch",
    "_telemetry_every",
    "_means",
    "_step_supports_amp_scaling",
)


def _refuse_sparse(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise ValueError(f"gradient of shape {tuple(parameter.shape)}: got a sparse one; allowed: dense")


def _plain_adamw_step() -> Callable[[torch.optim.AdamW], Any]:
    """AdamW.step without torch's hook wrapper: SuperpositionalAdamW.step has its own, and hooks must run once."""
    step: Any = torch.optim.AdamW.step
    while getattr(step, "hooked", False):
        step = step.__wrapped__
    return cast(Callable[[torch.optim.AdamW], Any], step)
