"""One way to train: an optimizer's settings, its perturbation, and which of their fields are searched; frozen.

A field that is searched holds a space (`LogUniform`, `Uniform`, `Choice`) in place of a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from qsgd_ray.circuits.kinds import Entangle, Rotation, entangle_by_name
from qsgd_ray.circuits.noise_settings import NoiseSettings
from qsgd_ray.refusal import StudyError
from qsgd_ray.spaces import SPACES, Frozen, Name, Space, refuse, searchable

LearningRate = Annotated[float | Space, searchable("a number > 0", lambda x: x > 0)]
NonNegative = Annotated[float | Space, searchable("a number >= 0", lambda x: x >= 0)]
# What one machine can hold is checked where the circuits run (connection.py): 30 qubits are a 16 GiB state, but shallow
# chains of thousands are none (circuits/chain.py).
MAX_QUBITS = 4096
QubitCount = Annotated[
    int | Space, searchable(f"a whole number from 1 to {MAX_QUBITS}", lambda n: 1 <= n <= MAX_QUBITS, whole=True)
]

Source = Literal["sine", "circuit", "sampled", "noisy", "zero", "gradient", "random_sign", "shuffled"]
Scope = Literal["model", "tensor", "all"]
Formula = Literal["adamw", "paper"]
Placement = Literal["update", "moments"]
Direction = Literal["gradient", "preconditioned"]
LambdaShape = Literal["constant", "linear", "cosine"]


class Perturbation(Frozen):
    """lambda * Q, added to Adam's step (arXiv 2511.01918, Eq. 1 and 2), and how each opening of the paper is filled.

    `source`: where the signal s in Q = s * direction comes from: `sine`, sin(pi theta), the paper's closed form; the
    <Z_i> of a `circuit`, exact, or `sampled` by `shots` measurements, or `noisy` under `noise` (exact where `shots` is
    None); and controls: `zero`; `gradient`, s = 1; `random_sign`, plus or minus the root mean square of the block's
    sines; `shuffled`, the sine of another coordinate of the block. `depth`, `entangle` (True: chain, False: none) and
    `rotations` say what circuit (circuits/spec.py).

    `scope`: which coordinates: the first n_qubits of the flattened `model`, of each parameter `tensor`, or `all` in
    blocks of n_qubits. `direction`: what s multiplies, the `gradient` (Eq. 2) or the `preconditioned` one, m_hat /
    (sqrt(v_hat) + eps). `placement`: Q is added to the `update` (Eq. 1), or to the gradient that feeds the `moments`.
    `formula`: Adam's step as in `adamw`, or Eq. 1 as printed in the `paper` (no bias correction, eps in the root).
    `schedule`: lambda stays, or falls to 0 over the trial, in a line or as a cosine.
    """

    source: Source
    lambda_: NonNegative = 0.5
    n_qubits: QubitCount = 4
    depth: int = Field(default=2, ge=1, le=64)
    entangle: Annotated[Entangle, BeforeValidator(entangle_by_name)] = "chain"
    rotations: Annotated[tuple[Rotation, ...], Field(min_length=1)] = ("ry", "rz")
    scope: Scope = "tensor"
    formula: Formula = "adamw"
    placement: Placement = "update"
    direction: Direction = "gradient"
    schedule: LambdaShape = "constant"
    shots: Annotated[int, Field(ge=1)] | None = None
    noise: NoiseSettings | None = None

    @property
    def asks_circuits(self) -> bool:
        """Does a backend answer it?"""
        return self.source in ("circuit", "sampled", "noisy")

    @model_validator(mode="after")
    def _sampled_and_noisy(self) -> Self:
        if (self.source == "sampled") > (self.shots is not None):
            raise refuse("shots, with source sampled")
        if self.shots is not None and self.source not in ("sampled", "noisy"):
            raise refuse("shots with the sources sampled and noisy only")
        if (self.source == "noisy") != (self.noise is not None):
            raise refuse("noise with the source noisy, and with it only")
        return self


class Arm(Frozen):
    """One way to train. Without a perturbation it is torch.optim.AdamW itself."""

    name: Name
    learning_rate: LearningRate = 1e-3
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    perturbation: Perturbation | None = None

    def spaces(self) -> dict[str, Space]:
        """The searched fields by dotted path, in the order of their definition."""
        return {path: value for path, value in _leaves(self, "") if isinstance(value, SPACES)}

    def at(self, point: dict[str, int | float]) -> Arm:
        """This arm with every searched field set to its value in `point`."""
        missing = self.spaces().keys() ^ point.keys()
        if missing:
            raise StudyError(f"arm {self.name}: a point must set {sorted(self.spaces())}, got {sorted(point)}")
        tree = self.model_dump()
        for path, value in point.items():
            *parents, leaf = path.split(".")
            branch = tree
            for parent in parents:
                branch = branch[parent]
            branch[leaf] = value
        return Arm.model_validate(tree)


def _leaves(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in type(model).model_fields:
        value = getattr(model, field)
        if isinstance(value, BaseModel) and not isinstance(value, SPACES):
            yield from _leaves(value, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", value
