"""The classes that README and docs show are workloads: each trains as it is printed."""

import re
import sys

import pytest
from support.places import DOCS, ROOT
from support.trainings import small_trial

from qsgd_ray.config import Arm
from qsgd_ray.config.loading import load_study
from qsgd_ray.config.own_task import code
from qsgd_ray.config.trial import confirm_trials
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(page):
    """Return the Python of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


PAGE, README, SEVERAL = (
    blocks(page) for page in (DOCS / "own_workload.md", ROOT / "README.md", DOCS / "several_workloads.md")
)
STUDY = """
STUDY = Study(
    name="own", question="Does it train?", workload={task}, arms=(Arm(name="a"), Arm(name="b", workload={fields})),
    baseline="a", search=Search(trials_per_arm=1, epochs=2), confirm=Confirm(seeds=(101,), epochs=2, workers=1),
    decision=Decision(margin=0.01),
)
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads a study from its text; its module is forgotten at the end."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def load(text):
        (tmp_path / "page_study.py").write_text(text)
        return load_study(tmp_path / "page_study.py")

    yield load
    sys.modules.pop("page_study", None)


def all_train(study):
    points = {arm.name: {path: space.edges()[1] for path, space in arm.spaces().items()} for arm in study.arms}
    for name, point in points.items():
        trial = confirm_trials(study, name, point)[0].model_copy(update={"epochs": 2})
        outcome = run(train(trial, make_workload(trial.workload), None), lambda _: False)
        assert outcome.ending is Ending.COMPLETED
        yield outcome


def test_the_study_of_the_page_trains(load):
    study = load(PAGE[0])
    assert study.workload.kind == "page_study:Spirals"
    assert len([*all_train(study)]) == 2


def test_the_study_of_several_workloads_trains_on_each(load):
    parts = load(SEVERAL[0]).parts()
    assert [*parts] == ["spirals", "rings"]
    assert [len([*all_train(part)]) for part in parts.values()] == [2, 2]


def test_the_metrics_of_the_page_are_measured(load):
    methods = """
    def data(self, generator):
        x = torch.randn(64, 1, generator=generator)
        return Splits((x, 2 * x), (x, 2 * x), (x, 2 * x))

    def model(self, generator):
        return torch.nn.Linear(1, 1)

    def loss(self, model, batch):
        return (model(batch[0]) - batch[1]).square().mean()
"""
    text = "import torch\nfrom qsgd_ray.config import *\n\n" + PAGE[1] + methods
    text += STUDY.format(task="Line()", fields={"batch_size": 16})
    for outcome in all_train(load(text)):
        assert [*outcome.test_metrics] == ["mse", "near"]


def test_the_objective_of_the_page_is_minimised(load):
    text = "import torch\nfrom qsgd_ray.config import *\n\n" + PAGE[2]
    text += STUDY.format(task="Chain(steps_per_epoch=20)", fields={"n_spins": 4})
    for outcome in all_train(load(text)):
        assert outcome.measurements[1].validation_loss < outcome.measurements[0].validation_loss


def test_the_class_of_the_readme_trains(load):
    own = next(block for block in README if "(SupervisedTask)" in block)
    study = load(own)
    assert len(study.arms) == 3
    assert all(outcome.test_metrics is not None for outcome in all_train(study))


def test_the_code_of_the_page_is_that_of_its_class_alone(load):
    first = load(PAGE[0])
    second = load(PAGE[0].replace("margin=0.01", "margin=0.02").replace("range(101, 107)", "range(101, 120)"))
    assert code(type(first.workload)).digest == code(type(second.workload)).digest
    assert small_trial(workload=first.workload, arm=Arm(name="a")).trial_id.startswith("confirm-a-s7-")
