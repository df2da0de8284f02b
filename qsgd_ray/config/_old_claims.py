"""Claims of studies that were stored before claims were data: their numbers C1 to C7 in, `Claim` values out.

Such a study says `claims={"C1": "sine-half"}`: by number of a claim of arXiv 2511.01918, the arm that stands for the
method. Folders of that time are read, so their seven claims are kept here as they were; new studies state their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import SPACES
from qsgd_ray.config.claims import Claim, ClaimPart, Contrast, Expectation, Measure
from qsgd_ray.config.task import Task

_SOURCE = "arXiv 2511.01918"
_QUBITS = "perturbation.n_qubits"
# A large lambda is this many times the one that C6 is about, a small one at most half of it.
_LARGE, _SMALL = 10.0, 0.5


# The claims with a figure: what they say, by what it is measured, the figure and its unit.
_FIGURES: dict[str, tuple[str, Measure, float, str]] = {
    "C1": ("final accuracy at lambda = 0.5 is 2.3 points above Adam's", "difference", 0.023, "points"),
    "C2": (
        "lambda = 0.5 needs 37.8 % fewer epochs to the target (4.6 against 7.4)",
        "epochs_to_target_change",
        -0.378,
        "share",
    ),
    "C3": (
        "mean training loss on GSM8K after an epoch falls from 0.2188 to 0.2097",
        "training_loss_difference",
        -0.0091,
        "nats",
    ),
    "C4": ("an epoch takes about 35 % longer than Adam's", "seconds_per_epoch_change", 0.35, "share"),
    "C5": ("the total time to the target is 16 % lower", "seconds_to_target_change", -0.16, "share"),
}
NUMBERS = (*_FIGURES, "C6", "C7")


def claims_by_number(named: Mapping[str, str], arms: Sequence[Arm], workload: Task) -> tuple[Claim, ...]:
    """Return the claims of the old spelling as values, in the paper's order.

    Args:
        named: the name of an arm by `C1` to `C7`; a name that no arm has is refused later, with the claim's name.
        arms: the study's, in their order.
        workload: its task.
    """
    by_name = {arm.name: arm for arm in arms}
    claims = []
    for number in (number for number in NUMBERS if number in named):
        arm = named[number]
        if number == "C6":
            claims.append(_of_lambdas(arm, by_name))
        elif number == "C7":
            claims.append(_of_qubits(arm, by_name))
        else:
            claims.append(_with_figure(number, arm, workload))
    return tuple(claims)


def _with_figure(number: str, arm: str, workload: Task) -> Claim:
    text, measure, claimed, unit = _FIGURES[number]
    elsewhere = number == "C3" and workload.kind != "llm"
    return Claim(
        name=number,
        text=text,
        contrast=Contrast(arm=arm),
        measure=measure,
        metric="accuracy" if measure == "difference" else None,
        claimed=claimed,
        unit=unit,
        unmeasured="It speaks of a language model: studies/paper_llm.py measures it." if elsewhere else None,
        source=_SOURCE,
    )


def _of_lambdas(arm: str, arms: Mapping[str, Arm]) -> Claim:
    small = _arm_of_other_lambda(arms, arm, _SMALL, below=True)
    large = _arm_of_other_lambda(arms, arm, _LARGE, below=False)
    quiet = Expectation(
        contrast=Contrast(arm=small or arm),
        measure="spread_change",
        metric="accuracy",
        lies="below",
        edge=1.0,
        excluded=0.0,
        words="{arm} spreads by {figure} against Adam over the seeds",
    )
    faster = (
        Expectation(lies="below", excluded=-0.1, words="{arm} needs {figure} epochs"),
        Expectation(measure="spread_change", metric="accuracy", lies="above", words="spreads by {figure}"),
    )
    unstable = (
        Expectation(
            contrast=Contrast(arm=large or arm),
            measure="lost_runs",
            lies="above",
            excluded=1.0,
            words="{lost} runs of {arm} have no result",
        ),
        Expectation(
            contrast=Contrast(arm=large or arm),
            measure="difference",
            metric="accuracy",
            lies="below",
            excluded="-margin",
            words="the others are {low} to {high} points from Adam's",
        ),
    )
    parts = [ClaimPart(expects=faster)]
    if small is not None:
        parts.insert(0, ClaimPart(expects=(quiet,), missing="{arm}: no spread to compare"))
    if large is not None:
        parts.append(ClaimPart(expects=unstable, rule="any"))
    missing = [word for word, name in (("small", small), ("very large", large)) if name is None]
    return Claim(
        name="C6",
        text="a small lambda adds little noise, 0.5 converges faster with more variance, very high values destabilise",
        contrast=Contrast(arm=arm),
        measure="epochs_to_target_change",
        parts=tuple(parts),
        lacks=f"no arm with a {' and a '.join(missing)} lambda" if missing else None,
        about="perturbation.lambda_",
        source=_SOURCE,
    )


def _of_qubits(arm: str, arms: Mapping[str, Arm]) -> Claim:
    has_qubits = arm not in arms or arms[arm].perturbation is not None
    words = "a step's time over Adam's changes by {value} a qubit from {first} to {last} qubits"
    return Claim(
        name="C7",
        text="more qubits cost more",
        contrast=Contrast(arm=arm, along=_QUBITS) if has_qubits else Contrast(arm=arm),
        measure="seconds_per_step_change",
        parts=(ClaimPart(expects=(Expectation(lies="above", words=words if has_qubits else "{value}"),)),),
        unmeasured=None if has_qubits else f"It needs a map of {arm} with the axis {_QUBITS}.",
        source=_SOURCE,
    )


def _arm_of_other_lambda(arms: Mapping[str, Arm], arm: str, factor: float, *, below: bool) -> str | None:
    """Return the arm that differs in lambda alone, the nearest that is small or large enough; None without one."""
    perturbation = arms[arm].perturbation if arm in arms else None
    if perturbation is None or isinstance(perturbation.lambda_, SPACES):
        return None
    edge = factor * perturbation.lambda_
    candidates = []
    for other in arms.values():
        if other.perturbation is None or isinstance(other.perturbation.lambda_, SPACES):
            continue
        alike = other.perturbation.model_copy(update={"lambda_": perturbation.lambda_}) == perturbation
        if alike and (other.perturbation.lambda_ <= edge if below else other.perturbation.lambda_ >= edge):
            candidates.append((other.perturbation.lambda_, other.name))
    return (max(candidates) if below else min(candidates))[1] if candidates else None
