"""`qsgd-ray bench ...`: what to measure in; medians, ratios and a Parquet file of rows out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qsgd_ray.config import StudyError

if TYPE_CHECKING:
    from qsgd_ray.bench.rows import Timing

bench = typer.Typer(help="Measure this package's speed on this machine.", no_args_is_help=True)

Quick = Annotated[bool, typer.Option("--quick", help="Leave out what takes longest.")]
Budget = Annotated[float, typer.Option("--budget", metavar="SECONDS", min=0.0, help="To measure a case, about.")]
BenchStorage = Annotated[Path, typer.Option("--storage", metavar="DIR", help="Where a Parquet file of rows is added.")]
BENCH_RESULTS = Path("results/bench")


@bench.command("circuits")
def bench_circuits(quick: Quick = False, budget_s: Budget = 2.0, storage: BenchStorage = BENCH_RESULTS) -> None:
    """Exact simulation against Qiskit, Aer, PennyLane and qulacs; wide circuits and long chains."""
    from qsgd_ray.bench.circuits import cases

    _bench("circuits", cases(budget_s, quick), storage)


@bench.command("attention")
def bench_attention(quick: Quick = False, budget_s: Budget = 2.0, storage: BenchStorage = BENCH_RESULTS) -> None:
    """Quantum attention: its response to every score, and training steps against softmax attention."""
    from qsgd_ray.bench.attention import cases

    _bench("attention", cases(budget_s, quick), storage)


@bench.command("optimizer")
def bench_optimizer(quick: Quick = False, budget_s: Budget = 2.0, storage: BenchStorage = BENCH_RESULTS) -> None:
    """A step of the perturbed optimizer against torch's AdamW on the shapes of a 135M LLM: time and peak memory."""
    from qsgd_ray.bench.optimizer import cases

    _bench("optimizer", cases(budget_s, quick), storage)


@bench.command("pool")
def bench_pool(quick: Quick = False, budget_s: Budget = 2.0, storage: BenchStorage = BENCH_RESULTS) -> None:
    """Circuits on Ray actors: against one process, against Ray's tasks, calls and graphs, and beside a training."""
    from qsgd_ray.bench.pool import cases

    _bench("pool", cases(budget_s, quick), storage)


@bench.command("train")
def bench_train(
    quick: Annotated[bool, typer.Option("--quick", help="A model of two layers, in half a minute.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Each of them so often.")] = 3,
    storage: BenchStorage = BENCH_RESULTS,
) -> None:
    """What Ray Train, reports and checkpoints add to a step of fine-tuning SmolLM2-135M (make llm installs it)."""
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    from qsgd_ray.bench.train import cases

    _bench("train", cases(rounds, quick), storage)


@bench.command("engine")
def bench_engine(
    trials: Annotated[int, typer.Option(min=1, help="So many trials a search.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="So many searches.")] = 3,
    storage: BenchStorage = BENCH_RESULTS,
) -> None:
    """What the search adds to a trial beyond training, beside Ray Tune with empty trials."""
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    from qsgd_ray.bench.engine import cases

    _bench("engine", cases(trials, rounds), storage)


@bench.command("report")
def bench_report(
    quick: Annotated[bool, typer.Option("--quick", help="300 trials of 30 epochs.")] = False,
    storage: BenchStorage = BENCH_RESULTS,
) -> None:
    """What a simulated study of 10,000 trials and a million measurements takes to pack, to read and to report."""
    from qsgd_ray.bench.report import cases

    _bench("report", cases(quick), storage)


def _bench(name: str, cases: Iterator[list[Timing]], storage: Path) -> None:
    from qsgd_ray.bench.rows import timing_table, write_rows

    def refused(error: OSError) -> StudyError:
        return StudyError(f"--storage: got {storage}; allowed: a folder that can be written ({error})")

    try:  # before minutes are spent
        storage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(error) from None
    console = Console()
    found: list[Timing] = []
    for rows in cases:
        console.print(timing_table(rows), "")
        found += rows
    try:
        path = write_rows(name, found, storage)
    except OSError as error:
        raise refused(error) from None
    console.print(f"{len(found)} rows: {path.resolve()}", soft_wrap=True, highlight=False)
