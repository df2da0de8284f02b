"""The ladder of controls: what already explains a gain? Result tables in, a `Ladder` for every quantum arm out.

A rung is a perturbation with less quantum in it than the arm has (protocol 9). A control explains a gain if over the
same seeds it is not worse than the arm: equivalent to it within the study's margin, or better. Every arm meets its
controls with Holm's correction over them. The first control that explains it is named; those that leave it open
are told too, as they could.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from qsgd_ray.analysis.summary import confirm_rows
from qsgd_ray.analysis.verdict import ArmVerdict, Verdict, decide, pair
from qsgd_ray.config.arm import Arm, Perturbation
from qsgd_ray.config.base import SPACES
from qsgd_ray.results import StudyTables

# From nothing to everything: each has something that those before it lack.
RUNGS = (
    ("zero", "lambda = 0"),
    ("gradient", "the plain gradient on the same coordinates"),
    ("random_sign", "random signs of the sine's size"),
    ("shuffled", "the sine of another coordinate"),
    ("sine", "the closed-form sine"),
    ("flat_circuit", "the circuit without entanglement"),
    ("circuit", "the exact circuit"),
    ("sampled", "the circuit with finite shots"),
    ("noisy", "the circuit with noise"),
)
ORDER = {name: height for height, (name, _) in enumerate(RUNGS)}
WORDS = dict(RUNGS)
QUANTUM = ("sine", "flat_circuit", "circuit", "sampled", "noisy")


class Answer(StrEnum):
    EXPLAINS = "explains it"
    FALLS_SHORT = "does not explain it"
    OPEN = "cannot be told"


@dataclass(frozen=True)
class Rung:
    """A control below an arm. `against`: the arm judged against this control, as against a baseline."""

    name: str
    control: str
    against: ArmVerdict
    answer: Answer


@dataclass(frozen=True)
class Ladder:
    """`rungs` from the lowest. `missing`: rungs below the arm for which the study has no control. `told`: one line."""

    arm: str
    gain: ArmVerdict
    rungs: tuple[Rung, ...]
    missing: tuple[str, ...]
    told: str

    @property
    def explained_by(self) -> Rung | None:
        """The first control that explains the gain; None where there is no gain, or none that does."""
        if self.gain.verdict is not Verdict.BETTER:
            return None
        return next((rung for rung in self.rungs if rung.answer is Answer.EXPLAINS), None)


def ladders(tables: StudyTables, verdicts: Sequence[ArmVerdict]) -> tuple[Ladder, ...]:
    """Return the ladder of each arm with a sine or a circuit, in the study's order.

    Args:
        tables: the study and its rows.
        verdicts: those of `judge` on these tables.
    """
    return tuple(
        _ladder(tables, gain)
        for gain in verdicts
        if (perturbation := tables.study.arm(gain.arm).perturbation) is not None and rung_of(perturbation) in QUANTUM
    )


def rung_of(perturbation: Perturbation) -> str | None:
    """The rung on which it stands; None where the search decides that."""
    if not isinstance(perturbation.source, str) or not isinstance(perturbation.entangle, str):
        return None
    flat = perturbation.source == "circuit" and perturbation.entangle == "none"
    return "flat_circuit" if flat else perturbation.source


def controls(tables: StudyTables, arm: Arm) -> list[tuple[str, Arm]]:
    """The arms of the study that stand on lower rungs and differ from `arm` in nothing else, from the lowest."""
    height = ORDER[_rung(arm)]
    below = [
        (rung_of(other.perturbation), other)
        for other in tables.study.arms
        if other.perturbation is not None and other.name != tables.study.baseline and _comparable(arm, other)
    ]
    found = [(name, other) for name, other in below if name is not None and ORDER[name] < height]
    return sorted(found, key=lambda rung: ORDER[rung[0]])


def _rung(arm: Arm) -> str:
    assert arm.perturbation is not None
    name = rung_of(arm.perturbation)
    assert name is not None
    return name


def _comparable(arm: Arm, other: Arm) -> bool:
    """Nothing differs but where the signal comes from; lambda may, where one of the two has none that matters or each
    was searched."""
    a, b = arm.perturbation, other.perturbation
    assert a is not None
    assert b is not None
    alike = all(getattr(a, name) == getattr(b, name) for name in ("scope", "formula", "placement", "direction"))
    searched = isinstance(a.lambda_, SPACES) and isinstance(b.lambda_, SPACES)
    return alike and (b.source == "zero" or searched or a.lambda_ == b.lambda_)


def _ladder(tables: StudyTables, gain: ArmVerdict) -> Ladder:
    study = tables.study
    arm = study.arm(gain.arm)
    below = controls(tables, arm)
    rows, seeds = confirm_rows(tables, arm.name), study.confirm.seeds
    rungs = []
    pairs = {other.name: pair(rows, confirm_rows(tables, other.name), seeds) for _, other in below}
    for (name, other), judged in zip(below, decide(pairs, study.decision, ""), strict=True):
        # Its reason speaks of the control as of the arm that is judged.
        against = replace(judged, arm=arm.name, baseline=other.name, reason="")
        rungs.append(Rung(name, other.name, against, _answer(against)))
    there = {rung.name for rung in rungs}
    missing = tuple(name for name, _ in RUNGS if ORDER[name] < ORDER[_rung(arm)] and name not in there)
    draft = Ladder(arm.name, gain, tuple(rungs), missing, "")
    return replace(draft, told=_told(draft))


def _answer(arm_against_control: ArmVerdict) -> Answer:
    match arm_against_control.verdict:
        case Verdict.EQUIVALENT | Verdict.WORSE:
            return Answer.EXPLAINS
        case Verdict.BETTER:
            return Answer.FALLS_SHORT
        case _:
            return Answer.OPEN


def _told(ladder: Ladder) -> str:
    match ladder.gain.verdict:
        case Verdict.WORSE:
            return f"There is no gain to explain: {ladder.arm} is worse than {ladder.gain.baseline}."
        case Verdict.EQUIVALENT:
            return f"There is no gain to explain: {ladder.arm} is equivalent to {ladder.gain.baseline}."
        case Verdict.INCONCLUSIVE:
            return f"No gain of {ladder.arm} is shown, so there is none to explain yet."
    still = [rung.control for rung in ladder.rungs if rung.answer is Answer.OPEN]
    if (first := ladder.explained_by) is not None:
        lower = [rung.control for rung in ladder.rungs[: ladder.rungs.index(first)] if rung.answer is Answer.OPEN]
        perhaps = f"; lower ones cannot be told apart from it either ({', '.join(lower)})" if lower else ""
        return f"{WORDS[first.name].capitalize()} ({first.control}) already explains the gain of {ladder.arm}{perhaps}."
    if still:
        return (
            f"No control is shown to explain the gain of {ladder.arm}, but these seeds cannot tell for "
            f"{', '.join(still)}."
        )
    if not ladder.rungs:
        return f"The study has no control below {ladder.arm}, so what its gain comes from cannot be said."
    return f"No control of the study explains the gain of {ladder.arm}: it is better than every one of them."
