"""A trial comes out again from its row alone, to the bit; where it does not, every value that differs is told."""

import io
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from support.command_line import command_output, said_by
from support.outcomes import OUTCOME
from support.own_tasks import Rings
from support.small_study import a_study

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.config import Arm, Optimizer, Perturbation, StudyError, own_task
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.optimizer_version import with_versions
from qsgd_ray.config.trial import Trial, confirm_trials, search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.study.replay import (
    Difference,
    Replay,
    environment_differences,
    optimizer_differences,
    replay,
    stored_trial,
)
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

CIRCUIT = Perturbation(source="circuit", lambda_=5.0, n_qubits=2)
FAR = Perturbation(source="sine", lambda_=1e38, scope="all")
STUDY = with_overrides(
    a_study(
        arms=(
            Arm(name="adamw", learning_rate=a_study().arms[0].learning_rate),
            Arm(name="circuit", learning_rate=1e-2, perturbation=CIRCUIT),
            Arm(name="far", perturbation=FAR),
        )
    ),
    ["confirm.workers=1", "search.epochs=3"],
)
SEARCHED = search_trial(STUDY, "adamw", 0, {"learning_rate": 3e-3})
CONFIRMED = {arm: confirm_trials(STUDY, arm, {})[0] for arm in ("circuit", "far")}


@pytest.fixture(scope="module")
def results(tmp_path_factory, one_thread) -> Results:
    """One trial that ended by itself, one that was stopped, one that diverged, one that failed, one that was lost."""
    results = Results(tmp_path_factory.mktemp("kept") / "small")
    results.open(STUDY, {"started_at": "2026-01-01T00:00:00+00:00", "python": "2.7", "system": "abacus"})

    def keep(trial: Trial, stop_at: int | None = None) -> None:
        training = train(trial, make_workload(trial.workload), TorchBackend())
        results.write(trial, run(training, lambda m: m.epoch == stop_at), started_at=datetime.now(UTC))

    keep(SEARCHED, stop_at=2)
    keep(CONFIRMED["circuit"])
    keep(CONFIRMED["far"])
    results.write(confirm_trials(STUDY, "circuit", {})[1], Outcome(Ending.LOST))
    return results


@pytest.mark.parametrize("name", ["search-adamw", "confirm-circuit-s11", "confirm-far"])
def test_every_ending_comes_out_again_bit_for_bit(results, name):
    kept = stored_trial(results, name)
    before = {path: path.read_bytes() for path in results.path.rglob("*") if path.is_file()}
    found = replay(kept)
    assert found.differences == ()
    assert (
        found.ending
        == {"search": "stopped_early", "circuit": "completed", "far": "diverged"}[
            "search" if name == "search-adamw" else name.split("-")[1]
        ]
    )
    assert found.n_measurements == kept.row["epochs_run"]
    assert found.parameters_sha256 == kept.row["parameters_sha256"] is not None
    assert before == {path: path.read_bytes() for path in results.path.rglob("*") if path.is_file()}


def test_a_trial_that_raised_raises_again(results, monkeypatch):
    from qsgd_ray.study import replay as module

    trial = confirm_trials(STUDY, "far", {})[1]
    results.write(trial, Outcome(Ending.FAILED, error="ZeroDivisionError in another place"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "train", lambda *_: (1 / 0 for _ in range(1)))
        assert replay(stored_trial(results, trial.trial_id)).differences == ()
    (first, *_) = replay(stored_trial(results, trial.trial_id)).differences
    assert first == Difference("ending", None, "failed", "diverged")


def altered(results: Results, tmp_path, table: str, column: str, change) -> Results:
    """A copy of the results in which one value of the circuit's trial is another."""
    copy = Results(tmp_path / "altered")
    for file in (path for path in results.path.rglob("*") if path.is_file()):
        copy.storage.create_folders(*(str(file.parent.relative_to(results.path)),))
        copy.storage.put(str(file.relative_to(results.path)), file.read_bytes())
    name = f"{table}/{CONFIRMED['circuit'].trial_id}.parquet"
    rows = pq.read_table(copy.path / name)
    changed = rows.to_pylist()
    changed[-1][column] = change(changed[-1][column])
    pq.write_table(type(rows).from_pylist(changed, schema=rows.schema), copy.path / name)
    return copy


@pytest.mark.parametrize(
    ("table", "column", "epoch"), [("trials", "parameters_sha256", None), ("measurements", "train_loss", 2)]
)
def test_one_other_bit_is_told_with_both_values_and_exit_code_1(
    results, tmp_path, monkeypatch, capsys, table, column, epoch
):
    copy = altered(results, tmp_path, table, column, lambda x: x[::-1] if isinstance(x, str) else x * (1 + 2**-52))
    (difference,) = replay(stored_trial(copy, CONFIRMED["circuit"].trial_id)).differences
    assert (difference.column, difference.epoch) == (column, epoch)
    assert difference.stored != difference.replayed
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["qsgd-ray", "replay", str(copy.path), "confirm-circuit-s11"])
    from qsgd_ray import cli

    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    told = capsys.readouterr().out
    assert "1 value differs" in told
    for value in (column, difference.stored, difference.replayed):
        assert str(value) in told


