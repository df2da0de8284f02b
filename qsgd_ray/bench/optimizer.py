"""Time a step of SuperpositionalAdamW against the three AdamW of torch, on the shapes of a real language model.

Every optimizer is compared with a naive step in float64, and ours at lambda 0 with the bits of torch, before it is
timed: a wrong one raises an error and gives no row (`qsgd-ray bench optimizer`).
"""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.bench.rows import Timing, _timings
from qsgd_ray.bench.timing import interleaved
from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer.signals import circuit_angles


class _Llama(NamedTuple):
    """Sizes of a Llama with tied embeddings, from which all its shapes follow.

    Attributes:
        name: the model's name.
        vocabulary: number of tokens.
        hidden: width of the residual stream.
        n_layers: number of layers.
        intermediate: width of the feed-forward part.
        key_value: number of key/value heads times their width.
    """

    name: str
    vocabulary: int
    hidden: int
    n_layers: int
    intermediate: int
    key_value: int


_SMOLLM2 = _Llama("SmolLM2-135M", vocabulary=49_152, hidden=576, n_layers=30, intermediate=1_536, key_value=3 * 64)
_SMALL = _Llama("a small Llama", vocabulary=1_024, hidden=64, n_layers=2, intermediate=160, key_value=2 * 8)

_Settings = Mapping[str, Any]
_FUSED = "AdamW, fused"
_AGAINST: dict[str, _Settings] = {
    _FUSED: {"fused": True},
    "AdamW, foreach": {"foreach": True},
    "AdamW, for-loop": {"foreach": False, "fused": False},
}
_AGAIN = "AdamW, fused, again"  # how far two of the same come out apart
# What an optimizer of ours is given beyond `_OURS`. Each case begins with fused AdamW, from which the ratios count.
_CASES: dict[str, dict[str, _Settings]] = {
    "torch alone": {},
    "scope model": {
        "sine, model, update": {"scope": "model"},
        "sine, model, moments": {"scope": "model", "placement": "moments"},
    },
    "scope tensor": {
        "sine, tensor, update": {"scope": "tensor"},
        "sine, tensor, moments": {"scope": "tensor", "placement": "moments"},
        "sine, tensor, preconditioned": {"scope": "tensor", "direction": "preconditioned"},
        "circuit, tensor, update": {"scope": "tensor", "source": "circuit"},
    },
    "scope all": {
        "sine, all, update": {"scope": "all"},
        "sine, all, moments": {"scope": "all", "placement": "moments"},
        "sine, all, preconditioned": {"scope": "all", "direction": "preconditioned"},
        "sine, all, precond. moments": {"scope": "all", "placement": "moments", "direction": "preconditioned"},
    },
    "telemetry in every step": {  # by default in every 128th, which the medians of the other cases leave out
        "sine, tensor, update, sampled": {"scope": "tensor", "telemetry_every": 1},
        "sine, all, update, sampled": {"scope": "all", "telemetry_every": 1},
    },
}
_N_QUBITS = 4
_OURS: _Settings = {"fused": True, "source": "sine", "lambda_": 0.5, "n_qubits": _N_QUBITS}

# All optimizers of a case share the parameters. A step this short leaves them as they are in float32, so that circuits
# asked a step ahead are those of the next step, as they are for an optimizer that is alone. At 0 ours adds no Q at all.
_LEARNING_RATE = 1e-20
# An optimizer is checked with steps that show: Q about as long as Adam's step, or longer.
CHECKED_RATE, CHECKED_LAMBDA = 1e-3, 1e3
EPS, WEIGHT_DECAY = 1e-8, 1e-2
# Of the parameters after a step, at most 0.1 + 0.3 in size: float32 rounds them by 1.5e-8, a few times over.
_TOLERANCE = 1e-7
_N_CHECKED = 4  # first and last coordinates of each tensor
_STEPS_BUDGETS = 4
_WARM_STEPS = 2


