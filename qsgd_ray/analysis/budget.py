"""The budget of a study: its rows and the time of its runs in; what is spent, what is expected, and sentences, out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qsgd_ray.config import STAGES, Budget, Study
from qsgd_ray.config.stages import Stage
from qsgd_ray.outcome import REPEATED
from qsgd_ray.results import StudyTables

_S_PER_HOUR = 3600.0


@dataclass
class Pace:
    """The trials of one stage and arm, and the time that they took.

    Attributes:
        arm: its name.
        planned: trials that the study plans.
        epochs_each: epochs of a trial, at most.
        ended: trials that have ended.
        epochs: run by all trials.
        trial_s: seconds of all trials.
    """

    arm: str
    planned: int
    epochs_each: int
    ended: int = 0
    epochs: int = 0
    trial_s: float = 0.0

    @property
    def epochs_left(self) -> float:
        """Epochs that are expected of the trials to come: as many each as those that have ended took."""
        each = self.epochs / self.ended if self.ended and self.epochs else self.epochs_each
        return max(0, self.planned - self.ended) * each


@dataclass(frozen=True)
class BudgetStatus:
    """The spending of a study, its limits, and what is expected to the end.

    Attributes:
        budget: of the study; None: it has none.
        seconds: of all runs, from the start of each to its end.
        node_seconds: of all nodes by their kind.
        money: that these cost; None without a price.
        ended: trials that have ended.
        planned: trials that the study plans.
        seconds_left: expected to the end; None where no trial has told yet.
        money_left: expected to the end; None where one of its parts is not known.
    """

    budget: Budget | None
    seconds: float
    node_seconds: dict[str, float]
    money: float | None
    ended: int
    planned: int
    seconds_left: float | None
    money_left: float | None

    @property
    def is_spent(self) -> bool:
        """True where a limit is reached."""
        return self.budget is not None and self.budget.is_spent(self.seconds, self.node_seconds)

    @property
    def share_spent(self) -> float:
        """The share that is spent of the limit that comes first; 0 without a limit."""
        budget, shares = self.budget, [0.0]
        if budget is not None and budget.hours is not None:
            shares.append(self.seconds / (budget.hours * _S_PER_HOUR))
        if budget is not None and budget.cost is not None and self.money is not None:
            shares.append(self.money / budget.cost)
        return max(shares)

    @property
    def fits(self) -> bool | None:
        """True where what is expected fits the budget; None where it is not known."""
        if self.budget is None or self.seconds_left is None:
            return None
        share = self._share_that_fits()
        return share is None or share >= 1

    @property
    def amounts(self) -> str:
        """Hours and money that are spent, and of how much: 0.5 h of 2 h and 1.2 of 5 of money spent."""
        hours, cost = (None, None) if self.budget is None else (self.budget.hours, self.budget.cost)
        limits = {"hours": hours, "cost": cost}
        return f"{amounts_text(limits | {'hours_spent': self.seconds / _S_PER_HOUR, 'cost_spent': self.money})} spent"

    @property
    def expected(self) -> str:
        """Hours and money that are expected to the end, in words."""
        if self.seconds_left is None:
            return "how long a trial takes is not known yet"
        money = "" if self.money_left is None else f" and {_number(self.money_left)} of money"
        return f"about {_number(self.seconds_left / _S_PER_HOUR)} h{money} to the end"

    @property
    def forecast(self) -> str:
        """One line on whether the plan fits the budget, as far as it is known."""
        if self.fits is None:
            return f"Budget: {self.amounts}; {self.expected}, so the first ones tell whether the plan fits."
        if self.fits:
            return f"Budget: {self.amounts}; {self.expected}: the plan fits."
        share = self._share_that_fits() or 0.0
        n = self.ended + int(share * max(0, self.planned - self.ended))
        return f"Budget: {self.amounts}; {self.expected}: the plan does not fit, about {n} of {self.planned} trials do."

    @property
    def end_sentence(self) -> str:
        """One line on a budget that ended a study: what was spent, how far it came, and how it goes on."""
        limits, fields = self._reached()
        return (
            f"budget of {' and '.join(limits)} spent: {self.ended} of {self.planned} trials; "
            f"going on: raise {' and '.join(fields)}"
        )

    def _reached(self) -> tuple[list[str], list[str]]:
        budget = self.budget
        assert budget is not None
        limits, fields = [], []
        if budget.hours is not None and self.seconds >= budget.hours * _S_PER_HOUR:
            limits.append(f"{budget.hours:g} h")
            fields.append("budget.hours")
        if budget.cost is not None and self.money is not None and self.money >= budget.cost:
            limits.append(f"{budget.cost:g} of money")
            fields.append("budget.cost")
        return limits, fields

    def _share_that_fits(self) -> float | None:
        """Return the share of what is left that the budget has room for, at most 1; None without a limit."""
        budget, shares = self.budget, []
        if budget is not None and budget.hours is not None and self.seconds_left is not None:
            shares.append(_share(budget.hours * _S_PER_HOUR - self.seconds, self.seconds_left))
        if budget is not None and budget.cost is not None and None not in (self.money, self.money_left):
            shares.append(_share(budget.cost - (self.money or 0.0), self.money_left or 0.0))
        return min(shares, default=None)


def budget_entry(spent: BudgetStatus | None) -> dict[str, Any] | None:
    """Return limits and spending as verdict.json and `qsgd-ray status` have them; None without a budget."""
    if spent is None or spent.budget is None:
        return None
    return {
        "hours": spent.budget.hours,
        "cost": spent.budget.cost,
        "hours_spent": spent.seconds / _S_PER_HOUR,
        "cost_spent": spent.money,
        "is_spent": spent.is_spent,
        "trials_ended": spent.ended,
        "trials_planned": spent.planned,
    }


def joint_budget_entry(budget: Budget | None, parts: Iterable[BudgetStatus | None]) -> dict[str, Any] | None:
    """Return the limits of a study of several workloads and the spending of all its parts; None without a budget.

    Args:
        budget: of the whole study.
        parts: the spending of each part.
    """
    entries = [entry for part in parts if (entry := budget_entry(part)) is not None]
    if budget is None or not entries:
        return None
    costs = [entry["cost_spent"] for entry in entries]
    sums = {name: sum(entry[name] for entry in entries) for name in ("hours_spent", "trials_ended", "trials_planned")}
    return {
        "hours": budget.hours,
        "cost": budget.cost,
        "hours_spent": sums["hours_spent"],
        "cost_spent": None if None in costs else sum(costs),
        "is_spent": any(entry["is_spent"] for entry in entries),
        "trials_ended": sums["trials_ended"],
        "trials_planned": sums["trials_planned"],
    }


def amounts_text(entry: Mapping[str, Any]) -> str:
    """Return what is spent of which limit, in words.

    Args:
        entry: as `budget_entry` returns it.

    Example:
        >>> amounts_text({"hours": 2.0, "cost": 5.0, "hours_spent": 0.5, "cost_spent": 1.2})
        '0.5 h of 2 h and 1.2 of 5 of money'
    """
    text = f"{_number(entry['hours_spent'])} h"
    if entry["hours"] is not None:
        text += f" of {entry['hours']:g} h"
    if entry["cost_spent"] is None:
        return text
    of = "" if entry["cost"] is None else f" of {entry['cost']:g}"
    return f"{text} and {_number(entry['cost_spent'])}{of} of money"


def budget_status(tables: StudyTables) -> BudgetStatus:
    """Return the spending of a study as its stored rows and runs tell it."""
    spending = tables.spending
    return status_of(tables.study, paces(tables).values(), spending.seconds, spending.node_seconds)


def status_of(study: Study, stages: Iterable[Pace], seconds: float, node_seconds: dict[str, float]) -> BudgetStatus:
    """Return the spending of a study that runs.

    Args:
        study: its budget has limits and prices.
        stages: how far each stage and arm is.
        seconds: of all runs.
        node_seconds: of all nodes by kind.
    """
    stages = [*stages]
    money = None if study.budget is None else study.budget.money(node_seconds)
    seconds_left = _seconds_left(stages, seconds)
    money_left = None if money is None or seconds_left is None or not seconds else money / seconds * seconds_left
    ended = sum(min(pace.ended, pace.planned) for pace in stages)
    planned = sum(pace.planned for pace in stages)
    return BudgetStatus(study.budget, seconds, node_seconds, money, ended, planned, seconds_left, money_left)


def paces(tables: StudyTables) -> dict[tuple[Stage, str], Pace]:
    """Return how far each stage and arm is that has planned trials, in the order in which they run."""
    study = tables.study
    epochs = {"search": study.search.epochs, "confirm": study.confirm.epochs, "map": study.map and study.map.epochs}
    found: dict[tuple[Stage, str], Pace] = {}
    for stage in STAGES:
        for arm in study.arms:
            if planned := study.planned(stage, arm):
                pace = found[stage, arm.name] = Pace(arm.name, planned, epochs[stage] or 0)
                for row in tables.rows(stage, arm.name):
                    if row["ending"] not in REPEATED:
                        pace.ended += 1
                        pace.epochs += row["epochs_run"]
                        pace.trial_s += row["elapsed_s"] or row["wall_s"] or 0.0
    return found


def _is_spent(tables: StudyTables) -> bool:
    """Return True where the study has a budget, and its runs have reached a limit of it."""
    budget, spending = tables.study.budget, tables.spending
    return budget is not None and budget.is_spent(spending.seconds, spending.node_seconds)


def _seconds_left(stages: list[Pace], seconds: float) -> float | None:
    """Return the seconds that are expected to the end; None where no trial has told how long one takes.

    An arm's epochs take what they took so far, of any stage; those of an arm without any what all took. Trials that run
    beside each other, and what passes between them, are in the ratio of the runs' seconds to those of their trials.
    """
    trial_s, epochs = sum(pace.trial_s for pace in stages), sum(pace.epochs for pace in stages)
    if not any(pace.epochs_left for pace in stages):
        return 0.0
    if not trial_s or not epochs or not seconds:
        return None
    left_s = 0.0
    for pace in stages:
        same = [other for other in stages if other.arm == pace.arm]
        own_s, own_epochs = sum(other.trial_s for other in same), sum(other.epochs for other in same)
        left_s += pace.epochs_left * (own_s / own_epochs if own_s and own_epochs else trial_s / epochs)
    return left_s * seconds / trial_s


def _share(left: float, needed: float) -> float:
    return 1.0 if needed <= 0 else min(1.0, max(0.0, left) / needed)


def _number(value: float) -> str:
    """Format an amount with three digits, small ones not as powers of ten."""
    return f"{value:.3g}" if value >= 0.01 or value == 0 else f"{value:.4f}"
