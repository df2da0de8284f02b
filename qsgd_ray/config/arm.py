"""One way to train: an optimizer, its perturbation, and which of their fields are searched.

A field that is searched holds a space (`LogUniform`, `Uniform`, `Choice`) in place of a value. Where the source or the
scope is searched, a field without effect under the one that is chosen has no space at that point; nor has a field whose
condition (`active_when`) does not hold there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from qsgd_ray.config._conditions import check_conditions, holds, may_hold
from qsgd_ray.config._numbers import Count
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._searchable import (
    Depth,
    LearningRate,
    NonNegative,
    QubitCount,
    SearchedDirection,
    SearchedEntangle,
    SearchedFormula,
    SearchedPlacement,
    SearchedScope,
    SearchedShape,
    SearchedSource,
    Share,
    Source,
)
from qsgd_ray.config._settings import ALL_FIELDS, Settings
from qsgd_ray.config._workload_fields import WorkloadFields
from qsgd_ray.config.base import SPACES, Choice, Name, Point, Space, Value, _edge, _fields, options
from qsgd_ray.config.circuit import NoiseSettings, Rotation
from qsgd_ray.config.errors import StudyError
from qsgd_ray.config.optimizer import _AnyOptimizer, _every_name
from qsgd_ray.config.worker_resources import WorkerResources
from qsgd_ray.paths import leaves, remove_value, set_value

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

    The fields beside `lambda_` and `n_qubits` are the readings of what the paper leaves open. All but `rotations`,
    `shots` and `noise` may hold a space.

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
    formula: SearchedFormula = "adamw"
    placement: SearchedPlacement = "update"
    direction: SearchedDirection = "gradient"
    schedule: SearchedShape = "constant"
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
        weight_decay: decoupled weight decay, >= 0, or a space.
        betas: decay rates of the first and the second moment, each in [0, 1) or a space.
        eps: added to the root of the second moment, > 0, or a space.
        perturbation: what is added to the optimizer's step. None: nothing.
        optimizer: an `Optimizer`, or several by `Groups` of parameters, in place of AdamW and its four fields; a
            perturbation beside it has placement update, direction gradient and formula adamw. None: AdamW.
        workload: fields of the study's workload that this arm has otherwise, values or spaces by their path, such as
            `{"width": 128}` or `{"model.d_model": Choice(options=(32, 64))}`.
        resources: of this arm's training workers where they are others than the study's; no part of its trials.

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
    weight_decay: NonNegative = 0.0
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: LearningRate = 1e-8
    perturbation: Perturbation | None = None
    optimizer: _AnyOptimizer | None = None
    workload: WorkloadFields = Field(default_factory=dict)
    resources: WorkerResources | None = None

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

    @model_validator(mode="after")
    def _conditions_hold(self) -> Self:
        check_conditions(self)
        return self

    @model_serializer(mode="wrap")
    def _without_the_other(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Leave out what the arm does not train by, so that an arm of AdamW is what it was before there were others."""
        tree: dict[str, Any] = handler(self)
        for name in ("optimizer",) if self.optimizer is None else _OF_ADAMW:
            tree.pop(name, None)
        if not self.workload:
            tree.pop("workload", None)
        if self.resources is None and info.context != ALL_FIELDS:
            tree.pop("resources", None)
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
        """Return the searched fields by dotted path, in the order of their definition.

        A field whose condition asks for another value of a field that is not searched is not searched either.
        """
        spaces = self._every_space()
        if all(space.active_when is None for space in spaces.values()):
            return spaces
        values = self._values()
        return {path: space for path, space in spaces.items() if may_hold(space, values)}

    def _every_space(self) -> dict[str, Space]:
        """Return the fields that hold a space by dotted path, also those whose condition never holds."""
        return {path: value for path, value in self._values().items() if isinstance(value, SPACES)}

    def _values(self) -> dict[str, Any]:
        """Return the value or space of every field that the arm trains by, by dotted path, in their order."""
        unused = () if self.optimizer is None else _OF_ADAMW
        return {path: value for path, value in leaves(self, children=_fields) if path not in unused}

    def spaces_at(self, point: Point) -> dict[str, Space]:
        """Return the searched fields that have an effect at `point`, by dotted path.

        While the point leaves open a source or a scope that decides which others have one, only the fields that
        decide are returned. A field with a condition is returned once the point has the values that it asks for.
        """
        spaces = self.spaces()
        if self.perturbation is None:
            return self._active(spaces, point)
        source = point.get(_SOURCE, self.perturbation.source)
        if isinstance(source, Choice):
            return {_SOURCE: source}
        scope = point.get(_SCOPE, self.perturbation.scope)
        if isinstance(scope, Choice) and "scope" not in fields_without_effect(str(source), ""):
            return {path: spaces[path] for path in (_SOURCE, _SCOPE) if path in spaces}
        idle = {f"{_PERTURBATION}{name}" for name in fields_without_effect(str(source), str(scope))}
        return self._active({path: space for path, space in spaces.items() if path not in idle}, point, idle)

    def _active(self, spaces: dict[str, Space], point: Point, idle: Collection[str] = ()) -> dict[str, Space]:
        """Return the spaces whose condition holds at `point`; fields without effect, `idle`, meet none."""
        if all(space.active_when is None for space in spaces.values()):
            return spaces
        values = {path: value for path, value in (self._values() | point).items() if path not in idle}
        return {path: space for path, space in spaces.items() if holds(space, values)}

    def point_by(self, choose: Callable[[str, Space], Value]) -> Point:
        """Return a point whose values are chosen one by one; a field comes after those that decide on it.

        Args:
            choose: function from a field's path and space to its value.
        """
        point: Point = {}
        while left := [(path, space) for path, space in self.spaces_at(point).items() if path not in point]:
            path, space = left[0]
            point[path] = choose(path, space)
        return point

    def point_at_edges(self, number: int) -> Point:
        """Return a point of the edges of its spaces at this number, from 0; after the last one the first follows."""
        return self.point_by(lambda _, space: _edge(space, number))

    def point_in(self, values: Mapping[str, Any]) -> Point | None:
        """Return the point that values of the searched fields make, in the order of the fields' definition.

        Args:
            values: by dotted path; those of fields that are not active at the point are left out.

        Returns:
            The point; None where an active field has no value.
        """
        try:
            point = self.point_by(lambda path, _: values[path])
        except KeyError:
            return None
        return {path: point[path] for path in self.spaces() if path in point}

    def at(self, point: Point) -> Arm:
        """Return this arm with every searched field set to its value in `point`, or to its default without effect.

        The arm of a trial has no resources of its own: they do not decide what is computed.

        Raises:
            StudyError: the point does not set exactly the fields of `spaces_at(point)`.
        """
        active = self.spaces_at(point)
        if active.keys() ^ point.keys():
            raise StudyError(f"arm {self.name}: a point must set {sorted(active)}, got {sorted(point)}")
        tree = self.model_dump(exclude={"resources"})
        # Lists, into which values are put.
        if self.optimizer is not None:
            tree["optimizer"] = self.optimizer.model_dump(mode="json")
        else:
            tree["betas"] = list(tree["betas"])
        for path, space in self._every_space().items():
            if path in point or space.active_when is None:
                # A field of arm or optimizer has an effect wherever its condition holds, so what the point lacks is of
                # the perturbation.
                default = Perturbation.model_fields.get(path.removeprefix(_PERTURBATION))
                set_value(tree, path, point.get(path, default and default.default))
            elif space.otherwise is None:
                remove_value(tree, path)
            else:
                set_value(tree, path, space.otherwise)
        if _SOURCE in point:  # fields that only other sources may have
            if point[_SOURCE] not in ("sampled", "noisy"):
                tree["perturbation"]["shots"] = None
            if point[_SOURCE] != "noisy":
                tree["perturbation"]["noise"] = None
        return Arm.model_validate(tree)


_PERTURBATION = "perturbation."
_SOURCE, _SCOPE = f"{_PERTURBATION}source", f"{_PERTURBATION}scope"
