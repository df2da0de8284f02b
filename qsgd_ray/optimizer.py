"""AdamW with a perturbation: parameters, gradients and a signal in; parameters one step further out.

    theta <- theta - lr * (Adam step) - lr * weight_decay * theta - lr * lambda * Q,     Q = s(theta) * g

(arXiv 2511.01918, Eq. 1 and 2, in the `adamw` formula: bias correction, eps outside the root, decoupled weight decay).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast, overload

import torch
from pydantic import ValidationError
from torch import Tensor

from qsgd_ray import config
from qsgd_ray.circuits.backends import CircuitBackend, CircuitError, Pending
from qsgd_ray.circuits.kinds import Entangle, Rotation, entangle_by_name
from qsgd_ray.coordinates import Blocks, coordinates
from qsgd_ray.perturbation import CircuitSignal, make_signal
from qsgd_ray.spaces import SPACES


class Telemetry(NamedTuple):
    """What the optimizer did. The norms are Euclidean over the whole model, and means over the sampled steps since the
    last call (None: no step was sampled); `circuit_wait_s` and `n_circuits` are totals since construction."""

    perturbation_norm: float | None
    adam_step_norm: float | None
    circuit_wait_s: float
    n_circuits: int
    n_samples: int


class _Asked(NamedTuple):
    """A signal asked for at `theta_bw`, of use only where theta is still that."""

    theta_bw: Tensor
    pending: Pending


class _Layout(NamedTuple):
    """Where the perturbed coordinates lie now. `views`: for each Blocks, one flat view a segment."""

    parameters: list[Tensor]
    groups: list[dict[str, Any]]  # the parameter group of each parameter
    blocks: tuple[Blocks, ...]
    views: list[list[Tensor]]
    key: list[tuple[int, int, bool, bool]]  # what it was made from


class SuperpositionalAdamW(torch.optim.AdamW):
    """torch.optim.AdamW with lr * lambda * Q taken off after its step, Q = s(theta before the step) * g.

    g is the gradient that Adam sees (its sign turned under `maximize`). lr, weight_decay and lambda_ may differ from
    parameter group to parameter group; where lambda_ is 0, or the source is `zero`, the parameters are
    torch.optim.AdamW's bit for bit and no circuit is asked. Coordinates (`scope`, see coordinates.py) are counted
    through the parameters that require a gradient; those without one at a step are not perturbed in it.

    Circuits depend on theta alone, so those for the next step are submitted at the end of this one and collected when
    the gradient is there. theta is compared then: had anything else moved it, the circuits are asked afresh.

    ValueError in one line: an option that config.Perturbation refuses, a parameter that coordinates.py refuses, a
    sparse gradient. CircuitError: what the circuits' backend raises.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        lambda_: float = 0.5,
        n_qubits: int = 4,
        depth: int = 2,
        entangle: Entangle | bool = "chain",
        rotations: Sequence[Rotation] = ("ry", "rz"),
        source: Literal["sine", "circuit", "zero"] = "sine",
        scope: Literal["model", "tensor", "all"] = "tensor",
        circuits: CircuitBackend | None = None,
        telemetry_every: int | None = 16,
        foreach: bool | None = None,
        fused: bool | None = None,
        maximize: bool = False,
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
            )
        except ValidationError as error:
            raise ValueError(config.one_line(error)) from None
        for name, value in (("lambda_", perturbation.lambda_), ("n_qubits", perturbation.n_qubits)):
            if isinstance(value, SPACES):
                raise ValueError(f"Perturbation.{name}: got a space; allowed: a number")
        if telemetry_every is not None and telemetry_every < 1:
            raise ValueError(f"telemetry_every: got {telemetry_every}; allowed: a whole number >= 1, or None")
        self._n_qubits = n_qubits
        self._scope = scope
        self._signal = make_signal(perturbation, circuits)
        self._silent = source == "zero"
        self._telemetry_every = telemetry_every
        self._steps = 0
        self._norms: list[tuple[Tensor, Tensor]] = []
        self._circuit_wait_s = 0.0
        self._n_circuits = 0
        self._asked: dict[int, _Asked] = {}  # by width of the blocks
        self._layout: _Layout | None = None
        super().__init__(params, lr, betas, eps, weight_decay, foreach=foreach, fused=fused, maximize=maximize)
        # Set by fused AdamW; a gradient scaler would then leave the gradients scaled, and Q with them.
        self._step_supports_amp_scaling = False
        self.defaults["lambda_"] = lambda_
        for group in self.param_groups:
            group.setdefault("lambda_", lambda_)
        self._current_layout()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if "lambda_" in self.defaults:
            param_group.setdefault("lambda_", self.defaults["lambda_"])
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; returns what `closure` returned, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_sparse()
        self._steps += 1
        sampled = self._telemetry_every is not None and self._steps % self._telemetry_every == 0
        layout = self._current_layout()
        q = [
            self._q(blocks, views, layout.parameters) for blocks, views in zip(layout.blocks, layout.views, strict=True)
        ]
        _plain_adamw_step()(self)
        norms = [
            norm
            for blocks, views, q_bw in zip(layout.blocks, layout.views, q, strict=True)
            if q_bw is not None
            for norm in self._subtract(layout, blocks, views, q_bw, sampled)
        ]
        self._ask_ahead(layout)
        if sampled:
            self._norms.append((_together(norms), _together(self._adam_norms())))
        return loss

    def telemetry(self) -> Telemetry:
        """What was done since the last call (see `Telemetry`); starts the norms' next window."""
        norms, self._norms = self._norms, []
        perturbation, adam = (
            (sum(float(norm) for norm in column) / len(norms) for column in zip(*norms, strict=True))
            if norms
            else (None, None)
        )
        return Telemetry(perturbation, adam, self._circuit_wait_s, self._n_circuits, len(norms))

    def _current_layout(self) -> _Layout:
        """Made anew where a parameter came, moved in memory or was frozen, or a lambda began or ceased to be 0."""
        key = [
            (id(parameter), parameter.data_ptr(), parameter.is_contiguous(), group["lambda_"] != 0)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]
        if self._layout is not None and self._layout.key == key:
            return self._layout
        owned = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]
        for _, group in owned:
            if not 0 <= group["lambda_"] < math.inf:
                raise ValueError(f"lambda_: got {group['lambda_']!r}; allowed: a number >= 0")
        parameters = [parameter for parameter, _ in owned]
        blocks = coordinates(parameters, self._scope, self._n_qubits)
        loud = [not self._silent and group["lambda_"] != 0 for _, group in owned]
        if self._scope == "tensor":  # every segment is a block, so those of silent groups can be left out
            blocks = tuple(
                replace(own, segments=tuple(segment for segment in own.segments if loud[segment.parameter]))
                for own in blocks
            )
        blocks = tuple(own for own in blocks if any(loud[segment.parameter] for segment in own.segments))
        views = [own.views([parameter.detach() for parameter in parameters]) for own in blocks]
        self._layout = _Layout(parameters, [group for _, group in owned], blocks, views, key)
        return self._layout

    def _q(self, blocks: Blocks, views: list[Tensor], parameters: list[Tensor]) -> Tensor | None:
        """Q = s(theta) * g, (blocks, width), multiplied in float64 and rounded once, to the dtype of the parameters.

        None where no parameter of these blocks has a gradient.
        """
        gradients = [parameter.grad for parameter in parameters]
        if all(gradients[segment.parameter] is None for segment in blocks.segments):
            return None
        theta_bw = torch.cat(views).view(-1, blocks.width)
        asked = self._asked.pop(blocks.width, None)
        if asked is None or not torch.equal(asked.theta_bw, theta_bw):
            asked = self._ask(theta_bw)
        started = time.perf_counter()
        s_bw = asked.pending.result()
        self._waited(started)
        return (s_bw.to(theta_bw.device) * blocks.gather(gradients)).to(theta_bw.dtype)

    def _subtract(
        self, layout: _Layout, blocks: Blocks, views: list[Tensor], q_bw: Tensor, sampled: bool
    ) -> list[Tensor]:
        """theta -= lr * lambda * Q in place; returns, where sampled, |lambda * Q| of each segment."""
        pieces = blocks.split(q_bw)
        by_group: dict[int, tuple[dict[str, Any], list[Tensor], list[Tensor]]] = {}
        for segment, view, piece in zip(blocks.segments, views, pieces, strict=True):
            if layout.parameters[segment.parameter].grad is not None:
                group = layout.groups[segment.parameter]
                _, to, by = by_group.setdefault(id(group), (group, [], []))
                to.append(view)
                by.append(piece)
        norms: list[Tensor] = []
        for group, to, by in by_group.values():
            sign = -1.0 if group["maximize"] else 1.0
            step_size = float(group["lr"]) * group["lambda_"]
            if step_size != 0:
                torch._foreach_add_(to, by, alpha=-sign * step_size)
            if sampled:
                norms.extend(torch._foreach_mul(torch._foreach_norm(by), group["lambda_"]))
        return norms

    def _ask_ahead(self, layout: _Layout) -> None:
        """Submit the next step's circuits: theta is known, and the forward and backward pass take time."""
        if not isinstance(self._signal, CircuitSignal):
            return
        for blocks, views in zip(layout.blocks, layout.views, strict=True):
            # Without the prefetch the next step asks again, and raises if that fails too. So the last step of a
            # training does not fail for circuits that nobody would have used.
            with suppress(CircuitError):
                self._asked[blocks.width] = self._ask(torch.cat(views).view(-1, blocks.width))

    def _ask(self, theta_bw: Tensor) -> _Asked:
        started = time.perf_counter()
        asked = _Asked(theta_bw, self._signal.submit(theta_bw))
        self._waited(started)
        if isinstance(self._signal, CircuitSignal):
            self._n_circuits += len(theta_bw)
        return asked

    def _waited(self, started: float) -> None:
        if isinstance(self._signal, CircuitSignal):
            self._circuit_wait_s += time.perf_counter() - started

    def _adam_norms(self) -> list[Tensor]:
        """|m_hat / (sqrt(v_hat) + eps)| of each parameter that this step moved."""
        norms: list[Tensor] = []
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            states = [self.state[parameter] for parameter in group["params"] if parameter.grad is not None]
            if not states:
                continue
            ages = [float(state["step"]) for state in states]
            v_hat = torch._foreach_div([state["exp_avg_sq"] for state in states], [1 - beta2**age for age in ages])
            scale = torch._foreach_add(torch._foreach_sqrt(v_hat), group["eps"])
            m_hat = torch._foreach_div([state["exp_avg"] for state in states], [1 - beta1**age for age in ages])
            norms.extend(torch._foreach_norm(torch._foreach_div(m_hat, scale)))
        return norms

    def _refuse_sparse(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    raise ValueError(f"gradient of shape {tuple(parameter.shape)}: got a sparse one; allowed: dense")

    def __getstate__(self) -> dict[str, Any]:
        # Pickle and deepcopy carry everything but an answer under way and views into these very parameters.
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _CARRIED}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # load_state_dict comes this way too: what was asked before it is discarded.
        super().__setstate__(state)
        self._asked = {}
        self._layout = None
        for group in self.param_groups:
            group.setdefault("lambda_", self.defaults["lambda_"])


