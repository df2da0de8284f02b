"""Every version of a study is kept, and a change after the first trial is told."""

import json

import pytest
from support.places import STUDIES
from support.rerun_studies import reopened
from support.small_study import a_study
from support.synthetic_results import made, runs

from qsgd_ray.analysis.claims import check_claims
from qsgd_ray.config import Study, StudyError
from qsgd_ray.config.loading import load_study, with_overrides
from qsgd_ray.results import Results, read
from qsgd_ray.results._versions import differences, versions
from qsgd_ray.study.reading import read_results


def test_every_version_is_kept_and_told_with_its_fields_and_its_time(results):
    reopened(results, "decision.margin=0.2", "confirm.seeds=[11,12,13]")
    reopened(results)
    first, second, third = versions(results.storage)
    assert (first.changed, first.trials_before) == ((), 0)
    assert second.changed == ("confirm.seeds [11, 12], then [11, 12, 13]", "decision.margin 0.05, then 0.2")
    assert (second.trials_before, third.trials_before) == (8, 10)
    assert Study.model_validate(second.study).decision.margin == 0.2
    assert first.name[4:] == third.name[4:] != second.name[4:]
    provenance = read(results.path).provenance
    assert provenance["study_version"] == first.name
    assert [run["study_version"] for run in provenance["resumed"]] == [second.name, third.name]
    assert provenance["study_changed"] == [second.summary, third.summary]
    assert second.summary == f"{second.since}, after 8 trials: {'; '.join(second.changed)}"


def test_a_study_that_is_changed_before_its_first_trial_has_nothing_to_tell(tmp_path):
    results = Results(tmp_path)
    results.open(a_study(), {})
    results.open(with_overrides(a_study(), ["decision.margin=0.2"]), {})
    assert len(versions(results.storage)) == 2
    assert read(tmp_path).changes == ()
    assert "study_changed" not in read(tmp_path).provenance


def test_a_kill_between_the_version_and_the_study_loses_no_confession(results, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            results.open(with_overrides(a_study(), ["decision.margin=0.2"]), {})
    results.open(with_overrides(a_study(), ["decision.margin=0.2"]), {})
    (change,) = read(results.path).changes
    assert change.changed == ("decision.margin 0.05, then 0.2",)
    assert read(results.path).study.decision.margin == 0.2


def test_page_and_terminal_say_what_was_changed_and_what_does_not_count(results, monkeypatch, capsys):
    from support.command_line import command_output

    fixed = "Margin, target, seeds and budget were fixed before the first trial."
    page = results.path / "report.html"
    read_results(results.path).report()
    assert fixed in page.read_text()
    assert 'class="notes"' not in page.read_text()
    reopened(results, "confirm.seeds=[11]")
    told = command_output(monkeypatch, capsys, "report", results.path)
    for text in (told, page.read_text()):
        assert "The study was changed after trials had been run, so not all was written before the first one:" in text
        assert "after 8 trials: confirm.seeds [11, 12], then [11]" in text
        assert "2 trials lie beside these that the study as it is now would not run; none counts here." in text
    assert fixed not in page.read_text()
    assert 'class="notes"' in page.read_text()


def test_a_broken_version_is_one_line_that_names_it(results):
    (file,) = (results.path / "studies").iterdir()
    file.write_text("{}")
    with pytest.raises(StudyError, match=rf"DIR: got {file}, which is broken \(.*\); allowed: a version of a study$"):
        read(results.path)


def test_a_version_that_is_no_study_any_more_is_compared_as_it_was_kept(results):
    (file,) = (results.path / "studies").iterdir()
    kept = json.loads(file.read_text())
    kept["study"]["frob"] = 1
    file.write_text(json.dumps(kept))
    results.open(a_study(), {})
    assert [change.changed for change in read(results.path).changes] == [("frob removed",)]


def test_fields_that_came_since_are_no_change(results):
    (file,) = (results.path / "studies").iterdir()
    kept = json.loads(file.read_text())
    del kept["study"]["seed"], kept["study"]["search"]["workers"]
    file.write_text(json.dumps(kept))
    results.open(a_study(), {})
    assert read(results.path).changes == ()


def test_claims_by_number_are_those_that_the_study_states_now(tmp_path):
    """A folder from before claims were data is gone on with as it is: nothing of it has changed."""
    study = load_study(STUDIES / "paper_text.py")
    made({arm.name: runs([0.9] * 5) for arm in study.arms}, study=study).write(tmp_path)
    numbers = {claim.name: claim.contrast.arm for claim in study.claims}
    (version,) = (tmp_path / "studies").iterdir()
    for file in (tmp_path / "study.json", version):
        kept = json.loads(file.read_text())
        tree = kept.get("study", kept) if file == version else kept
        tree["claims"] = numbers
        del tree["ladder"]
        file.write_text(json.dumps(kept))
    stored = read(tmp_path)
    assert stored.study == study
    Results(tmp_path).open(study, {})
    assert len(versions(Results(tmp_path).storage)) == 1
    assert read(tmp_path).changes == ()
    assert [claim.finding for claim in check_claims(stored)] == [
        claim.finding for claim in check_claims(read(tmp_path))
    ]


def test_a_claim_that_came_late_is_told_by_its_name(results):
    claim = {"name": "late", "text": "it is better", "contrast": "sine", "measure": "difference", "claimed": 0.1}
    reopened(results, f"claims=[{json.dumps(claim)}]")
    reopened(results, f"claims=[{json.dumps(claim | {'claimed': 0.2})}]", "ladder=[]")
    added, changed = read(results.path).changes
    assert added.changed == ("claims.late added",)
    assert changed.changed == ("claims.late.claimed 0.1, then 0.2", "ladder [] added")


def test_differences_call_arms_by_name():
    old, new = (a_study().model_dump(mode="json") for _ in range(2))
    new["arms"] = [new["arms"][1] | {"weight_decay": 0.5}, new["arms"][1] | {"name": "more"}]
    assert list(differences(old, new)) == [
        "arms.adamw removed",
        "arms.sine.weight_decay 0.0, then 0.5",
        "arms.more added",
    ]
