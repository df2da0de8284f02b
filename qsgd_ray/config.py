"""What a study is: arms, spaces, workload, stages and resources; frozen, checked at birth, JSON round trip.

In: values from a study file, from JSON or from `--set`. Out: a `Study`, or one line that says which field is wrong.
`None` means off. A field that is searched holds a space (`LogUniform`, `Uniform`, `Choice`) in place of a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from qsgd_ray.circuits.kinds import Entangle, Rotation, entangle_by_name

# A study file finds all it needs here.
from qsgd_ray.circuits.noise_settings import NoiseSettings as NoiseSettings
from qsgd_ray.language_settings import ChatFormat as ChatFormat
from qsgd_ray.language_settings import Lora as Lora
from qsgd_ray.language_settings import WordProblems as WordProblems
from qsgd_ray.spaces import SPACES, Frozen, Space, refuse, searchable
from qsgd_ray.spaces import Choice as Choice
from qsgd_ray.spaces import LogUniform as LogUniform
from qsgd_ray.spaces import Uniform as Uniform
from qsgd_ray.workload_settings import KINDS
from qsgd_ray.workload_settings import LanguageTask as LanguageTask
from qsgd_ray.workload_settings import QuantumAttention as QuantumAttention
from qsgd_ray.workload_settings import Seed as Seed
from qsgd_ray.workload_settings import Task as Task
from qsgd_ray.workload_settings import TextTask as TextTask
from qsgd_ray.workload_settings import Transformer as Transformer


class StudyError(ValueError):
    """Bad input, told in one line: which field, what came, what is allowed."""


Stage = Literal["search", "confirm"]
STAGES: tuple[Stage, ...] = ("search", "confirm")

LearningRate = Annotated[float | Space, searchable("a number > 0", lambda x: x > 0)]
NonNegative = Annotated[float | Space, searchable("a number >= 0", lambda x: x >= 0)]
# What one machine can hold is checked where the circuits run (connection.py): 30 qubits are a 16 GiB state, but shallow
# chains of thousands are none (circuits/chain.py).
MAX_QUBITS = 4096
QubitCount = Annotated[
    int | Space, searchable(f"a whole number from 1 to {MAX_QUBITS}", lambda n: 1 <= n <= MAX_QUBITS, whole=True)
]
# Ray's own resources are capitalised, and `node:...`; what marks nodes here is a word of a cluster's own.
NodeKind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
# Whoever must be on some kind of node asks for this much of its resource: what one of it means, a cluster decides.
SHARE_OF_NODE = 0.001
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise refuse("each seed once")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]


Source = Literal["sine", "circuit", "sampled", "noisy", "zero", "gradient", "random_sign", "shuffled"]
Scope = Literal["model", "tensor", "all"]
Formula = Literal["adamw", "paper"]
Placement = Literal["update", "moments"]
Direction = Literal["gradient", "preconditioned"]
LambdaShape = Literal["constant", "linear", "cosine"]
Sharding = Literal["ddp", "fsdp"]


class Perturbation(Frozen):
    """lambda * Q, added to Adam's step (arXiv 2511.01918, Eq. 1 and 2), and how each opening of the paper is filled.

    `source`: where the signal s in Q = s * direction comes from: `sine`, sin(pi theta), the paper's closed form; the
    <Z_i> of a `circuit`, exact, or `sampled` by `shots` measurements, or `noisy` under `noise` (exact where `shots` is
    None); and controls: `zero`; `gradient`, s = 1; `random_sign`, plus or minus the root mean square of the block's
    sines; `shuffled`, the sine of another coordinate of the block. `depth`, `entangle` (True: chain, False: none) and
    `rotations` say what circuit (circuits/spec.py).

    `scope`: which coordinates: the first n_qubits of the flattened `model`, of each parameter `tensor`, or `all` in
    blocks of n_qubits. `direction`: what s multiplies, the `gradient` (Eq. 2) or the `preconditioned` one, m_hat /
    (sqrt(v_hat) + eps). `placement`: Q is added to the `update` (Eq. 1), or to the gradient that feeds the `moments`.
    `formula`: Adam's step as in `adamw`, or Eq. 1 as printed in the `paper` (no bias correction, eps in the root).
    `schedule`: lambda stays, or falls to 0 over the trial, in a line or as a cosine.
    """

    source: Source
    lambda_: NonNegative = 0.5
    n_qubits: QubitCount = 4
    depth: int = Field(default=2, ge=1, le=64)
    entangle: Annotated[Entangle, BeforeValidator(entangle_by_name)] = "chain"
    rotations: Annotated[tuple[Rotation, ...], Field(min_length=1)] = ("ry", "rz")
    scope: Scope = "tensor"
    formula: Formula = "adamw"
    placement: Placement = "update"
    direction: Direction = "gradient"
    schedule: LambdaShape = "constant"
    shots: Annotated[int, Field(ge=1)] | None = None
    noise: NoiseSettings | None = None

    @property
    def asks_circuits(self) -> bool:
        """Does a backend answer it?"""
        return self.source in ("circuit", "sampled", "noisy")

    @model_validator(mode="after")
    def _sampled_and_noisy(self) -> Self:
        if (self.source == "sampled") > (self.shots is not None):
            raise refuse("shots, with source sampled")
        if self.shots is not None and self.source not in ("sampled", "noisy"):
            raise refuse("shots with the sources sampled and noisy only")
        if (self.source == "noisy") != (self.noise is not None):
            raise refuse("noise with the source noisy, and with it only")
        return self


class Arm(Frozen):
    """One way to train. Without a perturbation it is torch.optim.AdamW itself."""

    name: Name
    learning_rate: LearningRate = 1e-3
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    perturbation: Perturbation | None = None

    def spaces(self) -> dict[str, Space]:
        """The searched fields by dotted path, in the order of their definition."""
        return {path: value for path, value in _leaves(self, "") if isinstance(value, SPACES)}

    def at(self, point: dict[str, int | float]) -> Arm:
        """This arm with every searched field set to its value in `point`."""
        missing = self.spaces().keys() ^ point.keys()
        if missing:
            raise StudyError(f"arm {self.name}: a point must set {sorted(self.spaces())}, got {sorted(point)}")
        tree = self.model_dump()
        for path, value in point.items():
            *parents, leaf = path.split(".")
            branch = tree
            for parent in parents:
                branch = branch[parent]
            branch[leaf] = value
        return Arm.model_validate(tree)


def _leaves(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in type(model).model_fields:
        value = getattr(model, field)
        if isinstance(value, BaseModel) and not isinstance(value, SPACES):
            yield from _leaves(value, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", value


class Search(Frozen):
    """Each arm tuned by Optuna under Ray Tune with the same budget; asynchronous halving per arm.

    With one trial at a time per arm the search is a pure function of the study; with more, what is suggested and what
    is halted depends on who arrives first. The resolved study records which it was.
    """

    trials_per_arm: int = Field(ge=1)
    epochs: int = Field(ge=1)
    seed: Seed = 0
    sampler: Literal["tpe", "random"] = "tpe"
    grace_epochs: int = Field(default=2, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    trials_at_once_per_arm: int = Field(default=1, ge=1)
    workers: int = Field(default=1, ge=1)

    @property
    def deterministic(self) -> bool:
        return self.trials_at_once_per_arm == 1


class Confirm(Frozen):
    """Every arm at its best point, on fresh seeds, paired across arms."""

    seeds: Seeds
    epochs: int = Field(ge=1)
    workers: int = Field(default=2, ge=1)
    trials_per_fit: int | None = Field(default=None, ge=1)


class Decision(Frozen):
    """The rule of the verdict, written before the first trial (accuracies are fractions of one)."""

    margin: float = Field(gt=0, lt=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.8, gt=0.5, lt=1)


class Resources(Frozen):
    """What Ray is asked for, and how its processes share a training.

    `sharding`: how the workers of a trial hold the model, `ddp` whole or `fsdp` in shards (replica.py).
    `checkpoint_steps`: after so many steps each, a training is kept so that it goes on from there if its processes die
    or the study is run again (None: it begins anew); the `checkpoints_kept` newest are there until the trial has its
    row (checkpoints.py). `least_workers`: a trial begins with so few, and goes on with them from its last checkpoint,
    while Ray has no room for all that the study names; every minute it looks whether there is (None: it waits for all).
    Answers by generation (`n_answers`) put the whole weights on every worker, also under `fsdp`.

    `circuit_actors` None: every training worker simulates its own circuits. Else so many actors simulate for all, and
    up to `max_circuit_actors` while requests wait (None: no more); those beyond `circuit_actors` go after
    `circuit_idle_s` seconds without use. `circuit_engine`: who simulates (circuits/auto.py); `sampled` and
    `noisy` perturbations need `auto`. `circuit_timeout_s`: a call that takes longer is taken to hang.

    `worker_nodes`, `circuit_nodes`: where workers and circuit actors may be, by a custom resource that the nodes of a
    cluster carry (cluster/README.md: `train` and `sim`). None: anywhere. A private Ray carries what is named here.
    """

    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    worker_nodes: NodeKind | None = None
    least_workers: int | None = Field(default=None, ge=1)
    sharding: Sharding = "ddp"
    checkpoint_steps: int | None = Field(default=None, ge=1)
    checkpoints_kept: int = Field(default=2, ge=1)
    circuit_actors: int | None = Field(default=1, ge=1)
    max_circuit_actors: int | None = Field(default=None, ge=1)
    cpus_per_circuit_actor: float = Field(default=1, gt=0)
    circuit_nodes: NodeKind | None = None
    circuit_engine: Literal["auto", "torch", "chain", "aer"] = "auto"
    circuit_idle_s: float = Field(default=30, gt=0)
    circuit_timeout_s: float = Field(default=60, gt=0)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_circuit_actors is not None and self.max_circuit_actors < (self.circuit_actors or math.inf):
            at_least = "with circuit_actors" if self.circuit_actors is None else f"at least {self.circuit_actors}"
            raise refuse(f"max_circuit_actors {at_least}; got {self.max_circuit_actors}")
        if self.least_workers is not None and self.checkpoint_steps is None:
            raise refuse(f"least_workers with checkpoint_steps; got {self.least_workers} without")
        return self

    def on_worker_nodes(self) -> dict[str, float]:
        """What a training worker asks for besides CPUs and GPUs."""
        return {self.worker_nodes: SHARE_OF_NODE} if self.worker_nodes else {}

    def on_circuit_nodes(self) -> dict[str, float]:
        """The same of a circuit actor."""
        return {self.circuit_nodes: SHARE_OF_NODE} if self.circuit_nodes else {}


class Study(Frozen):
    """One question, asked of several arms under one budget."""

    name: Name
    question: str = Field(min_length=1)
    workload: Task
    arms: tuple[Arm, ...] = Field(min_length=1)
    baseline: str
    search: Search
    confirm: Confirm
    decision: Decision
    resources: Resources = Resources()
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise refuse(f"arms: each name once; got {', '.join(names)}")
        if self.baseline not in names:
            raise refuse(f"baseline: one of the arms ({', '.join(names)}); got {self.baseline!r}")
        if self.search.seed in self.confirm.seeds:
            raise refuse(f"confirm.seeds: disjoint from search.seed; got {self.search.seed} in both")
        if self.search.grace_epochs > self.search.epochs:
            raise refuse(
                f"search.grace_epochs: at most search.epochs ({self.search.epochs}); got {self.search.grace_epochs}"
            )
        if self.resources.circuit_engine != "auto":
            for arm in self.arms:
                if arm.perturbation is not None and arm.perturbation.source in ("sampled", "noisy"):
                    raise refuse(
                        f"resources.circuit_engine: auto with the source {arm.perturbation.source} of arm {arm.name}; "
                        f"got {self.resources.circuit_engine!r}"
                    )
        for stage, workers in (("search", self.search.workers), ("confirm", self.confirm.workers)):
            if self.workload.batch_size % workers:
                raise refuse(
                    f"{stage}.workers: a divisor of workload.batch_size ({self.workload.batch_size}); got {workers}"
                )
        return self

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def planned(self, stage: Stage, arm: Arm) -> int:
        """How many trials of an arm a stage plans; an arm with nothing to search is not searched."""
        if stage == "confirm":
            return len(self.confirm.seeds)
        return self.search.trials_per_arm if arm.spaces() else 0


def study_from_tree(tree: Any) -> Study:
    """A `Study` from plain JSON data, or `StudyError` with one line (arms by name, where they have one)."""
    try:
        return Study.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise StudyError(one_line(error, tree)) from None


def one_line(error: ValidationError, tree: Any = None) -> str:
    """The first thing wrong in one line: field, what came, what is allowed; and how many more there are.

    `tree`: the data that was refused; list items with a name are then called by it.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    place = _place(first["loc"], tree)
    if error.title != "Study":
        place = f"{error.title}.{place}".rstrip(".")
    came = first["input"]
    if first["type"] == "allowed" and not first["loc"]:
        return f"{place}: {first['msg']}".removeprefix(": ")
    if first["type"] == "missing":
        told = "got nothing; allowed: a value, this field is required"
    elif first["type"] == "extra_forbidden":
        told = f"got {came!r}; allowed: no field of this name"
    elif isinstance(came, int | float | str | bool | None):
        told = f"got {came!r}; allowed: {_allowed(first['msg'])}"
    elif first["type"] == "allowed":
        told = f"allowed: {first['msg']}"
    else:
        told = f"got {came!r}; allowed: {_allowed(first['msg'])}"
    return f"{place}: {told}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _place(location: tuple[str | int, ...], tree: Any) -> str:
    if location[:1] == ("workload",) and location[1:2] and location[1] in KINDS:
        location = ("workload", *location[2:])  # pydantic names there which kind of task it took it for
    words = []
    for part in location:
        tree = tree[part] if isinstance(tree, dict) and part in tree else tree
        if isinstance(part, int) and isinstance(tree, list) and part < len(tree):
            tree = tree[part]
            part = tree.get("name", part) if isinstance(tree, dict) else part
        words.append(str(part))
    return ".".join(words)


def _allowed(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("Value error, ")
