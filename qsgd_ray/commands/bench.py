"""The command `qsgd-ray bench ...`: measure this package's speed; medians, ratios and a Parquet file of rows out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console

if TYPE_CHECKING:
    from qsgd_ray.bench.rows import Timing

bench = typer.Typer(help="Measure this package's speed on this machine.", no_args_is_help=True)

_Quick = Annotated[bool, typer.Option("--quick", help="Leave out what takes longest.")]
_Budget = Annotated[float, typer.Option("--budget", metavar="SECONDS", min=0.0, help="To measure a case, about.")]
_BenchStorage = Annotated[Path, typer.Option("--storage", metavar="DIR", help="Where a Parquet file of rows is added.")]
_BENCH_RESULTS = Path("results/bench")


@bench.command("circuits")
def _circuits(
    quick: Annotated[bool, typer.Option("--quick", help="Eight small cases.")] = False,
    every: Annotated[bool, typer.Option("--all", help="All cases: hours.")] = False,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="So many; again for more. Default: 1 and 2.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="This one alone; again for more.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Cases with this in their name; again for more.")] = None,
    budget_s: _Budget = 2.0,
    storage: _BenchStorage = _BENCH_RESULTS,
) -> None:
    """Circuits against every peer that is installed: answers compared, then states, <Z> and gradients timed."""
    from qsgd_ray.bench.circuits.threads import run_with_threads, threads_of_this_process

    if threads_of_this_process() is not None:
        from qsgd_ray.bench.circuits.run import ENGINE_NAMES, cases

        for name in engine or ():
            if name not in ENGINE_NAMES:
                raise StudyError(f"--engine: got {name!r}; allowed: {', '.join(ENGINE_NAMES)}")
        _measure("circuits", cases(budget_s, quick, every, engine or (), case or ()), storage)
        return
    available = os.cpu_count() or 1
    for number in threads or range(1, min(available, 2) + 1):
        if number > available:
            raise StudyError(f"--threads: got {number}; allowed: 1 to {available}, the processors here")
        words = ["bench", "circuits", *["--quick"] * quick, *["--all"] * every, f"--budget={budget_s}"]
        words += [f"--engine={name}" for name in engine or ()] + [f"--case={word}" for word in case or ()]
        if code := run_with_threads(number, [*words, f"--storage={storage}"]):
            raise typer.Exit(code)


@bench.command("attention")
def _attention(quick: _Quick = False, budget_s: _Budget = 2.0, storage: _BenchStorage = _BENCH_RESULTS) -> None:
    """Quantum attention: its response to every score, and training steps against softmax attention."""
    from qsgd_ray.bench.attention import cases

    _measure("attention", cases(budget_s, quick), storage)


@bench.command(
    "optimizer",
    help="A step of the perturbed optimizer against torch's AdamW on the shapes of a 135M LLM: time and peak memory.",
)
def _optimizer(quick: _Quick = False, budget_s: _Budget = 2.0, storage: _BenchStorage = _BENCH_RESULTS) -> None:
    """Measure a step of the perturbed optimizer against torch's AdamW."""
    from qsgd_ray.bench.optimizer import cases

    _measure("optimizer", cases(budget_s, quick), storage)


@bench.command("pool")
def _pool(quick: _Quick = False, budget_s: _Budget = 2.0, storage: _BenchStorage = _BENCH_RESULTS) -> None:
    """Circuits on Ray actors: against one process, against Ray's tasks, calls and graphs, and beside a training."""
    from qsgd_ray.bench.pool import cases

    _measure("pool", cases(budget_s, quick), storage)


@bench.command(
    "train",
    help="What Ray Train, reports and checkpoints add to a step of fine-tuning SmolLM2-135M (make llm installs it).",
)
def _train(
    quick: Annotated[bool, typer.Option("--quick", help="A model of two layers, in half a minute.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Each of them so often.")] = 3,
    storage: _BenchStorage = _BENCH_RESULTS,
) -> None:
    """Measure what Ray Train adds to a step of fine-tuning."""
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    from qsgd_ray.bench.train import cases

    _measure("train", cases(rounds, quick), storage)


@bench.command("engine", help="What the search adds to a trial beyond training, beside Ray Tune with empty trials.")
def _engine(
    trials: Annotated[int, typer.Option(min=1, help="So many trials a search.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="So many searches.")] = 3,
    storage: _BenchStorage = _BENCH_RESULTS,
) -> None:
    """Measure what the search adds to a trial beyond training."""
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    from qsgd_ray.bench.engine import cases

    _measure("engine", cases(trials, rounds), storage)


@bench.command(
    "report",
    help="What a simulated study of 10,000 trials and a million measurements takes to pack, to read and to report.",
)
def _report(
    quick: Annotated[bool, typer.Option("--quick", help="300 trials of 30 epochs.")] = False,
    storage: _BenchStorage = _BENCH_RESULTS,
) -> None:
    """Measure how long a large simulated study takes to pack, to read and to report."""
    from qsgd_ray.bench.report import cases

    _measure("report", cases(quick), storage)


def _measure(name: str, cases: Iterator[list[Timing]], storage: Path) -> None:
    """Print the rows of each case as it ends, and write all of them to one file."""
    from qsgd_ray.bench.rows import timing_table, write_rows

    def refusal(error: OSError) -> StudyError:
        return StudyError(f"--storage: got {storage}; allowed: a folder that can be written ({error})")

    try:  # before minutes are spent
        storage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(error) from None
    console = plain_console()
    rows: list[Timing] = []
    for of_case in cases:
        console.print(timing_table(of_case), "")
        rows += of_case
    try:
        path = write_rows(name, rows, storage)
    except OSError as error:
        raise refusal(error) from None
    console.print(f"{len(rows)} rows: {path.resolve()}", soft_wrap=True, highlight=False)
