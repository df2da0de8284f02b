"""The design of a study, seen before its first trial; and the designs of the studies that are shipped."""

import numpy as np
import pytest
from support.places import STUDIES
from support.small_study import a_study

from qsgd_ray.analysis.design import out_of_reach
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.analysis.verdict import MIN_PAIRS, Verdict, decide
from qsgd_ray.config import Confirm, Decision, Study
from qsgd_ray.config._study_module import run_study_file


def shipped() -> dict[str, Study]:
    """Every study of every file at every scale."""
    found = {}
    for file in sorted(STUDIES.rglob("*.py")):
        names = run_study_file(file)
        for scale, study in {"STUDY": names.get("STUDY"), **names.get("SCALES", {})}.items():
            if isinstance(study, Study):
                found[f"{file.stem} {scale}"] = study
    return found


SHIPPED = shipped()


def planning(n_pairs: int) -> Study:
    return a_study(
        confirm=Confirm(seeds=tuple(range(11, 11 + n_pairs)), epochs=1), decision=Decision(margin=0.05, alpha=0.01)
    )


def test_too_few_pairs_are_one_line_that_names_the_field():
    assert out_of_reach(planning(3)) == (
        "5 pairs are needed for a verdict at alpha 0.01; this study plans 3 (confirm.seeds), so every arm will end "
        "inconclusive."
    )


@pytest.mark.parametrize("n_pairs", range(1, 8))
def test_the_line_is_there_where_no_data_would_bring_a_verdict_and_only_there(n_pairs):
    study = planning(n_pairs)
    clear = Pairs(0.5 + 0.0001 * np.arange(n_pairs))
    (verdict,) = decide({"sine": clear}, study.decision, study.baseline)
    assert (verdict.verdict is Verdict.INCONCLUSIVE) == (out_of_reach(study) is not None)


@pytest.mark.parametrize("study", SHIPPED.values(), ids=SHIPPED)
def test_every_shipped_study_can_reach_its_verdict(study):
    assert len(study.confirm.seeds) >= MIN_PAIRS
    assert out_of_reach(study) is None
