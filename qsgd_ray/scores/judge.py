"""Judge rows of others: any table of (arm, seed, score) in; the verdicts of a study's rule out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from qsgd_ray.analysis.score_rule import MOST_MARGINS, ScoreRule
from qsgd_ray.analysis.scores import ScoreAnalysis, Scores, analyse_scores
from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.config import Decision, StudyError
from qsgd_ray.reporting.scores_document import scores_document
from qsgd_ray.reporting.verdict_document import as_json
from qsgd_ray.reporting.verdict_formats import formatted_verdict
from qsgd_ray.scores._reading import Columns, read_scores
from qsgd_ray.scores._sources import rows_of
from qsgd_ray.storage import Folder, StorageError, shown

_CHOICES = {"direction": ("max", "min"), "kind": ("mean", "share"), "missing": ("pending", "lost", "drop")}
# A margin outside cannot be scaled to one near 1 without loss.
_MARGINS = (1e-100, 1e100)


@dataclass(frozen=True, eq=False)
class Judgement:
    """The verdicts on a table of scores; an iterator over them, and printed as one line an arm.

    Attributes:
        analysis: everything that the scores show.
    """

    analysis: ScoreAnalysis = field(repr=False)

    @property
    def verdicts(self) -> tuple[ArmVerdict, ...]:
        """One for each arm but the baseline, in the order of the table; differences in the unit of the scores."""
        return self.analysis.verdicts

    @cached_property
    def document(self) -> dict[str, Any]:
        """The verdicts and the rule behind them as a JSON tree, that of verdict.json (docs/results.md)."""
        return scores_document(self.analysis)

    def format(self, text_format: str) -> str:
        """Return the verdicts as text for another program or a paper: `json`, `csv`, `markdown` or `latex`.

        Raises:
            StudyError: there is no such format.
        """
        return formatted_verdict(self.document, text_format)

    def report(self, path: str | Path) -> Path:
        """Write the page, which works offline, and beside it `verdict.json`, and return where the page is.

        Args:
            path: of the page; its folder is made where it is missing.

        Raises:
            StudyError: the file cannot be written.
        """
        from qsgd_ray.reporting.scores_page import render_scores_page

        file = Path(path)
        folder = Folder(file.parent)
        try:
            folder.create_folders()
            folder.put(file.name, render_scores_page(self.analysis).encode())
            folder.put("verdict.json", as_json(self.document).encode())
        except StorageError as error:
            if error.is_of_disk:
                raise
            raise StudyError(f"path: got {path}; allowed: a file that can be written ({error.strerror})") from None
        return file

    def __iter__(self) -> Iterator[ArmVerdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __repr__(self) -> str:
        numbers = self.analysis.rule.numbers
        unit = f" {numbers.unit_of_differences}".rstrip()
        entries = self.document["verdicts"]
        return "\n".join(
            f"{v['arm']}: {v['verdict']}, {numbers.difference(v['difference'])}{unit} "
            f"({numbers.interval(v['interval'])}). {v['reason']}"
            for v in entries
        )

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        lines = "".join(f"<li>{escape(line)}</li>" for line in repr(self).splitlines())
        return f"<p>{escape(self.analysis.headline)}</p><ul>{lines}</ul>"


def judge(
    table: Any,
    *,
    baseline: str,
    margin: float,
    arm: str = "arm",
    seed: str = "seed",
    score: str = "score",
    direction: Literal["max", "min"] | None = None,
    kind: Literal["mean", "share"] = "mean",
    unit: str = "",
    alpha: float = 0.05,
    power: float = 0.8,
    missing: Literal["pending", "lost", "drop"] = "pending",
    state: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> Judgement:
    """Return the verdict on every arm of a table against its baseline, by the rule of a study (docs/verdicts.md).

    Runs of one seed are a pair. A run without a finite score, or whose ending says that it failed, has no result: it
    loses to one that has. The verdicts are as good as the seeds: nothing here knows whether all arms were tuned with
    the same budget, and whether the margin was set before the scores were seen.

    Args:
        table: a row a run: a pandas or polars data frame, an Arrow table, a dict of columns, a list of dicts; the path
            or URI of a .parquet or .csv file (W&B exports one); a `ResultGrid` of Ray Tune, an Optuna study or
            "optuna:STUDY@STORAGE", a list of MLflow runs or "mlflow:EXPERIMENT[@TRACKING_URI]".
        baseline: name of the arm that the others are compared with.
        margin: the smallest difference that matters, in the unit of the scores; > 0, and below 1 for a share.
        arm: column with the arm's name. A column `params.NAME`, `config/NAME`, `user_attrs_NAME` or the like will do,
            here and for the next two.
        seed: column with what makes runs of two arms a pair: a number or a name.
        score: column with the score.
        direction: "max" where more is better, "min" where less is; None: as the source says, else "max".
        kind: "share" for fractions of one, which are shown in percent and points; "mean" for any other number.
        unit: of the scores, for words; "" for none.
        alpha: chance of calling an arm without an effect better or worse, over all arms (Holm), in (0, 0.5).
        power: chance of finding the smallest detectable difference that is named, in (0.5, 1).
        missing: a seed that other arms have and an arm has no row of is a run still to come ("pending", and nothing is
            decided), a run without a result ("lost"), or no pair at all ("drop").
        state: column with how a run ended. None: `ending`, `state`, `State` or `status`, where all words in it are
            known.
        where: by column the value that rows must have; others are left out and counted.

    Raises:
        StudyError: an argument or a row is wrong; one line.

    Example:
        >>> rows = [
        ...     {"arm": arm, "seed": seed, "score": 1.0 + seed / 10 - gain}
        ...     for arm, gain in (("adamw", 0.0), ("muon", 0.3))
        ...     for seed in range(8)
        ... ]
        >>> [verdict] = judge(rows, baseline="adamw", margin=0.1, direction="min")
        >>> verdict.verdict, verdict.difference
        (<Verdict.BETTER: 'better'>, -0.3)
    """
    for option, value, allowed in (
        ("direction", direction, (None, *_CHOICES["direction"])),
        ("kind", kind, _CHOICES["kind"]),
        ("missing", missing, _CHOICES["missing"]),
    ):
        if value not in allowed:
            raise StudyError(f"{option}: got {value!r}; allowed: {', '.join(map(repr, allowed))}")
    for option, text in (("arm", arm), ("seed", seed), ("score", score), ("unit", unit), ("baseline", baseline)):
        if not isinstance(text, str):
            raise StudyError(f"{option}: got {text!r}; allowed: a text")
    rows = rows_of(table)
    rule = ScoreRule(
        score=score,
        baseline=baseline,
        decision=_decision(margin, kind, alpha, power),
        margin=float(margin),
        direction=direction or rows.directions.get(rows.find("score", score), "max"),
        kind=kind,
        unit=unit,
        missing=missing,
    )
    scores = read_scores(rows, Columns(arm, seed, score, state, where))
    _check_scores(scores, rule)
    return Judgement(analyse_scores(scores, rule))


def _decision(margin: Any, kind: str, alpha: float, power: float) -> Decision:
    low, high = (0.0, 1.0) if kind == "share" else _MARGINS
    is_number = isinstance(margin, Real) and not isinstance(margin, bool)
    if not is_number or not low < float(margin) < high:
        allowed = "a number above 0 and below 1, as scores are shares" if kind == "share" else "a number above 0"
        raise StudyError(f"margin: got {margin!r}; allowed: {allowed}")
    try:
        return Decision(margin=0.5 if kind != "share" else margin, alpha=alpha, power=power)
    except StudyError as error:
        raise StudyError(str(error).removeprefix("Decision.")) from None


def _check_scores(scores: Scores, rule: ScoreRule) -> None:
    arms = list(scores.by_arm)
    if rule.baseline not in arms:
        names = ", ".join(shown(name, 30) for name in arms[:8]) + (" ..." if len(arms) > 8 else "")
        raise StudyError(f"baseline: got {rule.baseline!r}; allowed: an arm of the table ({names})")
    if len(arms) < 2:
        raise StudyError(f"arm: got {arms[0]!r} alone; allowed: at least two arms, one of them the baseline")
    for arm, of_arm in scores.by_arm.items():
        for seed, score in of_arm.items():
            if score is None:
                continue
            at = f"of arm {shown(arm, 40)} at seed {shown(seed, 40)}"
            if rule.kind == "share" and not 0 <= score <= 1:
                raise StudyError(f"score: got {score!r} {at}; allowed: a share from 0 to 1, or kind 'mean'")
            if abs(score) > MOST_MARGINS * rule.margin:
                raise StudyError(f"score: got {score!r} {at}; allowed: up to {MOST_MARGINS:g} times the margin")
