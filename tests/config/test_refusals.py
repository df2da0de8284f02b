"""A wrong field of a study is one line: the field, what came, what is allowed."""

import pytest
from pydantic import ValidationError
from support.small_study import a_study

from qsgd_ray.config import (
    LogUniform,
    Perturbation,
    StudyError,
    Uniform,
    study_from_tree,
)
from qsgd_ray.config.loading import with_overrides


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("arms.sine.perturbation.lambda_=-2", "arms.sine.perturbation.lambda_: got -2; allowed: a number >= 0"),
        ("arms.sine.perturbation.n_qubits=0", "arms.sine.perturbation.n_qubits: got 0; allowed: a whole number from 1"),
        ("arms.sine.perturbation.n_qubits=2.5", "arms.sine.perturbation.n_qubits: got 2.5; allowed: a whole number"),
        ("arms.sine.perturbation.n_qubits=4097", "arms.sine.perturbation.n_qubits: got 4097; allowed: a whole number"),
        (
            "arms.sine.perturbation.source=zap",
            "arms.sine.perturbation.source: got 'zap'; allowed: 'sine', 'circuit', 'sampled', ",
        ),
        (
            "arms.sine.perturbation.depth=65",
            "arms.sine.perturbation.depth: got 65; allowed: a whole number from 1 to 64",
        ),
        (
            'arms.sine.perturbation.n_qubits={"kind":"choice","options":["two","4"]}',
            "arms.sine.perturbation.n_qubits: allowed: a whole number from 1 to 4096, or a space of such",
        ),
        (
            'arms.sine.perturbation.source={"kind":"choice","options":["sine","zap"]}',
            "arms.sine.perturbation.source: allowed: 'sine', 'circuit', 'sampled', ",
        ),
        (
            'arms.sine.perturbation.source={"kind":"choice","options":["sine","sampled"]}',
            "arms.sine.perturbation: allowed: shots, with source sampled",
        ),
        (
            'arms.sine.perturbation.source={"kind":"choice","options":["sine","noisy"]}',
            "arms.sine.perturbation: allowed: noise with the source noisy",
        ),
        (
            'arms.sine.perturbation.scope={"kind":"choice","options":[1,2]}',
            "arms.sine.perturbation.scope: allowed: 'model', 'tensor' or 'all', or a Choice of such",
        ),
        (
            'arms.sine.perturbation.entangle={"kind":"uniform","low":1,"high":2}',
            "arms.sine.perturbation.entangle: allowed: 'chain', 'ring', 'all' or 'none', or a Choice of such",
        ),
        ("arms.sine.learning_rate=0", "arms.sine.learning_rate: got 0; allowed: a number > 0"),
        (
            'arms.sine.perturbation={"source":"sine","x":3}',
            "arms.sine.perturbation.x: got 3; allowed: no field of this",
        ),
        (
            'arms.sine.learning_rate={"kind":"log_uniform","low":3,"high":1}',
            "arms.sine.learning_rate: allowed: a number",
        ),
        ("arms.sine.frob=1", "--set arms.sine.frob: got 'frob'; allowed in arms.sine: name, learning_rate"),
        ("arms.cosine.name=x", "--set arms.cosine.name: got 'cosine'; allowed in arms: adamw, sine"),
        ("name.x=1", "--set name.x: got 'x'; allowed in name: nothing below a plain value"),
        ("search.trials_per_arm", "--set: got 'search.trials_per_arm'; allowed: path=value"),
        ("search.trials_per_arm=no", "search.trials_per_arm: got 'no'; allowed: a valid integer"),
        ("search.grace_epochs=9", "search.grace_epochs: at most search.epochs (2); got 9"),
        ("confirm.workers=3", "confirm.workers: a divisor of workload.batch_size (32); got 3"),
        ("confirm.seeds=[0,1]", "confirm.seeds: disjoint from search.seeds; got 0 in both"),
        ("search.seeds=[11,3,12]", "confirm.seeds: disjoint from search.seeds; got 11, 12 in both"),
        ("search.seeds=[]", "search.seeds: got []; allowed: "),
        (
            'search={"trials_per_arm":1,"epochs":2,"seeds":[1,2],"workers":2}',
            "search: allowed: workers: 1 with several",
        ),
        (
            "search.sampler=grid",
            "search.sampler: got 'grid'; allowed: 'tpe', 'random', 'gp', 'qmc', 'cmaes' or 'nsga2'",
        ),
        ('search.objectives=["circuits"]', "search: allowed: objectives: quality first, each once; got circuits"),
        ('search.objectives=["quality","quality"]', "search: allowed: objectives: quality first, each once; got qual"),
        ("search.tolerance=0.1", "search: allowed: tolerance: 0 with quality as the only objective; got 0.1"),
        (
            'search={"trials_per_arm":1,"epochs":2,"objectives":["quality","circuits"],"sampler":"cmaes"}',
            "search: allowed: sampler: any other than cmaes with several objectives; got 'cmaes'",
        ),
        ("confirm.seeds=[1,1]", "confirm.seeds: allowed: each seed once"),
        ("baseline=sgd", "baseline: one of the arms (adamw, sine); got 'sgd'"),
        ('arms=[{"name":"a"},{"name":"a"}]', "arms: each name once; got a, a"),
        ("workload.model.d_model=63", "workload.model: allowed: d_model divisible by n_heads; got 63 and 2"),
        ("workload.model.attention=4", "workload.model.attention: got 4; allowed: an object"),
        (
            'workload.model.attention={"n_qubits":13}',
            "workload.model.attention.n_qubits: got 13; allowed: less than or equal to 12",
        ),
        ('workload.model.attention={"depth":0}', "workload.model.attention.depth: got 0; allowed: greater than or equ"),
        (
            'workload.model.attention={"entangle":"star"}',
            "workload.model.attention.entangle: got 'star'; allowed: 'chain', 'ring', 'all' or 'none'",
        ),
        ('workload.model.attention={"rotations":[]}', "workload.model.attention.rotations: got []; allowed: "),
        (
            'workload.model.attention={"rotations":["ry","rq"]}',
            "workload.model.attention.rotations.1: got 'rq'; allowed: 'rx', 'ry' or 'rz'",
        ),
        (
            'workload.model.attention={"readout":"z"}',
            "workload.model.attention.readout: got 'z'; allowed: 'amplitude' or 'probability'",
        ),
        ('workload.model.attention={"phi":"maybe"}', "workload.model.attention.phi: got 'maybe'; allowed: a valid boo"),
        ('workload.model.attention={"qubits":2}', "workload.model.attention.qubits: got 2; allowed: no field of this"),
        (
            "workload.model.attention.n_qubits=2",
            "--set workload.model.attention.n_qubits: got 'n_qubits'; allowed in workload.model.attention: nothing "
            "below null; a part is switched on whole, workload.model.attention={...}",
        ),
        ("workload.difficulty=2", "workload.difficulty: got 2; allowed: less than or equal to 1"),
        ("workload.kind=audio", "workload: allowed: kind 'text' or 'llm', or module:Class of your own; got 'audio'"),
        ("workload=3", "workload: got 3; allowed: a TextTask, a LanguageTask or a task of your own"),
        ('workload={"train_size":9}', "workload: allowed: batch_size <= train_size; got 32 and 9"),
        ('workload={"kind":"llm","lora":{"rank":2}}', "workload.lora.rank: got 2; allowed: no field of this name"),
        ('workload={"kind":"llm","difficulty":0.1}', "workload.difficulty: got 0.1; allowed: no field of this name"),
        (
            'workload={"kind":"llm","n_answers":2000}',
            "workload: allowed: n_answers at most data.test_size (1319); got ",
        ),
        (
            'workload={"kind":"llm","batch_size":9000}',
            "workload: allowed: batch_size at most data.train_size (7000); got 9000",
        ),
        ('workload={"kind":"llm"}', "confirm.workers: a divisor of workload.batch_size (1); got 2"),
        ("resources.circuit_nodes=CPU", "resources.circuit_nodes: got 'CPU'; allowed: "),
        (
            'resources={"circuit_actors": 3, "max_circuit_actors": 2}',
            "resources: allowed: max_circuit_actors at least 3; got 2",
        ),
        (
            'resources={"circuit_actors": null, "max_circuit_actors": 2}',
            "resources: allowed: max_circuit_actors with circuit_actors; got 2",
        ),
    ],
)
def test_bad_input_is_one_line_with_field_value_and_what_is_allowed(assignment, said):
    with pytest.raises(StudyError) as error:
        with_overrides(a_study(), [assignment])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_only_auto_answers_sampled_and_noisy_circuits_on_the_pool():
    drawing = ["arms.sine.perturbation.source=sampled", "arms.sine.perturbation.shots=10"]
    with pytest.raises(StudyError, match=r"circuit_engine: auto with the source sampled of arm sine; got 'aer'"):
        with_overrides(a_study(), [*drawing, "resources.circuit_engine=aer"])
    with pytest.raises(StudyError, match=r"circuit_engine: auto with the source sampled of arm sine; got 'torch'"):
        with_overrides(a_study(), [*drawing, "resources.circuit_actors=null", "resources.circuit_engine=torch"])


def test_a_missing_field_is_named():
    tree = a_study().model_dump(mode="json")
    del tree["question"]
    with pytest.raises(StudyError, match="question: got nothing; allowed: a value, this field is required"):
        study_from_tree(tree)


def test_a_part_built_in_a_study_file_names_its_class():
    with pytest.raises(ValidationError) as error:
        Perturbation(source="sine", lambda_=-1)
    assert str(error.value).startswith("Perturbation.lambda_: got -1; allowed: a number >= 0")


@pytest.mark.parametrize("space", [LogUniform, Uniform])
def test_a_space_is_ordered(space):
    with pytest.raises(ValidationError, match="low < high"):
        space(low=2.0, high=1.0)


def test_a_space_below_the_allowed_is_refused():
    with pytest.raises(ValidationError, match="a number >= 0"):
        Perturbation(source="sine", lambda_=Uniform(low=-1.0, high=1.0))
    with pytest.raises(ValidationError, match="a Choice of such"):
        Perturbation(source="sine", n_qubits=Uniform(low=1.0, high=4.0))
