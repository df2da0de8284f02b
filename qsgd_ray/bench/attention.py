"""Time Phi of every score, and training steps of the transformer of the paper (`qsgd-ray bench attention`).

Engines that answer the same question are compared before they are timed: a wrong one raises an error and gives no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qsgd_ray import config
from qsgd_ray.bench.rows import Timing, _timings
from qsgd_ray.bench.timing import interleaved, one_thread
from qsgd_ray.circuits.fourier.series import fourier_series, n_frequencies
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import statevector
from qsgd_ray.config.errors import one_line
from qsgd_ray.models.transformer import TransformerClassifier, quantum_classifier
from qsgd_ray.optimizer import make_optimizer

_PAPER = CircuitSpec(4)
_BATCH = 32
VOCABULARY, N_CLASSES = 12, 2
TOKENS_SCORED, TOKENS_SCORED_QUICKLY = 32, 8
_TOKENS_TRAINED = (16, 32)
_TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
# Attentions differ by parts of a step, which takes more rounds to see than factors do.
MOST_STEPS, STEPS_BUDGETS = 240, 4

_ATTENTIONS: dict[str, dict[str, Any]] = {
    "softmax attention": {"phi": False},
    "quantum attention": {},
    "quantum, a circuit a head": {"per_head": True},
    "quantum, probabilities": {"readout": "probability"},
    "quantum, compiled": {"compiled": True},
}


def cases(budget_s: float = 2.0, quick: bool = False) -> Iterator[list[Timing]]:
    """Yield the rows of each case as soon as it ends.

    Args:
        budget_s: seconds that a case's rounds may take.
        quick: fewer scores, and nothing compiled.
    """
    for dtype in _TOLERANCES:
        yield _all_scores(dtype, TOKENS_SCORED_QUICKLY if quick else TOKENS_SCORED, budget_s, with_compiled=not quick)
    for length in _TOKENS_TRAINED:
        yield _training_step(length, budget_s, with_compiled=not quick)


def _all_scores(dtype: torch.dtype, n_tokens: int, budget_s: float, *, with_compiled: bool = True) -> list[Timing]:
    """Time Phi of the scores of a batch of 32 with 4 heads, without gradients: microseconds a call.

    A call starts from angles and scores; the circuits it needs are part of it. AssertionError: an engine differs from
    the float64 simulation by more than rounding explains.
    """
    angles, scores = _learned_angles().to(dtype), _some_scores(n_tokens).to(dtype)
    n_scores, n_circuits = scores.numel(), n_frequencies(_PAPER, "amplitude")
    calls: dict[str, Callable[[], Tensor]] = {"series": lambda: fourier_series(_PAPER, angles)(scores)}
    notes = {}
    if with_compiled:
        if trouble := _compiler_trouble():
            notes["series, compiled"] = trouble
        else:
            calls["series, compiled"] = lambda: fourier_series(_PAPER, angles)(scores, compiled=True)
    calls["every score simulated"] = partial(_simulated, angles, scores)
    with torch.inference_mode():
        exact = _simulated(angles.double(), scores.double())
        for engine, call in calls.items():
            error = _require_agreement(engine, call(), exact, _TOLERANCES[dtype])
            circuits = f"{n_circuits} circuits, " if engine.startswith("series") else ""
            notes[engine] = f"{circuits}error {error:.1e}" if error else f"{circuits}error 0"
        seconds = interleaved(calls, budget_s)
    case = f"Phi of {n_scores:,} scores, {_PAPER.n_qubits} qubits, depth {_PAPER.depth}, {_name(dtype)}"
    return _timings(case, "call", seconds, dict.fromkeys(calls, 1), notes)


def _training_step(length: int, budget_s: float, *, with_compiled: bool = True) -> list[Timing]:
    """Time forward, backward and fused AdamW of the transformer of the paper, batch 32, float32: microseconds a step.

    On one CPU thread, since a Ray Train worker has one CPU; the number of torch's threads is put back. The rounds take
    four budgets, and are 240 at most.
    """
    settings = config.Transformer()
    calls: dict[str, Callable[[], object]] = {}
    notes = {}
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2511)
        tokens = torch.randint(VOCABULARY, (_BATCH, length))
        labels = torch.randint(N_CLASSES, (_BATCH,))
        for engine, options in _ATTENTIONS.items():
            if options.get("compiled"):
                if not with_compiled:
                    continue
                if trouble := _compiler_trouble():
                    notes[engine] = trouble
                    continue
            model = quantum_classifier(settings, VOCABULARY, length, N_CLASSES, **options)
            calls[engine] = _step_of(model, tokens, labels)
            calls[engine]()  # where it is compiled this takes seconds, which would pass for the pace of a slow call
        seconds = interleaved(calls, STEPS_BUDGETS * budget_s, most_rounds=MOST_STEPS)
    case = f"training step, {length} tokens, batch {_BATCH}, {settings.n_layers} layers, float32, one thread"
    return _timings(case, "step", seconds, dict.fromkeys(calls, 1), notes)


def _step_of(model: TransformerClassifier, tokens: Tensor, labels: Tensor) -> Callable[[], object]:
    optimizer = make_optimizer(config.Arm(name="adamw"), model.parameters(), None)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(tokens), labels).backward()
        optimizer.step()

    return step


def _learned_angles() -> Tensor:
    """Return the angles of one circuit for all heads, (1, d, n, r) float32, so that every dtype holds the same."""
    return torch.randn(_PAPER.angles_shape(1), generator=torch.Generator().manual_seed(2511))


def _some_scores(n_tokens: int) -> Tensor:
    """Return scores (batch, heads, i, j), float32, spread as products of normal queries and keys of 16 numbers."""
    heads, d_head = config.Transformer().n_heads, config.Transformer().d_model // config.Transformer().n_heads
    generator = torch.Generator().manual_seed(2512)
    return torch.randn((_BATCH, heads, n_tokens, n_tokens), generator=generator) * d_head**0.5


def _simulated(angles: Tensor, scores: Tensor) -> Tensor:
    """Simulate a circuit a score, the score added to the first rotation of each layer; Re(psi_0 + ...), Eq. 4."""
    of_scores = angles.repeat(scores.numel(), 1, 1, 1)
    of_scores[..., 0] += scores.reshape(-1, 1, 1)
    states = statevector(_PAPER, of_scores)
    return states[:, : _PAPER.n_qubits].real.sum(1).view(scores.shape)


def _require_agreement(engine: str, answer: Tensor, exact: Tensor, tolerance: float) -> float:
    """Return the largest difference; AssertionError where rounding does not explain it."""
    error = float((answer.double() - exact).abs().max())
    if not error < tolerance:
        raise AssertionError(f"{engine} differs from the float64 simulation by {error:.1e}; allowed: {tolerance:.0e}")
    return error


def _compiler_trouble() -> str | None:
    """Return the reason for which torch.compile makes no kernel here, found by trying; None where it makes one."""
    try:
        torch.compile(_doubled)(torch.ones(8))
    except RuntimeError as error:
        return f"torch.compile has no compiler: {one_line(error, part='first')}"
    return None


def _doubled(x: Tensor) -> Tensor:
    return x + x


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
