"""Optimizers of an arm: any class with torch's interface by its name, its keywords, its schedule; several by group.

Every number, word and switch may hold a space. Constructing one imports its class and checks the keywords against the
class's signature; reading one from a results folder imports nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from qsgd_ray.config._numbers import Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._searchable import _number, _word
from qsgd_ray.config._settings import Settings
from qsgd_ray.config.base import SPACES, Choice, Space
from qsgd_ray.config.errors import InvalidSettings, StudyError, validation_message
from qsgd_ray.config.optimizer_class import _dotted_name, _optimizer_class, _with_defaults, keyword_problem

RateShapeWord = Literal["constant", "linear", "cosine"]
_SHAPES: tuple[RateShapeWord, ...] = ("constant", "linear", "cosine")
# Classes whose arithmetic is that of each coordinate by itself: on shards it is that of the whole model.
# Rprop's is too, but its code writes into shards in a way that DTensor refuses (torch 2.13).
_ELEMENTWISE = {
    "schedulefree.AdamWScheduleFree",
    "schedulefree.SGDScheduleFree",
    *(
        f"torch.optim.{name}"
        for name in ("ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")
    ),
}
_A_KEYWORD = (
    "a number, a word, True, False, None, a list of such, a space (LogUniform, Uniform, Choice) or an Optimizer"
)
_MOST_VALUES = 64
_SPACE: TypeAdapter[Space] = TypeAdapter(Space)


def _keyword_value(value: Any) -> Any:
    """Return the value of a keyword, of JSON too; PydanticCustomError for one that cannot be kept as JSON."""
    if value is None or isinstance(value, (bool, str, *SPACES, Optimizer)):
        return value
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= 2**53:
        return value
    if isinstance(value, list | tuple) and len(value) <= _MOST_VALUES:
        return tuple(map(_keyword_value, value))
    if isinstance(value, dict) and "kind" in value:
        try:
            return _SPACE.validate_python(value)
        except ValidationError:
            raise refusal(_A_KEYWORD) from None
    if isinstance(value, dict) and "name" in value:
        try:
            return Optimizer.model_validate(value)
        except ValidationError as error:
            raise refusal(validation_message(error).rpartition("allowed: ")[2]) from None
    raise refusal(_A_KEYWORD)


class _Named(type(Settings)):  # type: ignore[misc]
    """Class of `Optimizer`: a construction by the user takes the name first, and checks it and the keywords."""

    def __call__(cls, *name: Any, **settings: Any) -> Any:
        fields = {**dict(zip(("name",), name, strict=True)), **settings} if len(name) == 1 else settings
        if len(name) > 1 or not isinstance(fields.get("name"), str):
            came = fields.get("name") if len(name) < 2 else name
            raise _refused("name", came, 'a name first, and keywords: Optimizer("adamw", lr=1e-3)')
        keywords = {key: value for key, value in fields.items() if key not in cls.model_fields or key == "version"}
        try:
            problem = keyword_problem(fields["name"], keywords)
            written_out = _with_defaults(fields["name"], keywords)
        except StudyError as error:
            raise _refused("name", fields["name"], str(error).partition("allowed: ")[2] or str(error)) from None
        if problem is not None:
            field, allowed = problem
            raise _refused(field, fields.get(field), allowed)
        return super().__call__(**fields, **{key: written_out[key] for key in written_out if key not in fields})


def _refused(field: str, value: Any, allowed: str) -> InvalidSettings:
    problem: Any = {"type": refusal(allowed), "loc": (field,), "input": value}
    return InvalidSettings.from_exception_data("Optimizer", [problem])


class Optimizer(Settings, metaclass=_Named):
    """An optimizer by its class's name, with the class's own keywords and a schedule of its learning rate.

    `Optimizer("torch.optim.Muon", lr=0.02, momentum=0.95)` calls the class with these keywords. Every value, also one
    in a tuple, may be a space: `betas=(0.9, Uniform(low=0.9, high=0.999))`.

    Attributes:
        name: a short name ("adamw", "sgd", "lion", ...), or the dotted name of a class that is installed and inherits
            from torch.optim.Optimizer.
        schedule: how the learning rate goes on after the warm-up: `constant`, or to 0 in a line (`linear`) or as a
            `cosine`. None: as the workload says, alike for all arms.
        warmup: share of the steps over which the learning rate rises to `lr` in a line, in [0, 1); with a schedule.
        parameters: patterns of names of parameters, such as "head.*"; in a group of one's own in `Groups`, and there
            only.
        version: of what the class comes from, such as "pytorch-optimizer 4.1.0" or "code 0123456789"; a run notes it
            (config/optimizer_version.py), so that trials of another version have other names. None: of torch's, and of
            rows from before versions were noted.

    Other keywords are the class's: `lr` > 0 (the class's default where it is left out), and whatever it takes. One may
    be an `Optimizer` itself, where the class takes one: `Optimizer("sam", base_optimizer=Optimizer("sgd", lr=0.1))`.

    Raises:
        InvalidSettings: there is no such class, it does not take a keyword, or a value cannot be kept.

    Example:
        >>> Optimizer("sgd", lr=0.1, momentum=0.9, schedule="cosine", warmup=0.05).settings["momentum"]
        0.9
    """

    if TYPE_CHECKING:

        def __init__(self, name: str, /, **settings: Any) -> None: ...

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,199}$")]
    schedule: Annotated[RateShapeWord | Choice, _word(_SHAPES)] | None = None
    warmup: Annotated[Real | Space, _number("a share in [0, 1)", lambda x: 0 <= x < 1)] = 0.0
    parameters: Annotated[tuple[str, ...], Field(min_length=1, max_length=_MOST_VALUES)] | None = None
    version: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_keyword_value)]] = Field(init=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup != 0 and self.schedule is None:
            raise refusal("warmup: with a schedule, constant, linear or cosine")
        members: list[Optimizer] = [self, *self.inner]
        if any(one.schedule is not None or one.parameters is not None for one in self.inner):
            raise refusal(f"{self.name}: a schedule and parameters of the outer optimizer, none of the inner")
        rates = [one.settings["lr"] for one in members if "lr" in one.settings]
        if len(rates) != 1:
            raise refusal(f"lr: a learning rate, once; got {len(rates)} of {self.name}")
        (rate,) = rates
        edges = rate.values_to_check() if isinstance(rate, SPACES) else (rate,)
        if not all(isinstance(edge, int | float) and not isinstance(edge, bool) and edge > 0 for edge in edges):
            raise refusal(f"lr: a number > 0, or a space of such; got {rate!r}")
        return self

    @model_serializer(mode="wrap")
    def _without_no_version(self, as_tree: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a version that is not noted: names of trials are then what they were before there was any."""
        tree: dict[str, Any] = as_tree(self)
        if self.version is None:
            tree.pop("version", None)
        return tree

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords of the class."""
        return dict(self.__pydantic_extra__)

    @property
    def learning_rate(self) -> Any:
        """The learning rate or its space: its own, or that of the optimizer inside it."""
        return self._written("lr")

    @property
    def weight_decay(self) -> Any:
        """The weight decay or its space; 0 where the class has none."""
        value = self._written("weight_decay")
        return 0.0 if value is None else value

    def _written(self, keyword: str) -> Any:
        members: list[Optimizer] = [self, *self.inner]
        return next((one.settings[keyword] for one in members if keyword in one.settings), None)

    @property
    def inner(self) -> list[Optimizer]:
        """The optimizers that the class takes as keywords."""
        return [value for value in self.settings.values() if isinstance(value, Optimizer)]

    @property
    def is_elementwise(self) -> bool:
        """True where a step on shards is known to be that of the whole model."""
        return _dotted_name(self.name) in _ELEMENTWISE

    @property
    def members(self) -> tuple[tuple[str, Optimizer], ...]:
        """The one group and its optimizer; the group has no name."""
        return (("", self),)


# Groups by what a parameter is; others are named by the user and have patterns.
WORDS = ("embeddings", "matrices", "vectors", "rest")


class Groups(Settings):
    """Several optimizers, each for a group of the model's parameters.

    A group of one's own has a name and patterns, `head=Optimizer("adamw", parameters=("head.*",))`, and comes first. No
    pattern may match a parameter that another group's matches. Then come `embeddings`, `matrices` and `vectors`, and
    whatever is left goes to `rest`.

    Attributes:
        embeddings: for the weights of torch.nn.Embedding. None: they are no group.
        matrices: for parameters of two dimensions that are no embeddings.
        vectors: for parameters of fewer than two dimensions: biases, gains of norms.
        rest: for all others.

    Raises:
        InvalidSettings: fewer than two groups, or a group of one's own without patterns.

    Example:
        >>> muon = Optimizer("torch.optim.Muon", lr=0.02)
        >>> [name for name, _ in Groups(matrices=muon, rest=Optimizer("adamw", lr=1e-3)).members]
        ['matrices', 'rest']
    """

    model_config = ConfigDict(extra="allow")

    embeddings: Optimizer | None = None
    matrices: Optimizer | None = None
    vectors: Optimizer | None = None
    rest: Optimizer
    __pydantic_extra__: dict[str, Optimizer] = Field(init=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.members) < 2:
            raise refusal("groups: rest and at least one other, such as matrices; one alone is an Optimizer")
        for name, optimizer in self.members:
            if (name in WORDS) != (optimizer.parameters is None):
                allowed = (
                    "no patterns, as its name says what it has" if name in WORDS else 'patterns, such as ("head.*",)'
                )
                raise refusal(f"{name}.parameters: {allowed}; got {optimizer.parameters}")
        return self

    @property
    def members(self) -> tuple[tuple[str, Optimizer], ...]:
        """The groups and their optimizers: those with patterns by name, then the others in the order of `WORDS`."""
        own = sorted(self.__pydantic_extra__.items())
        return (*own, *((name, getattr(self, name)) for name in WORDS if getattr(self, name) is not None))

    @property
    def name(self) -> str:
        """The names of the optimizers, in the order of the groups."""
        return " + ".join(dict.fromkeys(optimizer.name for _, optimizer in self.members))

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the first group."""
        return self.members[0][1].learning_rate

    @property
    def weight_decay(self) -> Any:
        """The weight decay of the first group."""
        return self.members[0][1].weight_decay

    @property
    def is_elementwise(self) -> bool:
        """True where a step on shards is known to be that of the whole model."""
        return all(optimizer.is_elementwise for _, optimizer in self.members)


def _branch(value: Any) -> str:
    if isinstance(value, dict):
        return "Optimizer" if isinstance(value.get("name"), str) else "Groups"
    return type(value).__name__


def _settings_of_either(value: Any) -> Any:
    if not isinstance(value, Optimizer | Groups | dict):
        raise refusal('Optimizer("adamw", lr=1e-3), or Groups(matrices=Optimizer(...), rest=Optimizer(...))')
    return value


_AnyOptimizer = Annotated[
    Annotated[Optimizer, Tag("Optimizer")] | Annotated[Groups, Tag("Groups")],
    Discriminator(_branch),
    BeforeValidator(_settings_of_either),
]


def class_of(optimizer: Optimizer) -> Any:
    """Return the class of an optimizer, whose module is imported; StudyError in one line where it cannot be."""
    return _optimizer_class(optimizer.name)


def _every_name(optimizer: Optimizer | Groups) -> Iterator[str]:
    """Yield the names of all classes: those of the groups, and of optimizers inside others."""
    for _, one in optimizer.members:
        yield one.name
        yield from (inner.name for inner in one.inner)
