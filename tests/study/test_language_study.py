"""A whole study of a language model: both stages under Ray with workers of their own, its rows, and its report."""

from pathlib import Path

import pytest
from rich.console import Console
from support.places import STUDIES
from support.small_study import a_study
from support.small_tasks import a_language_task

from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.config import Arm, Confirm, LogUniform, Perturbation, Resources, Search, StudyError
from qsgd_ray.config.loading import load_study
from qsgd_ray.execution.preflight import require_runnable
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting.terminal import study_report
from qsgd_ray.results import Results, read
from qsgd_ray.results.provenance import provenance
from qsgd_ray.study._stages import run_stages
from qsgd_ray.study.reading import read_results

pytest.importorskip("transformers")

PAPER_LLM = STUDIES / "paper_llm.py"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    task = a_language_task(
        tmp_path_factory.mktemp("problems"),
        batch_size=2,
        steps_per_epoch=2,
        warmup_steps=1,
        decay="linear",
        clip_norm=1.0,
        n_answers=3,
        max_new_tokens=2,
    )
    perturbation = Perturbation(source="circuit", n_qubits=2)
    rate = LogUniform(low=1e-3, high=1e-2)  # the other arm has nothing to search
    return a_study(
        workload=task,
        arms=(Arm(name="adamw"), Arm(name="circuit", learning_rate=rate, perturbation=perturbation)),
        search=Search(trials_per_arm=1, epochs=1, grace_epochs=1),
        confirm=Confirm(seeds=(11, 12), epochs=2, workers=2),
        resources=Resources(circuit_actors=None),
    )


@pytest.fixture(scope="module")
def finished(study, cluster, tmp_path_factory) -> Path:
    results = Results(tmp_path_factory.mktemp("study"))
    results.open(study, provenance(study, None, [], None))
    run_stages(study, results, cluster)
    return results.path


def test_every_planned_trial_has_its_row_and_its_answers(study, finished):
    tables = read(finished)
    assert tables.study == study
    rows = tables.trials.to_pylist()
    assert [(row["ending"], row["error"]) for row in rows] == [(Ending.COMPLETED, None)] * 5
    confirmed = [row for row in rows if row["stage"] == "confirm"]
    assert sorted((row["arm"], row["seed"]) for row in confirmed) == [
        (arm, seed) for arm in ("adamw", "circuit") for seed in (11, 12)
    ]
    assert all((row["answers"], row["steps"], row["workers"]) == (3, 4, 2) for row in confirmed)
    assert all(row["train_loss"] > 0 and row["test_accuracy"] is not None for row in confirmed)
    assert all(row["answers"] is None and row["steps"] == 2 for row in rows if row["stage"] == "search")
    assert all((row["n_circuits"] > 0) == (row["arm"] == "circuit") for row in rows)
    assert set(tables.provenance["packages"]) >= {"transformers", "peft", "reasoning-gym"}


def test_its_report_speaks_of_tokens_losses_and_answers(finished):
    page = read_results(finished).report().read_text()
    for told in ("test accuracy of answer tokens", "training loss", "without a number", "<td>6</td>"):
        assert told in page, told
    console = Console(width=160, record=True)
    console.print(*study_report(analyse(read(finished))))
    assert "points of test accuracy of answer tokens" in console.export_text()


def test_the_papers_scale_is_its_recipe():
    study = load_study(PAPER_LLM, "paper")
    task = study.workload
    assert (task.batch_size, task.warmup_steps, task.decay, task.clip_norm) == (1, 500, "linear", 1.0)
    assert task.form.context == 2048
    assert task.steps_per_epoch * study.confirm.epochs == task.data.train_size, "one pass over the data"
    assert {(arm.learning_rate, arm.weight_decay, arm.betas, arm.eps) for arm in study.arms} == {
        (2e-5, 0.01, (0.9, 0.999), 1e-8)
    }
    assert len(study.confirm.seeds) == 10


def test_every_scale_warms_up_over_as_large_a_part_as_the_paper():
    for scale in ("short", "laptop", "paper"):
        study = load_study(PAPER_LLM, scale)
        steps = study.workload.steps_per_epoch * study.confirm.epochs
        assert study.workload.warmup_steps == pytest.approx(500 / 7000 * steps, abs=0.5), scale


def test_a_model_that_is_not_there_is_refused_before_anything_runs(study):
    missing = study.model_copy(update={"workload": study.workload.model_copy(update={"model": "nothing"})})
    with pytest.raises(StudyError, match=r"^workload: model: got 'nothing', and there is no such folder; allowed: "):
        require_runnable(missing, None)
    require_runnable(study, None)
