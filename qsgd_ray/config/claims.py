"""Claims and controls as data: what somebody says of arms, how it is measured; and what a control would explain.

A claim is a contrast (two arms, two cells of a map, or an arm along an axis of the map), a measure of it, and either
the claimed figure or, for a claim in words, what the words are taken to say. `analysis/claims.py` has the rule of the
finding.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config._numbers import Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings
from qsgd_ray.config.base import Name
from qsgd_ray.config.stages import Setting

Measure = Literal[
    "difference",
    "training_loss_difference",
    "epochs_to_target_change",
    "seconds_to_target_change",
    "seconds_per_epoch_change",
    "seconds_per_step_change",
    "spread_change",
    "lost_runs",
]
# The unit of a measure's figures; of a difference the metric has it.
UNITS: dict[Measure, str] = {
    "training_loss_difference": "nats",
    "epochs_to_target_change": "share",
    "seconds_to_target_change": "share",
    "seconds_per_epoch_change": "share",
    "seconds_per_step_change": "share",
    "spread_change": "share",
    "lost_runs": "runs",
}
# Measures of a single pair of runs, which can be followed along an axis.
_ALONG = ("difference", "training_loss_difference", "seconds_per_epoch_change", "seconds_per_step_change")
_MOST_PARTS = 32
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_OF_ARMS = ("arm", "against")
_OF_FIGURES = ("value", "figure", "low", "high")

_Text = Annotated[str, Field(min_length=1, max_length=1000)]
_ClaimName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}$")]
_Metric = Annotated[str, Field(min_length=1, max_length=40)]
# A number, or the margin of the study's decision.
Bound = Real | Literal["margin", "-margin"]


class Contrast(Settings):
    """Two sets of runs that a claim compares, paired by seed; an arm's name alone is that arm against the baseline.

    Attributes:
        arm: name of the arm that stands for the method.
        against: name of the arm that it is compared with. None: the study's baseline.
        at: setting of the study's map, a value for each of its axes by dotted path: the runs of the map there, against
            the baseline's at the same setting. None: the runs of the confirmation.
        against_at: another setting of the map, at which the same arm stands against itself. None: the baseline does.
        along: dotted path of an axis of the map: the measure's slope along it, the change a unit of the axis. None: no
            slope.

    Raises:
        InvalidSettings: `against` with a map, whose runs stand against the baseline; `against_at` without `at`; `at`
            and `along` together.

    Example:
        >>> Contrast(arm="circuit", along="perturbation.n_qubits").against is None
        True
    """

    arm: Name
    against: Name | None = None
    at: Setting | None = None
    against_at: Setting | None = None
    along: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_of_an_arm(cls, value: Any) -> Any:
        return {"arm": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.at is not None and self.along is not None:
            raise refusal("at or along, not both")
        if self.against_at is not None and self.at is None:
            raise refusal("against_at together with at")
        if self.against is not None and self.is_of_map:
            raise refusal("against without at and along, as a map stands against the baseline")
        return self

    @property
    def is_of_map(self) -> bool:
        """True where it compares runs of the map, not of the confirmation."""
        return self.at is not None or self.along is not None


class Expectation(Settings):
    """One thing that a claim in words is taken to say: on which side of an edge a measure lies, with its interval.

    It is shown where the whole 95 % interval lies on that side, and excluded where the whole interval lies on the other
    side of `excluded`. `margin` and `-margin` as edges are the decision's, 0 where it decides by another metric.

    Attributes:
        lies: the side, `above` or `below`.
        edge: of the side, in the measure's unit: 0.1 is 10 % of a change, 0.01 a point of accuracy.
        excluded: the other edge. None: the same.
        contrast: what is compared. None: what the claim compares.
        measure: by what. None: by what the claim measures. `lost_runs` counts the runs without a result beyond the
            other arm's; they lie above 0 where a sign test at the decision's alpha says so, and below 1 where there are
            as many as the other arm's.
        metric: of a `difference` or a `spread_change`. None: the claim's.
        words: the sentence's part, with `{arm}`, `{against}`, `{value}`, `{figure}` (the value and its interval),
            `{low}`, `{high}`; with `{lost}` for lost_runs, `{first}` and `{last}` along an axis.

    Example:
        >>> Expectation(lies="below", measure="epochs_to_target_change", words="{arm} needs {figure} epochs").edge
        0.0
    """

    lies: Literal["above", "below"]
    edge: Bound = 0.0
    excluded: Bound | None = None
    contrast: Contrast | None = None
    measure: Measure | None = None
    metric: _Metric | None = None
    words: _Text


class ClaimPart(Settings):
    """A part of a claim in words: expectations that are told in one breath.

    Attributes:
        expects: at least one expectation. One without a number leaves a part open whose rule is `all`.
        rule: the part is shown where `all` of them are, and excluded where one is; or shown where `any` of them is, and
            excluded where all are.
        missing: the words where there is no number, with `{arm}` and `{against}` of the first.
    """

    expects: Annotated[tuple[Expectation, ...], Field(min_length=1, max_length=_MOST_PARTS)]
    rule: Literal["all", "any"] = "all"
    missing: _Text = "{arm}: too few runs"


class Claim(Settings):
    """A sentence that somebody says of an arm, with its figure or in words; a report says how the study measures up.

    Attributes:
        name: a letter or digit, then letters, digits, spaces, `.`, `-` and `_`, 40 at most; each name once.
        text: what is claimed, in words, without a full stop.
        contrast: what is compared: the name of an arm, for that arm against the baseline, or a `Contrast`.
        measure: by what. `difference`: of the mean metric. `training_loss_difference`: of the mean training loss.
            `epochs_to_target_change`, `seconds_to_target_change`: of the mean time to target, a miss counting with its
            whole run. `seconds_per_epoch_change`, `seconds_per_step_change`: of the time an epoch and a step take.
            `spread_change`: of the metric's standard deviation over the seeds. A change is a share of the other arm's:
            -0.16 is 16 % less.
        metric: of a `difference` or a `spread_change`, such as `accuracy` or `loss`. None: the one that decides.
        claimed: the figure, not 0, in `unit`. None: a claim in words.
        unit: `points` (of accuracy, as a fraction of one: 0.023 is 2.3 points), `share` (0.35 is 35 %), or the unit of
            the metric, such as `nats`. None: the measure's own.
        parts: what a claim in words is taken to say; all of it must be shown. Empty for a claim with a figure.
        lacks: what the words say and no arm of the study can show, such as `no arm with a large rate`; the claim is
            then not supported, only contradicted or left open. None: nothing.
        about: dotted path of a field of the arm that the claim is about; an arm without it is refused. None: no field.
        unmeasured: why this study cannot measure it, a sentence; the claim is listed all the same. None: it can.
        source: where it is claimed, such as `arXiv 2511.01918`. None: not told.

    Raises:
        InvalidSettings: a figure and parts, or neither of them; a unit that is not the measure's; a measure without a
            slope along an axis; words with a placeholder that has no value.

    Example:
        >>> slower = {"text": "a step takes 35 % longer", "measure": "seconds_per_step_change", "claimed": 0.35}
        >>> Claim(name="slower", contrast="sine", **slower).contrast.arm
        'sine'
    """

    name: _ClaimName
    text: _Text
    contrast: Contrast
    measure: Measure
    metric: _Metric | None = None
    claimed: Real | None = None
    unit: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    parts: Annotated[tuple[ClaimPart, ...], Field(max_length=_MOST_PARTS)] = ()
    lacks: _Text | None = None
    about: str | None = None
    unmeasured: _Text | None = None
    source: _Text | None = None

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if (self.claimed is None) == (not self.parts):
            found = "neither" if self.claimed is None else "both"
            raise refusal(f"claimed or parts: a figure, or what the words are taken to say; got {found}")
        if self.claimed == 0:
            raise refusal("claimed: a figure other than 0; that nothing changes is a matter of parts; got 0")
        if self.lacks is not None and not self.parts:
            raise refusal("lacks: of a claim in words, with parts")
        if self.measure == "lost_runs":
            raise refusal("measure: any other than lost_runs, which parts may have")
        own = UNITS.get(self.measure)
        if self.unit is not None and (self.unit != own if own else self.unit == "share"):
            raise refusal(f"unit: {own or 'points, or the unit of the metric'} with {self.measure}; got {self.unit!r}")
        _check_question(self.contrast, self.measure, self.metric)
        for part in self.parts:
            for asked in part.expects:
                contrast, measure, metric = self.question(asked)
                _check_question(contrast, measure, metric)
                known: tuple[str, ...] = (*_OF_ARMS, *_OF_FIGURES)
                known += ("lost",) if measure == "lost_runs" else ("first", "last") if contrast.along else ()
                _check_words(asked.words, known)
            _check_words(part.missing, _OF_ARMS)
        return self

    def question(self, asked: Expectation) -> tuple[Contrast, Measure, str | None]:
        """Return contrast, measure and metric of an expectation: its own, else the claim's."""
        measure = asked.measure or self.measure
        metric = asked.metric or (self.metric if measure in _WITH_METRIC else None)
        return asked.contrast or self.contrast, measure, metric


