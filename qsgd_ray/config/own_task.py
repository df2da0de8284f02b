"""Tasks of one's own: a class of the user's states settings, data, model, loss and metrics; this file knows the class.

`SupervisedTask` is the base that users derive from. A class that has been defined or imported in this process is known
by its kind, `module:Class`. Settings of any other kind, as they stand in a results folder, become a `StoredTask`: they
can be read, compared and reported, and nothing is imported for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.errors import PydanticUserError

from qsgd_ray.config._code import Code, CodeError, code_of, code_of_shipped, is_shipped
from qsgd_ray.config._numbers import Real, Seed, Whole
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import _Refusing
from qsgd_ray.config._study_module import module_of_script
from qsgd_ray.config._task_parts import _TaskParts
from qsgd_ray.config.errors import StudyError, _shown, one_line
from qsgd_ray.config.metric import Metric

# Set in the environment of a process that imports the user's module and runs no study.
IMPORTS_ONLY = "QSGD_RAY_IMPORTS_ONLY"
_MOST_ITEMS = 2**31 - 1
# What a task of one's own says of itself in JSON, beside its fields.
_SAID = ("kind", "code", "measured")
_PARTS = ("packages", "workload", "required_modules", "has_long_steps", "is_language_model")
_RESERVED = {*_SAID, *_PARTS, "accuracy_name", "data", "model", "loss", "metrics", "objective", "instances"}
_CLASSES: dict[str, type[OwnTask]] = {}


@dataclass(frozen=True)
class Splits:
    """Data of a task in three parts: trained on, validated on after every epoch, and tested on once.

    Attributes:
        train: a torch `Dataset` with a length, or tensors that share their first axis, such as `(x, y)`.
        validation: the same.
        test: the same.
    """

    train: Any
    validation: Any
    test: Any

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter((("train", self.train), ("validation", self.validation), ("test", self.test)))


class _OneLine(_Refusing):
    """Class of the classes that users define: what is wrong with one is a StudyError of one line."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        if namespace.get("__module__") == "__main__" and (module := module_of_script()) is not None:
            namespace["__module__"] = module
        fields = namespace.get("__annotations__", {})
        is_ours = str(namespace.get("__module__")).partition(".")[0] == "qsgd_ray"
        if taken := [field for field in fields if field in _RESERVED and not is_ours]:
            raise StudyError(
                f"{name}.{taken[0]}: got a field of this name; allowed: another, as every task has its own"
            )
        try:
            return super().__new__(mcs, name, bases, namespace, **options)
        except PydanticUserError as error:
            if untyped := re.search(r"detected: `(\w+) = ", str(error)):
                field, value = untyped[1], namespace[untyped[1]]
                allowed = f"a type, as in {field}: {type(value).__name__} = {_shown(value)}"
                raise StudyError(f"{name}.{field}: got no type; allowed: {allowed}") from None
            reason = one_line(error, part="first", limit=160)
            raise StudyError(f"{name}: got a field that cannot be checked ({reason}); allowed: plain types") from None


class _CommonFields(_TaskParts):
    """Fields of every such task; a class that states one of them anew keeps its limits."""

    batch_size: Whole = Field(default=32, ge=1, le=_MOST_ITEMS)
    data_seed: Seed = 0
    target_accuracy: Real = Field(default=0.9, gt=0, lt=1)
    clip_norm: Real | None = Field(default=None, gt=0)


if TYPE_CHECKING:
    _Definable = _CommonFields
else:

    class _Definable(_CommonFields, metaclass=_OneLine):
        pass


