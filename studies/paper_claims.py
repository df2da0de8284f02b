"""The paper's claims C1 to C7 (arXiv 2511.01918) as data, and what each is taken to say; the studies of its tasks ask.

The paper's text task has C1, C2 and C4 to C7, its language model C3. Figures are shares of one: 0.023 of accuracy are
2.3 points, 0.35 of a change are 35 %.
"""

from qsgd_ray.config import Claim, ClaimPart, Contrast, Expectation

SOURCE = "arXiv 2511.01918"
QUBITS = "perturbation.n_qubits"


def accuracy(arm: str) -> Claim:
    """Return C1: the arm is more accurate than Adam."""
    return Claim(
        name="C1",
        text="final accuracy at lambda = 0.5 is 2.3 points above Adam's",
        contrast=arm,
        measure="difference",
        metric="accuracy",
        claimed=0.023,
        unit="points",
        source=SOURCE,
    )


def epochs(arm: str) -> Claim:
    """Return C2: the arm reaches the target in fewer epochs."""
    return Claim(
        name="C2",
        text="lambda = 0.5 needs 37.8 % fewer epochs to the target (4.6 against 7.4)",
        contrast=arm,
        measure="epochs_to_target_change",
        claimed=-0.378,
        unit="share",
        source=SOURCE,
    )


def training_loss(arm: str, unmeasured: str | None = None) -> Claim:
    """Return C3: the arm's mean training loss is lower; `unmeasured` says why a study cannot measure it."""
    return Claim(
        name="C3",
        text="mean training loss on GSM8K after an epoch falls from 0.2188 to 0.2097",
        contrast=arm,
        measure="training_loss_difference",
        claimed=-0.0091,
        unit="nats",
        unmeasured=unmeasured,
        source=SOURCE,
    )


def epoch_time(arm: str) -> Claim:
    """Return C4: an epoch of the arm takes longer."""
    return Claim(
        name="C4",
        text="an epoch takes about 35 % longer than Adam's",
        contrast=arm,
        measure="seconds_per_epoch_change",
        claimed=0.35,
        unit="share",
        source=SOURCE,
    )


def total_time(arm: str) -> Claim:
    """Return C5: the arm reaches the target in less time."""
    return Claim(
        name="C5",
        text="the total time to the target is 16 % lower",
        contrast=arm,
        measure="seconds_to_target_change",
        claimed=-0.16,
        unit="share",
        source=SOURCE,
    )


def lambdas(arm: str, small: str, large: str) -> Claim:
    """Return C6, taken to say three things of three lambdas.

    The small one spreads the final accuracy over seeds less than twice as much as Adam, and no more at all is not
    excluded; the arm's reaches the target sooner, by a tenth of the epochs if it is by any, and spreads more than Adam;
    the large one leaves runs without a result, or lowers accuracy.
    """
    quiet = Expectation(
        contrast=small,
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
            contrast=large,
            measure="lost_runs",
            lies="above",
            excluded=1.0,
            words="{lost} runs of {arm} have no result",
        ),
        Expectation(
            contrast=large,
            measure="difference",
            metric="accuracy",
            lies="below",
            excluded="-margin",
            words="the others are {low} to {high} points from Adam's",
        ),
    )
    return Claim(
        name="C6",
        text="a small lambda adds little noise, 0.5 converges faster with more variance, very high values destabilise",
        contrast=arm,
        measure="epochs_to_target_change",
        parts=(
            ClaimPart(expects=(quiet,), missing="{arm}: no spread to compare"),
            ClaimPart(expects=faster),
            ClaimPart(expects=unstable, rule="any"),
        ),
        about="perturbation.lambda_",
        source=SOURCE,
    )


def qubits(arm: str) -> Claim:
    """Return C7, taken to say that a step's time over Adam's grows with the qubits of a map of the arm."""
    words = "a step's time over Adam's changes by {value} a qubit from {first} to {last} qubits"
    return Claim(
        name="C7",
        text="more qubits cost more",
        contrast=Contrast(arm=arm, along=QUBITS),
        measure="seconds_per_step_change",
        parts=(ClaimPart(expects=(Expectation(lies="above", words=words),)),),
        source=SOURCE,
    )
