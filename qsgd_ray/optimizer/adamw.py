"""AdamW with a perturbation: parameters, gradients and a signal in; parameters one step further out.

A step takes one of these paths. All give Eq. 1 of arXiv 2511.01918 or the reading of it that the options name.

    path       runs when                                                          file
    ---------  -----------------------------------------------------------------  ------------------
    plain      nothing is perturbed: every lambda_ is 0, source `zero`, or no     _engine.py
               perturbed parameter has a gradient
    gathered   scope `model` or `tensor`, or a source that asks circuits, or a    _gathered_step.py
               group with amsgrad: all signals first, then Adam's own step
    chunked    scope `all` with a closed form: chunk by chunk through the model   _chunked_step.py
    one pass   the same, for models of 2**20 coordinates and more: parameters     _one_pass.py
               in float32 on the CPU, where there is a C++ compiler

In `plain` and `gathered`, Adam's own step of the whole model is one of these:

    fused      fused=True; parameters, gradients and moments float32 on the CPU,  _fused_step.py
               contiguous; every parameter has a gradient and a state
    torch      otherwise: torch.optim.AdamW.step                                  torch
    paper      formula `paper`                                                    _adam.py

Sharded parameters (FSDP2) take the same paths, each process with what it holds. The coordinates of a block that others
hold come by one sum over the processes (_shards.py, _local_blocks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypedDict, Unpack, overload

import torch
from pydantic import ValidationError
from torch import Tensor
from torch._compile import _disable_dynamo

from qsgd_ray import config
from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.circuits.plain_numbers import plain, whole_number, whole_number_or_none
from qsgd_ray.config.base import SPACES
from qsgd_ray.config.circuit import Entangle, Rotation, entangle_by_name
from qsgd_ray.optimizer._engine import STEPS, Engine, steps_taken
from qsgd_ray.optimizer._gather import all_native
from qsgd_ray.optimizer._shards import aligned_gradients, local
from qsgd_ray.optimizer.telemetry import Telemetry

__all__ = ["SuperpositionalAdamW", "Telemetry"]

# torch's own check: a step in a CUDA graph needs `capturable`. Older versions have it by the second name only.
_GRAPH_CHECK = next(
    name
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
    if hasattr(torch.optim.Optimizer, name)
)


class _AdamWOptions(TypedDict, total=False):
    """The arguments of torch.optim.AdamW beside the parameters."""

    lr: float | Tensor
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    amsgrad: bool
    foreach: bool | None
    fused: bool | None
    maximize: bool
    capturable: bool
    differentiable: bool


class SuperpositionalAdamW(torch.optim.AdamW):
    """torch.optim.AdamW with lr * lambda * Q subtracted beside its step (arXiv 2511.01918, Eq. 1 and 2).

        theta <- theta - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * theta + lambda * Q),  Q_i = s_i(theta) * g_i

    g is the gradient that Adam sees (its sign turned under `maximize`), s the signal of `source` at theta before the
    step, in the paper sin(pi * theta_i). Q is 0 on coordinates that `scope` leaves out and for parameters without a
    gradient. Where lambda_ is 0, or the source is `zero`, the parameters are torch.optim.AdamW's bit for bit, and no
    circuit runs.

    lr, weight_decay and lambda_ may differ from parameter group to parameter group and change between steps (lambda:
    `LambdaSchedule`). Random sources draw by seed, step and coordinate alone, so that replicas, shards and resumed
    trainings draw alike; the step count is saved with the groups. Circuits depend on theta alone: those of the next
    step are submitted at the end of this one, run during the forward and backward pass, and are submitted again if
    theta has changed meanwhile.

    Parameters may be sharded by rows (FSDP2's fully_shard). Shards that are no DTensors (FSDP1, ZeRO) count as whole
    parameters. A CUDA graph may capture the step after a first step outside of it, with the sources sine, gradient and
    zero; its replays keep the lambda of the capture, do not count as steps and are not sampled for telemetry.

    Args:
        params: parameters, named parameters or parameter groups, as torch.optim.AdamW takes them. A group may have its
            own `lambda_`. Parameters are real and contiguous, all on one device.
        lr: learning rate, >= 0; default 1e-3.
        betas: decay rates of m and v, each in [0, 1); default (0.9, 0.999).
        eps: >= 0; default 1e-8. Outside the root, with formula `paper` inside it.
        weight_decay: decoupled, >= 0; default 0.01. With scope `all`, lr * weight_decay is below 1.
        amsgrad: as in torch.optim.AdamW; with direction `gradient` and formula `adamw` only.
        lambda_: weight of Q, finite and >= 0; default 0.5.
        n_qubits: coordinates of a block and qubits of its circuit, 1 to 4096; default 4.
        depth: layers of the circuit, 1 to 64; default 2.
        entangle: entangling gates of a layer, as in `CircuitSpec`; default "chain". True: "chain", False: "none".
        rotations: rotations of a layer, "rx", "ry" or "rz", at least one; default ("ry", "rz").
        source: the signal s. "sine" (default): sin(pi * theta_i). "circuit": <Z_i>, exact. "sampled": by `shots`
            measurements. "noisy": under `noise`. Controls: "zero"; "gradient", s = 1; "random_sign" and "shuffled".
        scope: coordinates that are perturbed: the first `n_qubits` of each "tensor" (default) or of the "model", or
            "all" in blocks of `n_qubits`.
        formula: Adam's step: "adamw" (default), or "paper", m / sqrt(v + eps) without bias correction.
        placement: Q is added to the "update" (default), or to the gradient that feeds Adam's "moments".
        direction: s multiplies the "gradient" (default), or Adam's own direction, "preconditioned".
        shots: measurements a circuit, >= 1, with the sources sampled and noisy; default None.
        noise: noise of the circuits, with the source noisy and with it only; default None.
        seed: names the random draws; default 0.
        circuits: backend that answers circuits; None (default) simulates them in this process.
        telemetry_every: one step in so many is sampled for `telemetry`, >= 1; default 128. None: no step.
        foreach: as in torch.optim.AdamW.
        fused: as in torch.optim.AdamW.
        maximize: as in torch.optim.AdamW.
        capturable: as in torch.optim.AdamW; with the sources sine, gradient and zero only.
        differentiable: False.

    Raises:
        ValueError: an option outside its range, or parameters that are not contiguous, not real, not initialised, on
            several devices, or sharded otherwise than by rows; while every lambda is 0 and the formula is adamw, all
            that torch.optim.AdamW takes. Also from `step`, with a group's option that was changed to one that is not
            allowed. The message is one line.
        RuntimeError: from `step`, a sparse gradient, as from torch.optim.AdamW.
        CircuitError: the source needs Aer, which is not installed; from `step`, whatever the backend raises.

    Example:
        >>> import torch
        >>> from qsgd_ray import SuperpositionalAdamW
        >>> model = torch.nn.Linear(8, 2)
        >>> optimizer = SuperpositionalAdamW(model.parameters(), lr=1e-2, lambda_=0.5, source="circuit")
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(5, 8)).square().mean().backward()
        ...     optimizer.step()
        >>> optimizer.telemetry().n_circuits  # two tensors, three steps and the one submitted ahead
        8
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
                lambda_=plain(lambda_),
                n_qubits=plain(n_qubits),
                depth=plain(depth),
                entangle=entangle_by_name(plain(entangle)),
                rotations=plain(rotations),
                scope=scope,
                formula=formula,
                placement=placement,
                direction=direction,
                shots=plain(shots),
                noise=noise,
            )
        except ValidationError as error:
            raise ValueError(config.validation_message(error)) from None
        adamw: _AdamWOptions = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
            "fused": fused,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        self._set_up(params, perturbation, seed, circuits, telemetry_every, adamw)

    @classmethod
    def from_settings(
        cls,
        params: Iterable[Any],
        perturbation: config.Perturbation,
        *,
        seed: int = 0,
        circuits: CircuitBackend | None = None,
        telemetry_every: int | None = 128,
        **adamw: Unpack[_AdamWOptions],
    ) -> Self:
        """Return the optimizer of a study's `Perturbation`.

        Args:
            params: as in the constructor.
            perturbation: its fields are values, not spaces. `schedule` is `LambdaSchedule`'s and has no effect here.
            seed: names the random draws.
            circuits: backend that answers circuits; None simulates them in this process.
            telemetry_every: one step in so many is sampled for `telemetry`, >= 1; None: no step.
            **adamw: lr, betas, eps, weight_decay and the further arguments of torch.optim.AdamW, with its defaults.

        Raises:
            ValueError: as from the constructor; also a perturbation with a space.
            CircuitError: as from the constructor.

        Example:
            >>> import torch
            >>> from qsgd_ray import Perturbation, SuperpositionalAdamW
            >>> settings = Perturbation(source="circuit", lambda_=0.1, depth=1)
            >>> model = torch.nn.Linear(8, 2)
            >>> optimizer = SuperpositionalAdamW.from_settings(model.parameters(), settings, lr=3e-4)
            >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["lambda_"]
            (0.0003, 0.1)
        """
        optimizer = cls.__new__(cls)
        optimizer._set_up(params, perturbation, seed, circuits, telemetry_every, adamw)
        return optimizer

    def _set_up(
        self,
        params: Iterable[Any],
        perturbation: config.Perturbation,
        seed: int,
        circuits: CircuitBackend | None,
        telemetry_every: int | None,
        adamw: _AdamWOptions,
    ) -> None:
        for name in config.Perturbation.model_fields:
            if isinstance(getattr(perturbation, name), SPACES):
                raise ValueError(f"Perturbation.{name}: got a space; allowed: a value")
        telemetry_every = whole_number_or_none("telemetry_every", telemetry_every, 1)
        self._engine = Engine(perturbation, circuits, whole_number("seed", seed), telemetry_every)
        super().__init__(params, **{name: plain(value) for name, value in adamw.items()})
        # Set by fused AdamW; a gradient scaler would then leave the gradients scaled, and Q with them.
        self._step_supports_amp_scaling = False
        self.defaults |= {"lambda_": perturbation.lambda_, STEPS: 0}
        for group in self.param_groups:
            group.setdefault("lambda_", perturbation.lambda_)
            group.setdefault(STEPS, 0)
        self._engine.lay_out(self.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; without a `lambda_` of its own it takes the constructor's."""
        if "lambda_" in self.defaults:
            param_group.setdefault("lambda_", self.defaults["lambda_"])
            param_group.setdefault(STEPS, steps_taken(self.param_groups))
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_disable_dynamo  # as torch's own kernels are: a compiled training step calls it as it is
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; return what `closure` returned, None without one.

        Raises:
            ValueError: a group's option that is not allowed.
            RuntimeError: a sparse gradient, in torch's words.
            CircuitError: the backend's.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        getattr(self, _GRAPH_CHECK)()
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if all_native([parameter.grad for parameter in parameters]):
            self._engine.step(self, native=True)
            return loss
        _refuse_sparse(parameters)
        with aligned_gradients(parameters):
            self._engine.step(self, native=False)
        return loss

    def telemetry(self) -> Telemetry:
        """Return what the optimizer did since the last call (see `Telemetry`), and start the norms' next window."""
        return self._engine.telemetry()

    def telemetry_state(self) -> dict[str, Any]:
        """Return counts and norms so far as plain numbers; `load_telemetry_state` goes on from them."""
        return self._engine.telemetry_state()

    def load_telemetry_state(self, state: dict[str, Any]) -> None:
        """Go on from a `telemetry_state`, after parameters and groups have been loaded.

        Circuits of the next step that were under way then are submitted again.
        """
        self._engine.load_telemetry_state(self.param_groups, state)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and deepcopy carry: everything but pending answers and views into these parameters."""
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _CARRIED}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a pickled state, or that of load_state_dict; pending circuits are discarded."""
        lambdas = [group.get("lambda_") for group in self.__dict__.get("param_groups", [])]
        super().__setstate__(state)
        self._engine.reset()
        if "_engine" not in state:
            self._engine.restart_means()
        # A state of channels_last parameters, say: Adam would take it as it is, the chunked step and telemetry not.
        for parameter_state in self.state.values():
            for name, value in parameter_state.items():
                if isinstance(value, Tensor) and not local(value).is_contiguous():
                    parameter_state[name] = value.contiguous()
        # A state of plain AdamW has no lambda: each group keeps its own.
        lambdas += [self.defaults["lambda_"]] * (len(self.param_groups) - len(lambdas))
        for group, lambda_ in zip(self.param_groups, lambdas, strict=False):
            group.setdefault("lambda_", lambda_)
            group.setdefault(STEPS, 0)


_CARRIED = ("_engine", "_step_supports_amp_scaling")


def _refuse_sparse(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            # torch's own words and type, so that code around AdamW that knows them knows these.
            raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
