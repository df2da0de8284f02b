"""Test the paper's second task and its claim C3: a lower loss of a language model that is fine-tuned on word problems.

The paper's recipe (2e-5, batches of one, 500 warm-up steps, linear decay, clipping at 1.0, weight decay 0.01) and its
two lambdas, beside the simulated circuit and two controls: `zero`, which is AdamW, and random signs of the sine's size.
Nothing is searched, so this compares updates at the paper's setting, not tuned methods.

One dial, `--set scale=`. `short` takes minutes on two cores: sine and circuit over a few steps, from the five seeds
that a verdict needs. `laptop` is 200 steps from five seeds, without controls: hours on two cores. `paper` is an epoch
of 7,000 problems and ten seeds, for a GPU (--set resources.gpus_per_worker=1). All train SmolLM2-135M on problems
made from the templates of GSM-Symbolic, in float32, warmed up over as large a part of the epoch as in the paper; the
paper's model and data by --set workload.model=meta-llama/Llama-3.2-1B-Instruct --set
workload.data='{"source":"gsm8k","train_size":null}'.
"""

from dataclasses import dataclass

import paper_claims

from qsgd_ray.config import (
    Arm,
    ChatFormat,
    Confirm,
    Decision,
    LanguageTask,
    Perturbation,
    Resources,
    Search,
    Study,
    WordProblems,
)

PERTURBATIONS = {
    "adamw": None,
    "sine-tenth": Perturbation(source="sine", lambda_=0.1),
    "sine-half": Perturbation(source="sine", lambda_=0.5),
    "circuit-half": Perturbation(source="circuit", lambda_=0.5),
    "zero": Perturbation(source="zero", lambda_=0.5),
    "random-sign": Perturbation(source="random_sign", lambda_=0.5),
}
QUANTUM = ("adamw", "sine-tenth", "sine-half", "circuit-half")
FEW = ("adamw", "sine-half", "circuit-half")
DEFAULT = "short"


@dataclass(frozen=True)
class Size:
    """One size of the study.

    Attributes:
        data: the word problems.
        steps_per_epoch: steps between two measurements.
        epochs: measurements of a trial.
        warmup_steps: steps of warm-up.
        n_answers: test problems that are answered by generation.
        seeds: paired seeds of the confirmation.
        arms: names of the perturbed arms.
        max_new_tokens: longest answer.
        context: longest sequence in tokens.
        checkpoint_steps: steps between two checkpoints; None: no checkpoints.
    """

    data: WordProblems
    steps_per_epoch: int
    epochs: int
    warmup_steps: int
    n_answers: int
    seeds: tuple[int, ...]
    arms: tuple[str, ...] = tuple(PERTURBATIONS)
    max_new_tokens: int = 256
    context: int = 2048
    checkpoint_steps: int | None = None


SIZES = {
    "short": Size(
        data=WordProblems(train_size=64, validation_size=8, test_size=8),
        context=192,  # the shorter half of the problems
        steps_per_epoch=4,
        epochs=2,
        warmup_steps=1,
        n_answers=0,
        seeds=(301, 302, 303, 304, 305),
        arms=FEW,
    ),
    "laptop": Size(
        data=WordProblems(train_size=400, validation_size=40, test_size=40),
        context=192,  # the shorter half of the problems
        steps_per_epoch=40,
        epochs=5,
        warmup_steps=14,
        n_answers=8,
        checkpoint_steps=100,
        max_new_tokens=128,
        seeds=(301, 302, 303, 304, 305),
        arms=QUANTUM,
    ),
    "paper": Size(
        data=WordProblems(),
        steps_per_epoch=500,
        epochs=14,
        warmup_steps=500,
        n_answers=200,
        checkpoint_steps=500,
        seeds=tuple(range(301, 311)),
    ),
}


def study_of(name: str, size: Size) -> Study:
    """Return the study at one size."""
    return Study(
        name="paper_llm" if name == DEFAULT else f"paper_llm_{name}",
        question="Does adding lambda * Q to AdamW's step help a language model learn word problems, by the paper's "
        "recipe?",
        workload=LanguageTask(
            model="smollm2-135m",
            data=size.data,
            form=ChatFormat(context=size.context),
            batch_size=1,
            steps_per_epoch=size.steps_per_epoch,
            warmup_steps=size.warmup_steps,
            decay="linear",
            clip_norm=1.0,
            n_answers=size.n_answers,
            max_new_tokens=size.max_new_tokens,
        ),
        arms=tuple(
            Arm(name=arm, learning_rate=2e-5, weight_decay=0.01, perturbation=PERTURBATIONS[arm]) for arm in size.arms
        ),
        baseline="adamw",
        search=Search(trials_per_arm=1, epochs=1, grace_epochs=1, seeds=(1,)),  # there is nothing to search
        confirm=Confirm(seeds=size.seeds, epochs=size.epochs, workers=1),
        # A fifth of a point of the tokens: small beside what a few steps of training move.
        decision=Decision(margin=0.002),
        claims=(paper_claims.training_loss("sine-half"),),
        # A batch of one has no parts for several workers: one of two threads, which simulates its own circuits.
        resources=Resources(cpus_per_worker=2, circuit_actors=None, checkpoint_steps=size.checkpoint_steps),
    )


SCALES = {name: study_of(name, size) for name, size in SIZES.items()}
STUDY = SCALES[DEFAULT]
