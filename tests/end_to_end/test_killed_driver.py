"""kill -9 of the driver amid the search and amid the confirmation: the same command ends with every row once.

Of a killed driver nothing is left, and what was finished stays as it was. Trials run several at once here; with one at
a time the rows are those of an undisturbed study, which is the law of test_chaos.py.
"""

import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from support.command_line import command
from support.processes import lives, wait_until

from qsgd_ray.execution._scratch import PREFIX
from qsgd_ray.results import read

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("killed"),
    pytest.mark.timeout(1200),
]

# A worker goes on for two or three seconds after its driver was killed: the confirmation is to last longer than that.
STUDY = """
from support.small_study import a_study
from qsgd_ray.config import Confirm, Search

STUDY = a_study(
    search=Search(trials_per_arm=4, epochs=60, grace_epochs=20, reduction_factor=2, trials_at_once_per_arm=2),
    confirm=Confirm(seeds=(11, 12, 13, 14), epochs=170, workers=1),
)
"""
KILLS = ("search", "confirm")


@dataclass
class Run:
    """A study that was run to its end, after so many kills."""

    results: Path
    kept: list[dict[str, bytes]] = field(default_factory=list)  # the files of trials' rows after each kill, by name
    scratch: list[set[str]] = field(default_factory=list)  # the scratch folders after each kill and at the end


@contextmanager
def started(words: dict) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(**words) as running:
        try:
            yield running
        finally:
            running.kill()


def run(study_file: Path, storage: Path) -> Run:
    """Start the command, kill it in each of the stages and start it again; in the end let it finish."""
    done = Run(storage / "small")
    trials = done.results / "trials"
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        words = command("run", study_file, "--storage", storage)
        words["env"] |= {"TMPDIR": temporary}
        for stage in KILLS:
            with started(words) as running:

                def has_begun(stage=stage, running=running):
                    return any(trials.glob(f"{stage}-*")) or running.poll() is not None

                wait_until(has_begun, 200, f"{stage} did not begin")
                assert running.poll() is None, running.stdout.read()
                family = psutil.Process(running.pid).children(recursive=True)
                running.kill()
            assert len(family) > 5
            wait_until(lambda gone=family: not any(map(lives, gone)), 30, "a part of a killed driver's Ray stays")
            done.kept.append({file.name: file.read_bytes() for file in trials.glob("[!.]*")})
            done.scratch.append({path.name for path in Path(temporary).glob(f"{PREFIX}*")})
        with started(words) as running:
            told, _ = running.communicate(timeout=300)
        assert running.returncode == 0, told
        done.scratch.append({path.name for path in Path(temporary).glob(f"{PREFIX}*")})
    return done


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("killed")
    study_file = folder / "small.py"
    study_file.write_text(STUDY)
    return run(study_file, folder)


def test_each_kill_comes_amid_its_stage_and_what_was_finished_stays_as_it_was(killed):
    amid_search, amid_confirmation = ([name.split("-")[0] for name in kept] for kept in killed.kept)
    assert 0 < amid_search.count("search") < 8
    assert amid_search.count("confirm") == 0
    assert amid_confirmation.count("search") == 8
    assert 0 < amid_confirmation.count("confirm") < 8
    for kept in killed.kept:
        assert kept == {name: (killed.results / "trials" / name).read_bytes() for name in kept}


def test_of_each_killed_driver_one_folder_is_left_and_only_until_the_next_begins(killed):
    first, second, at_the_end = killed.scratch
    assert (len(first), len(second), len(at_the_end)) == (1, 1, 0)
    assert first != second


def test_every_planned_trial_has_its_rows_once_and_no_other_has(killed):
    tables = read(killed.results)
    trials = tables.trials.to_pylist()
    planned = [("search", arm, number, 0) for arm in ("adamw", "sine") for number in range(4)]
    planned += [("confirm", arm, n, seed) for arm in ("adamw", "sine") for n, seed in enumerate((11, 12, 13, 14))]
    assert sorted((row["stage"], row["arm"], row["number"], row["seed"]) for row in trials) == sorted(planned)
    assert {row["ending"] for row in trials} <= {"completed", "stopped_early"}
    for arm in ("adamw", "sine"):
        rates = {row["learning_rate"] for row in trials if (row["stage"], row["arm"]) == ("search", arm)}
        chosen = {row["learning_rate"] for row in trials if (row["stage"], row["arm"]) == ("confirm", arm)}
        assert len(rates) == 4, "no point is tried twice"
        assert len(chosen) == 1
        assert chosen < rates
    epochs = Counter((row["trial_id"], row["epoch"]) for row in tables.measurements.to_pylist())
    assert set(epochs.values()) == {1}
    assert set(epochs) == {(row["trial_id"], epoch) for row in trials for epoch in range(1, row["epochs_run"] + 1)}