def test_seconds_and_machines_may_differ(results, tmp_path):
    copy = altered(results, tmp_path, "measurements", "wall_s", lambda x: x + 1)
    assert replay(stored_trial(copy, "confirm-circuit-s11")).differences == ()


def test_measurements_that_are_missing_or_too_many_are_differences(results, tmp_path):
    copy = altered(results, tmp_path, "measurements", "epoch", lambda x: x + 1)
    found = replay(stored_trial(copy, "confirm-circuit-s11")).differences
    assert found == (Difference("measurement", 2, None, "there"), Difference("measurement", 3, "there", None))


def test_the_command_says_that_the_bits_are_the_same_and_what_of_the_machine_is_not(results, monkeypatch, capsys):
    told = command_output(monkeypatch, capsys, "replay", results.path, "confirm-circuit-s11", columns=200)
    assert f"{CONFIRMED['circuit'].trial_id}: 2 epochs from seed 11 on one worker" in told
    assert "Made elsewhere: python 2.7, here 3." in told
    assert "; system abacus, here " in told
    assert "The same bits: completed, 2 measurements, parameters " in told


def test_a_name_that_is_none_or_several_is_one_line(results, monkeypatch, capsys):
    for name, said in (
        ("confirm-sine", "TRIAL: got 'confirm-sine'; allowed: confirm-circuit-s11-"),
        ("confirm-circuit", "TRIAL: got 'confirm-circuit'; allowed: one of confirm-circuit-s11-"),
        ("confirm-circuit-s12", "which is lost; allowed: a trial that ended by itself"),
    ):
        code, told = said_by(monkeypatch, capsys, "replay", results.path, name)
        assert (code, told.count("\n")) == (2, 1)
        assert said in told


def test_a_whole_name_is_that_trial_though_another_begins_with_it(tmp_path):
    results = Results(tmp_path)
    results.open(a_study(), {})
    trial = SEARCHED
    results.write(trial, OUTCOME)
    (row,) = results.all_tables().trials.to_pylist()
    longer = pq.read_table(results.path / "trials" / f"{trial.trial_id}.parquet").to_pylist()
    longer[0]["trial_id"] += "x"
    schema = results.all_tables().trials.schema
    pq.write_table(
        results.all_tables().trials.from_pylist(longer, schema=schema),
        results.path / "trials" / f"{trial.trial_id}x.parquet",
    )
    assert stored_trial(results, row["trial_id"]).row["trial_id"] == trial.trial_id


def test_a_row_that_does_not_tell_its_trial_is_one_line(tmp_path):
    results = Results(tmp_path)
    results.open(a_study(), {})
    results.write(SEARCHED, OUTCOME)
    (file,) = (results.path / "trials").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["trial"]), file)
    with pytest.raises(StudyError, match=r"whose row does not tell all of it; allowed: rows of schema 7 and later$"):
        stored_trial(results, "search")
    for file in (results.path / "trials").iterdir():
        file.unlink()
    with pytest.raises(StudyError, match=r"TRIAL: got 'search'; allowed: no trial yet$"):
        stored_trial(results, "search")


def test_the_run_that_made_a_trial_is_the_last_that_began_before_it(tmp_path):
    results = Results(tmp_path)
    for hour in (1, 2, 3):
        results.open(a_study(), {"started_at": f"2026-01-01T0{hour}:00:00+00:00", "python": f"3.{hour}"})
    began = datetime(2026, 1, 1, 2, tzinfo=UTC) + timedelta(microseconds=1)
    results.write(SEARCHED, OUTCOME, started_at=began)
    assert stored_trial(results, "search").made_with["python"] == "3.2"


