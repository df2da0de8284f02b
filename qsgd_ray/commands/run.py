"""The command `qsgd-ray run`: run a study to its report and verdict, or a study of limits to its fits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from qsgd_ray.commands._interrupts import EndingSignals, Interrupted, command_interrupts
from qsgd_ray.commands._print_result import print_result
from qsgd_ray.commands.errors import complain
from qsgd_ray.config import Limits, Study, StudyError
from qsgd_ray.config.loading import split_scale, with_overrides
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import Folder, StorageError, held, storage_at


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
    signals = EndingSignals()
    try:
        with signals.raised():
            if isinstance(study, Limits):
                _run_limits(with_overrides(study, changes), study_file, overrides or [], storage, address, signals)
            else:
                _run(study, study_file, overrides or [], storage, address, track or [], signals)
    except Interrupted:  # before a trial began, or after the last
        raise SystemExit(signals.exit_code()) from None


def _run(
    study: Study,
    study_file: Path,
    overrides: list[str],
    storage: str,
    address: str | None,
    track: list[str],
    signals: EndingSignals,
) -> None:
    from qsgd_ray.study.run import run as run_study

    console = plain_console()
    result = run_study(
        study,
        storage=storage,
        address=address,
        track=track,
        study_file=study_file,
        overrides=overrides,
        interrupts=command_interrupts(signals, console),
    )
    print_result(result, console)
    for warning in result.warnings:
        complain(StorageError(warning))
    if result.failure:
        complain(RuntimeError(result.failure))
        raise SystemExit(1)


def _run_limits(
    limits: Limits,
    study_file: Path,
    overrides: list[str],
    storage: str,
    address: str | None,
    signals: EndingSignals,
) -> None:
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

    console = plain_console()
    place = storage_at(storage) / limits.name
    results = LimitsResults(Folder(place.path.resolve()) if isinstance(place, Folder) else place)
    console.print(f"{limits.name}: {limits.question}", style="bold", soft_wrap=True)
    measured = {"matmul_flops_per_s": matmul_flops_per_s("cpu", torch.float32)}
    with held(results.storage) as lease:
        results.open(limits, environment_record(study_file, overrides) | {"measured": measured})
        results.storage.put("study.py", study_file.read_bytes())
        try:
            for done in run_limits(limits, results):
                before = f", {done.n_before} there already" if done.n_before else ""
                line = f"{done.curve.name}: {done.n_now} sizes in {done.seconds:.1f} s{before}"
                console.print(line, soft_wrap=True, highlight=False)
        except KeyboardInterrupt:
            line = f"Interrupted. What is measured is kept in {results.path}; the same command goes on from there."
            console.print(line, soft_wrap=True, highlight=False)
            lease.release()
            os._exit(signals.exit_code())
        except CircuitError as error:
            complain(error)
            raise SystemExit(1) from None
        lease.check()
        print_limits(results, console)
