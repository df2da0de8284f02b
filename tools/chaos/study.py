"""A small study of every part: a search, a confirmation, circuits on a pool; a minute on two cores."""

from qsgd_ray.config import (
    Arm,
    Confirm,
    Decision,
    LogUniform,
    Perturbation,
    Resources,
    Search,
    Study,
    TextTask,
    Transformer,
)

rate = LogUniform(low=1e-3, high=1e-2)
STUDY = Study(
    name="chaos",
    question="Do faults change a row?",
    workload=TextTask(
        train_size=64,
        validation_size=64,
        test_size=64,
        model=Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1),
    ),
    arms=(
        Arm(name="adamw", learning_rate=rate),
        Arm(name="circuit", learning_rate=rate, perturbation=Perturbation(source="circuit", n_qubits=2)),
    ),
    baseline="adamw",
    search=Search(trials_per_arm=3, epochs=9, grace_epochs=3, reduction_factor=2),
    confirm=Confirm(seeds=(11, 12), epochs=20, workers=2),
    decision=Decision(margin=0.05),
    resources=Resources(circuit_actors=1),
)
