"""The paper's claims (arXiv 2511.01918), checked: result tables in, a row for each claim that the study names out.

A claim with a figure is measured as the paper puts it, over the confirmation's pairs of runs, with a 95 % interval:

- supported: the interval excludes "no effect", and either holds the claimed figure or lies beyond it;
- contradicted: the interval excludes the claimed figure, on the side of less or of the other sign;
- inconclusive: it holds both, or there are fewer than `MIN_PAIRS` pairs;
- not measured: the study has nothing to measure it by.

The intervals are of one claim each, not corrected for the number of claims. Of the claims in words (C6, C7), what they
are taken to say stands in their function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import statsmodels.api as sm

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis.statistics import Change, Interval
from qsgd_ray.analysis.summary import Row, confirm_rows, result, seconds_a_step
from qsgd_ray.analysis.verdict import MIN_PAIRS, pair, signed
from qsgd_ray.config import ClaimId
from qsgd_ray.config.base import SPACES
from qsgd_ray.config.stages import baseline_setting, setting_name
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables

QUBITS = "perturbation.n_qubits"
# A large lambda is this many times the one that the claim is about, a small one at most half of it.
LARGE, SMALL = 10.0, 0.5
# Epochs to the target that differ by less count as none in C6.
FASTER = 0.1


class Finding(StrEnum):
    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Claim:
    """`text`: what the paper says. `unit` of `claimed`, `measured` and `interval`: `points` (fractions of one, told in
    percentage points), `share` (a relative change, told in percent), `nats`. `why`: one line."""

    id: ClaimId
    text: str
    arm: str
    finding: Finding
    why: str
    unit: str = "share"
    claimed: float | None = None
    measured: float | None = None
    interval: Interval | None = None
    n_pairs: int = 0


def claims(tables: StudyTables) -> tuple[Claim, ...]:
    """In the paper's order."""
    return tuple(CHECKS[name](tables, tables.study.claims[name]) for name in CHECKS if name in tables.study.claims)


def _accuracy(tables: StudyTables, arm: str) -> Claim:
    differences = pair(*_rows(tables, arm), tables.study.confirm.seeds).differences
    interval = statistics.difference_interval(differences)
    change = Change(float(np.mean(differences)), interval) if len(differences) else None
    text = "final accuracy at lambda = 0.5 is 2.3 points above Adam's"
    return _judged(Claim("C1", text, arm, Finding.NOT_MEASURED, "", "points", 0.023), change, len(differences))


def _epochs(tables: StudyTables, arm: str) -> Claim:
    text = "lambda = 0.5 needs 37.8 % fewer epochs to the target (4.6 against 7.4)"
    change, n = _restricted(tables, arm, "epochs_to_target", lambda row: float(row["epochs_planned"]))
    return _judged(Claim("C2", text, arm, Finding.NOT_MEASURED, "", claimed=-0.378), change, n)


def _training_loss(tables: StudyTables, arm: str) -> Claim:
    text = "mean training loss on GSM8K after an epoch falls from 0.2188 to 0.2097"
    draft = Claim("C3", text, arm, Finding.NOT_MEASURED, "", "nats", -0.0091)
    if tables.study.workload.kind != "llm":
        return _not(draft, "It speaks of a language model: studies/paper_llm.py measures it.")
    both = _both(tables, arm, "mean_train_loss")
    differences = statistics.paired_differences(*both)
    interval = statistics.difference_interval(differences)
    change = Change(float(np.mean(differences)), interval) if len(differences) else None
    return _judged(draft, change, len(differences))


def _epoch_time(tables: StudyTables, arm: str) -> Claim:
    text = "an epoch takes about 35 % longer than Adam's"
    mine, its = _both(tables, arm, "wall_s", per="epochs_run")
    change = statistics.relative_change(mine, its)
    return _judged(Claim("C4", text, arm, Finding.NOT_MEASURED, "", claimed=0.35), change, len(mine))


def _total_time(tables: StudyTables, arm: str) -> Claim:
    text = "the total time to the target is 16 % lower"
    # A miss has taken at least its whole run.
    change, n = _restricted(tables, arm, "seconds_to_target", lambda row: float(row["wall_s"]))
    return _judged(Claim("C5", text, arm, Finding.NOT_MEASURED, "", claimed=-0.16), change, n)


