"""Assignments of the command line change a study: by name, by index, whole parts, and what follows from them."""

import pytest
from support.small_study import a_study

from qsgd_ray.config import (
    QuantumAttention,
    StudyError,
    Transformer,
)
from qsgd_ray.config.loading import with_overrides


def test_overrides_reach_arms_by_name_and_by_index_and_take_json():
    study = with_overrides(
        a_study(), ["arms.sine.learning_rate=0.5", "arms.0.eps=1e-6", "resources.circuit_actors=null"]
    )
    assert study.arm("sine").learning_rate == 0.5
    assert study.arm("adamw").eps == 1e-6
    assert study.resources.circuit_actors is None


def test_quantum_attention_is_off_and_otherwise_the_papers():
    assert Transformer().attention is None
    assert QuantumAttention() == QuantumAttention(n_qubits=4, depth=2, entangle=True, rotations=("ry", "rz"))
    assert (QuantumAttention().readout, QuantumAttention().phi) == ("amplitude", True)


def test_overrides_switch_quantum_attention_on_change_it_and_switch_it_off():
    on = with_overrides(a_study(), ['workload.model.attention={"n_qubits":2}'])
    assert on.workload.model.attention == QuantumAttention(n_qubits=2)
    assert with_overrides(a_study(), ["workload.model.attention={}"]).workload.model.attention == QuantumAttention()
    changed = with_overrides(on, ["workload.model.attention.n_qubits=3", "workload.model.attention.entangle=ring"])
    assert changed.workload.model.attention == QuantumAttention(n_qubits=3, entangle="ring")
    assert with_overrides(on, ["workload.model.attention=null"]) == a_study()


def test_a_search_with_several_trials_at_once_says_that_it_is_not_deterministic():
    assert a_study().search.deterministic
    assert not with_overrides(a_study(), ["search.trials_at_once_per_arm=2"]).search.deterministic


def test_neither_is_one_that_looks_at_seconds():
    assert not with_overrides(a_study(), ['search.objectives=["quality","step_time"]']).search.deterministic
    assert with_overrides(a_study(), ['search.objectives=["quality","circuits"]']).search.deterministic


def test_fewer_workers_go_on_from_a_checkpoint_and_so_want_one():
    with pytest.raises(StudyError, match=r"least_workers with checkpoint_steps; got 2 without"):
        with_overrides(a_study(), ["resources.least_workers=2"])
    kept = with_overrides(a_study(), ["resources.checkpoint_steps=5", "resources.least_workers=2"])
    assert kept.resources.least_workers == 2
