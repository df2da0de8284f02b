"""An arm takes points of exactly the spaces that have an effect there."""

import pytest
from support.searches import CONDITIONAL, reachable

from qsgd_ray.config import (
    Arm,
    Choice,
    LogUniform,
    Perturbation,
    StudyError,
)


def test_an_arm_takes_a_point_of_exactly_its_spaces():
    arm = Arm(
        name="q",
        learning_rate=LogUniform(low=1e-4, high=1e-2),
        perturbation=Perturbation(source="circuit", n_qubits=Choice(options=(2, 4))),
    )
    assert list(arm.spaces()) == ["learning_rate", "perturbation.n_qubits"]
    resolved = arm.at({"learning_rate": 1e-3, "perturbation.n_qubits": 2})
    assert (resolved.learning_rate, resolved.perturbation.n_qubits) == (1e-3, 2)
    assert resolved.spaces() == {}
    with pytest.raises(StudyError, match="arm q: a point must set"):
        arm.at({"learning_rate": 1e-3})


def test_a_field_is_asked_for_only_where_it_has_an_effect():
    def asked(source: str, scope: str) -> str:
        there = {"perturbation.source": source, "perturbation.scope": scope}
        if source == "zero":
            del there["perturbation.scope"]
        return " ".join(path.rpartition(".")[2] for path in CONDITIONAL.spaces_at(there))

    assert list(CONDITIONAL.spaces_at({})) == ["perturbation.source"]
    assert list(CONDITIONAL.spaces_at({"perturbation.source": "sine"})) == ["perturbation.source", "perturbation.scope"]
    assert asked("circuit", "all") == "learning_rate source lambda_ n_qubits depth entangle scope"
    assert asked("sine", "all") == "learning_rate source lambda_ scope"
    assert asked("sine", "tensor") == "learning_rate source lambda_ n_qubits scope"
    assert asked("random_sign", "all") == "learning_rate source lambda_ n_qubits scope"
    assert asked("zero", "all") == "learning_rate source"


def test_every_point_that_can_be_reached_is_an_arm_and_takes_what_its_source_takes():
    points = reachable(CONDITIONAL)
    assert len(points) == 2 * (2 * 2 * 16 + (4 + 2) + 1 + 2 * 4)
    arms = [CONDITIONAL.at(point) for point in points]
    assert not any(arm.spaces() for arm in arms)
    for arm in arms:
        assert (arm.perturbation.shots is not None) == (arm.perturbation.source == "sampled")
    assert len({arm.model_dump_json() for arm in arms}) == len(arms), "no two points are the same training"
    with pytest.raises(StudyError, match=r"arm q: a point must set .*'perturbation.scope'.*, got .*n_qubits"):
        CONDITIONAL.at({"learning_rate": 1e-3, "perturbation.source": "sine", "perturbation.n_qubits": 2})
