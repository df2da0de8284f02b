"""One way to train: an optimizer's settings, its perturbation, and which of their fields are searched; frozen.

A field that is searched holds a space (`LogUniform`, `Uniform`, `Choice`) in place of a value. Where the source or the
scope is searched, a field that has no effect under the one that is chosen is not asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from qsgd_ray.config.base import (
    SPACES,
    Choice,
    Frozen,
    Name,
    Point,
    Space,
    options,
    searchable,
    searchable_word,
)
from qsgd_ray.config.circuit import Entangle, NoiseSettings, Rotation, entangle_by_name
from qsgd_ray.config.errors import StudyError, refusal
from qsgd_ray.paths import leaves, set_value

LearningRate = Annotated[float | Space, searchable("a number > 0", lambda x: x > 0)]
NonNegative = Annotated[float | Space, searchable("a number >= 0", lambda x: x >= 0)]
# What one machine can hold is checked where circuits run (execution/connection.py): 30 qubits are a 16 GiB state, but
# shallow chains of thousands are none (circuits/chain/expectations.py).
MAX_QUBITS = 4096
QubitCount = Annotated[
    int | Space, searchable(f"a whole number from 1 to {MAX_QUBITS}", lambda n: 1 <= n <= MAX_QUBITS, whole=True)
]
Depth = Annotated[int | Space, searchable("a whole number from 1 to 64", lambda n: 1 <= n <= 64, whole=True)]

Source = Literal["sine", "circuit", "sampled", "noisy", "zero", "gradient", "random_sign", "shuffled"]
Scope = Literal["model", "tensor", "all"]
Formula = Literal["adamw", "paper"]
Placement = Literal["update", "moments"]
Direction = Literal["gradient", "preconditioned"]
LambdaShape = Literal["constant", "linear", "cosine"]
SearchedSource = Annotated[Source | Choice, searchable_word(get_args(Source))]
SearchedScope = Annotated[Scope | Choice, searchable_word(get_args(Scope))]
SearchedEntangle = Annotated[Entangle | Choice, searchable_word(get_args(Entangle)), BeforeValidator(entangle_by_name)]

CIRCUITS: tuple[Source, ...] = ("circuit", "sampled", "noisy")


def without_effect(source: str, scope: str) -> frozenset[str]:
    """The fields of a perturbation that change nothing under this source and scope."""
    if source in CIRCUITS:
        return frozenset()
    idle = {"depth", "entangle", "rotations"}
    if source == "zero":
        return frozenset(idle | {"lambda_", "n_qubits", "scope"})
    # These two look at one coordinate at a time, and there all are touched.
    return frozenset(idle | ({"n_qubits"} if source in ("sine", "gradient") and scope == "all" else set()))


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

    source: SearchedSource
    lambda_: NonNegative = 0.5
    n_qubits: QubitCount = 4
    depth: Depth = 2
    entangle: SearchedEntangle = "chain"
    rotations: Annotated[tuple[Rotation, ...], Field(min_length=1)] = ("ry", "rz")
    scope: SearchedScope = "tensor"
    formula: Formula = "adamw"
    placement: Placement = "update"
    direction: Direction = "gradient"
    schedule: LambdaShape = "constant"
    shots: Annotated[int, Field(ge=1)] | None = None
    noise: NoiseSettings | None = None

    @property
    def asks_circuits(self) -> bool:
        """Does a backend answer it?"""
        return any(source in CIRCUITS for source in options(self.source))

    @model_validator(mode="after")
    def _sampled_and_noisy(self) -> Self:
        sources = options(self.source)
        if "sampled" in sources and self.shots is None:
            raise refusal("shots, with source sampled")
        if self.shots is not None and not {"sampled", "noisy"} & {*sources}:
            raise refusal("shots with the sources sampled and noisy only")
        if ("noisy" in sources) != (self.noise is not None):
            raise refusal("noise with the source noisy, and with it only")
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
        return {path: value for path, value in leaves(self, children=_fields) if isinstance(value, SPACES)}

    def asked(self, point: Point) -> dict[str, Space]:
        """The searched fields that there are at `point`; as long as it leaves open what decides that, this alone."""
        spaces = self.spaces()
        if self.perturbation is None:
            return spaces
        source = point.get(_SOURCE, self.perturbation.source)
        if isinstance(source, Choice):
            return {_SOURCE: source}
        scope = point.get(_SCOPE, self.perturbation.scope)
        if isinstance(scope, Choice) and "scope" not in without_effect(str(source), ""):
            return {path: spaces[path] for path in (_SOURCE, _SCOPE) if path in spaces}
        idle = without_effect(str(source), str(scope))
        return {path: space for path, space in spaces.items() if path.removeprefix(_PERTURBATION) not in idle}

    def at(self, point: Point) -> Arm:
        """This arm with every searched field set to its value in `point`; those not asked for there, to their default.

        StudyError: the point sets other fields than are asked for.
        """
        asked = self.asked(point)
        if asked.keys() ^ point.keys():
            raise StudyError(f"arm {self.name}: a point must set {sorted(asked)}, got {sorted(point)}")
        tree = self.model_dump()
        for path in self.spaces():
            default = Perturbation.model_fields.get(path.removeprefix(_PERTURBATION))
            set_value(tree, path, point[path] if path in point else default and default.default)
        if _SOURCE in point:  # what only another source takes
            if point[_SOURCE] not in ("sampled", "noisy"):
                tree["perturbation"]["shots"] = None
            if point[_SOURCE] != "noisy":
                tree["perturbation"]["noise"] = None
        return Arm.model_validate(tree)


_PERTURBATION = "perturbation."
_SOURCE, _SCOPE = f"{_PERTURBATION}source", f"{_PERTURBATION}scope"


def _fields(value: Any) -> list[tuple[str, Any]] | None:
    """Return the fields of a settings object; None for a space, which is a leaf, and for plain values."""
    return list(value) if isinstance(value, BaseModel) and not isinstance(value, SPACES) else None
