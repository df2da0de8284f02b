"""Studies of the limits: curves to measure, each over growing sizes, the largest held out of its fit and predicted."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config._numbers import MOST_ITEMS, MOST_SECONDS, Count, Real, Seed, Whole
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._searchable import Scope
from qsgd_ray.config._settings import Settings
from qsgd_ray.config.base import Name
from qsgd_ray.config.circuit import Entangle, NoiseSettings
from qsgd_ray.config.workload import LONGEST

FEWEST_SIZES = 4  # three to fit, one to predict
_MOST_SIZES = 256
Sizes = Annotated[tuple[Count, ...], Field(min_length=FEWEST_SIZES, max_length=_MOST_SIZES)]
# Angles of a batch of circuits, which lie in memory as float64: 2 GiB.
_MOST_ANGLES = 2**28
_MOST_TENSORS = 2**20
_MOST_QUBITS, _MOST_DEPTH = 65_536, 64
Qubits = Annotated[Whole, Field(ge=1, le=_MOST_QUBITS)]
Depth = Annotated[Whole, Field(ge=1, le=_MOST_DEPTH)]


def _require_angles(n_qubits: int, depth: int, batch: int, field: str) -> None:
    """Refuse a batch of circuits whose angles, two a qubit and layer, are more than `_MOST_ANGLES`."""
    if batch > (most := _MOST_ANGLES // (2 * n_qubits * depth)):
        raise refusal(f"{field}: up to {most:,} circuits of {n_qubits} qubits and depth {depth}; got {batch}")


class _Curve(Settings):
    name: Name

    @model_validator(mode="after")
    def _growing(self) -> Self:
        sizes = getattr(self, "sizes", None)
        if sizes is not None and any(low >= high for low, high in pairwise(sizes)):
            raise refusal(f"sizes: growing ones; got {', '.join(map(str, sizes))}")
        return self


class CircuitCurve(_Curve):
    """Seconds of a batch of circuits on one core, over growing sizes.

    Of shots also the root mean square error of <Z> is measured, of noise the part of <Z> that is left under it.

    Attributes:
        name: the curve's name in the rows.
        kind: `circuits`.
        engine: `torch` (statevectors), `chain`, `shots` (sampled in torch), or `noise` (Aer's density matrix; with
            `shots` the method that Aer takes for them).
        along: the number that grows; the others stay.
        sizes: its values, growing, at least 4.
        n_qubits: qubits, 1 to 65,536.
        depth: layers, 1 to 64.
        entangle: the circuit's CNOTs.
        batch: circuits at a time, >= 1; their angles are at most 2^28 numbers.
        shots: measurements of a circuit, >= 1. None: exact.
        noise: with the engine `noise`, and with it only.

    Example:
        >>> CircuitCurve(name="ring", engine="torch", entangle="ring", sizes=(2, 4, 6, 8)).along
        'n_qubits'
    """

    kind: Literal["circuits"] = "circuits"
    engine: Literal["torch", "chain", "shots", "noise"]
    along: Literal["n_qubits", "depth", "shots"] = "n_qubits"
    sizes: Sizes
    n_qubits: Qubits = 4
    depth: Depth = 2
    entangle: Entangle = "chain"
    batch: Count = 1
    shots: Count | None = None
    noise: NoiseSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sampled = self.shots is not None or self.along == "shots"
        if self.engine in ("torch", "chain") and sampled:
            raise refusal(f"shots: none with the engine {self.engine}")
        if self.engine == "shots" and not sampled:
            raise refusal("shots: a number with the engine shots")
        if (self.engine == "noise") != (self.noise is not None):
            raise refusal("noise: some with the engine noise, and with no other")
        largest = {"n_qubits": self.n_qubits, "depth": self.depth} | {self.along: self.sizes[-1]}
        for field, most in (("n_qubits", _MOST_QUBITS), ("depth", _MOST_DEPTH)):
            if largest[field] > most:
                raise refusal(f"sizes: {field} up to {most}; got {largest[field]}")
        _require_angles(largest["n_qubits"], largest["depth"], self.batch, "batch")
        return self


class OptimizerCurve(_Curve):
    """Seconds of an optimizer's step over numbers of parameters, torch's fused AdamW beside it in turns.

    Attributes:
        name: the curve's name in the rows.
        kind: `optimizer`.
        source: where the perturbation's signal comes from. None: AdamW itself.
        scope: which coordinates are perturbed.
        n_qubits: coordinates of a block, 1 to 4096.
        n_tensors: tensors into which the parameters are divided, 1 to the smallest of `sizes`.
        sizes: numbers of parameters, growing, at least 4.
    """

    kind: Literal["optimizer"] = "optimizer"
    source: Literal["sine", "circuit"] | None
    scope: Scope = "tensor"
    n_qubits: Annotated[Whole, Field(ge=1, le=4096)] = 4
    n_tensors: Count = 32
    sizes: Sizes

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.n_tensors > min(self.sizes[0], _MOST_TENSORS):
            raise refusal(
                f"n_tensors: at most the smallest of sizes ({self.sizes[0]}) and {_MOST_TENSORS}; got {self.n_tensors}"
            )
        return self


class TrainingCurve(_Curve):
    """Seconds of a training step of the paper's text task with AdamW, over lengths of its sequences.

    A step is one batch of 32 sequences, forward and backward, and torch's fused AdamW after it, on one thread of the
    CPU. Nothing is perturbed: the cost of circuits is judged beside this time.

    Attributes:
        name: the curve's name in the rows.
        kind: `training`.
        sizes: lengths in tokens, 8 to 4096 as `TextTask` takes them, growing, at least 4.

    Raises:
        InvalidSettings: fewer than four lengths, one below 8 or above 4096, lengths that do not grow, or no such name.

    Example:
        >>> TrainingCurve(name="training", sizes=(8, 16, 32, 64)).sizes[-1]  # held out of the fit, and predicted
        64
        >>> TrainingCurve(name="training", sizes=(8, 16, 16, 32))
        Traceback (most recent call last):
            ...
        qsgd_ray.config.errors.InvalidSettings: TrainingCurve: sizes: growing ones; got 8, 16, 16, 32
    """

    kind: Literal["training"] = "training"
    sizes: Annotated[
        tuple[Annotated[Whole, Field(ge=8, le=LONGEST)], ...],
        Field(min_length=FEWEST_SIZES, max_length=_MOST_SIZES),
    ]


class PoolCurve(_Curve):
    """Seconds until a pool of actors has simulated a batch of circuits: every pair of `actors` and `batches`.

    The largest batch at the most actors is held out.

    Attributes:
        name: the curve's name in the rows.
        kind: `pool`.
        actors: numbers of actors, 1 to 1024.
        batches: numbers of circuits, >= 1, at least 2.
        n_qubits: qubits of a circuit, >= 1.
        depth: layers of a circuit, >= 1.
        entangle: the circuit's CNOTs.
    """

    kind: Literal["pool"] = "pool"
    actors: Annotated[tuple[Annotated[Whole, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=_MOST_SIZES)]
    batches: Annotated[tuple[Count, ...], Field(min_length=2, max_length=_MOST_SIZES)]
    n_qubits: Qubits = 8
    depth: Depth = 2
    entangle: Entangle = "chain"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _require_angles(self.n_qubits, self.depth, max(self.batches), "batches")
        return self


class SignalCurve(_Curve):
    """Size of the signal along a circuit: |<Z_k>| over positions k, the median of `draws` of theta.

    Attributes:
        name: the curve's name in the rows.
        kind: `signal`.
        theta: standard deviation of normal draws, > 0; or `trained`: the weights of the paper's text model after
            `steps` steps of AdamW, in blocks of n_qubits, and then |lambda Q_k| / |Adam's step_k| at lambda = 1 too.
        n_qubits: qubits of the circuit, more than every size.
        depth: layers of the circuit, >= 1.
        entangle: the circuit's CNOTs.
        draws: of theta, >= 1.
        steps: of training, >= 1.
        sizes: positions, growing, at least 4.
    """

    kind: Literal["signal"] = "signal"
    theta: Annotated[Real, Field(gt=0)] | Literal["trained"]
    n_qubits: Qubits = 64
    depth: Depth = 2
    entangle: Entangle = "chain"
    draws: Count = 8192
    steps: Count = 40
    sizes: Sizes

    @model_validator(mode="after")
    def _inside(self) -> Self:
        _require_angles(self.n_qubits, self.depth, self.draws, "draws")
        if self.sizes[-1] >= self.n_qubits:
            raise refusal(f"sizes: positions below n_qubits ({self.n_qubits}); got {self.sizes[-1]}")
        return self


Curve = Annotated[CircuitCurve | OptimizerCurve | TrainingCurve | PoolCurve | SignalCurve, Field(discriminator="kind")]


class Limits(Settings):
    """Study of how far the method reaches on this machine, and from fits beyond it.

    Attributes:
        name: lower-case letters, digits, `-` and `_`, 40 at most.
        question: the question in words.
        curves: the curves to measure, each name once.
        budget_s: seconds that a curve is measured for, about, > 0.
        tolerance: share by which a held-out size may be missed, > 0.
        overhead: share that circuits may add to a training step, > 0 (the paper: 0.35).
        seed: of all draws, 0 to 2^32 - 1.

    Example:
        >>> curve = TrainingCurve(name="training", sizes=(8, 16, 32, 64))
        >>> Limits(name="small", question="How long are steps?", curves=(curve,)).budget_s
        6.0
    """

    name: Name
    question: str = Field(min_length=1)
    curves: tuple[Curve, ...] = Field(min_length=1, max_length=MOST_ITEMS)
    budget_s: Real = Field(default=6.0, gt=0, le=MOST_SECONDS)
    tolerance: Real = Field(default=0.25, gt=0)
    overhead: Real = Field(default=0.35, gt=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = [curve.name for curve in self.curves]
        if len(set(names)) != len(names):
            raise refusal(f"curves: each name once; got {', '.join(names)}")
        return self