def cases(budget_s: float = 2.0, quick: bool = False) -> Iterator[list[Timing]]:
    """Yield the rows of each case as soon as it ends.

    The full model takes 1.1 GB for parameters and gradients, 1.1 GB for the moments, and twice as much while an
    optimizer is checked: 5 GB at most.

    Args:
        budget_s: a case's rounds take four of these.
        quick: a small model of the same structure.
    """
    model = _SMALL if quick else _SMOLLM2
    parameters = _some_parameters(model)
    size = f"{sum(parameter.numel() for parameter in parameters):,} parameters, {len(parameters)} tensors"
    for name, ours in _CASES.items():
        engines = {_FUSED: _AGAINST[_FUSED], _AGAIN: _AGAINST[_FUSED], **ours} if ours else _AGAINST
        yield _steps(f"{model.name}, {size}, float32: {name}", parameters, engines, budget_s)


def _steps(
    case: str, parameters: Sequence[Tensor], engines: Mapping[str, _Settings], budget_s: float = 2.0
) -> list[Timing]:
    """Time steps of all engines on the same parameters and gradients, in turns: microseconds a step, fused AdamW first.

    The notes give the peak of resident memory in a step (parameters, gradients, the optimizer's state, and the scratch
    of the step) as a multiple of the first engine's, and in GB or MB (10**9, 10**6 bytes); there are none without
    Linux's /proc. In the rounds all share the moments of the first, for memory is not equally fast everywhere: a second
    fused AdamW with moments of its own came out up to 4 % slower. AssertionError: an engine gives wrong parameters, or
    changes a gradient.
    """
    _check(engines, parameters)
    gc.collect()  # a first optimizer of a process lies in a cycle, with all its state
    lasting = 2 * sum(parameter.nbytes for parameter in parameters)
    calls: dict[str, Callable[[], object]] = {}
    peaks: dict[str, int] = {}
    shared: dict[Tensor, Any] = {}
    for engine, settings in engines.items():
        _give_back()
        before = _status_bytes("VmRSS")
        optimizer = _made(settings, parameters, _LEARNING_RATE)
        calls[engine] = optimizer.step
        for _ in range(_WARM_STEPS):
            optimizer.step()
        measured = _forget_peak()
        optimizer.step()
        peak = _status_bytes("VmHWM") if measured else None
        if before is not None and peak is not None:
            peaks[engine] = lasting + peak - before
        shared = shared or dict(optimizer.state)
        optimizer.state.update(shared)
    notes = {engine: f"peak {peak / peaks[_FUSED]:.2f}x, {_size(peak)}" for engine, peak in peaks.items()}
    return _timings(case, "step", interleaved(calls, _STEPS_BUDGETS * budget_s), dict.fromkeys(calls, 1), notes)


