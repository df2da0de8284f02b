"""Measure how far the method reaches: each limit over growing sizes on this machine, the largest predicted by a fit.

Qubits (whole states, chains in linear time), depth, kinds of entanglement, shots, noise, scope, model size, pool size,
and the fading of the signal along a chain. About ten minutes on two cores with nothing beside it; `--set scale=short` a
minute. `qsgd-ray plan` predicts clusters from the rows.
"""

from qsgd_ray.config import (
    CircuitCurve,
    Limits,
    NoiseSettings,
    OptimizerCurve,
    PoolCurve,
    SignalCurve,
    TrainingCurve,
)

# Of the order of today's superconducting devices.
NOISE = NoiseSettings(depolarizing_1q=5e-4, depolarizing_2q=5e-3)
POSITIONS = (2, 4, 6, 8, 12, 16, 20, 24, 32, 40)


def qubits(largest: int) -> tuple[int, ...]:
    return tuple(range(2, largest + 1))


def doubling(first: int, last: int, step: int = 1) -> tuple[int, ...]:
    return tuple(2**power for power in range(first, last + 1, step))


def limits_of(name: str, budget_s: float, less: int) -> Limits:
    """Return the study at one size.

    Args:
        name: the size's name.
        budget_s: seconds that a curve's rounds may take.
        less: doublings by which its sizes end earlier.
    """
    states = [
        CircuitCurve(name="state-ring", engine="torch", entangle="ring", sizes=qubits(22 - less)),
        CircuitCurve(name="state-chain", engine="torch", sizes=qubits(23 - less)),
        CircuitCurve(name="state-all", engine="torch", entangle="all", sizes=qubits(20 - less)),
        CircuitCurve(name="state-depth", engine="torch", along="depth", n_qubits=12, entangle="ring",
                     sizes=(1, 2, 3, 4, 6, 8, 12)),
        CircuitCurve(name="state-ring-batch", engine="torch", entangle="ring", batch=32, sizes=qubits(17 - less)),
        CircuitCurve(name="state-chain-batch", engine="torch", batch=32, sizes=qubits(17 - less)),
        CircuitCurve(name="state-ring-chunk", engine="torch", entangle="ring", batch=1024, sizes=qubits(12 - less)),
        CircuitCurve(name="state-chain-chunk", engine="torch", batch=1024, sizes=qubits(12 - less)),
    ]  # fmt: skip
    chains = [
        CircuitCurve(name="chain", engine="chain", sizes=doubling(2, 13 - less)),
        CircuitCurve(name="chain-batch", engine="chain", batch=64, sizes=doubling(2, 12 - less)),
        CircuitCurve(name="chain-chunk", engine="chain", batch=1024, sizes=doubling(2, 9)),
        CircuitCurve(name="chain-ring", engine="chain", entangle="ring", sizes=doubling(2, 12 - less)),
        CircuitCurve(name="chain-all", engine="chain", entangle="all", sizes=doubling(2, 12 - less)),
        CircuitCurve(name="chain-none", engine="chain", entangle="none", sizes=doubling(2, 13 - less)),
        CircuitCurve(name="chain-depth", engine="chain", along="depth", n_qubits=64, batch=32,
                     sizes=(1, 2, 3, 4, 5, 6, 7)),
        CircuitCurve(name="ring-depth", engine="chain", along="depth", n_qubits=24, entangle="ring",
                     sizes=(1, 2, 3, 4, 5)),
    ]  # fmt: skip
    hardware = [
        CircuitCurve(name="shots-qubits", engine="shots", shots=1000, sizes=qubits(20 - less)),
        CircuitCurve(name="shots", engine="shots", along="shots", n_qubits=4, batch=64, sizes=doubling(4, 20, 2)),
        CircuitCurve(name="noise-qubits", engine="noise", noise=NOISE, sizes=qubits(10 - less // 2)),
        CircuitCurve(name="noise-depth", engine="noise", noise=NOISE, along="depth", sizes=(1, 2, 4, 6, 8, 12, 16)),
    ]
    models = [
        OptimizerCurve(name="adamw", source=None, sizes=doubling(14, 26 - less)),
        OptimizerCurve(name="sine-tensor", source="sine", scope="tensor", sizes=doubling(14, 26 - less)),
        OptimizerCurve(name="sine-all", source="sine", scope="all", sizes=doubling(14, 26 - less)),
        OptimizerCurve(name="circuit-model", source="circuit", scope="model", sizes=doubling(14, 26 - less)),
        OptimizerCurve(name="circuit-tensor", source="circuit", scope="tensor", sizes=doubling(14, 26 - less)),
        OptimizerCurve(name="circuit-all", source="circuit", scope="all", sizes=doubling(10, 20 - less)),
    ]
    rest = [
        TrainingCurve(name="training", sizes=(8, 16, 24, 32, 48, 64, 96, 128)),
        PoolCurve(name="pool", actors=(1, 2) if less else (1, 2, 3, 4), batches=doubling(6, 16 - less, 2)),
    ]
    fading = [
        *(
            SignalCurve(name=f"fading-depth-{depth}-{word}", depth=depth, theta=theta, sizes=POSITIONS)
            for depth in (1, 2, 3)
            for word, theta in (("small", 0.02), ("wide", 1.0))
        ),
        SignalCurve(name="fading-ring", entangle="ring", theta=1.0, sizes=POSITIONS),
        SignalCurve(name="fading-trained-1", depth=1, theta="trained", sizes=POSITIONS[:-2]),
        SignalCurve(name="fading-trained-2", depth=2, theta="trained", sizes=POSITIONS[:-2]),
    ]
    return Limits(
        name=name,
        question="How many qubits, how deep, how noisy, how large a model and a pool: where does it end, and why?",
        curves=(*states, *chains, *hardware, *models, *rest, *fading),
        budget_s=budget_s,
    )


SCALES = {
    "default": limits_of("scaling_limits", budget_s=8, less=0),
    "short": limits_of("scaling_limits_short", budget_s=1, less=4),
}
STUDY = SCALES["default"]
