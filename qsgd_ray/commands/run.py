"""The command `qsgd-ray run`: run a study to its report and verdict, or a study of limits to its fits.

Ctrl-C, SIGTERM (`ray job stop`, a batch system's limit) and SIGHUP (a terminal that is closed) end it alike: rows are
kept, nothing is left running, exit code 130, 143 or 129.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from qsgd_ray.commands._print_result import print_result
from qsgd_ray.commands.errors import complain
from qsgd_ray.config import Limits, Study, StudyError
from qsgd_ray.config.loading import split_scale, with_overrides
from qsgd_ray.storage import Folder, StorageError, storage_at

if TYPE_CHECKING:
    from qsgd_ray.execution.connection import Cluster
    from qsgd_ray.results import Results
    from qsgd_ray.study.run import Interrupts

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, taken as Ctrl-C is."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.exit_code = 128 + number


def run(
    study_file: Annotated[
        Path, typer.Argument(metavar="STUDY.py", help="A file that ends in STUDY = Study(...), or Limits(...).")
    ],
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
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WHERE]",
            help="Show trials live by tensorboard[=FOLDER] or mlflow[=URI]; default: among the results. Repeatable.",
        ),
    ] = None,
) -> None:
    """Run a study (or go on with it), write its report and print the verdict."""
    from qsgd_ray.config.loading import load_study

    scale, changes = split_scale(overrides or [])
    study = load_study(study_file, scale)
    try:
        with _signals_as_ctrl_c():
            if isinstance(study, Limits):
                _run_limits(with_overrides(study, changes), study_file, overrides or [], storage, address)
            else:
                _run(study, study_file, overrides or [], storage, address, track or [])
    except _Terminated as interrupt:  # before a trial began, or after the last
        raise SystemExit(interrupt.exit_code) from None


@contextmanager
def _signals_as_ctrl_c() -> Iterator[None]:
    """Raise `_Terminated` in the block where the process is asked to end, or its terminal hangs up."""
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def terminate(number: int, _frame: Any) -> None:
        for each in _ENDING_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # one is enough: the study ends from here on
        for stream in terminals:
            if not os.isatty(stream):  # its terminal is gone, and every write would raise
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        raise _Terminated(number)

    # nohup lets SIGHUP be ignored, and that stays so.
    taken = [each for each in _ENDING_SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, terminate) for each in taken}
    try:
        yield
    except SystemExit as left:
        if left.code != signal.SIGTERM:
            raise
        raise _Terminated from None  # ray.init has a handler of its own, which this one met
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _exit_code(interrupt: KeyboardInterrupt) -> int:
    return interrupt.exit_code if isinstance(interrupt, _Terminated) else 128 + signal.SIGINT


def _run(
    study: Study, study_file: Path, overrides: list[str], storage: str, address: str | None, track: list[str]
) -> None:
    from qsgd_ray.study.run import run as run_study

    console = Console()
    result = run_study(
        study,
        storage=storage,
        address=address,
        track=track,
        study_file=study_file,
        overrides=overrides,
        interrupts=_command_interrupts(console),
    )
    print_result(result, console)
    for warning in result.warnings:
        complain(StorageError(warning))
    if result.failure:
        complain(RuntimeError(result.failure))
        raise SystemExit(1)


def _command_interrupts(console: Console) -> Interrupts:
    """Return the contexts in which Ctrl-C, SIGTERM and SIGHUP keep the rows, say so and end this process."""
    from qsgd_ray.study.run import Interrupts

    class CommandInterrupts(Interrupts):
        @contextmanager
        def starting(self, results: Results) -> Iterator[None]:
            try:
                with _signals_as_ctrl_c():
                    yield
            except KeyboardInterrupt as interrupt:
                _leave(interrupt, results, console)

        @contextmanager
        def running(self, results: Results, cluster: Cluster) -> Iterator[None]:
            try:
                # ray.init has put a handler of its own in the place of the first, which knows nothing of rows.
                with _signals_as_ctrl_c():
                    yield
            except KeyboardInterrupt as interrupt:
                if cluster.private:
                    raise
                # `ray job stop` kills after 3 s, and taking leave of Ray amid a fit can take longer. A cluster clears
                # away by itself what a driver leaves behind.
                _leave(interrupt, results, console)

    return CommandInterrupts()


def _run_limits(limits: Limits, study_file: Path, overrides: list[str], storage: str, address: str | None) -> None:
    if address is not None:
        raise StudyError(f"--address: got {address!r}; allowed: none, as a study of limits measures this machine")
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    import torch

    from qsgd_ray.circuits.errors import CircuitError
    from qsgd_ray.limits.page import print_limits
    from qsgd_ray.limits.rows import LimitsResults
    from qsgd_ray.limits.run import run_limits
    from qsgd_ray.results.provenance import environment_record
    from qsgd_ray.training.hardware import matmul_flops_per_s

    console = Console()
    place = storage_at(storage) / limits.name
    results = LimitsResults(Folder(place.path.resolve()) if isinstance(place, Folder) else place)
    console.print(f"{limits.name}: {limits.question}", style="bold", soft_wrap=True)
    measured = {"matmul_flops_per_s": matmul_flops_per_s("cpu", torch.float32)}
    results.open(limits, environment_record(study_file, overrides) | {"measured": measured})
    results.storage.put("study.py", study_file.read_bytes())
    try:
        with _signals_as_ctrl_c():
            for done in run_limits(limits, results):
                before = f", {done.n_before} there already" if done.n_before else ""
                line = f"{done.curve.name}: {done.n_now} sizes in {done.seconds:.1f} s{before}"
                console.print(line, soft_wrap=True, highlight=False)
    except KeyboardInterrupt as interrupt:
        line = f"Interrupted. What is measured is kept in {results.path}; the same command goes on from there."
        console.print(line, soft_wrap=True, highlight=False)
        os._exit(_exit_code(interrupt))
    except CircuitError as error:
        complain(error)
        raise SystemExit(1) from None
    print_limits(results, console)


def _leave(interrupt: KeyboardInterrupt, results: Results, console: Console) -> NoReturn:
    """Say what is stored, and end this process at once."""
    try:
        stored = f"{results.count()} finished trials are"
    except StorageError as error:
        stored = f"What is finished is (how many: {error})"
    line = f"Interrupted. {stored} kept in {results.path}; the same command goes on from there."
    console.print(line, soft_wrap=True, highlight=False)
    # Ray's threads may still wait for processes that are gone.
    os._exit(_exit_code(interrupt))
