"""The ladder of controls: result tables in; for every arm that has some, the simplest one that explains its gain, out.

The study names its controls and what they would explain (`Study.ladder`). Where it names none, a rung is a perturbation
with less quantum in it than the arm has (protocol 9). A control explains a gain if over the same seeds it is not worse
than the arm: equivalent to it within the study's margin, or better. Every arm is compared with its controls under
Holm's correction over them. The first control that explains the gain is named, and those that these seeds leave open
are named too, as they might.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from qsgd_ray.analysis._rows import confirm_rows
from qsgd_ray.analysis.pairs import pair_by_seed
from qsgd_ray.analysis.verdict import ArmVerdict, Verdict, decide
from qsgd_ray.config import Study
from qsgd_ray.config.arm import Arm, Perturbation
from qsgd_ray.config.base import SPACES
from qsgd_ray.results import StudyTables

# From nothing to everything: each has something that those before it lack.
RUNG_DESCRIPTIONS = {
    "zero": "lambda = 0",
    "gradient": "the plain gradient on the same coordinates",
    "random_sign": "random signs of the sine's size",
    "shuffled": "the sine of another coordinate",
    "sine": "the closed-form sine",
    "flat_circuit": "the circuit without entanglement",
    "circuit": "the exact circuit",
    "sampled": "the circuit with finite shots",
    "noisy": "the circuit with noise",
}
_HEIGHTS = {name: height for height, name in enumerate(RUNG_DESCRIPTIONS)}
_QUANTUM = ("sine", "flat_circuit", "circuit", "sampled", "noisy")


class _Control(NamedTuple):
    """A rung before it is checked: its name, what it would explain, and the arm that stands on it."""

    name: str
    explains: str
    arm: str


class Explanation(StrEnum):
    """The outcome of a control: it is at least as good as the arm, it is not, or the seeds leave it open."""

    EXPLAINS = "explains it"
    FALLS_SHORT = "does not explain it"
    OPEN = "cannot be told"


@dataclass(frozen=True)
class CheckedRung:
    """A control below an arm.

    Attributes:
        name: of the rung, as in `RUNG_DESCRIPTIONS`; of a rung that the study names, its arm.
        explains: what the gain would come from if this control had it too.
        control: the name of the arm that stands on it.
        against: the verdict on the arm with this control as its baseline; its reason is empty.
        explanation: of the gain, by this control.
    """

    name: str
    explains: str
    control: str
    against: ArmVerdict
    explanation: Explanation


@dataclass(frozen=True)
class Ladder:
    """An arm, and the controls that stand below it.

    Attributes:
        arm: its name.
        gain: the verdict on it against the study's baseline.
        rungs: its controls, from the lowest.
        missing: names of the rungs below it for which the study has no control, as in `RUNG_DESCRIPTIONS`; none where
            the study names its rungs.
        summary: one or two sentences on what explains the gain.
    """

    arm: str
    gain: ArmVerdict
    rungs: tuple[CheckedRung, ...]
    missing: tuple[str, ...]
    summary: str

    @property
    def explained_by(self) -> CheckedRung | None:
        """The first control that explains the gain; None where there is no gain, or none that does."""
        if self.gain.verdict is not Verdict.BETTER:
            return None
        return next((rung for rung in self.rungs if rung.explanation is Explanation.EXPLAINS), None)


def ladders(tables: StudyTables, verdicts: Sequence[ArmVerdict]) -> tuple[Ladder, ...]:
    """Return the ladder of each arm that has controls, in the study's order.

    Args:
        tables: the study and its rows.
        verdicts: those of `judge` on these tables.
    """
    if tables.study.ladder is not None:
        given = ((gain, _named_controls(tables.study, gain.arm)) for gain in verdicts)
        return tuple(_ladder(tables, gain, controls) for gain, controls in given if controls)
    return tuple(
        _ladder(tables, gain, _derived_controls(tables, tables.study.arm(gain.arm)))
        for gain in verdicts
        if (perturbation := tables.study.arm(gain.arm).perturbation) is not None and _rung_of(perturbation) in _QUANTUM
    )


def _named_controls(study: Study, arm: str) -> list[_Control]:
    """Return the controls that the study names for an arm, from the lowest."""
    assert study.ladder is not None
    is_rung = any(rung.arm == arm for rung in study.ladder)
    own = [rung for rung in study.ladder if arm in rung.of or (not rung.of and not is_rung)]
    return [_Control(rung.arm, rung.explains, rung.arm) for rung in own]


def _rung_of(perturbation: Perturbation) -> str | None:
    """Return the name of the rung on which a perturbation stands; None where the search decides that."""
    if not isinstance(perturbation.source, str) or not isinstance(perturbation.entangle, str):
        return None
    flat = perturbation.source == "circuit" and perturbation.entangle == "none"
    return "flat_circuit" if flat else perturbation.source


def _derived_controls(tables: StudyTables, arm: Arm) -> list[_Control]:
    """Return the arms that stand on lower rungs and differ from `arm` in nothing else, from the lowest."""
    height = _HEIGHTS[_rung(arm)]
    below = [
        (_rung_of(other.perturbation), other)
        for other in tables.study.arms
        if other.perturbation is not None and other.name != tables.study.baseline and _comparable(arm, other)
    ]
    lower = [(name, other) for name, other in below if name is not None and _HEIGHTS[name] < height]
    lower.sort(key=lambda rung: _HEIGHTS[rung[0]])
    return [_Control(name, RUNG_DESCRIPTIONS[name], other.name) for name, other in lower]


def _rung(arm: Arm) -> str:
    assert arm.perturbation is not None
    name = _rung_of(arm.perturbation)
    assert name is not None
    return name


def _comparable(arm: Arm, other: Arm) -> bool:
    """Tell arms that differ in nothing but where the signal comes from.

    Lambda may differ where one of the two has none that matters, or where both were searched.
    """
    a, b = arm.perturbation, other.perturbation
    assert a is not None
    assert b is not None
    alike = other.optimizer_names == arm.optimizer_names
    alike &= all(getattr(a, name) == getattr(b, name) for name in ("scope", "formula", "placement", "direction"))
    searched = isinstance(a.lambda_, SPACES) and isinstance(b.lambda_, SPACES)
    return alike and (b.source == "zero" or searched or a.lambda_ == b.lambda_)


def _ladder(tables: StudyTables, gain: ArmVerdict, controls: Sequence[_Control]) -> Ladder:
    study = tables.study
    rows, seeds = confirm_rows(tables, gain.arm), study.confirm.seeds
    rungs = []
    pairs = {
        control.arm: pair_by_seed(rows, confirm_rows(tables, control.arm), seeds, study.metric) for control in controls
    }
    for control, judged in zip(controls, decide(pairs, study.decision, "", study.metric), strict=True):
        # Its reason speaks of the control as of the arm that is judged.
        against = replace(judged, arm=gain.arm, baseline=control.arm, reason="")
        rungs.append(CheckedRung(control.name, control.explains, control.arm, against, _explanation(against)))
    draft = Ladder(gain.arm, gain, tuple(rungs), _missing(study, gain.arm, controls), "")
    return replace(draft, summary=_summary(draft))


def _missing(study: Study, arm: str, controls: Sequence[_Control]) -> tuple[str, ...]:
    if study.ladder is not None:
        return ()
    present, height = {control.name for control in controls}, _HEIGHTS[_rung(study.arm(arm))]
    return tuple(name for name in RUNG_DESCRIPTIONS if _HEIGHTS[name] < height and name not in present)


def _explanation(arm_against_control: ArmVerdict) -> Explanation:
    match arm_against_control.verdict:
        case Verdict.EQUIVALENT | Verdict.WORSE:
            return Explanation.EXPLAINS
        case Verdict.BETTER:
            return Explanation.FALLS_SHORT
        case _:
            return Explanation.OPEN


def _summary(ladder: Ladder) -> str:
    match ladder.gain.verdict:
        case Verdict.WORSE:
            return f"There is no gain to explain: {ladder.arm} is worse than {ladder.gain.baseline}."
        case Verdict.EQUIVALENT:
            return f"There is no gain to explain: {ladder.arm} is equivalent to {ladder.gain.baseline}."
        case Verdict.INCONCLUSIVE:
            return f"No gain of {ladder.arm} is shown, so there is none to explain yet."
    undecided = [rung.control for rung in ladder.rungs if rung.explanation is Explanation.OPEN]
    if (first := ladder.explained_by) is not None:
        lower = [
            rung.control for rung in ladder.rungs[: ladder.rungs.index(first)] if rung.explanation is Explanation.OPEN
        ]
        perhaps = f"; lower ones cannot be told apart from it either ({', '.join(lower)})" if lower else ""
        rung = f"{first.explains[0].upper()}{first.explains[1:]} ({first.control})"
        return f"{rung} already explains the gain of {ladder.arm}{perhaps}."
    if undecided:
        return (
            f"No control is shown to explain the gain of {ladder.arm}, but these seeds cannot tell for "
            f"{', '.join(undecided)}."
        )
    if not ladder.rungs:
        return f"The study has no control below {ladder.arm}, so what its gain comes from cannot be said."
    return f"No control of the study explains the gain of {ladder.arm}: it is better than every one of them."
