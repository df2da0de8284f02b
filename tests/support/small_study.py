"""Small studies for the tests, complete and real."""

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

SMALL_TASK = TextTask(
    train_size=64,
    validation_size=64,
    test_size=64,
    model=Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1),
)


def a_study(**fields) -> Study:
    """Return a study of two arms, two search trials each and two confirmation seeds; it runs in seconds."""
    rate = LogUniform(low=1e-3, high=1e-2)
    return Study(
        **{
            "name": "small",
            "question": "Is it a study?",
            "workload": SMALL_TASK,
            "arms": (
                Arm(name="adamw", learning_rate=rate),
                Arm(name="sine", learning_rate=rate, perturbation=Perturbation(source="sine", n_qubits=2)),
            ),
            "baseline": "adamw",
            "search": Search(trials_per_arm=2, epochs=2, grace_epochs=1),
            "confirm": Confirm(seeds=(11, 12), epochs=2, workers=2),
            "decision": Decision(margin=0.05),
            "resources": Resources(),
        }
        | fields
    )
