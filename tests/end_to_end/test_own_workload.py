"""A study of a class in its own file: search, confirmation by Ray Train, kill -9, going on, replay, changed code."""

import subprocess
import sys

import pytest
from support.command_line import command, command_output
from support.outcomes import OUTCOME
from support.own_tasks import write_study
from support.processes import wait_until
from support.without_ray import replace_ray

from qsgd_ray.config.trial import search_trial
from qsgd_ray.results import read
from qsgd_ray.study import _stages as stages

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("own"),
    pytest.mark.timeout(1200),
]


def done(*words):
    """Return exit code and output of the command."""
    finished = subprocess.run(**{**command(*words), "stdout": subprocess.PIPE}, timeout=500)
    return finished.returncode, finished.stdout


def rows(folder):
    return {row["trial_id"]: row for row in read(folder).trials.to_pylist()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of a study that was killed once, and its file, in which a comment was changed meanwhile."""
    folder = tmp_path_factory.mktemp("own")
    file = write_study(folder, change=lambda text: text.replace("workers=1", "workers=2"))
    results = folder / "results" / "rings"
    with subprocess.Popen(**command("run", file, "--storage", folder / "results")) as running:
        try:
            wait_until(lambda: len([*(results / "trials").glob("*.parquet")]) >= 3, 300, "no trial ended")
        finally:
            running.kill()
    before = {path.name: path.read_bytes() for path in (results / "trials").glob("search-*.parquet")}
    commented = file.read_text().replace("# drawn by name", "# by name")
    assert commented != file.read_text()
    file.write_text(commented)
    code, text = done("run", file, "--storage", folder / "results")
    assert code == 0, text
    now = {path.name: path.read_bytes() for path in (results / "trials").glob("search-*.parquet")}
    assert {name: now.get(name, content) for name, content in before.items()} == before
    return folder


def test_every_trial_is_there_once_and_the_arms_differ_in_width(folder):
    trials = rows(folder / "results" / "rings")
    assert len(trials) == 2 * (2 + 2)
    assert {row["ending"] for row in trials.values()} <= {"completed", "stopped_early"}
    assert all('"width":16' in row["trial"] for row in trials.values() if row["arm"] == "wide")
    assert all('"width":8' in row["trial"] for row in trials.values() if row["arm"] == "adamw")


def test_the_report_needs_no_class_and_imports_none(folder):
    results = folder / "results" / "rings"
    script = (
        "import sys, qsgd_ray; result = qsgd_ray.read_results(sys.argv[1]); result.report(); "
        "print(len(result.trials), 'rings_study' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", script, results], capture_output=True, text=True, timeout=300)
    assert finished.stdout == "8 False\n", finished.stderr


def test_a_trial_is_replayed_to_the_bit_with_the_study_file_and_refused_without(folder):
    results = folder / "results" / "rings"
    code, text = done("replay", results, "confirm-wide-s101")
    assert (code, "which is not loaded; allowed: with the study" in text) == (2, True), text
    code, text = done("replay", results, "confirm-wide-s101", "--study", folder / "rings_study.py")
    assert (code, "The same bits" in text) == (0, True), text


def test_a_changed_comment_is_no_other_study(folder):
    tables = read(folder / "results" / "rings")
    assert (tables.n_others, tables.changes) == (0, ())


@pytest.fixture
def forgotten(tmp_path_factory, monkeypatch):
    """Modules of the tests' folders are forgotten at the end."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    places = str(tmp_path_factory.getbasetemp())
    for name in [name for name, module in sys.modules.items() if places in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_changed_code_is_another_study(folder, forgotten, monkeypatch, capsys):
    """The same points are tried again, so nothing but the code sets the trials apart. None of them is trained."""
    results, file = folder / "results" / "rings", folder / "rings_study.py"
    before = rows(results)
    searched = [row for row in before.values() if row["stage"] == "search"]

    def search(tables, context):
        for row in searched:
            point = {"learning_rate": row["learning_rate"]}
            context.results.write(search_trial(tables.study, row["arm"], row["number"], point), OUTCOME)

    replace_ray(monkeypatch)
    monkeypatch.setattr(stages, "run_search", search)
    file.write_text(file.read_text().replace("Tanh", "ReLU"))
    text = command_output(monkeypatch, capsys, "run", file, "--storage", folder / "results", columns=100)
    assert "workload.code" in text
    assert "8 trials lie beside these" in text
    now = rows(results)
    assert len(now) == 8
    assert not {*now} & {*before}
    points = [
        sorted((row["arm"], row["number"], row["learning_rate"]) for row in of.values() if row["stage"] == "search")
        for of in (before, now)
    ]
    assert points[0] == points[1]


LATE = """def loss(self, model, batch):
        if self.width == 16:
            CALLS.append(1)
            if len(CALLS) > 20:
                raise RuntimeError("a late end")
        return super().loss(model, batch)

    def model(self"""


def test_what_the_user_s_code_raises_is_a_failed_row_with_the_user_s_line(tmp_path):
    def late(text):
        return text.replace("def model(self", LATE).replace("class Rings", "CALLS = []\n\n\nclass Rings")

    file = write_study(tmp_path, "late_study", late)
    rates = ["--set", "arms.adamw.learning_rate=0.01", "--set", "arms.wide.learning_rate=0.01"]  # nothing to search
    overrides = [*rates, "--set", "confirm.epochs=30"]
    code, text = done("run", file, "--storage", tmp_path / "results", *overrides)
    assert code == 0, text
    assert "failed         late_study.py, line " in text
    assert "All 2 runs of wide ended in the same error, so nothing is known of this arm: late_study.py, line" in text
    endings = {(row["arm"], row["ending"]) for row in read(tmp_path / "results" / "rings").rows("confirm", "wide")}
    assert endings == {("wide", "failed")}
