"""Halvings of an arm's trials by Tune: one (ASHA), or several that begin at different epochs (Hyperband), or none.

In: results of trials under way. Out: CONTINUE or STOP. Every arm has halvings of its own, and a trial's halving follows
from its number, so that with one trial at a time the decisions are a function of the study. What else stops a trial of
several seeds (_replicate_pruning.py) is asked beside them.
"""

from __future__ import annotations

import math
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from qsgd_ray.config import Search, Study
from qsgd_ray.execution.trainable import ENDING, EPOCH, SCORE, VALUES
from qsgd_ray.outcome import Ending
from qsgd_ray.search._replicate_pruning import ReplicatePruning

# Further off than any score that a run can have.
_WORST_SCORE = 1e300


def grace_epochs_of_brackets(search: Search) -> tuple[int, ...]:
    """Return the grace epochs of each halving of an arm; at the last one of Hyperband's nothing is stopped.

    Args:
        search: its scheduler, epochs, grace and reduction factor.

    Example:
        >>> grace_epochs_of_brackets(Search(trials_per_arm=9, epochs=9, grace_epochs=1, scheduler="hyperband"))
        (1, 3, 9)
    """
    if search.scheduler not in ("hyperband", "bohb"):
        return (search.grace_epochs,)
    graces: list[int] = []
    grace = search.grace_epochs
    while grace < search.epochs:
        graces.append(grace)
        grace *= search.reduction_factor
    return (*graces, search.epochs)


def bracket_of(search: Search, number: int) -> int:
    """Return the index of the halving that an arm's trial of this number belongs to.

    Hyperband has `ceil((s_max + 1) / (s + 1) * eta^s)` trials in the bracket that halves s times (Li et al. 2018,
    algorithm 1). Every prefix of the numbers keeps that ratio as well as whole numbers can, so that a small budget
    meets all brackets.

    Args:
        search: as for `grace_epochs_of_brackets`.
        number: counts the arm's trials from 0.
    """
    n = len(grace_epochs_of_brackets(search))
    shares = [math.ceil(n / (n - index) * search.reduction_factor ** (n - 1 - index)) for index in range(n)]
    counts = [0] * n
    for position in range(number % sum(shares) + 1):
        lacking = [share * (position + 1) / sum(shares) - count for share, count in zip(shares, counts, strict=True)]
        chosen = lacking.index(max(lacking))
        counts[chosen] += 1
    return chosen


class _ArmHalvings(FIFOScheduler):
    """The halvings of all arms behind the single scheduler that Tune knows.

    Tune's HyperBandScheduler pauses trials until their bracket is full, which takes checkpoints of them, and its
    AsyncHyperBandScheduler draws a trial's bracket from numpy's global generator. So each bracket is an
    AsyncHyperBandScheduler with one bracket, which is ASHA (Li et al., arXiv 1810.05934).
    """

    def __init__(self, study: Study) -> None:
        super().__init__()
        self._search = study.search
        self._halves = len(study.search.objectives) == 1 and study.search.scheduler != "none"
        self._halvings = {
            (arm.name, index): ASHAScheduler(
                time_attr=EPOCH,
                metric=SCORE,
                mode=study.metric.direction,
                max_t=study.search.epochs,
                grace_period=grace_epochs,
                reduction_factor=study.search.reduction_factor,
            )
            for arm in study.arms
            for index, grace_epochs in enumerate(grace_epochs_of_brackets(study.search))
        }
        threshold = study.search.replicate_pruning
        self._prunings = {
            arm.name: ReplicatePruning(study.metric, threshold) for arm in study.arms if threshold is not None
        }

    def _of(self, trial: Any) -> ASHAScheduler:
        several = self._search.scheduler in ("hyperband", "bohb")
        index = bracket_of(self._search, trial.config["number"]) if several else 0
        return self._halvings[trial.config["arm"], index]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give a new trial to the arm's own halving.

        Args:
            tune_controller: Tune's.
            trial: Tune's.
        """
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return CONTINUE or STOP, as the arm's own halving decides, and the seeds of the arm's best point.

        Args:
            tune_controller: Tune's.
            trial: Tune's.
            result: of the trial's last step.
        """
        # A trial at its last epoch ends by itself.
        if result[EPOCH] >= self._search.epochs:
            return TrialScheduler.CONTINUE
        decision: str = TrialScheduler.CONTINUE
        if self._halves:
            decision = self._of(trial).on_trial_result(tune_controller, trial, _with_finite_score(result))
        if self._is_pruned(trial, result):
            decision = TrialScheduler.STOP
        if decision == TrialScheduler.STOP:
            # Before Tune's own word to the same actor, which also comes where Tune fails.
            trial.temporary_state.ray_actor.expect_stop.remote()
        return decision

    def _is_pruned(self, trial: Any, result: dict[str, Any]) -> bool:
        """Take in the values of a trial's seeds, and return True where the best point's are enough better."""
        pruning = self._prunings.get(trial.config["arm"])
        if pruning is None:
            return False
        pruning.add(trial.config["number"], result[EPOCH], result[VALUES])
        if result[EPOCH] < self._search.grace_epochs:
            return False
        return pruning.is_worse(trial.config["number"], result[EPOCH])

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Give a trial that has ended to the arm's own halving.

        Args:
            tune_controller: Tune's.
            trial: Tune's.
            result: of the trial's last step.
        """
        self._of(trial).on_trial_complete(tune_controller, trial, _with_finite_score(result))
        if (pruning := self._prunings.get(trial.config["arm"])) is not None:
            pruning.add(trial.config["number"], result[EPOCH], result[VALUES])
            pruning.end(trial.config["number"], completed=result.get(ENDING) == Ending.COMPLETED)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Remove a trial from the arm's own halving.

        Args:
            tune_controller: Tune's.
            trial: Tune's.
        """
        self._of(trial).on_trial_remove(tune_controller, trial)


def _with_finite_score(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose score has a place among others: between infinity and a number there is no percentile."""
    score = result[SCORE]
    return result if math.isfinite(score) else result | {SCORE: math.copysign(_WORST_SCORE, score)}
