"""A study is equal to itself through JSON, and studies of earlier versions are read."""

import json

from hypothesis import given
from hypothesis import strategies as st
from support.searches import CONDITIONAL
from support.small_study import a_study

from qsgd_ray.config import (
    Arm,
    ChatFormat,
    Choice,
    LanguageTask,
    LogUniform,
    Lora,
    Perturbation,
    QuantumAttention,
    TextTask,
    Transformer,
    Uniform,
    WordProblems,
    study_from_tree,
)

LEARNING_RATES = st.one_of(
    st.floats(1e-6, 1.0),
    st.floats(1e-6, 1e-3).map(lambda low: LogUniform(low=low, high=10 * low)),
    st.floats(1e-6, 1e-3).map(lambda low: Uniform(low=low, high=10 * low)),
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=4).map(lambda options: Choice(options=tuple(options))),
)


ENTANGLEMENTS = st.sampled_from(["chain", "ring", "all", "none", True, False])


@given(LEARNING_RATES, st.sampled_from(["sine", "circuit", "zero"]), st.integers(1, 40), ENTANGLEMENTS)
def test_a_study_round_trips_through_json(learning_rate, source, n_qubits, entangle):
    perturbation = Perturbation(source=source, n_qubits=n_qubits, entangle=entangle, rotations=("rx", "ry"))
    study = a_study(arms=(Arm(name="adamw"), Arm(name="q", learning_rate=learning_rate, perturbation=perturbation)))
    assert study_from_tree(json.loads(study.model_dump_json())) == study


ATTENTIONS = st.builds(
    QuantumAttention,
    n_qubits=st.integers(1, 12),
    depth=st.integers(1, 64),
    entangle=ENTANGLEMENTS,
    rotations=st.lists(st.sampled_from(["rx", "ry", "rz"]), min_size=1, max_size=4).map(tuple),
    readout=st.sampled_from(["amplitude", "probability"]),
    per_head=st.booleans(),
    phi=st.booleans(),
    compiled=st.booleans(),
)


@given(st.none() | ATTENTIONS)
def test_a_study_of_quantum_attention_round_trips_through_json(attention):
    study = a_study(workload=TextTask(model=Transformer(attention=attention)))
    assert study_from_tree(json.loads(study.model_dump_json())) == study
    assert study.workload.model.attention == attention


LANGUAGE_TASKS = st.builds(
    LanguageTask,
    data=st.builds(WordProblems, source=st.just("gsm8k"), train_size=st.none() | st.integers(8, 9)),
    form=st.builds(ChatFormat, loss_on=st.sampled_from(["answer", "all"]), pack=st.booleans()),
    lora=st.none() | st.builds(Lora, r=st.integers(1, 9)),
    attention=st.none() | ATTENTIONS,
    batch_size=st.sampled_from([2, 4]),
    steps_per_epoch=st.none() | st.integers(1, 9),
    decay=st.sampled_from(["constant", "linear"]),
    clip_norm=st.none() | st.floats(0.1, 10),
)


@given(LANGUAGE_TASKS)
def test_a_study_of_a_language_model_round_trips_through_json(task):
    study = a_study(workload=task)
    assert study_from_tree(json.loads(study.model_dump_json())) == study


def test_a_workload_without_a_kind_is_a_text_task():
    tree = a_study().model_dump(mode="json")
    del tree["workload"]["kind"]
    assert study_from_tree(tree) == a_study()


def test_a_conditional_study_round_trips_through_json():
    study = a_study(arms=(Arm(name="adamw"), CONDITIONAL))
    assert study_from_tree(json.loads(study.model_dump_json())) == study


def test_a_study_of_the_time_of_one_search_seed_is_read():
    tree = a_study().model_dump(mode="json")
    del tree["search"]["seeds"]
    assert study_from_tree(tree | {"search": tree["search"] | {"seed": 7}}).search.seeds == (7,)