_CARRIED = (
    "_n_qubits",
    "_scope",
    "_signal",
    "_silent",
    "_telemetry_every",
    "_steps",
    "_norms",
    "_circuit_wait_s",
    "_n_circuits",
    "_step_supports_amp_scaling",
)


def make_optimizer(
    arm: config.Arm, parameters: Iterable[Any], circuits: CircuitBackend | None
) -> torch.optim.Optimizer:
    """The optimizer of a resolved arm: torch.optim.AdamW itself where it has no perturbation.

    `circuits` answers the circuits of a `circuit` source; None simulates them in process. Both kinds of arm use the
    fused kernel, the quickest on one CPU thread for small models (28 tensors, 73,000 parameters: 0.44 ms a step, 0.78
    foreach, 1.5 for-loop; torch 2.13, two-core machine). StudyError: an arm whose space is not resolved.
    """
    unresolved = arm.spaces()
    if unresolved:
        raise config.StudyError(f"arm {arm.name}: got a space in {', '.join(unresolved)}; allowed: a resolved arm")
    settings: dict[str, Any] = {
        "lr": arm.learning_rate,
        "betas": arm.betas,
        "eps": arm.eps,
        "weight_decay": arm.weight_decay,
        "fused": True,
    }
    perturbation = arm.perturbation
    if perturbation is None:
        return torch.optim.AdamW(parameters, **settings)
    own = perturbation.model_dump(include={"lambda_", "n_qubits", "depth", "entangle", "rotations", "source", "scope"})
    return SuperpositionalAdamW(parameters, **settings, **own, circuits=circuits)


def _together(norms: list[Tensor]) -> Tensor:
    """The Euclidean norm of the whole from those of its parts, left on their device."""
    return torch.linalg.vector_norm(torch.stack(norms).to(torch.float64)) if norms else torch.zeros(())


def _plain_adamw_step() -> Callable[[torch.optim.AdamW], Any]:
    """AdamW.step without torch's hook wrapper: SuperpositionalAdamW.step has its own, and hooks must run once."""
    step: Any = torch.optim.AdamW.step
    while getattr(step, "hooked", False):
        step = step.__wrapped__
    return cast(Callable[[torch.optim.AdamW], Any], step)
