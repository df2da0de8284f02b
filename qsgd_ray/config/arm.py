"""One way to train: an optimizer, its perturbation, and which of their fields are searched.

A field that is searched holds a space (`LogUniform`, `Uniform`, `Choice`) in place of a value. Where the source or the
scope is searched, a field without effect under the one that is chosen has no space at that point.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from qsgd_ray.config._numbers import Count, Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._searchable import (
    Depth,
    LearningRate,
    NonNegative,
    QubitCount,
    SearchedEntangle,
    SearchedScope,
    SearchedSource,
    Source,
)
from qsgd_ray.config._settings import Settings
from qsgd_ray.config._workload_fields import WorkloadFields
from qsgd_ray.config.base import SPACES, Choice, Name, Point, Space, options
from qsgd_ray.config.circuit import NoiseSettings, Rotation
from qsgd_ray.config.errors import StudyError
from qsgd_ray.config.optimizer import _AnyOptimizer, _every_name
from qsgd_ray.paths import leaves, set_value

Formula = Literal["adamw", "paper"]
Placement = Literal["update", "moments"]
Direction = Literal["gradient", "preconditioned"]
LambdaShape = Literal["constant", "linear", "cosine"]

# The sources that a backend simulates.
CIRCUITS: tuple[Source, ...] = ("circuit", "sampled", "noisy")


def fields_without_effect(source: str, scope: str) -> frozenset[str]:
    """Return the fields of a perturbation that change nothing.

    Args:
        source: where the signal comes from (`Perturbation.source`).
        scope: which coordinates are perturbed (`Perturbation.scope`).

    Example:
        >>> sorted(fields_without_effect("sine", "all"))
        ['depth', 'entangle', 'n_qubits', 'rotations']
    """
    if source in CIRCUITS:
        return frozenset()
    idle = {"depth", "entangle", "rotations"}
    if source == "zero":
        return frozenset(idle | {"lambda_", "n_qubits", "scope"})
    # These two look at one coordinate at a time, and there all are touched.
    return frozenset(idle | ({"n_qubits"} if source in ("sine", "gradient") and scope == "all" else set()))


class Perturbation(Settings):
    """Term lambda * Q that is added to Adam's step (arXiv 2511.01918, Eq. 1 and 2): Q = s * direction, coordinatewise.

    The fields beside `lambda_` and `n_qubits` are the readings of what the paper leaves open. `source`, `lambda_`,
    `n_qubits`, `depth`, `entangle` and `scope` may hold a space.

    Attributes:
        source: where the signal s comes from. `sine`: sin(pi theta), the paper's closed form. The <Z_i> of a `circuit`,
            exact, or `sampled` by `shots` measurements, or `noisy` under `noise`. Controls: `zero`; `gradient`, s = 1;
            `random_sign`, plus or minus the root mean square of the block's sines; `shuffled`, the sine of another
            coordinate of the block.
        lambda_: factor of the perturbation, >= 0. The paper has 0.1 and 0.5.
        n_qubits: qubits of the circuit, and coordinates of a block; 1 to 4096.
        depth: layers of the circuit (circuits/spec.py), 1 to 64.
        entangle: the circuit's CNOTs: `chain` (True), `ring`, `all` or `none` (False).
        rotations: the gates of a layer on every qubit, in their order, each with an angle of its own; at least one of
            `rx`, `ry`, `rz`.
        scope: which coordinates are perturbed: the first n_qubits of the flattened `model`, of each parameter `tensor`,
            or `all` in blocks of n_qubits.
        formula: Adam's step as in `adamw`, or Eq. 1 as printed in the `paper` (no bias correction, eps in the root).
        placement: Q is added to the `update` (Eq. 1), or to the gradient that feeds the `moments`.
        direction: what s multiplies: the `gradient` (Eq. 2), or the `preconditioned` one, m_hat / (sqrt(v_hat) + eps).
        schedule: lambda over the trial: `constant`, or falling to 0 in a line (`linear`) or as a `cosine`.
        shots: measurements of a circuit, >= 1, with the sources `sampled` and `noisy`. None: exact.
        noise: the noise of the source `noisy`. None: no noise.

    Raises:
        InvalidSettings: `sampled` without shots, `noisy` without noise, or either of them with another source.

    Example:
        >>> Perturbation(source="sine", lambda_=0.5).uses_circuits
        False
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
    shots: Count | None = None
    noise: NoiseSettings | None = None

    @property
    def uses_circuits(self) -> bool:
        """True where a backend simulates circuits for it, under one of its sources at least."""
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


# Fields of torch.optim.AdamW, which an arm trains by where it names no optimizer.
_OF_ADAMW = ("learning_rate", "weight_decay", "betas", "eps")
# Choices of a perturbation that another optimizer than AdamW can have: the others look into Adam's moments.
_OF_ANY = {"formula": "adamw", "placement": "update", "direction": "gradient"}


