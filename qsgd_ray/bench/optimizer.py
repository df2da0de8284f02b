"""`qsgd-ray bench optimizer`: a step of SuperpositionalAdamW against torch's three AdamW, on the shapes of a real LLM.

Nothing in, rows out (rows.py). Every optimizer is compared with a naive step in float64, and ours at lambda 0 with
torch's bits, before it is timed: a wrong one is an error, not a row.
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

from qsgd_ray.bench.rows import Timing, timings
from qsgd_ray.bench.timing import interleaved
from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer.signals import circuit_angles


class Llama(NamedTuple):
    """What the shapes of a Llama with tied embeddings follow from. `key_value`: key/value heads times their width."""

    name: str
    vocabulary: int
    hidden: int
    n_layers: int
    intermediate: int
    key_value: int


SMOLLM2 = Llama("SmolLM2-135M", vocabulary=49_152, hidden=576, n_layers=30, intermediate=1_536, key_value=3 * 64)
SMALL = Llama("a small Llama", vocabulary=1_024, hidden=64, n_layers=2, intermediate=160, key_value=2 * 8)

Settings = Mapping[str, Any]
FUSED = "AdamW, fused"
AGAINST: dict[str, Settings] = {
    FUSED: {"fused": True},
    "AdamW, foreach": {"foreach": True},
    "AdamW, for-loop": {"foreach": False, "fused": False},
}
AGAIN = "AdamW, fused, again"  # how far two of the same come out apart
# What an optimizer of ours is given beyond `OURS`. Each case begins with fused AdamW, from which the ratios count.
CASES: dict[str, dict[str, Settings]] = {
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
N_QUBITS = 4
OURS: Settings = {"fused": True, "source": "sine", "lambda_": 0.5, "n_qubits": N_QUBITS}

# All optimizers of a case share the parameters. A step this short leaves them as they are in float32, so that circuits
# asked a step ahead are those of the next step, as they are for an optimizer that is alone. At 0 ours adds no Q at all.
LEARNING_RATE = 1e-20
# An optimizer is checked with steps that show: Q about as long as Adam's step, or longer.
CHECKED_RATE, CHECKED_LAMBDA = 1e-3, 1e3
EPS, WEIGHT_DECAY = 1e-8, 1e-2
# Of the parameters after a step, at most 0.1 + 0.3 in size: float32 rounds them by 1.5e-8, a few times over.
TOLERANCE = 1e-7
N_CHECKED = 4  # first and last coordinates of each tensor
STEPS_BUDGETS = 4
WARM_STEPS = 2


def run(budget_s: float = 2.0, quick: bool = False) -> Iterator[Timing]:
    """The rows of all cases, one after the other; `quick`: of a small model of the same structure."""
    for rows in cases(budget_s, quick):
        yield from rows


def cases(budget_s: float = 2.0, quick: bool = False) -> Iterator[list[Timing]]:
    """As `run`, the rows of a case together, as soon as it ends.

    The model in full takes 1.1 GB for parameters and gradients, 1.1 GB for the moments, and as much twice while an
    optimizer is tried: 5 GB at most.
    """
    model = SMALL if quick else SMOLLM2
    parameters = some_parameters(model)
    size = f"{sum(parameter.numel() for parameter in parameters):,} parameters, {len(parameters)} tensors"
    for name, ours in CASES.items():
        engines = {FUSED: AGAINST[FUSED], AGAIN: AGAINST[FUSED], **ours} if ours else AGAINST
        yield steps(f"{model.name}, {size}, float32: {name}", parameters, engines, budget_s)


def steps(
    case: str, parameters: Sequence[Tensor], engines: Mapping[str, Settings], budget_s: float = 2.0
) -> list[Timing]:
    """Steps of all engines on the same parameters and gradients, in turns: microseconds a step; fused AdamW first.

    The notes tell the most memory that is resident in a step (parameters, gradients, the optimizer's state and what the
    step takes beyond) as a multiple of the first engine's, and in GB or MB (10**9, 10**6 bytes); there are none where
    Linux's /proc is not. In the rounds all share the moments of the first, for memory is not equally fast everywhere: a
    second fused AdamW with its own came out up to 4 % slower. The rounds of four budgets. AssertionError: an engine
    whose parameters after a step are wrong, or that changes a gradient.
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
        optimizer = _made(settings, parameters, LEARNING_RATE)
        calls[engine] = optimizer.step
        for _ in range(WARM_STEPS):
            optimizer.step()
        measured = _forget_peak()
        optimizer.step()
        peak = _status_bytes("VmHWM") if measured else None
        if before is not None and peak is not None:
            peaks[engine] = lasting + peak - before
        shared = shared or dict(optimizer.state)
        optimizer.state.update(shared)
    notes = {engine: f"peak {peak / peaks[FUSED]:.2f}x, {_size(peak)}" for engine, peak in peaks.items()}
    return timings(case, "step", interleaved(calls, STEPS_BUDGETS * budget_s), dict.fromkeys(calls, 1), notes)


