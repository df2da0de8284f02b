"""AdamW with a perturbation: parameters, gradients and a signal in; parameters one step further out.

    theta <- theta - lr * (Adam step) - lr * weight_decay * theta - lr * lambda * Q,     Q = s(theta) * g

(arXiv 2511.01918, Eq. 1 and 2), and the other readings of the paper that config.Perturbation names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple, cast, overload

import torch
from pydantic import ValidationError
from torch import Tensor
from torch._compile import _disable_dynamo

from qsgd_ray import config, draws
from qsgd_ray.adam_steps import CHUNK, Piece, direction_norms, next_direction, piece_of, take_steps
from qsgd_ray.circuits.backends import CircuitBackend, CircuitError, Pending
from qsgd_ray.circuits.kinds import Entangle, Rotation, entangle_by_name
from qsgd_ray.coordinates import Blocks, Segment, coordinates
from qsgd_ray.one_pass import take_sine_step
from qsgd_ray.perturbation import CircuitSignal, ClosedForm, SineSignal, make_signal
from qsgd_ray.spaces import SPACES
from qsgd_ray.telemetry import Norms, Telemetry

__all__ = ["SuperpositionalAdamW", "Telemetry", "make_optimizer"]


# From so many coordinates on, the sine of all is worth a kernel: eight seconds once, against steps of a tenth of one.
ONE_PASS_FROM = 2**24
# In each parameter group: how many steps were taken. What is drawn at a step is named by it.
STEPS = "perturbation_steps"


class _Asked(NamedTuple):
    """A signal asked for at `theta_bw` for one step, of use only where theta and the step are still these."""

    theta_bw: Tensor
    step: int
    pending: Pending


class _Layout(NamedTuple):
    """Where the perturbed coordinates lie now. `views`: for each Blocks, one flat view a segment."""

    parameters: list[Tensor]
    groups: list[int]  # the parameter group of each parameter
    blocks: tuple[Blocks, ...]
    views: list[list[Tensor]]
    chunks: list[Blocks]  # the blocks in parts, where the step goes through them chunk by chunk
    one_pass: bool  # or in one pass over each parameter
    key: list[tuple[int, int, bool, bool]]  # what it was made from


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
    coordinate) alone (draws.py); the count of steps is saved with the groups.

    Circuits depend on theta alone, so those for the next step are submitted at the end of this one and collected when
    the gradient is there. theta is compared then: had anything else moved it, the circuits are asked afresh. Closed
    forms at scope `all` go chunk by chunk through the model, Adam's step of a chunk right behind its perturbation:
    there lr * lambda * Q / (1 - lr * weight_decay) is taken off before Adam's step, which is the same.

    ValueError in one line: an option that config.Perturbation refuses, a parameter that coordinates.py refuses, a
    sparse gradient, lr * weight_decay of 1 and more at scope `all`. CircuitError: what the circuits' backend raises.
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
            raise ValueError(config.one_line(error)) from None
        for name, value in (("lambda_", perturbation.lambda_), ("n_qubits", perturbation.n_qubits)):
            if isinstance(value, SPACES):
                raise ValueError(f"Perturbation.{name}: got a space; allowed: a number")
        if telemetry_every is not None and telemetry_every < 1:
            raise ValueError(f"telemetry_every: got {telemetry_every}; allowed: a whole number >= 1, or None")
        self._n_qubits = n_qubits
        self._scope = scope
        self._formula = formula
        self._placement = placement
        self._direction = direction
        self._seed = seed
        self._signal = make_signal(perturbation, circuits)
        self._silent = source == "zero"
        self._chunked = scope == "all" and isinstance(self._signal, ClosedForm)
        self._telemetry_every = telemetry_every
        self._norms: list[Norms] = []
        self._circuit_wait_s = 0.0
        self._n_circuits = 0
        self._asked: dict[int, _Asked] = {}  # by width of the blocks
        self._layout: _Layout | None = None
        super().__init__(params, lr, betas, eps, weight_decay, foreach=foreach, fused=fused, maximize=maximize)
        # Set by fused AdamW; a gradient scaler would then leave the gradients scaled, and Q with them.
        self._step_supports_amp_scaling = False
        self.defaults |= {"lambda_": lambda_, STEPS: 0}
        for group in self.param_groups:
            group.setdefault("lambda_", lambda_)
            group.setdefault(STEPS, 0)
        self._current_layout()

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
        self._refuse_sparse()
        norms = None
        if self._telemetry_every is not None and (self._steps + 1) % self._telemetry_every == 0:
            norms = Norms(len(self.param_groups))
        layout = self._current_layout()
        if layout.chunks:
            self._step_by_chunks(layout, norms)
        else:
            self._step_at_once(layout, norms)
        for group in self.param_groups:
            group[STEPS] += 1
        self._ask_ahead(layout)
        if norms is not None:
            for number, group in enumerate(self.param_groups):
                norms.adam[number] = direction_norms(self._pieces(group), self._formula)
            self._norms.append(norms)
        return loss

    def telemetry(self) -> Telemetry:
        """What was done since the last call (see `Telemetry`); starts the norms' next window."""
        norms, self._norms = self._norms, []
        return Telemetry.of(norms, self._circuit_wait_s, self._n_circuits)

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
            (parameter, number)
            for number, group in enumerate(self.param_groups)
            for parameter in group["params"]
            if parameter.requires_grad
        ]
        lambdas = [group["lambda_"] for group in self.param_groups]
        for lambda_ in lambdas:
            if not 0 <= lambda_ < math.inf:
                raise ValueError(f"lambda_: got {lambda_!r}; allowed: a number >= 0")
        amsgrad = any(group["amsgrad"] for group in self.param_groups)
        if amsgrad and (self._direction != "gradient" or self._formula != "adamw"):
            raise ValueError("amsgrad: got True; allowed: with direction gradient and formula adamw only")
        chunked = self._chunked and not amsgrad
        parameters = [parameter for parameter, _ in owned]
        blocks = coordinates(parameters, self._scope, self._n_qubits)
        loud = [not self._silent and lambdas[number] != 0 for _, number in owned]
        if self._scope == "tensor":  # every segment is a block, so those of silent groups can be left out
            blocks = tuple(
                replace(own, segments=tuple(segment for segment in own.segments if loud[segment.parameter]))
                for own in blocks
            )
        if not (chunked and any(loud)):  # a chunk's Adam step goes with it, be it perturbed or not
            blocks = tuple(own for own in blocks if any(loud[segment.parameter] for segment in own.segments))
        views = [own.views([parameter.detach() for parameter in parameters]) for own in blocks]
        one_pass = (
            isinstance(self._signal, SineSignal)
            and (self._formula, self._placement, self._direction) == ("adamw", "update", "gradient")
            and sum(parameter.numel() for parameter in parameters) >= ONE_PASS_FROM
        )
        chunks = [chunk for own in blocks for chunk in own.chunks(CHUNK)] if chunked else []
        self._layout = _Layout(parameters, [number for _, number in owned], blocks, views, chunks, one_pass, key)
        return self._layout

    # The model's few coordinates, or circuits: all signals first, then Adam's step as torch does it.

    def _step_at_once(self, layout: _Layout, norms: Norms | None) -> None:
        q = [self._q(layout, blocks, views) for blocks, views in zip(layout.blocks, layout.views, strict=True)]
        found = [
            (blocks, views, q_bw)
            for blocks, views, q_bw in zip(layout.blocks, layout.views, q, strict=True)
            if q_bw is not None
        ]
        if self._placement == "moments":
            with self._gradients_plus(layout, found, norms):
                self._adam_step()
            return
        self._adam_step()
        for blocks, views, q_bw in found:
            self._subtract(layout, blocks, views, q_bw, norms)

    def _adam_step(self) -> None:
        """Without a perturbation."""
        if self._formula == "adamw":
            _plain_adamw_step()(self)
            return
        for group in self.param_groups:
            self._make_states(group)
            take_steps((part for piece in self._pieces(group) for part in piece.cut()), self._formula)
            self._count_step(group)

    def _q(self, layout: _Layout, blocks: Blocks, views: list[Tensor]) -> Tensor | None:
        """Q = s(theta) * direction, (blocks, width), multiplied in float64 and rounded once, to the parameters' dtype.

        Under `maximize` the gradient's sign is not turned yet. None where no parameter of these blocks has a gradient.
        """
        gradients = [parameter.grad for parameter in layout.parameters]
        if all(gradients[segment.parameter] is None for segment in blocks.segments):
            return None
        theta_bw = torch.cat(views).view(-1, blocks.width)
        asked = self._asked.pop(blocks.width, None)
        stale = asked is None or (asked.step != self._steps and self._signal.keyed)
        if asked is None or stale or not torch.equal(asked.theta_bw, theta_bw):
            asked = self._ask(theta_bw, blocks)
        if self._direction == "gradient":
            direction_bw = blocks.gather(gradients)
        else:
            pieces = [self._piece_at(layout, segment) for segment in blocks.segments]
            directions = [
                view.new_zeros(view.shape) if piece is None else next_direction(piece, self._formula)
                for piece, view in zip(pieces, views, strict=True)
            ]
            direction_bw = torch.cat(directions).view(-1, blocks.width)
        started = time.perf_counter()
        s_bw = asked.pending.result()
        self._waited(started)
        return (s_bw.to(theta_bw.device) * direction_bw).to(theta_bw.dtype)

    def _piece_at(self, layout: _Layout, segment: Segment) -> Piece | None:
        """A segment with its gradient and moments, zeros before the first step; None where it has no gradient."""
        parameter = layout.parameters[segment.parameter]
        if parameter.grad is None:
            return None
        state = self.state.get(parameter) or {"step": 0}
        part = slice(segment.start, segment.stop)
        theta, gradient = parameter.detach().view(-1)[part], parameter.grad.reshape(-1)[part]
        m, v = (
            state[name].view(-1)[part] if name in state else torch.zeros_like(theta)
            for name in ("exp_avg", "exp_avg_sq")
        )
        group = self.param_groups[layout.groups[segment.parameter]]
        return Piece(theta, gradient, m, v, int(state["step"]), group)

    def _sign(self, group: dict[str, Any]) -> float:
        """Of Q, whose direction is the gradient as it came, or one whose sign is turned already."""
        return -1.0 if group["maximize"] and self._direction == "gradient" else 1.0

    def _moments_sign(self, group: dict[str, Any]) -> float:
        """Of Q beside a gradient whose sign Adam turns after that."""
        return -1.0 if group["maximize"] and self._direction == "preconditioned" else 1.0

    def _subtract(
        self, layout: _Layout, blocks: Blocks, views: list[Tensor], q_bw: Tensor, norms: Norms | None
    ) -> None:
        """theta -= lr * lambda * Q in place."""
        by_group: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        for segment, view, piece in zip(blocks.segments, views, blocks.split(q_bw), strict=True):
            if layout.parameters[segment.parameter].grad is not None:
                to, by = by_group.setdefault(layout.groups[segment.parameter], ([], []))
                to.append(view)
                by.append(piece)
        for number, (to, by) in by_group.items():
            group = self.param_groups[number]
            step_size = self._sign(group) * float(group["lr"]) * group["lambda_"]
            if step_size != 0:
                torch._foreach_add_(to, by, alpha=-step_size)
            if norms is not None:
                norms.perturbation[number].extend(torch._foreach_mul(torch._foreach_norm(by), group["lambda_"]))

    @contextmanager
    def _gradients_plus(
        self, layout: _Layout, found: list[tuple[Blocks, list[Tensor], Tensor]], norms: Norms | None
    ) -> Iterator[None]:
        """Within it, lambda * Q is added to the gradients; afterwards they are, bit for bit, what they were."""
        own: dict[int, Tensor] = {}  # where a gradient is not contiguous, a copy stands in for it
        kept: list[tuple[Tensor, Tensor]] = []
        for blocks, _, q_bw in found:
            for segment, q in zip(blocks.segments, blocks.split(q_bw), strict=True):
                parameter = layout.parameters[segment.parameter]
                if parameter.grad is None:
                    continue
                number = layout.groups[segment.parameter]
                group = self.param_groups[number]
                if not parameter.grad.is_contiguous():
                    own[segment.parameter] = parameter.grad
                    parameter.grad = parameter.grad.contiguous()
                part = parameter.grad.view(-1)[segment.start : segment.stop]
                kept.append((part, part.clone()))
                part.add_(q, alpha=self._moments_sign(group) * group["lambda_"])
                if norms is not None:
                    norms.perturbation[number].append(torch.linalg.vector_norm(q) * group["lambda_"])
        try:
            yield
        finally:
            for part, before in kept:
                part.copy_(before)
            for index, gradient in own.items():
                layout.parameters[index].grad = gradient

    # Closed forms of every coordinate: chunk by chunk.

    def _step_by_chunks(self, layout: _Layout, norms: Norms | None) -> None:
        for group in self.param_groups:
            self._make_states(group)
            if (shrunk := float(group["lr"]) * group["weight_decay"]) >= 1 and self._placement == "update":
                raise ValueError(f"lr * weight_decay: got {shrunk:g}; allowed with scope all: below 1")
        pieces = [
            None if parameter.grad is None else piece_of(parameter, self.state[parameter], self.param_groups[number])
            for parameter, number in zip(layout.parameters, layout.groups, strict=True)
        ]
        if layout.one_pass and norms is None:
            pieces = [None if piece is None or _in_one_pass(piece) else piece for piece in pieces]
        for chunk in layout.chunks:
            if any(pieces[segment.parameter] is not None for segment in chunk.segments):
                take_steps(self._perturbed(layout, chunk, pieces, norms), self._formula)
        for group in self.param_groups:
            self._count_step(group)

    def _perturbed(
        self, layout: _Layout, chunk: Blocks, pieces: list[Piece | None], norms: Norms | None
    ) -> list[Piece]:
        """The pieces of a chunk, ready for Adam's step: theta moved, or the gradient replaced."""
        assert isinstance(self._signal, ClosedForm)
        signals: Sequence[Tensor | None] = [None] * len(chunk.segments)
        if not self._signal.pointwise:
            views = chunk.views(layout.parameters)
            theta = views[0].detach() if len(views) == 1 else torch.cat(views)
            keys_b = draws.keys(self._seed, self._steps, chunk.starts()) if self._signal.keyed else None
            signals = chunk.split(self._signal.of(theta.view(-1, chunk.width), keys_b))
        found = []
        for (index, start, stop, _), s in zip(chunk.segments, signals, strict=True):
            whole = pieces[index]
            if whole is None:
                continue
            part = slice(start, stop)
            piece = whole._replace(
                theta=whole.theta[part], gradient=whole.gradient[part], m=whole.m[part], v=whole.v[part]
            )
            number = layout.groups[index]
            group, lambda_ = piece.group, piece.group["lambda_"]
            if lambda_ != 0:
                direction = piece.gradient if self._direction == "gradient" else next_direction(piece, self._formula)
                lr = float(group["lr"])
                step_size = self._sign(group) * lr * lambda_ / (1 - lr * group["weight_decay"])
                q = (self._signal.of(piece.theta) if s is None else s).mul_(direction)
                if norms is not None:
                    norms.perturbation[number].append(torch.linalg.vector_norm(q) * lambda_)
                if self._placement == "update":
                    piece.theta.add_(q, alpha=-step_size)
                else:
                    weight = self._moments_sign(group) * lambda_
                    piece = piece._replace(gradient=torch.add(piece.gradient, q.to(piece.gradient.dtype), alpha=weight))
            found.append(piece)
        return found

    def _make_states(self, group: dict[str, Any]) -> None:
        self._init_group(group, [], [], [], [], [], [])

    def _count_step(self, group: dict[str, Any]) -> None:
        """As torch's kernels do."""
        counts = [self.state[parameter]["step"] for parameter in group["params"] if parameter.grad is not None]
        if counts:
            torch._foreach_add_(counts, 1)

    def _pieces(self, group: dict[str, Any]) -> Iterator[Piece]:
        """The parameters that have a gradient and moments."""
        for parameter in group["params"]:
            if parameter.grad is not None and self.state.get(parameter):
                state = self.state[parameter]
                piece = piece_of(parameter, state, group)
                yield piece._replace(v=state["max_exp_avg_sq"].view(-1)) if "max_exp_avg_sq" in state else piece

    def _ask_ahead(self, layout: _Layout) -> None:
        """Submit the next step's circuits: theta is known, and the forward and backward pass take time."""
        if not isinstance(self._signal, CircuitSignal):
            return
        for blocks, views in zip(layout.blocks, layout.views, strict=True):
            # Without the prefetch the next step asks again, and raises if that fails too. So the last step of a
            # training does not fail for circuits that nobody would have used.
            with suppress(CircuitError):
                self._asked[blocks.width] = self._ask(torch.cat(views).view(-1, blocks.width), blocks)

    def _ask(self, theta_bw: Tensor, blocks: Blocks) -> _Asked:
        started = time.perf_counter()
        keys_b = draws.keys(self._seed, self._steps, blocks.starts()) if self._signal.keyed else None
        asked = _Asked(theta_bw, self._steps, self._signal.submit(theta_bw, keys_b))
        self._waited(started)
        if isinstance(self._signal, CircuitSignal):
            self._n_circuits += len(theta_bw)
        return asked

    def _waited(self, started: float) -> None:
        if isinstance(self._signal, CircuitSignal):
            self._circuit_wait_s += time.perf_counter() - started

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
        own = [group.get("lambda_") for group in self.__dict__.get("param_groups", [])]
        super().__setstate__(state)
        self._asked = {}
        self._layout = None
        if "_norms" not in state:
            self._norms = []
        # A state of plain AdamW has no lambda: each group keeps its own.
        own += [self.defaults["lambda_"]] * (len(self.param_groups) - len(own))
        for group, lambda_ in zip(self.param_groups, own, strict=False):
            group.setdefault("lambda_", lambda_)
            group.setdefault(STEPS, 0)


_CARRIED = (
    "_n_qubits",
    "_scope",
    "_formula",
    "_placement",
    "_direction",
    "_seed",
    "_chunked",
    "_signal",
    "_silent",
    "_telemetry_every",
    "_norms",
    "_circuit_wait_s",
    "_n_circuits",
    "_step_supports_amp_scaling",
)


def make_optimizer(
    arm: config.Arm, parameters: Iterable[Any], circuits: CircuitBackend | None, seed: int = 0
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
    own = {name: getattr(perturbation, name) for name in config.Perturbation.model_fields if name != "schedule"}
    return SuperpositionalAdamW(parameters, **settings, **own, seed=seed, circuits=circuits, telemetry_every=16)


def _in_one_pass(piece: Piece) -> bool:
    return piece.group["lambda_"] != 0 and piece.theta.numel() > 0 and take_sine_step(piece)


def _plain_adamw_step() -> Callable[[torch.optim.AdamW], Any]:
    """AdamW.step without torch's hook wrapper: SuperpositionalAdamW.step has its own, and hooks must run once."""
    step: Any = torch.optim.AdamW.step
    while getattr(step, "hooked", False):
        step = step.__wrapped__
    return cast(Callable[[torch.optim.AdamW], Any], step)