def _lambdas(tables: StudyTables, arm: str) -> Claim:
    """Taken to say three things, each by its own interval: (a) a small lambda spreads the final accuracy over seeds
    no more than Adam does; (b) at 0.5 the target comes sooner, and the spread is larger than Adam's; (c) a very large
    lambda leaves runs without a result, or lowers accuracy. All shown: supported. One excluded, which for (b) is a gain
    of `FASTER` in epochs: contradicted."""
    text = "a small lambda adds little noise, 0.5 converges faster with more variance, very high values destabilise"
    draft = Claim("C6", text, arm, Finding.NOT_MEASURED, "")
    small, large = _other_lambda(tables, arm, SMALL, below=True), _other_lambda(tables, arm, LARGE, below=False)
    parts: list[tuple[Finding, str]] = []
    if small is not None:
        parts.append(_little_noise(tables, small))
    parts.append(_faster_with_variance(tables, arm))
    if large is not None:
        parts.append(_destabilises(tables, large))
    found = [finding for finding, _ in parts]
    told = "; ".join(words for _, words in parts)
    missing = [word for word, name in (("small", small), ("very large", large)) if name is None]
    if missing:
        told += f"; no arm with a {' and a '.join(missing)} lambda"
    if Finding.CONTRADICTED in found:
        finding = Finding.CONTRADICTED
    elif missing or set(found) != {Finding.SUPPORTED}:
        finding = Finding.INCONCLUSIVE
    else:
        finding = Finding.SUPPORTED
    change, n = _restricted(tables, arm, "epochs_to_target", lambda row: float(row["epochs_planned"]))
    found_so = replace(draft, finding=finding, why=f"{told[0].upper()}{told[1:]}.", n_pairs=n)
    return replace(found_so, measured=change.value, interval=change.interval) if change else found_so


def _little_noise(tables: StudyTables, small: str) -> tuple[Finding, str]:
    change = statistics.relative_spread(*_accuracies(tables, small))
    if change is None or change.interval is None:
        return Finding.INCONCLUSIVE, f"{small}: no spread to compare"
    told = f"{small} spreads by {_percent(change)} against Adam over the seeds"
    if change.interval.low > 0:
        return Finding.CONTRADICTED, told
    return (Finding.SUPPORTED if change.interval.high < 1 else Finding.INCONCLUSIVE), told


def _faster_with_variance(tables: StudyTables, arm: str) -> tuple[Finding, str]:
    epochs, _ = _restricted(tables, arm, "epochs_to_target", lambda row: float(row["epochs_planned"]))
    spread = statistics.relative_spread(*_accuracies(tables, arm))
    if epochs is None or spread is None or epochs.interval is None or spread.interval is None:
        return Finding.INCONCLUSIVE, f"{arm}: too few runs"
    told = f"{arm} needs {_percent(epochs)} epochs and spreads by {_percent(spread)}"
    if epochs.interval.low > -FASTER or spread.interval.high < 0:
        return Finding.CONTRADICTED, told
    shown = epochs.interval.high < 0 and spread.interval.low > 0
    return (Finding.SUPPORTED if shown else Finding.INCONCLUSIVE), told


def _destabilises(tables: StudyTables, large: str) -> tuple[Finding, str]:
    pairs = pair(*_rows(tables, large), tables.study.confirm.seeds)
    bad = pairs.arm_lost - pairs.baseline_lost
    interval = statistics.difference_interval(pairs.differences)
    told = f"{pairs.arm_lost + pairs.both_lost} runs of {large} have no result"
    if interval is not None:
        told += f", the others are {signed(interval.low)} to {signed(interval.high)} points from Adam's"
    if bad > 0 and statistics.p_sign(pairs.baseline_lost, pairs.arm_lost) < tables.study.decision.alpha:
        return Finding.SUPPORTED, told
    if interval is None:
        return Finding.INCONCLUSIVE, told
    if interval.high < 0:
        return Finding.SUPPORTED, told
    steady = interval.low > -tables.study.decision.margin and not bad
    return (Finding.CONTRADICTED if steady else Finding.INCONCLUSIVE), told


def _qubits(tables: StudyTables, arm: str) -> Claim:
    """Taken to say that a step's time over the baseline's grows with the number of qubits, as a rate a qubit: the slope
    of its logarithm over the runs of a map, with heteroscedasticity-robust errors (HC3)."""
    draft = Claim("C7", "more qubits cost more", arm, Finding.NOT_MEASURED, "")
    study = tables.study
    if study.map is None or study.map.arm != arm or QUBITS not in study.map.axes:
        return _not(draft, f"It needs a map of {arm} with the axis {QUBITS}.")
    rows = [row for name in (arm, study.baseline) for row in tables.rows("map", name)]
    seconds = {(row["arm"], row["setting"], row["seed"]): seconds_a_step(row) for row in rows}
    points = []
    for setting in study.map_settings(arm):
        for seed in study.map.seeds:
            mine = seconds.get((arm, setting_name(setting), seed))
            its = seconds.get((study.baseline, setting_name(baseline_setting(setting)), seed))
            if mine and its:
                points.append((float(setting[QUBITS]), float(np.log(mine / its))))
    if len({n for n, _ in points}) < 2 or len(points) < MIN_PAIRS:
        return _not(draft, "Too few runs of the map have ended.")
    n_qubits, log_ratio = np.array(points).T
    fit = sm.OLS(log_ratio, sm.add_constant(n_qubits)).fit(cov_type="HC3", use_t=True)
    # Rounded like differences: equal ratios have slopes in their last bits.
    rate, low, high = np.round(np.expm1([fit.params[1], *fit.conf_int(0.05)[1]]), statistics.DECIMALS).tolist()
    interval = Interval(low, high)
    finding = Finding.INCONCLUSIVE
    if interval.low > 0:
        finding = Finding.SUPPORTED
    elif interval.high < 0:
        finding = Finding.CONTRADICTED
    span = f"from {n_qubits.min():g} to {n_qubits.max():g} qubits"
    why = f"A step's time over Adam's changes by {100 * rate:+.2g} % a qubit {span}.".replace("-", "−")
    return replace(draft, finding=finding, why=why, measured=rate, interval=interval, n_pairs=len(points))