def shapes(model: Llama) -> dict[str, tuple[int, ...]]:
    """The parameters of the model by their names in Hugging Face transformers, and in their order there."""
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


def some_parameters(model: Llama) -> list[Tensor]:
    """Parameters of standard deviation 0.02 and their gradients of 0.001, float32; the same every time."""
    generator = torch.Generator().manual_seed(2511)
    found: list[Tensor] = []
    for shape in shapes(model).values():
        parameter = torch.empty(shape).normal_(std=0.02, generator=generator).requires_grad_()
        parameter.grad = torch.empty(shape).normal_(std=1e-3, generator=generator)
        found.append(parameter)
    return found


def _made(settings: Settings, parameters: Sequence[Tensor], lr: float, **changed: Any) -> torch.optim.Optimizer:
    """Ours where there is a scope, else torch's."""
    if "scope" in settings:
        return SuperpositionalAdamW(parameters, lr, **{**OURS, **settings, **changed})
    return torch.optim.AdamW(parameters, lr, **settings)


def _check(engines: Mapping[str, Settings], parameters: Sequence[Tensor]) -> None:
    """A first step of every engine from the same parameters, which are as before afterwards."""
    start = [parameter.detach().clone() for parameter in parameters]
    thetas, gradients = _edges(start), _edges([_gradient(parameter) for parameter in parameters])

    def first_step(engine: str, settings: Settings, lambda_: float) -> None:
        _set(parameters, start)
        _made(settings, parameters, CHECKED_RATE, lambda_=lambda_).step()
        if not torch.equal(_edges([_gradient(parameter) for parameter in parameters]), gradients):
            raise AssertionError(f"{engine} leaves other gradients than it was given")

    try:
        first_step(FUSED, AGAINST[FUSED], 0.0)
        of_torch = [parameter.detach().clone() for parameter in parameters]
        for engine, settings in engines.items():
            if "scope" in settings:
                first_step(engine, settings, 0.0)
                if not all(torch.equal(own, torchs) for own, torchs in zip(parameters, of_torch, strict=True)):
                    raise AssertionError(f"{engine} at lambda 0 differs from {FUSED}, in some bit at least")
            first_step(engine, settings, CHECKED_LAMBDA)
            error = float((_edges(parameters) - naive_step(settings, thetas, gradients)).abs().max())
            if not error < TOLERANCE:
                raise AssertionError(
                    f"{engine} differs from a naive step in float64 by {error:.1e}; allowed: {TOLERANCE:.0e}"
                )
    finally:
        _set(parameters, start)


def naive_step(settings: Settings, thetas_tc: Tensor, gradients_tc: Tensor) -> Tensor:
    """What a first step with `CHECKED_RATE` and `CHECKED_LAMBDA` makes of coordinates: (tensors, 8) float64, as given.

    Columns: the first four and the last four coordinates of each tensor.
    """
    s_tc = torch.zeros_like(thetas_tc)
    match settings.get("scope"), {**OURS, **settings}["source"]:
        case "model", "sine":
            s_tc[0, :N_QUBITS] = torch.sin(math.pi * thetas_tc[0, :N_QUBITS])
        case "tensor", "sine":
            s_tc[:, :N_QUBITS] = torch.sin(math.pi * thetas_tc[:, :N_QUBITS])
        case "tensor", "circuit":
            spec = CircuitSpec(N_QUBITS)
            s_tc[:, :N_QUBITS] = TorchBackend().submit(spec, circuit_angles(spec, thetas_tc[:, :N_QUBITS])).result()
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
    """m_hat / (sqrt(v_hat) + eps) where the moments were 0: the bias correction leaves the gradient itself."""
    return gradients / (gradients.abs() + EPS)


def _edges(tensors: Sequence[Tensor]) -> Tensor:
    """The first and the last `N_CHECKED` coordinates of each: (tensors, 2 * N_CHECKED) float64."""
    flat = [tensor.detach().view(-1) for tensor in tensors]
    return torch.stack([torch.cat((own[:N_CHECKED], own[-N_CHECKED:])) for own in flat]).double()


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
    """Have glibc hand back the pages of what was freed: else a step finds its memory resident already."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(field: str) -> int | None:
    """VmRSS or VmHWM, what is resident now and the most there was; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    values = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    kilobytes = next(values, None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def _forget_peak() -> bool:
    """Have VmHWM begin anew; False where that is not allowed. See proc_pid_clear_refs(5)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
