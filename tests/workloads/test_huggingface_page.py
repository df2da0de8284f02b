"""The study and the class that docs/huggingface.md shows train as they are printed."""

import re
import sys

import pytest
from support.huggingface import write_reviews
from support.places import DOCS
from support.trainings import small_trial

from qsgd_ray.config.loading import load_study
from qsgd_ray.config.trial import confirm_trials
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("one_thread")
STUDY, CLASS = re.findall(
    r"^```python\n(.*?)^```$", (DOCS / "huggingface.md").read_text(), flags=re.DOTALL | re.MULTILINE
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The page's study, beside the class, in a folder with data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_reviews(tmp_path / "data" / "reviews", {"train": 32, "dev": 8, "test": 8})
    (tmp_path / "reviews_study.py").write_text(f"{CLASS}\n\n{STUDY}")
    yield load_study(tmp_path / "reviews_study.py")
    sys.modules.pop("reviews_study", None)


def test_the_study_of_the_page_trains_in_each_arm(study):
    for arm in study.arms:
        point = {path: space.edges()[1] for path, space in arm.spaces().items()}
        trial = confirm_trials(study, arm.name, point)[0].model_copy(update={"epochs": 1})
        assert run(train(trial, make_workload(trial.workload), None), lambda _: False).ending is Ending.COMPLETED


def test_the_class_of_the_page_trains(study):
    task = sys.modules["reviews_study"].Sums(pretrained="tiny")
    outcome = run(train(small_trial(workload=task, epochs=1), make_workload(task), None), lambda _: False)
    assert outcome.ending is Ending.COMPLETED