def test_what_differs_between_two_machines_is_named():
    then = {"python": "3.11", "packages": {"torch": "2.8", "ray": "2.60"}, "hardware": {"cores": 2, "gpus": []}}
    now = {"python": "3.11", "packages": {"torch": "2.9", "ray": "2.60"}, "hardware": {"cores": 4, "gpus": []}}
    assert environment_differences(then, now) == ["packages.torch 2.8, here 2.9", "hardware.cores 2, here 4"]
    assert environment_differences(then, then) == []


def test_many_differences_are_cut_short():
    from rich.console import Console

    from qsgd_ray.commands.replay import _SHOWN, _difference_table

    many = tuple(Difference("train_loss", epoch, 0.1, None) for epoch in range(1, 100))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(_difference_table(Replay(SEARCHED, Ending.COMPLETED, 99, None, many)))
    told = console.export_text()
    assert f"99 values differ, the first {_SHOWN}:" in told
    assert told.count("train_loss") == _SHOWN


def test_an_optimizer_of_another_package_is_imported_where_it_is_trusted(tmp_path, one_thread):
    study = a_study(
        arms=(
            Arm(name="adamw"),
            Arm(name="own", optimizer=Optimizer("support.own_optimizers.Descent", lr=0.1)),
            Arm(name="sgd", optimizer=Optimizer("sgd", lr=0.1)),
        ),
    )
    study = with_overrides(study, ["confirm.workers=1"])
    results = Results(tmp_path / "small")
    results.open(study, {})
    for arm in ("own", "sgd"):
        trial = confirm_trials(study, arm, {})[0]
        training = train(trial, make_workload(trial.workload), TorchBackend())
        results.write(trial, run(training, lambda _: False), started_at=datetime.now(UTC))
    assert replay(stored_trial(results, "confirm-sgd")).differences == ()
    stored = stored_trial(results, "confirm-own")
    line = r"TRIAL: got 'confirm-own-.*', whose row names the optimizer support.own_optimizers.Descent; .*--trust"
    with pytest.raises(StudyError, match=line):
        replay(stored)
    assert replay(stored, trusted=["support"]).differences == ()


def test_a_workload_whose_code_has_changed_is_one_line_with_both_hashes(tmp_path, monkeypatch, capsys):
    study = a_study(workload=Rings(), arms=(Arm(name="adamw"), Arm(name="wide", workload={"width": 16})))
    study = with_overrides(study, ["confirm.workers=1"])
    results = Results(tmp_path / "small")
    results.open(study, {})
    trial = confirm_trials(study, "wide", {})[0]
    results.write(trial, OUTCOME)
    real = own_task.code(Rings)
    monkeypatch.setattr(own_task, "code", lambda _: own_task.Code("0123456789", real.root, real.files, ()))
    code, told = said_by(monkeypatch, capsys, "replay", results.path, "confirm-wide-s11")
    last = told.splitlines()[-1]
    assert code == 2
    assert last.startswith(f"qsgd-ray: TRIAL: got {trial.trial_id!r}, whose workload support.own_tasks:Rings had code ")
    assert f"had code {real.digest} and has 0123456789 here; allowed: the class as it was then" in last


def test_an_optimizer_that_comes_from_elsewhere_here_is_told_where_it_may_be_imported(tmp_path, monkeypatch, capsys):
    arms = (Arm(name="adamw"), Arm(name="own", optimizer=Optimizer("support.own_optimizers.Descent", lr=0.1)))
    study = with_versions(with_overrides(a_study(arms=arms), ["confirm.workers=1"]))
    now = study.arms[1].optimizer.version
    then = study.arms[1].optimizer.model_copy(update={"version": "code 0123456789"})
    changed = study.model_copy(update={"arms": (arms[0], arms[1].model_copy(update={"optimizer": then}))})
    results = Results(tmp_path / "small")
    results.open(changed, {})
    results.write(confirm_trials(changed, "own", {})[0], OUTCOME)
    stored = stored_trial(results, "confirm-own-s11")
    line = f"support.own_optimizers.Descent code 0123456789, here {now}"
    assert now.startswith("code ")
    assert optimizer_differences(stored, ["support"]) == [line]
    assert optimizer_differences(stored) == []
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["qsgd-ray", *f"replay {results.path} confirm-own-s11 --trust support".split()])
    from qsgd_ray import cli

    with pytest.raises(SystemExit):  # these rows were made up
        cli.main()
    assert line in capsys.readouterr().out