_WITH_METRIC = ("difference", "spread_change")


class Rung(Settings):
    """A control of the ladder: an arm with less in it than the method has, and what it would explain.

    A control that does as well as the method explains its gain. Rungs stand in their order, from the lowest.

    Attributes:
        arm: name of an arm beside the baseline.
        explains: what the gain would come from, a noun phrase such as `a longer step on the same coordinates`.
        of: names of the arms whose gain it may explain. Empty: of every arm that is no rung.

    Example:
        >>> Rung(arm="momentum", explains="momentum alone").of
        ()
    """

    arm: Name
    explains: _Text
    of: Annotated[tuple[Name, ...], Field(max_length=4096)] = ()


def _check_question(contrast: Contrast, measure: Measure, metric: str | None) -> None:
    if contrast.along is not None and measure not in _ALONG:
        raise refusal(f"contrast.along: with a measure of {', '.join(_ALONG)}; got {measure}")
    if metric is not None and measure not in _WITH_METRIC:
        raise refusal(f"metric: with {' or '.join(_WITH_METRIC)}; got {measure}")


def _check_words(words: str, known: tuple[str, ...]) -> None:
    for name in _PLACEHOLDER.findall(words):
        if name not in known:
            raise refusal(f"words: placeholders of {', '.join(known)}; got {{{name}}}")
    if set("{}") & set(_PLACEHOLDER.sub("", words)):
        raise refusal("words: braces around placeholders alone")


def filled(words: str, values: dict[str, str]) -> str:
    """Return words with their placeholders replaced; one without a value stays.

    Args:
        words: of an `Expectation` or a `ClaimPart`.
        values: by the placeholder's name.

    Example:
        >>> filled("{arm} needs {value} more", {"arm": "sine", "value": "12 %"})
        'sine needs 12 % more'
    """
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), words)


def same_setting(left: Setting, right: Setting) -> bool:
    """Return True for equal settings: the same axes with the same values, of which 8 is 8.0 and True is not 1.

    Args:
        left: values by dotted path.
        right: the same.
    """
    return left.keys() == right.keys() and all(
        left[path] == right[path] and isinstance(left[path], bool) == isinstance(right[path], bool) for path in left
    )
