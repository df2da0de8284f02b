"""A study of several workloads is one ordinary study a workload; one of one workload stays what it was."""

import json

import pytest
from support.own_tasks import Line, Rings
from support.several import EASY, HARD, a_whole
from support.small_study import a_study

from qsgd_ray.config import Arm, Claim, Contrast, Decision, Map, Metric, Study, StudyError, study_from_tree
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import choice_key, confirm_trials, search_key, search_trial

WIDE = (Arm(name="adamw"), Arm(name="wide", workload={"width": 16}))


def test_each_part_is_a_study_of_its_own_with_the_margin_of_its_workload():
    study = a_whole(decision=Decision(margin=0.01, margins={"hard": 0.03}))
    easy, hard = study.parts().values()
    assert (easy.name, hard.name) == ("made/easy", "made/hard")
    assert (easy.workload, hard.workload) == (EASY, HARD)
    assert (easy.decision, hard.decision) == (Decision(margin=0.01), Decision(margin=0.03))
    for part in (easy, hard):
        assert part.workloads is None
        assert (part.arms, part.search, part.confirm, part.seed) == (
            study.arms,
            study.search,
            study.confirm,
            study.seed,
        )
        assert Study.model_validate_json(part.model_dump_json()) == part
        assert part.parts() == {part.name: part}


def test_trials_of_a_part_are_those_of_a_study_of_its_workload_alone():
    part = a_whole().parts()["hard"]
    alone = with_overrides(part, ["name=other"])
    point = {"learning_rate": 1e-3}
    for arm in ("adamw", "sine"):
        assert search_key(part, arm, None) == search_key(alone, arm, None)
        assert choice_key(part, arm) == choice_key(alone, arm)
        assert search_trial(part, arm, 0, point).trial_id == search_trial(alone, arm, 0, point).trial_id
        ids = [[trial.trial_id for trial in confirm_trials(study, arm, point)] for study in (part, alone)]
        assert ids[0] == ids[1]


def test_it_is_equal_to_itself_through_json_and_says_its_workloads_once():
    study = a_whole(decision=Decision(margin=0.01, margins={"hard": 0.03}))
    tree = json.loads(study.model_dump_json())
    assert study_from_tree(tree) == study
    assert [*tree["workloads"]] == ["easy", "hard"]
    assert "workload" not in tree
    assert tree["decision"]["margins"] == {"hard": 0.03}


def test_a_study_of_one_workload_is_stored_as_before():
    tree = json.loads(a_study().model_dump_json())
    assert "workloads" not in tree
    assert "margins" not in tree["decision"]


def test_fields_of_one_workload_are_set_by_its_name():
    study = a_whole(workloads={"rings": Rings(), "line": Line()}, decision=Decision(margin=0.01))
    changed = with_overrides(study, ["workloads.rings.width=32", 'decision.margins={"line": 0.5}'])
    assert changed.parts()["rings"].workload.width == 32
    assert changed.parts()["line"] == with_overrides(study.parts()["line"], ["decision.margin=0.5"])
    with pytest.raises(StudyError, match=r"--set workload.width: got 'workload'; allowed in the study: name, question"):
        with_overrides(study, ["workload.width=32"])


def test_fields_of_an_arm_apply_to_every_workload():
    parts = a_whole(arms=WIDE, workloads={"a": Rings(), "b": Rings(noise=0.3)}).parts()
    assert [part.workload_of(part.arm("wide")).width for part in parts.values()] == [16, 16]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"workload": EASY}, "workloads: in place of workload, not beside it; got both, with easy, hard"),
        ({"workloads": {}}, "workloads: got {}; allowed: Dictionary should have at least 1 item"),
        ({"workloads": {"a/b": EASY}}, "workloads.a/b: "),
        ({"workloads": {"easy": 3}}, "workloads.easy: got 3; allowed: a TextTask, a LanguageTask or a task"),
        ({"workloads": {"studies": EASY}}, "workloads: names that are no folders of a study (checkpoints, "),
        ({"name": "a/b"}, "name: one without / of a study with workloads, whose parts have it; got 'a/b'"),
        (
            {"decision": Decision(margin=0.01, margins={"esay": 0.1})},
            "decision.margins: names of workloads (easy, hard); got 'esay'",
        ),
        (
            {"decision": Decision(margin=0.01, margins={"hard": 1.5})},
            "workloads.hard: decision.margin: below 1, as accuracy is a share; got 1.5",
        ),
        # what is wrong in all of them is said without a workload's name
        ({"baseline": "adam"}, "baseline: one of the arms (adamw, sine); got 'adam'"),
        (
            {"workloads": {"easy": EASY, "line": Line()}, "decision": Decision(metric="accuracy", margin=0.1)},
            "workloads.line: decision.metric: a metric of the workload (mse, n_far, near); got 'accuracy'",
        ),
        (
            {"workloads": {"rings": Rings(), "line": Line()}, "arms": WIDE},
            "workloads.line: arms.wide.workload: fields of the workload (",
        ),
        (
            {
                "claims": (
                    Claim(
                        name="C",
                        text="It wins.",
                        claimed=0.01,
                        contrast=Contrast(arm="sine"),
                        measure="difference",
                        metric="mse",
                    ),
                )
            },
            "claims.C",
        ),
        (
            {
                "workloads": {"easy": EASY, "rings": Rings()},
                "map": Map(arm="sine", axes={"workload.length": (8, 16)}, seeds=(501,), epochs=2),
            },
            "workloads.rings: map.axes: fields of the arm sine or, below workload, of the workload; got ",
        ),
    ],
)
def test_what_is_no_study_is_refused_in_one_line(fields, line):
    with pytest.raises(StudyError) as refused:
        a_whole(**fields)
    text = str(refused.value)
    assert "\n" not in text
    assert text.startswith(line), text


def test_margins_are_of_studies_with_workloads_and_a_task_must_be_there():
    with pytest.raises(StudyError, match=r"decision.margins: none without workloads; got easy"):
        a_study(decision=Decision(margin=0.01, margins={"easy": 0.02}))
    fields = {name: value for name, value in a_study() if name not in ("workload", "workloads")}
    with pytest.raises(StudyError, match=r"workload: got nothing; allowed: a task, or several by name in workloads"):
        Study(**fields)
    with pytest.raises(StudyError, match="a list of claims, as numbers are of studies of one workload"):
        a_whole(claims={"C1": "sine"})


def test_a_wrong_field_of_a_workload_is_named_by_its_path():
    tree = json.loads(a_whole().model_dump_json())
    tree["workloads"]["hard"]["difficulty"] = -1
    with pytest.raises(StudyError, match=r"^workloads.hard.difficulty: got -1; allowed: "):
        study_from_tree(tree)


def test_workloads_may_differ_in_the_metric_that_decides():
    study = a_whole(workloads={"easy": EASY, "line": Line()}, decision=Decision(margin=0.01, margins={"line": 0.5}))
    assert [part.metric.name for part in study.parts().values()] == ["accuracy", "mse"]
    assert study.parts()["line"].metric == Metric("mse", direction="min", unit="m2")