class Arm(Settings):
    """One way to train that a study compares. Without optimizer and perturbation it is torch.optim.AdamW itself.

    Attributes:
        name: lower-case letters, digits, `-` and `_`, 40 at most.
        learning_rate: of AdamW, > 0, or a space; so are the three that follow.
        weight_decay: decoupled weight decay, >= 0.
        betas: decay rates of the first and the second moment, each in [0, 1).
        eps: added to the root of the second moment, > 0.
        perturbation: what is added to the optimizer's step. None: nothing.
        optimizer: an `Optimizer`, or several by `Groups` of parameters, in place of AdamW and its four fields; a
            perturbation beside it has placement update, direction gradient and formula adamw. None: AdamW.
        workload: fields of the study's workload that this arm has otherwise, values or spaces by their path, such as
            `{"width": 128}` or `{"model.d_model": Choice(options=(32, 64))}`.

    Example:
        >>> from qsgd_ray.config import LogUniform
        >>> rate = LogUniform(low=1e-4, high=1e-2)
        >>> arm = Arm(name="sine", learning_rate=rate, perturbation=Perturbation(source="sine", lambda_=0.5))
        >>> list(arm.spaces())
        ['learning_rate']
        >>> arm.at({"learning_rate": 1e-3}).learning_rate
        0.001
    """

    name: Name
    learning_rate: LearningRate = 1e-3
    weight_decay: Real = Field(default=0.0, ge=0)
    betas: tuple[Annotated[Real, Field(ge=0, lt=1)], Annotated[Real, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Real = Field(default=1e-8, gt=0)
    perturbation: Perturbation | None = None
    optimizer: _AnyOptimizer | None = None
    workload: WorkloadFields = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _one_optimizer(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("optimizer") is not None:
            for name in _OF_ADAMW:
                if name in fields:
                    keyword = "lr" if name == "learning_rate" else name
                    raise refusal(
                        f"{name}: as {keyword} within optimizer, where there is one; got {fields[name]!r:.60}"
                    )
        return fields

    @model_validator(mode="after")
    def _perturbation_of_any(self) -> Self:
        if self.optimizer is not None and self.perturbation is not None:
            for name, allowed in _OF_ANY.items():
                if (came := getattr(self.perturbation, name)) != allowed:
                    raise refusal(
                        f"perturbation.{name}: {allowed} beside an optimizer, whose step is its own; got {came}"
                    )
        return self

    @model_serializer(mode="wrap")
    def _without_the_other(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the arm does not train by, so that an arm of AdamW is what it was before there were others."""
        tree: dict[str, Any] = handler(self)
        for name in ("optimizer",) if self.optimizer is None else _OF_ADAMW:
            tree.pop(name, None)
        if not self.workload:
            tree.pop("workload", None)
        return tree

    @property
    def rate(self) -> Any:
        """The learning rate or its space, of whichever optimizer; of several groups that of the first."""
        return self.learning_rate if self.optimizer is None else self.optimizer.learning_rate

    @property
    def decay(self) -> Any:
        """The weight decay or its space, of whichever optimizer; of several groups that of the first."""
        return self.weight_decay if self.optimizer is None else self.optimizer.weight_decay

    @property
    def optimizer_names(self) -> tuple[str, ...]:
        """The classes that the arm trains by, by name; none where it is AdamW by its own fields."""
        return () if self.optimizer is None else tuple(_every_name(self.optimizer))

    def spaces(self) -> dict[str, Space]:
        """Return the searched fields by dotted path, in the order of their definition."""
        return {path: value for path, value in leaves(self, children=_fields) if isinstance(value, SPACES)}

    def spaces_at(self, point: Point) -> dict[str, Space]:
        """Return the searched fields that have an effect at `point`, by dotted path.

        While the point leaves open a source or a scope that decides which others have one, only the fields that
        decide are returned.
        """
        spaces = self.spaces()
        if self.perturbation is None:
            return spaces
        source = point.get(_SOURCE, self.perturbation.source)
        if isinstance(source, Choice):
            return {_SOURCE: source}
        scope = point.get(_SCOPE, self.perturbation.scope)
        if isinstance(scope, Choice) and "scope" not in fields_without_effect(str(source), ""):
            return {path: spaces[path] for path in (_SOURCE, _SCOPE) if path in spaces}
        idle = fields_without_effect(str(source), str(scope))
        return {path: space for path, space in spaces.items() if path.removeprefix(_PERTURBATION) not in idle}

    def at(self, point: Point) -> Arm:
        """Return this arm with every searched field set to its value in `point`, or to its default without effect.

        Raises:
            StudyError: the point does not set exactly the fields of `spaces_at(point)`.
        """
        active = self.spaces_at(point)
        if active.keys() ^ point.keys():
            raise StudyError(f"arm {self.name}: a point must set {sorted(active)}, got {sorted(point)}")
        tree = self.model_dump()
        if self.optimizer is not None:
            tree["optimizer"] = self.optimizer.model_dump(mode="json")  # lists, into which values are put
        for path in self.spaces():
            # A field of arm or optimizer always has an effect, so what the point lacks is of the perturbation.
            default = Perturbation.model_fields.get(path.removeprefix(_PERTURBATION))
            set_value(tree, path, point.get(path, default and default.default))
        if _SOURCE in point:  # fields that only other sources may have
            if point[_SOURCE] not in ("sampled", "noisy"):
                tree["perturbation"]["shots"] = None
            if point[_SOURCE] != "noisy":
                tree["perturbation"]["noise"] = None
        return Arm.model_validate(tree)


_PERTURBATION = "perturbation."
_SOURCE, _SCOPE = f"{_PERTURBATION}source", f"{_PERTURBATION}scope"


def _fields(value: Any) -> list[tuple[str, Any]] | None:
    """Return the fields of settings or of a dict, or items of a tuple with spaces; None for a space and for others."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, tuple) and any(isinstance(item, SPACES) for item in value):
        return [(str(index), item) for index, item in enumerate(value)]
    return list(value) if isinstance(value, BaseModel) and not isinstance(value, SPACES) else None
