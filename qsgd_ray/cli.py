"""The command `qsgd-ray`: words in; rows, a report and a verdict out. Exit code 2 and one line for bad input.

Ctrl-C and SIGTERM (`ray job stop`, a batch system's limit) end it alike: rows are kept, exit code 130 or 143.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from qsgd_ray import __version__
from qsgd_ray.config import STAGES, Study, StudyError
from qsgd_ray.overrides import asked_scale, with_overrides
from qsgd_ray.storage import Folder, Storage, StorageError, is_hanging, storage_at

if TYPE_CHECKING:
    from qsgd_ray.bench.rows import Timing
    from qsgd_ray.results import Results

app = typer.Typer(
    help="Studies of quantum-circuit perturbations of AdamW, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

bench = typer.Typer(help="Measure this package's speed on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")


TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as Ctrl-C is."""


def main() -> None:
    """The console script."""
    try:
        app()
    except (StudyError, StorageError) as error:
        _complain(error)
        code = 2 if isinstance(error, StudyError) else 1
        if is_hanging():
            os._exit(code)
        raise SystemExit(code) from None


def _complain(error: BaseException) -> None:
    Console(stderr=True).print(f"qsgd-ray: {error}", soft_wrap=True, highlight=False, markup=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Studies of quantum-circuit perturbations of AdamW, on Ray."""


@app.command()
def run(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.py", help="A file that ends in STUDY = Study(...).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change a field, e.g. confirm.seeds=[1,2,3]; scale=NAME: a file's other size. Repeatable.",
        ),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Results go to DIR/<study name>, a folder or e.g. s3://BUCKET/PREFIX; the same again goes on there.",
        ),
    ] = "results",
    address: Annotated[
        str | None,
        typer.Option(
            help="A running Ray cluster, e.g. auto. Default: RAY_ADDRESS, else a private one on this machine."
        ),
    ] = None,
) -> None:
    """Run a study (or go on with it), write its report and print the verdict."""
    from qsgd_ray.study_file import load_study

    scale, changes = asked_scale(overrides or [])
    study = with_overrides(load_study(study_file, scale), changes)
    place = storage_at(storage) / study.name
    if isinstance(place, Folder):
        place = Folder(place.path.resolve())
    try:
        with _sigterm_as_ctrl_c():
            _run(study, study_file, overrides or [], place, address)
    except Terminated:  # before a trial began, or after the last
        raise SystemExit(TERMINATED) from None


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def terminate(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is the way out
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(study: Study, study_file: Path, overrides: list[str], place: Storage, address: str | None) -> None:
    from qsgd_ray.connection import connect, refuse_what_cannot_run, settle, shortage

    settle()
    from qsgd_ray.bulletin import Bulletin
    from qsgd_ray.circuits.backends import CircuitError
    from qsgd_ray.progress import Progress
    from qsgd_ray.provenance import provenance
    from qsgd_ray.results import Results
    from qsgd_ray.study import StudyUnfinished, run_study

    console = Console()
    results = Results(place)
    console.print(f"{study.name}: {study.question}", style="bold", soft_wrap=True)
    planned = {(stage, arm.name): study.planned(stage, arm) for stage in STAGES for arm in study.arms}
    failures: list[BaseException] = []
    refuse_what_cannot_run(study, address)
    results.open(study, provenance(study, study_file, overrides, address))
    results.write_text("study.py", study_file.read_text())
    try:
        # The inner one: ray.init has put a handler of its own in the place of the first, which knows nothing of rows.
        with connect(study, address, place) as cluster, _sigterm_as_ctrl_c():
            if not cluster.private and (short := shortage(study)):
                console.print(short, soft_wrap=True, highlight=False)
            bulletin = Bulletin()

            def stages() -> None:
                try:
                    run_study(study, results, cluster, bulletin)
                except BaseException as error:
                    failures.append(error)

            # Not in the main thread: there Tune and Train would take over Ctrl-C, each in its own way.
            work = threading.Thread(target=stages, name="stages", daemon=True)
            try:
                with Progress(console, planned, results) as progress:
                    work.start()
                    while work.is_alive():
                        work.join(timeout=0.5)
                        for event in bulletin.drain():
                            progress.show(event)
            except KeyboardInterrupt as interrupt:
                if cluster.private:
                    raise
                # `ray job stop` kills after 3 s, and taking leave of Ray amid a fit can take longer. A cluster clears
                # away by itself what a driver leaves behind.
                _leave(interrupt, results, console)
    except KeyboardInterrupt as interrupt:
        _leave(interrupt, results, console)
    if failures and not isinstance(failures[0], StudyUnfinished | CircuitError):
        raise failures[0]
    _report(place, console)
    failed = sum(row["checkpoints_failed"] or 0 for row in results.read().trials.to_pylist())
    if failed:
        _complain(StorageError(f"{failed} checkpoints could not be written to {place}; no row is missing for that"))
    if failures:
        _complain(failures[0])
        raise SystemExit(1)


def _leave(interrupt: KeyboardInterrupt, results: Results, console: Console) -> NoReturn:
    try:
        kept = f"{results.count()} finished trials are"
    except StorageError as error:
        kept = f"What is finished is (how many: {error})"
    told = f"Interrupted. {kept} kept in {results.path}; the same command goes on from there."
    console.print(told, soft_wrap=True, highlight=False)
    # Ray's threads may still wait for processes that are gone.
    os._exit(TERMINATED if isinstance(interrupt, Terminated) else 130)


@app.command()
def report(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's results: a folder or e.g. s3://BUCKET/PREFIX.")
    ],
) -> None:
    """Write DIR/report.html and print the verdict."""
    place = storage_at(where, "DIR")
    try:
        _report(place, Console())
    except StorageError as error:
        raise StudyError(
            f"DIR: got {place}; allowed: a study's results that can be read and written ({error})"
        ) from None


@app.command()
def circuit(
    qubits: Annotated[int, typer.Option(min=1, max=16, help="Qubits.")] = 4,
    depth: Annotated[int, typer.Option(min=1, help="Layers.")] = 2,
    entangle: Annotated[str, typer.Option(help="chain, ring, all or none.")] = "chain",
    rotations: Annotated[str, typer.Option(help="The rotations of a layer, in order.")] = "ry,rz",
    seed: Annotated[int, typer.Option(help="Of the drawn angles; 0: all angles are 0.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write circuit and curves as a page that works offline.")
    ] = None,
) -> None:
    """Draw a circuit, and how its amplitudes respond to a score that enters every layer (quantum attention)."""
    import math

    import torch

    from qsgd_ray.circuits.auto import AutoBackend
    from qsgd_ray.circuits.series import fourier_series, n_frequencies
    from qsgd_ray.circuits.spec import CircuitSpec
    from qsgd_ray.response_plot import response_figure, terminal_plot

    try:
        spec = CircuitSpec(qubits, depth, entangle, tuple(rotations.split(",")))  # type: ignore[arg-type]
    except ValueError as error:
        raise StudyError(str(error)) from None
    generator = torch.Generator().manual_seed(seed)
    angles = math.pi * (2 * torch.rand(spec.angles_shape(1), generator=generator, dtype=torch.float64) - 1) * bool(seed)
    console = Console()
    console.print(spec.draw(console.width), soft_wrap=True, highlight=False, markup=False)
    responses = {}
    others = (f" + ... + psi_{qubits - 1}", f" + ... + |psi_{qubits - 1}|^2") if qubits > 1 else ("", "")
    for readout, words in (("amplitude", f"Re(psi_0{others[0]})"), ("probability", f"|psi_0|^2{others[1]}")):
        responses[words] = fourier_series(spec, angles, readout)  # type: ignore[arg-type]
        waves = n_frequencies(spec, readout)  # type: ignore[arg-type]
        console.print(f"\n{words} of x, exact from {waves} circuits (angles of seed {seed}):", highlight=False)
        # The labels of the axis take ten columns.
        plot = terminal_plot(responses[words], width=max(16, min(72, console.width - 10)))
        console.print(plot, soft_wrap=True, highlight=False, markup=False)
    pick = AutoBackend().pick(spec, 1024)
    console.print(f"\n<Z_i> for the optimizer, 1,024 circuits at a time: auto picks {pick.name}.", highlight=False)
    console.print(pick.reason, style="dim", highlight=False, markup=False)
    if picture is not None:
        figure = response_figure(responses, str(spec), spec.draw())
        try:
            figure.write_html(picture, include_plotlyjs=True)
        except OSError as error:
            raise StudyError(f"--picture: got {picture}; allowed: a file that can be written ({error})") from None
        console.print(f"Picture: {picture.resolve()}", soft_wrap=True, highlight=False)


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
    from qsgd_ray.connection import settle

    settle()
    from qsgd_ray.bench.train import cases

    _bench("train", cases(rounds, quick), storage)


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


def _report(place: Storage, console: Console) -> None:
    from qsgd_ray.report import summary_table, throughput_table, verdict_table, write_report
    from qsgd_ray.results import read

    tables = read(place)
    try:
        page = write_report(place)
    except StorageError:
        raise
    except OSError as error:
        raise StudyError(f"DIR: got {place}; allowed: a folder in which report.html can be written ({error})") from None
    console.print(summary_table(tables))
    if tables.study.workload.kind == "llm":
        console.print(throughput_table(tables))
    console.print(verdict_table(tables))
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
