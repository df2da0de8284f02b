"""Compare every source of the signal s at the paper's setting, paired over ten seeds: which part of it does anything.

The eight sources of the signal (the closed-form sine, the circuit, exact, with shots and with noise, and the controls)
at the paper's two lambdas and a hundred times the larger one, with both readings of the direction. Nothing is searched:
all arms have the paper's learning rate, so this compares updates, not tuned methods.
"""

from qsgd_ray.config import Arm, Confirm, Decision, NoiseSettings, Perturbation, Resources, Search, Study, TextTask

# About what superconducting devices of 2023 report: errors of 0.1 % a gate, 1 % a CNOT, 2 % a measurement.
NOISE = NoiseSettings(depolarizing_1q=0.001, depolarizing_2q=0.01, p01=0.02, p10=0.02)
LAMBDAS = {"tenth": 0.1, "half": 0.5, "fifty": 50.0}
SOURCES = {
    "sine": {},
    "circuit": {},
    "sampled": {"shots": 1024},
    "noisy": {"noise": NOISE},
    "gradient": {},
    "random_sign": {},
    "shuffled": {},
}

STUDY = Study(
    name="controls",
    question="At the paper's setting, does any source of the perturbation move the result more than its controls do?",
    workload=TextTask(),
    arms=(
        Arm(name="adam"),
        Arm(name="zero", perturbation=Perturbation(source="zero")),
        *(
            Arm(
                name=f"{source}-{direction}-{size}",
                perturbation=Perturbation(source=source, lambda_=lambda_, direction=direction, **only),
            )
            for direction in ("gradient", "preconditioned")
            for size, lambda_ in LAMBDAS.items()
            for source, only in SOURCES.items()
        ),
    ),
    baseline="adam",
    search=Search(trials_per_arm=1, epochs=1, grace_epochs=1, seeds=(1,)),  # there is nothing to search
    confirm=Confirm(seeds=tuple(range(201, 211)), epochs=10, workers=1),
    decision=Decision(margin=0.01),
    # The circuits of a step take milliseconds: each worker simulates its own.
    resources=Resources(circuit_actors=None),
)