class OwnTask(_Definable):
    """Base of tasks that users define; its fields are those that every such task has.

    Attributes:
        batch_size: items of a step, over all workers, >= 1.
        data_seed: names the draws of the data, 0 to 2^32 - 1. All arms and seeds have the same data.
        target_accuracy: validation accuracy whose first epoch is recorded, in (0, 1).
        clip_norm: the largest norm that the gradient of a step keeps, > 0. None: it is not clipped.
    """

    # Their versions are part of the code of every class derived from this one, beside those that its module names.
    packages: ClassVar[tuple[str, ...]] = ()

    # Of the process that made the settings: where they are sent, the class there has to have the same.
    _code: str = PrivateAttr("")

    @property
    def kind(self) -> str:
        """Name of the class, `module:Class`."""
        return _kind_of(type(self))

    @property
    def code(self) -> str:
        """Hash of the class's code where these settings were made (config/_code.py); ten hexadecimal digits."""
        return self._code

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The metrics of the task, the default of a decision first."""
        accuracy = Metric("accuracy", kind="share", target=self.target_accuracy)
        return (accuracy, Metric("loss", direction="min", unit="nats"))

    @property
    def accuracy_name(self) -> str:
        """Name of the share of right answers, for reports."""
        return "accuracy"

    @property
    def required_modules(self) -> Mapping[str, str]:
        """Modules that training needs: those of the packages that the class's code names, where they are here."""
        return {name: "workload" for name, version in code(type(self)).packages if version is not None}

    def workload(self, device: Any) -> Any:
        """Return an object with the whole protocol (workloads/protocol.py), for what no base fits.

        A class that states it needs nothing else; the other bases have theirs.

        Args:
            device: a torch device, where batches are made.
        """
        raise NotImplementedError

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        _CLASSES[_kind_of(cls)] = cls

    @model_validator(mode="before")
    @classmethod
    def _of_this_class(cls, fields: Any) -> Any:
        """Accept JSON that says of itself what this class says; refuse that of another class or code."""
        if not isinstance(fields, dict) or "kind" not in fields:
            return fields
        if fields["kind"] != _kind_of(cls):
            raise refusal(f"kind {_kind_of(cls)!r}, as the class cannot be changed; got {_shown(fields['kind'])}")
        if fields.get("code", (own := code(cls).digest)) != own:
            raise refusal(f"code {own!r}, which is that of the class; got {_shown(fields['code'])}")
        return {name: value for name, value in fields.items() if name not in _SAID}

    @model_validator(mode="after")
    def _usable(self) -> Self:
        limits = self._limits()
        limits.model_validate({name: getattr(self, name) for name in limits.model_fields})
        try:
            self._code = code(type(self)).digest
        except CodeError as error:
            raise refusal(str(error)) from None
        for name, call in self._required().items():
            if getattr(type(self), name) is call:
                raise refusal(f"a class with a method {name}; {type(self).__name__} has none")
        names = [metric.name for metric in _checked_metrics(self)]
        if len({*names}) != len(names):
            raise refusal(f"measured: each metric once; got {', '.join(names)}")
        return self

    @classmethod
    def _limits(cls) -> type[_CommonFields]:
        """Return the fields of the base with their limits, which hold where a class states such a field anew."""
        return _CommonFields

    @classmethod
    def _required(cls) -> dict[str, Any]:
        """Return the methods that a class has to state, as its base has them."""
        return {}

    @model_serializer(mode="wrap")
    def _with_what_it_is(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        measured = [metric.model_dump(mode="json") for metric in self.measured]
        return {"kind": self.kind, "code": self.code, "measured": measured, **write(self)}


def _checked_metrics(task: OwnTask) -> tuple[Metric, ...]:
    measured = task.measured
    if callable(measured):
        raise refusal("measured: a property, with @property above it; got a method")
    if not isinstance(measured, tuple) or not measured or not all(isinstance(one, Metric) for one in measured):
        raise refusal(f"measured: a tuple of Metric(...), at least one; got {_shown(measured)}")
    return measured


def _kind_of(kind: type) -> str:
    """Return the name of a class in settings: `module:Class`; of a shipped one its public name, `qsgd_ray:Class`."""
    return f"qsgd_ray:{kind.__name__}" if is_shipped(kind) else f"{kind.__module__}:{kind.__qualname__}"


@lru_cache(maxsize=256)
def code(kind: type) -> Code:
    """Return the code of a class, read once: what this process imported is what its trials are named by.

    Raises:
        CodeError: the class is defined where no other process could import it.
    """
    packages = getattr(kind, "packages", ())
    return code_of_shipped(kind, packages) if is_shipped(kind) else code_of(kind, packages)


def code_of_kind(kind: str) -> str | None:
    """Return the hash of the code of a class that this process has loaded; None where there is none.

    Args:
        kind: `module:Class`. Nothing is imported for it.
    """
    known = _known_class(kind, None)
    return None if known is None else code(known).digest


def _known_class(kind: Any, digest: Any) -> type[OwnTask] | None:
    """Return the class of a kind that this process has loaded with that code; None where there is none.

    Args:
        kind: `module:Class`. Nothing is imported for it.
        digest: hash of the code. None: any.
    """
    known = _CLASSES.get(kind) if isinstance(kind, str) else None
    return known if known is not None and digest in (None, code(known).digest) else None
