"""The command `qsgd-ray judge`: a table of (arm, seed, score) in; verdicts by the rule of a study out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qsgd_ray.commands._machine_options import (
    FAIL_HELP,
    FORMAT_HELP,
    check_machine_options,
    exit_on_failure,
    print_text,
)
from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console


def judge(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="A .parquet or .csv file (W&B exports one), mlflow:EXPERIMENT[@URI] or optuna:STUDY@STORAGE.",
        ),
    ],
    baseline: Annotated[str, typer.Option(metavar="ARM", help="The arm that the others are compared with.")],
    margin: Annotated[float, typer.Option(help="The smallest difference that matters, in the unit of the scores.")],
    arm: Annotated[str, typer.Option(metavar="COLUMN", help="Column with the arm's name.")] = "arm",
    seed: Annotated[str, typer.Option(metavar="COLUMN", help="Column with what makes two runs a pair.")] = "seed",
    score: Annotated[str, typer.Option(metavar="COLUMN", help="Column with the score.")] = "score",
    direction: Annotated[
        str | None, typer.Option(help="max or min. Default: as the source says, else max.", show_default=False)
    ] = None,
    kind: Annotated[str, typer.Option(help="share: fractions of one; mean: any other number.")] = "mean",
    unit: Annotated[str, typer.Option(help="Of the scores, for words.", show_default=False)] = "",
    alpha: Annotated[float, typer.Option(help="Level of the tests, over all arms.")] = 0.05,
    power: Annotated[float, typer.Option(help="Of the smallest detectable difference.")] = 0.8,
    missing: Annotated[
        str, typer.Option(help="A seed that an arm has no row of: pending, lost or drop (no pair).")
    ] = "pending",
    state: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with how runs ended.", show_default=False)
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Read only rows that have this value. Repeatable."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page, and verdict.json beside it.", show_default=False),
    ] = None,
    text_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help=FORMAT_HELP, show_default=False)
    ] = None,
    fail_on: Annotated[str | None, typer.Option(metavar="VERDICT", help=FAIL_HELP, show_default=False)] = None,
) -> None:
    """Judge any table of runs (arm, seed, score) by the rule of a study."""
    check_machine_options(text_format, fail_on)
    chosen: dict[str, Any] = {}
    for word in where or []:
        column, sign, value = word.partition("=")
        if not sign or not column:
            raise StudyError(f"--where: got {word!r}; allowed: COLUMN=VALUE")
        chosen[column] = value
    from qsgd_ray.reporting.scores_terminal import scores_report
    from qsgd_ray.scores.judge import judge as judge_table

    try:
        judgement = judge_table(
            table,
            baseline=baseline,
            margin=margin,
            arm=arm,
            seed=seed,
            score=score,
            direction=direction,  # type: ignore[arg-type]
            kind=kind,  # type: ignore[arg-type]
            unit=unit,
            alpha=alpha,
            power=power,
            missing=missing,  # type: ignore[arg-type]
            state=state,
            where=chosen,
        )
        written = None if page is None else judgement.report(page)
    except StudyError as error:
        raise StudyError(_by_option(str(error))) from None
    if text_format is None:
        console = plain_console()
        for part in scores_report(judgement.analysis):
            console.print(part)
        if written is not None:
            console.print(f"Report: {written}", soft_wrap=True, highlight=False, markup=False)
    else:
        print_text(judgement.format(text_format))
    exit_on_failure(judgement.document, fail_on)


def _by_option(message: str) -> str:
    """Return the message of an error with the command's option in place of the function's argument."""
    argument, colon, rest = message.partition(":")
    names = {"table": "TABLE", "path": "--page"}
    return f"{names.get(argument, f'--{argument}')}{colon}{rest}"
