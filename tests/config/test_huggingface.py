"""A HuggingFaceTask is settings: named by the content of its folders, equal through JSON, readable without them."""

import json
import shutil

import pytest
from support.huggingface import a_task, write_reviews

from qsgd_ray.config import (
    Arm,
    Confirm,
    Decision,
    HuggingFaceTask,
    Lora,
    Search,
    Splits,
    StoredTask,
    Study,
    StudyError,
    own_task,
    study_from_tree,
)
from qsgd_ray.config.trial import confirm_trials

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Echo(HuggingFaceTask):
    """Examples of its own."""

    size: int = 8

    def texts(self, generator):
        rows = [(str(index), index % 2) for index in range(self.size)]
        return Splits(rows, rows[:4], rows[4:])


def a_study(task, **fields):
    return Study(
        **{
            "name": "tuned",
            "question": "Do twenty tokens do?",
            "workload": task,
            "arms": (Arm(name="a"), Arm(name="b", workload={"max_length": 20})),
            "baseline": "a",
            "search": Search(trials_per_arm=1, epochs=2),
            "confirm": Confirm(seeds=(101,), epochs=1, workers=1),
            "decision": Decision(margin=0.01),
        }
        | fields
    )


def ids(study):
    return [confirm_trials(study, arm.name, {})[0].trial_id for arm in study.arms]


def test_it_is_used_without_a_class_and_comes_back_from_json(tmp_path):
    study = a_study(a_task(tmp_path, lora=Lora(r=2)))
    tree = json.loads(study.model_dump_json())
    assert tree["workload"]["kind"] == "qsgd_ray:HuggingFaceTask"
    assert study_from_tree(tree) == study
    assert ids(study_from_tree(tree)) == ids(study)
    assert [metric.name for metric in study.workload.measured] == ["accuracy", "loss"]


def test_a_changed_folder_is_other_trials_and_a_touched_one_is_not(tmp_path):
    task = a_task(tmp_path)
    before = ids(a_study(task))
    files = [*(tmp_path / "data").iterdir()]
    for path in files:  # the same bytes at another time
        path.write_bytes(path.read_bytes())
    (tmp_path / "data" / "notes.txt").write_text("no data")
    (tmp_path / "data" / ".hidden.csv").write_text("text,label\n")
    assert ids(a_study(a_task(tmp_path))) == before
    write_reviews(tmp_path / "data", {"test": 13})
    changed = HuggingFaceTask(**task.model_dump(exclude={"content", "kind", "code", "measured"}))
    assert changed.content != task.content
    assert not {*ids(a_study(changed))} & {*before}
    with pytest.raises(StudyError, match=r"dataset: got '.*data' with content [0-9a-f]{16}; allowed: [0-9a-f]{16}, as"):
        task.require_same_content()


def test_stored_settings_are_read_where_the_folders_are_gone(tmp_path, monkeypatch):
    study = a_study(a_task(tmp_path))
    tree, names = json.loads(study.model_dump_json()), ids(study)
    shutil.rmtree(tmp_path / "data")
    again = study_from_tree(tree)
    assert again == study
    assert ids(again) == names
    with pytest.raises(StudyError, match=r"dataset: got .* with content no such folder; allowed: "):
        again.workload.require_same_content()
    monkeypatch.setattr(own_task, "_CLASSES", {})
    stored = study_from_tree(tree)
    assert isinstance(stored.workload, StoredTask)
    assert ids(stored) == names


def test_an_arm_with_another_model_has_that_models_content(tmp_path):
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    task = a_task(tmp_path, pretrained=str(tmp_path / "left"))
    study = a_study(task, arms=(Arm(name="a"), Arm(name="b", workload={"pretrained": str(tmp_path / "right")})))
    other = study.workload_of(study.arm("b"))
    assert other.content["dataset"] == task.content["dataset"]
    assert other.content["pretrained"].endswith("right")
    assert other.content["pretrained"].split()[0] != task.content["pretrained"].split()[0]
    other.require_same_content()


def test_a_class_of_ones_own_states_examples_and_fields():
    task = Echo(pretrained="tiny", size=6)
    assert task.kind.endswith(":Echo")
    assert task.content == {}
    assert own_task.code(Echo).packages[-1][0] == "transformers"
    assert task.required_modules["transformers"] == "workload.pretrained"
    assert "peft" not in task.required_modules
    assert Echo(pretrained="tiny", lora=Lora()).required_modules["peft"] == "workload.lora"
    assert study_from_tree(json.loads(a_study(task).model_dump_json())).workload == task


def test_a_causal_head_measures_loss_and_perplexity():
    task = HuggingFaceTask(pretrained=f"owner/model@{COMMIT}", dataset=f"owner/data@{COMMIT}", head="causal")
    loss, perplexity = task.measured
    assert (loss.name, loss.direction, perplexity.name, perplexity.kind) == ("loss", "min", "perplexity", "geometric")
    assert task.is_language_model
    assert task.has_long_steps
    assert task.content == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"pretrained": "owner/model"},
            r"pretrained: 'tiny', 'smollm2-135m', a folder, or one of the hub with its commit",
        ),
        ({"pretrained": "owner/model@main"}, "40 hexadecimal digits; got 'owner/model@main'"),
        ({"dataset": "nowhere"}, "dataset: a folder, or one of the hub with its commit.*; got 'nowhere'"),
        ({"dataset": None}, "dataset: a folder or a data set of the hub, or a class with a method texts; got None"),
        ({"head": "causal", "pair_column": "b"}, "pair_column: None with head causal; got 'b'"),
        ({"subset": "../up"}, "subset: a folder within the data set; got '../up'"),
        ({"n_classes": 1}, "n_classes: got 1; allowed: greater than or equal to 2"),
        ({"held_out": 1.0}, "held_out: got 1.0; allowed: less than 1"),
        ({"head": "regression"}, "head: got 'regression'; allowed: 'classification' or 'causal'"),
        ({"max_length": 1}, "max_length: got 1; allowed: greater than or equal to 2"),
        ({"model": "tiny"}, "model: got 'tiny'; allowed: no field of this name"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(tmp_path, fields, said):
    with pytest.raises(StudyError, match=said) as caught:
        a_task(tmp_path, **fields)
    assert "\n" not in str(caught.value)


def test_a_class_that_states_examples_has_no_data_set(tmp_path):
    with pytest.raises(StudyError, match=r"dataset: None, as Echo states its own; got "):
        Echo(pretrained="tiny", dataset=str(tmp_path))
