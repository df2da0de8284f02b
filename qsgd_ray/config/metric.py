"""Metrics: what a task measures, which way is better, in which unit; the decision of a study names one of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config._numbers import Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings
from qsgd_ray.config._task_parts import _TaskParts

MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")]
_Unit = Annotated[str, Field(max_length=20)]
# What terminals, figures or pages could take for more than text.
_MARKUP = "<>[]{}&\"'\\"


class Metric(Settings):
    """A number that a task measures on its validation and its test data.

    Attributes:
        name: a letter, then letters, digits, `_` and `-`, 40 at most.
        direction: `max`, where more is better, or `min`, where less is.
        unit: of its values, such as `nats`, 20 characters at most; empty for a number without one, and for a share.
        kind: `share`, a fraction of one that is shown in percent, its differences in points; `mean` or `sum` of a
            number over the data; `geometric`, the exponential of a mean, such as a perplexity.
        target: value of the validation data whose first epoch is the time to target; of a share in (0, 1). None: there
            is no time to target.

    Raises:
        InvalidSettings: a share with a unit, or with a target outside of (0, 1); a unit with markup in it.

    Example:
        >>> Metric("loss", direction="min", unit="nats").kind
        'mean'
    """

    name: MetricName
    direction: Literal["max", "min"] = "max"
    unit: _Unit = ""
    kind: Literal["share", "mean", "sum", "geometric"] = "mean"
    target: Real | None = None

    def __init__(self, name: str | None = None, **fields: Any) -> None:
        super().__init__(**(fields if name is None else {"name": name} | fields))

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.kind == "share" and self.unit:
            raise refusal(f"unit: none for a share, which is shown in percent; got {self.unit!r}")
        if not self.unit.isprintable() or set(self.unit) & set(_MARKUP):
            raise refusal(f"unit: printable characters other than {_MARKUP}; got {self.unit!r}")
        if self.kind == "share" and self.target is not None and not 0 < self.target < 1:
            raise refusal(f"target: in (0, 1) for a share; got {self.target:g}")
        return self

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: a difference times it is a gain."""
        return 1 if self.direction == "max" else -1

    @property
    def worst(self) -> float:
        """The value that a run without one counts with in a search: 0 or 1 of a share, else infinity."""
        if self.kind == "share":
            return 0.0 if self.direction == "max" else 1.0
        return -self.sign * math.inf

    def reaches_target(self, value: float | None) -> bool:
        """Return True where a value is at the target or better; False without a value, and without a target."""
        if value is None or self.target is None:
            return False
        return self.sign * value >= self.sign * self.target


ACCURACY = Metric("accuracy", kind="share")


class _AccuracyTask(_TaskParts):
    """Base of the tasks that measure accuracy, the default, and loss; the field `target_accuracy` is their target."""

    if TYPE_CHECKING:
        target_accuracy: float

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the task, the default of a decision first."""
        accuracy = Metric("accuracy", kind="share", target=self.target_accuracy)
        return (accuracy, Metric("loss", direction="min", unit="nats"))


def metrics_of(task: Any) -> tuple[Metric, ...]:
    """Return the metrics that a task measures, the default of a decision first.

    Args:
        task: the settings of a workload: its property `measured`, where it has one, else its property `metrics`.
    """
    measured: tuple[Metric, ...] | None = getattr(task, "measured", None)
    return tuple(task.metrics if measured is None else measured)


def metric_label(task: Any, metric: Metric) -> str:
    """Return a metric's name in the words of reports: of accuracy the task's own, such as accuracy of answer tokens.

    Args:
        task: the settings of a workload.
        metric: one of its metrics.
    """
    label: str = getattr(task, "accuracy_name", metric.name) if metric.name == "accuracy" else metric.name
    return label.replace("_", " ")
