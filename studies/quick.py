"""Compare the quantum perturbation with a tuned AdamW on the paper's text task: a small study, real throughout.

Every arm searches its own learning rate, the perturbed arms also lambda and the number of qubits, with the same budget.
The winners meet on fresh seeds, paired. Six seeds explore; a claim wants ten or more (--set confirm.seeds=[...]).
"""

from qsgd_ray.config import (
    Arm,
    Choice,
    Confirm,
    Decision,
    LogUniform,
    Perturbation,
    Search,
    Study,
    TextTask,
)

# One decade around the paper's 1e-3.
LEARNING_RATE = LogUniform(low=5e-4, high=5e-3)
LAMBDA = LogUniform(low=0.05, high=50.0)
QUBITS = Choice(options=(2, 4, 6))

STUDY = Study(
    name="quick",
    question="Does adding lambda * Q to Adam's step beat a tuned AdamW on the paper's text task?",
    workload=TextTask(),
    arms=(
        Arm(name="adamw", learning_rate=LEARNING_RATE),
        Arm(
            name="sine",
            learning_rate=LEARNING_RATE,
            perturbation=Perturbation(source="sine", lambda_=LAMBDA, n_qubits=QUBITS),
        ),
        Arm(
            name="circuit",
            learning_rate=LEARNING_RATE,
            perturbation=Perturbation(source="circuit", lambda_=LAMBDA, n_qubits=QUBITS),
        ),
    ),
    baseline="adamw",
    # No arm leaves chance before its fourth epoch, so nothing is halved earlier.
    search=Search(trials_per_arm=8, epochs=8, grace_epochs=4, reduction_factor=2, seeds=(1,)),
    confirm=Confirm(seeds=(101, 102, 103, 104, 105, 106), epochs=10, workers=2),
    # One point of accuracy: below half of what the paper claims (2.3 points, C1).
    decision=Decision(margin=0.01),
)
