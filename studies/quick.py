"""Does the quantum perturbation beat a tuned AdamW on the paper's text task? A small study, real throughout.

Every arm searches its own learning rate, the perturbed arms also lambda and the number of qubits, with the same budget.
The winners meet on fresh seeds, paired. Five seeds explore; a claim wants ten or more (confirm.seeds).
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

LEARNING_RATE = LogUniform(low=3e-4, high=1e-2)
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
    search=Search(trials_per_arm=6, epochs=8, grace_epochs=2, reduction_factor=2, seed=1),
    confirm=Confirm(seeds=(101, 102, 103, 104, 105), epochs=10, workers=2),
    # One point of accuracy: below half of what the paper claims (2.3 points, C1).
    decision=Decision(margin=0.01),
)
