"""Simulated studies: a scatter of runs in, the verdicts on many whole result tables out; no training.

`PYTHONPATH=tests python -m support.simulated_studies 2000` prints how often verdicts are false, and how often an effect
of two deviations is found, for every scatter in `MEASURED` (docs/findings.md).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from statsmodels.stats.proportion import proportion_confint

from qsgd_ray.analysis.verdict import ArmVerdict, Verdict, judge
from qsgd_ray.config import Decision
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS
from support.synthetic_results import a_study, made, runs


@dataclass(frozen=True)
class Scatter:
    """The distribution of a study's accuracies; all arms share it but for the first one's planted effect.

    Attributes:
        n_arms: arms beside the baseline.
        n_seeds: seeds an arm.
        deviation: standard deviation over the seeds of one arm, a fraction of accuracy.
        correlation: of two arms at the same seed, 0 to 1.
        effect: added to the accuracy of the first arm.
        margin: of the study's decision.
        n_test: test examples, of which an accuracy is a whole number; None: accuracies are continuous.
        lost: the probability of a run to diverge or to fail.
        mean: of all accuracies.
    """

    n_arms: int = 3
    n_seeds: int = 10
    deviation: float = 0.01
    correlation: float = 0.5
    effect: float = 0.0
    margin: float = 0.01
    n_test: int | None = None
    lost: float = 0.0
    mean: float = 0.85


MEASURED = {
    "continuous accuracies": Scatter(),
    "a margin of nothing": Scatter(margin=1e-4),
    "2,048 test examples": Scatter(n_test=2048),
    "100 test examples": Scatter(n_test=100),
    "40 test examples": Scatter(n_test=40),
    "12 test examples, ten times the deviation": Scatter(n_test=12, deviation=0.1, mean=0.6),
    "2 % of runs lost": Scatter(lost=0.02),
    "5 % of runs lost": Scatter(lost=0.05),
    "20 % of runs lost, a margin of nothing": Scatter(lost=0.2, margin=1e-4),
    "no correlation": Scatter(correlation=0.0),
    "correlation 0.9": Scatter(correlation=0.9),
    "no correlation, 2 % of runs lost": Scatter(correlation=0.0, lost=0.02),
    "five seeds": Scatter(n_seeds=5),
    "five seeds, 40 test examples, a margin of nothing": Scatter(n_seeds=5, margin=1e-4, n_test=40, deviation=0.03),
    "eight arms, 2,048 test examples, 2 % lost": Scatter(n_arms=8, n_test=2048, lost=0.02),
    "400 test examples, 3 % of runs lost": Scatter(n_test=400, lost=0.03),
}


def any_called(verdicts: Sequence[ArmVerdict]) -> bool:
    """Tell verdicts of which any is better or worse."""
    return any(v.verdict in (Verdict.BETTER, Verdict.WORSE) for v in verdicts)


def effect_found(verdicts: Sequence[ArmVerdict]) -> bool:
    """Tell verdicts of which the first, that of the planted effect, is better."""
    return verdicts[0].verdict == Verdict.BETTER


def simulated(scatter: Scatter, n_studies: int, seed: int) -> Iterator[tuple[ArmVerdict, ...]]:
    """Yield the verdicts of `judge` on `n_studies` studies of a baseline and `n_arms` arms, "planted" first."""
    names = ["adamw", "planted", *(f"same{k}" for k in range(1, scatter.n_arms))]
    study = a_study(names, scatter.n_seeds, decision=Decision(margin=scatter.margin))
    rows = made({name: runs([0.9] * scatter.n_seeds) for name in names}, study=study).tables().trials.to_pylist()
    rng = np.random.default_rng(seed)
    for _ in range(n_studies):
        accuracies = draw_accuracies(scatter, rng)
        lost = rng.random(accuracies.shape) < scatter.lost
        endings = rng.choice([Ending.DIVERGED, Ending.FAILED], accuracies.shape)
        for row in rows:
            cell = names.index(row["arm"]), row["number"]
            row["ending"] = str(endings[cell] if lost[cell] else Ending.COMPLETED)
            row["test_accuracy"] = None if lost[cell] else float(accuracies[cell])
        yield judge(StudyTables(study, {}, pa.Table.from_pylist(rows, schema=TRIALS), MEASUREMENTS.empty_table()))


def draw_accuracies(scatter: Scatter, rng: np.random.Generator) -> np.ndarray:
    """Return accuracies of shape (1 + n_arms, n_seeds), the baseline first."""
    of_seed = rng.standard_normal(scatter.n_seeds)
    of_run = rng.standard_normal((1 + scatter.n_arms, scatter.n_seeds))
    noise = np.sqrt(scatter.correlation) * of_seed + np.sqrt(1 - scatter.correlation) * of_run
    accuracies = scatter.mean + scatter.deviation * noise
    accuracies[1] += scatter.effect
    if scatter.n_test is not None:
        accuracies = np.round(accuracies * scatter.n_test) / scatter.n_test
    return np.clip(accuracies, 0, 1)


def main(n_studies: int) -> None:
    """Print a row for every scatter in `MEASURED`: false calls and effects found, in percent with 95 % intervals."""

    def share(count: int) -> str:
        low, high = proportion_confint(count, n_studies, method="wilson")
        return f"{100 * count / n_studies:.1f} ({100 * low:.1f} to {100 * high:.1f})"

    print("| studies | called falsely % | effect found % |\n|---|---|---|")
    for seed, (name, scatter) in enumerate(MEASURED.items(), start=1):
        false = sum(map(any_called, simulated(scatter, n_studies, seed)))
        planted = replace(scatter, effect=2 * scatter.deviation)
        print(
            f"| {name} | {share(false)} | {share(sum(map(effect_found, simulated(planted, n_studies, seed))))} |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