def _shapes(model: _Llama) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters by their names in Hugging Face transformers, in their order there."""
    _, vocabulary, hidden, n_layers, intermediate, key_value = model
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    return {
        "model.embed_tokens.weight": (vocabulary, hidden),
        **{f"model.layers.{n}.{name}.weight": shape for n in range(n_layers) for name, shape in layer.items()},
        "model.norm.weight": (hidden,),
    }


def _some_parameters(model: _Llama) -> list[Tensor]:
    """Return parameters of deviation 0.02 with gradients of 0.001, float32; the same every time."""
    generator = torch.Generator().manual_seed(2511)
    parameters: list[Tensor] = []
    for shape in _shapes(model).values():
        parameter = torch.empty(shape).normal_(std=0.02, generator=generator).requires_grad_()
        parameter.grad = torch.empty(shape).normal_(std=1e-3, generator=generator)
        parameters.append(parameter)
    return parameters


def _made(settings: _Settings, parameters: Sequence[Tensor], lr: float, **changed: Any) -> torch.optim.Optimizer:
    """Make an optimizer: ours where the settings have a scope, else that of torch."""
    if "scope" in settings:
        return SuperpositionalAdamW(parameters, lr, **{**_OURS, **settings, **changed})
    return torch.optim.AdamW(parameters, lr, **settings)


def _check(engines: Mapping[str, _Settings], parameters: Sequence[Tensor]) -> None:
    """Check a first step of every engine from the same parameters, and put the parameters back."""
    start = [parameter.detach().clone() for parameter in parameters]
    thetas, gradients = _edges(start), _edges([_gradient(parameter) for parameter in parameters])

    def first_step(engine: str, settings: _Settings, lambda_: float) -> None:
        _set(parameters, start)
        _made(settings, parameters, CHECKED_RATE, lambda_=lambda_).step()
        if not torch.equal(_edges([_gradient(parameter) for parameter in parameters]), gradients):
            raise AssertionError(f"{engine} leaves other gradients than it was given")

    try:
        first_step(_FUSED, _AGAINST[_FUSED], 0.0)
        of_torch = [parameter.detach().clone() for parameter in parameters]
        for engine, settings in engines.items():
            if "scope" in settings:
                first_step(engine, settings, 0.0)
                if not all(torch.equal(ours, theirs) for ours, theirs in zip(parameters, of_torch, strict=True)):
                    raise AssertionError(f"{engine} at lambda 0 differs from {_FUSED}, in some bit at least")
            first_step(engine, settings, CHECKED_LAMBDA)
            error = float((_edges(parameters) - _naive_step(settings, thetas, gradients)).abs().max())
            if not error < _TOLERANCE:
                raise AssertionError(
                    f"{engine} differs from a naive step in float64 by {error:.1e}; allowed: {_TOLERANCE:.0e}"
                )
    finally:
        _set(parameters, start)


def _naive_step(settings: _Settings, thetas_tc: Tensor, gradients_tc: Tensor) -> Tensor:
    """Return the coordinates after a first step with the checked rate and lambda, (tensors, 8) float64.

    Columns: the first four and the last four coordinates of each tensor.
    """
    s_tc = torch.zeros_like(thetas_tc)
    match settings.get("scope"), {**_OURS, **settings}["source"]:
        case "model", "sine":
            s_tc[0, :_N_QUBITS] = torch.sin(math.pi * thetas_tc[0, :_N_QUBITS])
        case "tensor", "sine":
            s_tc[:, :_N_QUBITS] = torch.sin(math.pi * thetas_tc[:, :_N_QUBITS])
        case "tensor", "circuit":
            spec = CircuitSpec(_N_QUBITS)
            s_tc[:, :_N_QUBITS] = TorchBackend().submit(spec, circuit_angles(spec, thetas_tc[:, :_N_QUBITS])).result()
        case "all", "sine":
            s_tc = torch.sin(math.pi * thetas_tc)
    preconditioned = settings.get("direction") == "preconditioned"
    direction_tc = _first_adam_step(gradients_tc) if preconditioned else gradients_tc
    lambda_q_tc = CHECKED_LAMBDA * s_tc * direction_tc
    moved = settings.get("placement") == "moments"
    adam_tc = _first_adam_step(gradients_tc + lambda_q_tc if moved else gradients_tc)
    step_tc = adam_tc if moved else adam_tc + lambda_q_tc
    return thetas_tc - CHECKED_RATE * (step_tc + WEIGHT_DECAY * thetas_tc)


def _first_adam_step(gradients: Tensor) -> Tensor:
    """Return m_hat / (sqrt(v_hat) + eps) from moments of 0: the bias correction leaves the gradient itself."""
    return gradients / (gradients.abs() + EPS)


def _edges(tensors: Sequence[Tensor]) -> Tensor:
    """Return the first and the last four coordinates of each tensor, (tensors, 8) float64."""
    flat = [tensor.detach().view(-1) for tensor in tensors]
    return torch.stack([torch.cat((row[:_N_CHECKED], row[-_N_CHECKED:])) for row in flat]).double()


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@torch.no_grad()
def _set(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"


def _give_back() -> None:
    """Make glibc give freed pages back, or a step finds its memory resident already."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(field: str) -> int | None:
    """Return VmRSS or VmHWM, the memory resident now and its peak; None without /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    values = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    kilobytes = next(values, None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def _forget_peak() -> bool:
    """Let VmHWM begin anew; False where that is not allowed. See proc_pid_clear_refs(5)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
