"""What a study of the limits is: curves to measure, each over growing sizes; frozen, checked at birth, JSON round trip.

The largest size of every curve is held out of its fit and predicted.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config.arm import Scope
from qsgd_ray.config.base import Frozen, Name
from qsgd_ray.config.circuit import Entangle, NoiseSettings
from qsgd_ray.config.errors import refusal
from qsgd_ray.config.workload import Seed

FEWEST_SIZES = 4  # three to fit, one to predict
Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=FEWEST_SIZES)]
Count = Annotated[int, Field(ge=1)]


class _Curve(Frozen):
    name: Name

    @model_validator(mode="after")
    def _growing(self) -> Self:
        sizes = getattr(self, "sizes", None)
        if sizes is not None and any(low >= high for low, high in pairwise(sizes)):
            raise refusal(f"sizes: growing ones; got {', '.join(map(str, sizes))}")
        return self


class CircuitCurve(_Curve):
    """Seconds of `batch` circuits on one core, over `sizes` of what `along` names; the other numbers stay.

    `engine`: torch (statevectors), chain, shots (sampled in torch), noise (Aer's density matrix; with `shots` whatever
    Aer takes for them). Beside the time, of shots: the root mean square error of <Z>; of noise: the part of <Z> that is
    left under it.
    """

    kind: Literal["circuits"] = "circuits"
    engine: Literal["torch", "chain", "shots", "noise"]
    along: Literal["n_qubits", "depth", "shots"] = "n_qubits"
    sizes: Sizes
    n_qubits: Count = 4
    depth: Count = 2
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
        return self


class OptimizerCurve(_Curve):
    """Seconds of an optimizer's step over numbers of parameters, torch's fused AdamW beside it in turns.

    `source` None: AdamW itself. `n_tensors`: into how many tensors the parameters are divided.
    """

    kind: Literal["optimizer"] = "optimizer"
    source: Literal["sine", "circuit"] | None
    scope: Scope = "tensor"
    n_qubits: Count = 4
    n_tensors: Count = 32
    sizes: Sizes


class TrainingCurve(_Curve):
    """Seconds of a training step of the paper's text task with AdamW, over lengths of its sequences (tokens)."""

    kind: Literal["training"] = "training"
    sizes: Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=FEWEST_SIZES)]


class PoolCurve(_Curve):
    """Seconds until `batch` circuits are answered by so many actors: every pair of `actors` and `batches`.

    The largest batch at the most actors is held out.
    """

    kind: Literal["pool"] = "pool"
    actors: Annotated[tuple[Count, ...], Field(min_length=1)]
    batches: Annotated[tuple[Count, ...], Field(min_length=2)]
    n_qubits: Count = 8
    depth: Count = 2
    entangle: Entangle = "chain"


class SignalCurve(_Curve):
    """|<Z_k>| over positions k in a circuit of `n_qubits`, the median of `draws` of theta.

    `theta`: the standard deviation of normal draws; or "trained": the weights of the paper's text model after `steps`
    steps of AdamW, in blocks of n_qubits, and then |lambda * Q_k| / |Adam's step_k| of lambda = 1 besides.
    """

    kind: Literal["signal"] = "signal"
    theta: Annotated[float, Field(gt=0)] | Literal["trained"]
    n_qubits: Count = 64
    depth: Count = 2
    entangle: Entangle = "chain"
    draws: Count = 8192
    steps: Count = 40
    sizes: Sizes

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.sizes[-1] >= self.n_qubits:
            raise refusal(f"sizes: positions below n_qubits ({self.n_qubits}); got {self.sizes[-1]}")
        return self


Curve = Annotated[CircuitCurve | OptimizerCurve | TrainingCurve | PoolCurve | SignalCurve, Field(discriminator="kind")]


class Limits(Frozen):
    """How far the method reaches on this machine, and from fits beyond it.

    `budget_s`: seconds that a curve is measured for, about. `tolerance`: by how much a held-out size may be missed.
    `overhead`: what circuits may add to a training step (the paper: 0.35).
    """

    name: Name
    question: str = Field(min_length=1)
    curves: tuple[Curve, ...] = Field(min_length=1)
    budget_s: float = Field(default=6.0, gt=0)
    tolerance: float = Field(default=0.25, gt=0)
    overhead: float = Field(default=0.35, gt=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = [curve.name for curve in self.curves]
        if len(set(names)) != len(names):
            raise refusal(f"curves: each name once; got {', '.join(names)}")
        return self
