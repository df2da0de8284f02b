"""Tasks: the shipped ones by their kind, users' own by their class; a task without a kind is a text task.

Settings of a class that this process does not know, as a results folder may hold them, become a `StoredTask`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    SerializeAsAny,
    Tag,
    ValidationError,
)

from qsgd_ray.config._numbers import MOST_ITEMS, Real, Whole
from qsgd_ray.config._problems import OWN, TASK_KINDS, refusal
from qsgd_ray.config._task_parts import _TaskParts
from qsgd_ray.config.errors import _shown
from qsgd_ray.config.metric import Metric
from qsgd_ray.config.own_task import OwnTask, _known_class
from qsgd_ray.config.workload import LanguageTask, TextTask

# Nothing else is taken for the name of a class.
_KIND = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"


class StoredTask(_TaskParts):
    """Settings of a task whose class, with that code, is not known here; they can be read and reported, not trained.

    Attributes:
        kind: name of the class, `module:Class`.
        code: hash of its code.
        measured: its metrics, the default of a decision first.
        batch_size: items of a step, over all workers, >= 1.
        target_accuracy: validation accuracy whose first epoch is recorded, in (0, 1).
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    kind: str = Field(pattern=_KIND, max_length=300)
    code: str = Field(pattern=r"^[0-9a-f]{10}$")
    measured: tuple[Metric, ...] = Field(min_length=1, max_length=MOST_ITEMS)
    batch_size: Whole = Field(ge=1)
    target_accuracy: Real = Field(gt=0, lt=1)

    @property
    def accuracy_name(self) -> str:
        """Name of the share of right answers, for reports."""
        return "accuracy"


def _kind(task: Any) -> Any:
    kind = task.get("kind", "text") if isinstance(task, dict) else getattr(task, "kind", None)
    return kind if kind in TASK_KINDS else OWN


def _known(task: Any) -> Any:
    """Refuse what is no task; pydantic's own message would name neither the field nor the value."""
    if isinstance(task, type) and issubclass(task, OwnTask):
        raise refusal(f"settings of the class, {task.__name__}(...); got the class itself")
    if not isinstance(task, dict | BaseModel):
        raise refusal("a TextTask, a LanguageTask or a task of your own")
    kind = task.get("kind", "text") if isinstance(task, dict) else getattr(task, "kind", None)
    if kind == OWN or (kind not in TASK_KINDS and not (isinstance(kind, str) and ":" in kind)):
        raise refusal(f"kind 'text' or 'llm', or module:Class of your own; got {_shown(kind)}")
    return task


def _own(task: Any) -> OwnTask | StoredTask:
    """Return a task of the user's own, or a stored one where its class or its code is not known."""
    if isinstance(task, StoredTask):
        return task
    if isinstance(task, OwnTask):
        return _through_json(task)
    kind = _known_class(task["kind"], task.get("code"))
    if kind is None and "code" not in task:
        raise refusal("kind of a class that is loaded, by the study file or by an import")
    return StoredTask.model_validate(task) if kind is None else kind.model_validate(task)


def _through_json(task: OwnTask) -> OwnTask:
    """Refuse settings that JSON changes: their trials would have other names when they are read back."""
    try:
        again = type(task).model_validate(json.loads(task.model_dump_json()))
    except (ValidationError, ValueError, TypeError) as error:
        raise refusal(f"fields that can be written as JSON and read back ({str(error).splitlines()[0]:.100})") from None
    if again != task:
        odd = [name for name, value in task if getattr(again, name) != value]
        raise refusal(f"fields that come back from JSON as they are; got {', '.join(odd)}")
    return task


Task = Annotated[
    Annotated[TextTask, Tag("text")]
    | Annotated[LanguageTask, Tag("llm")]
    | Annotated[SerializeAsAny[OwnTask | StoredTask], PlainValidator(_own), Tag(OWN)],
    Discriminator(_kind),
    BeforeValidator(_known),
]