CHECKS: dict[ClaimId, Callable[[StudyTables, str], Claim]] = {
    "C1": _accuracy,
    "C2": _epochs,
    "C3": _training_loss,
    "C4": _epoch_time,
    "C5": _total_time,
    "C6": _lambdas,
    "C7": _qubits,
}


def _judged(draft: Claim, change: Change | None, n_pairs: int) -> Claim:
    if change is None:
        return _not(draft, "No pair of runs has the number.")
    assert draft.claimed is not None
    finding, why = _finding(draft, change, n_pairs)
    return replace(draft, finding=finding, why=why, measured=change.value, interval=change.interval, n_pairs=n_pairs)


def _finding(draft: Claim, change: Change, n_pairs: int) -> tuple[Finding, str]:
    assert draft.claimed is not None
    if n_pairs < MIN_PAIRS or change.interval is None:
        return Finding.INCONCLUSIVE, f"{n_pairs} pairs of runs are fewer than the {MIN_PAIRS} that a finding needs."
    low, high = sorted(edge / draft.claimed for edge in change.interval)  # as shares of what is claimed
    if low > 0 and high >= 1:
        beyond = "lies beyond" if low > 1 else "holds"
        return Finding.SUPPORTED, f"The interval {beyond} the claimed figure and excludes no effect."
    if high < 1:
        side = (
            "and no effect too" if low > 0 else "no effect is in it" if high >= 0 else "the effect has the other sign"
        )
        return Finding.CONTRADICTED, f"The interval excludes the claimed figure; {side}."
    return Finding.INCONCLUSIVE, "The interval holds both the claimed figure and no effect."


def _not(draft: Claim, why: str) -> Claim:
    return replace(draft, why=why)


def _rows(tables: StudyTables, arm: str) -> tuple[list[Row], list[Row]]:
    return confirm_rows(tables, arm), confirm_rows(tables, tables.study.baseline)


def _paired(tables: StudyTables, arm: str) -> list[tuple[Row, Row]]:
    """Of the seeds that have ended in both arms."""
    mine, its = ({row["seed"]: row for row in rows if row["ending"] != Ending.LOST} for rows in _rows(tables, arm))
    return [(mine[seed], its[seed]) for seed in mine if seed in its]


def _both(tables: StudyTables, arm: str, column: str, per: str | None = None) -> tuple[list[float], list[float]]:
    """A column of both arms, over another, of the pairs in which both are there."""
    found = [
        [float(row[column]) / (float(row[per]) if per else 1.0) for row in rows]
        for rows in _paired(tables, arm)
        if all(row[column] is not None and (per is None or row[per]) for row in rows)
    ]
    return [mine for mine, _ in found], [its for _, its in found]


def _accuracies(tables: StudyTables, arm: str) -> tuple[list[float], list[float]]:
    values = [(result(mine), result(its)) for mine, its in _paired(tables, arm)]
    known = [(mine, its) for mine, its in values if mine is not None and its is not None]
    return [mine for mine, _ in known], [its for _, its in known]


def _restricted(
    tables: StudyTables, arm: str, column: str, budget: Callable[[Row], float]
) -> tuple[Change | None, int]:
    """Mean times to the target over the baseline's, a miss counted with its budget; None where none reached it."""
    pairs = [rows for rows in _paired(tables, arm) if all(row["wall_s"] is not None for row in rows)]
    if not any(row[column] is not None for rows in pairs for row in rows):
        return None, len(pairs)
    times = [[row[column] if row[column] is not None else budget(row) for row in rows] for rows in pairs]
    return statistics.relative_change([mine for mine, _ in times], [its for _, its in times]), len(pairs)


def _other_lambda(tables: StudyTables, arm: str, factor: float, *, below: bool) -> str | None:
    """The arm that differs in lambda alone, the nearest that is small or large enough."""
    mine = tables.study.arm(arm)
    assert mine.perturbation is not None
    if isinstance(mine.perturbation.lambda_, SPACES):
        return None
    edge = factor * mine.perturbation.lambda_
    found = []
    for other in tables.study.arms:
        if other.perturbation is None or isinstance(other.perturbation.lambda_, SPACES):
            continue
        alike = other.perturbation.model_copy(update={"lambda_": mine.perturbation.lambda_}) == mine.perturbation
        if alike and (other.perturbation.lambda_ <= edge if below else other.perturbation.lambda_ >= edge):
            found.append((other.perturbation.lambda_, other.name))
    return (max(found) if below else min(found))[1] if found else None


def _percent(change: Change) -> str:
    assert change.interval is not None
    value, low, high = (f"{100 * x:+.0f}".replace("-", "−") for x in (change.value, *change.interval))
    return f"{value} % ({low} to {high})"
