"""The paper's claims in words, C6 and C7: each function says what its claim is taken to say, and measures that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import statsmodels.api as sm

from qsgd_ray.analysis import significance, statistics
from qsgd_ray.analysis._claim_pairs import accuracy_pairs, change_of_epochs, rows_of_both
from qsgd_ray.analysis._rows import seconds_per_step
from qsgd_ray.analysis._sentences import percent_change, signed_points
from qsgd_ray.analysis.claim import Claim, Finding, not_measured
from qsgd_ray.analysis.pairs import pair_by_seed
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.verdict import MIN_PAIRS
from qsgd_ray.config.base import SPACES
from qsgd_ray.config.stages import baseline_setting, setting_name
from qsgd_ray.results import StudyTables

_QUBITS = "perturbation.n_qubits"
# A large lambda is this many times the one that the claim is about, a small one at most half of it.
_LARGE, _SMALL = 10.0, 0.5
# Epochs to the target that differ by less count as none in C6.
_FASTER = 0.1


def check_lambdas(tables: StudyTables, arm: str) -> Claim:
    """Check C6, taken to say three things, each by its own interval.

    (a) A small lambda spreads the final accuracy over seeds no more than Adam does; (b) at 0.5 the target comes sooner,
    and the spread is larger than Adam's; (c) a very large lambda leaves runs without a result, or lowers accuracy.
    All shown: supported. One excluded, which for (b) is a gain of `_FASTER` in epochs: contradicted.
    """
    text = "a small lambda adds little noise, 0.5 converges faster with more variance, very high values destabilise"
    draft = Claim("C6", text, arm, Finding.NOT_MEASURED, "")
    small = _arm_of_other_lambda(tables, arm, _SMALL, below=True)
    large = _arm_of_other_lambda(tables, arm, _LARGE, below=False)
    parts: list[tuple[Finding, str]] = []
    if small is not None:
        parts.append(_adds_little_noise(tables, small))
    parts.append(_is_faster_with_variance(tables, arm))
    if large is not None:
        parts.append(_destabilises(tables, large))
    findings = [finding for finding, _ in parts]
    why = "; ".join(words for _, words in parts)
    missing = [word for word, name in (("small", small), ("very large", large)) if name is None]
    if missing:
        why += f"; no arm with a {' and a '.join(missing)} lambda"
    if Finding.CONTRADICTED in findings:
        finding = Finding.CONTRADICTED
    elif missing or set(findings) != {Finding.SUPPORTED}:
        finding = Finding.INCONCLUSIVE
    else:
        finding = Finding.SUPPORTED
    change, n_pairs = change_of_epochs(tables, arm)
    claim = replace(draft, finding=finding, why=f"{why[0].upper()}{why[1:]}.", n_pairs=n_pairs)
    return replace(claim, measured=change.value, interval=change.interval) if change else claim


def _adds_little_noise(tables: StudyTables, small: str) -> tuple[Finding, str]:
    change = statistics.relative_spread(*accuracy_pairs(tables, small))
    if change is None or change.interval is None:
        return Finding.INCONCLUSIVE, f"{small}: no spread to compare"
    words = f"{small} spreads by {percent_change(change)} against Adam over the seeds"
    if change.interval.low > 0:
        return Finding.CONTRADICTED, words
    return (Finding.SUPPORTED if change.interval.high < 1 else Finding.INCONCLUSIVE), words


def _is_faster_with_variance(tables: StudyTables, arm: str) -> tuple[Finding, str]:
    epochs, _ = change_of_epochs(tables, arm)
    spread = statistics.relative_spread(*accuracy_pairs(tables, arm))
    if epochs is None or spread is None or epochs.interval is None or spread.interval is None:
        return Finding.INCONCLUSIVE, f"{arm}: too few runs"
    words = f"{arm} needs {percent_change(epochs)} epochs and spreads by {percent_change(spread)}"
    if epochs.interval.low > -_FASTER or spread.interval.high < 0:
        return Finding.CONTRADICTED, words
    shown = epochs.interval.high < 0 and spread.interval.low > 0
    return (Finding.SUPPORTED if shown else Finding.INCONCLUSIVE), words


def _destabilises(tables: StudyTables, large: str) -> tuple[Finding, str]:
    study = tables.study
    pairs = pair_by_seed(*rows_of_both(tables, large), study.confirm.seeds)
    more_lost = pairs.arm_lost - pairs.baseline_lost
    interval = statistics.difference_interval(pairs.differences)
    words = f"{pairs.arm_lost + pairs.both_lost} runs of {large} have no result"
    if interval is not None:
        words += f", the others are {signed_points(interval.low)} to {signed_points(interval.high)} points from Adam's"
    p = significance.sign_test_p_value(pairs.baseline_lost, pairs.arm_lost)
    if more_lost > 0 and p < study.decision.alpha:
        return Finding.SUPPORTED, words
    if interval is None:
        return Finding.INCONCLUSIVE, words
    if interval.high < 0:
        return Finding.SUPPORTED, words
    is_steady = interval.low > -study.decision.margin and not more_lost
    return (Finding.CONTRADICTED if is_steady else Finding.INCONCLUSIVE), words


def check_qubits(tables: StudyTables, arm: str) -> Claim:
    """Check C7, taken to say that a step's time over the baseline's grows with the number of qubits.

    The measure is a rate a qubit: the slope of the logarithm of that ratio over the runs of a map, with
    heteroscedasticity-robust errors (HC3, MacKinnon and White 1985).
    """
    draft = Claim("C7", "more qubits cost more", arm, Finding.NOT_MEASURED, "")
    study = tables.study
    if study.map is None or study.map.arm != arm or _QUBITS not in study.map.axes:
        return not_measured(draft, f"It needs a map of {arm} with the axis {_QUBITS}.")
    rows = [row for name in (arm, study.baseline) for row in tables.rows("map", name)]
    seconds = {(row["arm"], row["setting"], row["seed"]): seconds_per_step(row) for row in rows}
    points = []
    for setting in study.map_settings(arm):
        for seed in study.map.seeds:
            arm_s = seconds.get((arm, setting_name(setting), seed))
            baseline_s = seconds.get((study.baseline, setting_name(baseline_setting(setting)), seed))
            if arm_s and baseline_s:
                points.append((float(setting[_QUBITS]), float(np.log(arm_s / baseline_s))))
    if len({n for n, _ in points}) < 2 or len(points) < MIN_PAIRS:
        return not_measured(draft, "Too few runs of the map have ended.")
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


def _arm_of_other_lambda(tables: StudyTables, arm: str, factor: float, *, below: bool) -> str | None:
    """Return the arm that differs in lambda alone, the nearest that is small or large enough; None without one."""
    perturbation = tables.study.arm(arm).perturbation
    assert perturbation is not None
    if isinstance(perturbation.lambda_, SPACES):
        return None
    edge = factor * perturbation.lambda_
    candidates = []
    for other in tables.study.arms:
        if other.perturbation is None or isinstance(other.perturbation.lambda_, SPACES):
            continue
        alike = other.perturbation.model_copy(update={"lambda_": perturbation.lambda_}) == perturbation
        if alike and (other.perturbation.lambda_ <= edge if below else other.perturbation.lambda_ >= edge):
            candidates.append((other.perturbation.lambda_, other.name))
    return (max(candidates) if below else min(candidates))[1] if candidates else None
