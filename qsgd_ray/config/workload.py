"""What a workload is made of: a model, data and what goes with them; frozen, checked at birth, JSON round trip.

`Task` is any of them, told apart by `kind`; where none is named, it is a text task.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from qsgd_ray.config.base import Frozen
from qsgd_ray.config.circuit import Entangle, Rotation, entangle_by_name
from qsgd_ray.config.errors import TASK_KINDS, refusal

LossOn = Literal["answer", "all"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Dtype = Literal["float32", "bfloat16"]
HalfPrecision = Literal["bfloat16", "float16"]


class Lora(Frozen):
    """Low-rank adapters (arXiv 2106.09685) of rank `r`, scaled by alpha / r, beside the named linear layers.

    All other weights are frozen, but for the angles of quantum attention.
    """

    r: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = ("q_proj", "v_proj")


class WordProblems(Frozen):
    """Grade-school word problems with worked answers, in three splits that share no question.

    `gsm-symbolic`: drawn from templates by `data_seed` (workloads/_gsm_symbolic.py). `gsm8k`: GSM8K, from the hub or
    from `path`, a folder with a copy of it (workloads/_gsm8k.py); its test split is theirs, validation is taken out of
    its training split by `data_seed`, and `train_size` None is all that is left. `annotations` False takes GSM8K's
    <<48/2=24>> out.

    The default sizes are close to those of GSM8K.
    """

    source: Literal["gsm-symbolic", "gsm8k"] = "gsm-symbolic"
    path: str | None = None
    train_size: int | None = Field(default=7000, ge=1)
    validation_size: int = Field(default=400, ge=1)
    test_size: int = Field(default=1319, ge=1)
    data_seed: int = Field(default=2511, ge=0, lt=2**32)
    annotations: bool = True

    @model_validator(mode="after")
    def _fits_the_source(self) -> Self:
        if self.source == "gsm-symbolic":
            if self.path is not None:
                raise refusal("path with source gsm8k only")
            if self.train_size is None:
                raise refusal("train_size, with source gsm-symbolic")
        return self


class ChatFormat(Frozen):
    """How a word problem becomes tokens, by the chat template of the model's tokenizer.

    `system`: the system message; None leaves it to the template. `loss_on`: the tokens of the answer and the end of the
    turn, or all. `context`: the most tokens of a sequence; an example that is longer is dropped or truncated. `pack`:
    several examples share a sequence of up to `context` tokens, and none sees another.
    """

    system: str | None = None
    loss_on: LossOn = "answer"
    context: int = Field(default=2048, ge=8)
    too_long: Literal["drop", "truncate"] = "drop"
    pack: bool = False


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Decay = Literal["constant", "linear"]


class QuantumAttention(Frozen):
    """(softmax(S / sqrt(d)) + Phi(S)) V in every layer, S = Q K^T (arXiv 2511.01918, Eq. 3 to 5).

    `n_qubits`, `depth`, `entangle` (True: chain, False: none) and `rotations` say what circuit (circuits/spec.py);
    `readout` what of its state Phi is (models/attention.py). `per_head`: a circuit for each head of each layer instead
    of one a layer. `phi` False: no circuit and no angles, the model without quantum attention bit for bit. `compiled`:
    Phi by torch.compile, which takes seconds at first.

    The circuits' angles, one tensor a layer, are parameters of the model like any other: every arm trains them, and a
    `Perturbation` reaches them where its scope does (`tensor`: the first n_qubits of each such tensor).
    """

    n_qubits: int = Field(default=4, ge=1, le=12)
    depth: int = Field(default=2, ge=1, le=64)
    entangle: Annotated[Entangle, BeforeValidator(entangle_by_name)] = "chain"
    rotations: Annotated[tuple[Rotation, ...], Field(min_length=1)] = ("ry", "rz")
    readout: Literal["amplitude", "probability"] = "amplitude"
    per_head: bool = False
    phi: bool = True
    compiled: bool = False


class Transformer(Frozen):
    """The paper's classifier (paper, settings table). `attention` None: softmax attention alone."""

    d_model: int = Field(default=64, ge=1)
    n_heads: int = Field(default=4, ge=1)
    d_feedforward: int = Field(default=128, ge=1)
    n_layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    attention: QuantumAttention | None = None

    @model_validator(mode="after")
    def _heads_divide(self) -> Transformer:
        if self.d_model % self.n_heads:
            raise refusal(f"d_model divisible by n_heads; got {self.d_model} and {self.n_heads}")
        return self


class TextTask(Frozen):
    """Synthetic sequence classification (workloads/text.py defines the generator of each family).

    `difficulty` from 0 to 1: the share of sequences whose evidence is redrawn without regard to their label.
    The defaults are calibrated on Adam alone (docs/findings.md, 2026-11-22).
    """

    kind: Literal["text"] = "text"
    family: Literal["motif", "order", "match"] = "order"
    difficulty: float = Field(default=0.10, ge=0, le=1)
    n_classes: int = Field(default=2, ge=2, le=16)
    vocabulary: int = Field(default=12, ge=6, le=4096)
    length: int = Field(default=16, ge=8, le=4096)
    train_size: int = Field(default=832, ge=1)
    validation_size: int = Field(default=1024, ge=1)
    test_size: int = Field(default=2048, ge=1)
    data_seed: Seed = 2511
    batch_size: int = Field(default=32, ge=1)
    target_accuracy: float = Field(default=0.9, gt=0, lt=1)
    model: Transformer = Transformer()

    @property
    def accuracy_name(self) -> str:
        """What the report calls the share of right answers."""
        return "accuracy"

    @model_validator(mode="after")
    def _fits(self) -> TextTask:
        if self.batch_size > self.train_size:
            raise refusal(f"batch_size <= train_size; got {self.batch_size} and {self.train_size}")
        if self.family == "match" and self.n_classes > min(self.vocabulary, self.length - 1):
            raise refusal(
                f"n_classes at most vocabulary and length - 1 for family match; got {self.n_classes} with vocabulary "
                f"{self.vocabulary} and length {self.length}"
            )
        return self


class LanguageTask(Frozen):
    """Fine-tuning a causal language model on word problems (workloads/llm.py).

    `model`: a name that models/pretrained.py knows. `lora` None: all weights are trained. `micro_batch_size`: the most
    sequences of a forward pass; None: a worker's whole part of a batch.

    `dtype`: in which weights, gradients and moments are kept. `autocast`: mixed precision, matrix products in half
    precision from float32 weights; with `float16` the loss is scaled, and steps whose gradients overflow are left out.

    `steps_per_epoch`: after so many steps a trial is measured; None: after a pass over the training data. The order of
    the data goes on from epoch to epoch: step s of a trial is step s mod n of pass s div n, a pass having n steps.

    The learning rate rises from 0 over `warmup_steps`, then stays (`constant`) or falls in a line, to 0 after the
    trial's last step (`linear`). `clip_norm`: the largest norm that the gradient of a step keeps.

    Accuracy is that of the tokens on which the loss counts, each told what comes before it; `target_accuracy` is of it.
    Besides, the first `n_answers` test problems are answered by generation at the end of a confirmation, each in up to
    `max_new_tokens` tokens.
    """

    kind: Literal["llm"] = "llm"
    model: str = "smollm2-135m"
    data: WordProblems = WordProblems()
    form: ChatFormat = ChatFormat()
    lora: Lora | None = None
    attention: QuantumAttention | None = None
    dtype: Dtype = "float32"
    autocast: HalfPrecision | None = None
    gradient_checkpointing: bool = False
    batch_size: int = Field(default=1, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    decay: Decay = "constant"
    clip_norm: float | None = Field(default=None, gt=0)
    n_answers: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=256, ge=1)
    target_accuracy: float = Field(default=0.9, gt=0, lt=1)

    @property
    def accuracy_name(self) -> str:
        return "accuracy of answer tokens" if self.form.loss_on == "answer" else "accuracy of tokens"

    @model_validator(mode="after")
    def _enough_problems(self) -> Self:
        if self.n_answers > self.data.test_size:
            raise refusal(f"n_answers at most data.test_size ({self.data.test_size}); got {self.n_answers}")
        if self.data.train_size is not None and self.batch_size > self.data.train_size:
            raise refusal(f"batch_size at most data.train_size ({self.data.train_size}); got {self.batch_size}")
        if self.autocast is not None and self.dtype != "float32":
            raise refusal(f"autocast with dtype float32 only; got {self.autocast} and {self.dtype}")
        return self


def _kind(task: Any) -> Any:
    return task.get("kind", "text") if isinstance(task, dict) else getattr(task, "kind", None)


def _known(task: Any) -> Any:
    """pydantic's own message would name neither the field nor what came."""
    if not isinstance(task, dict | BaseModel):
        raise refusal("a TextTask or a LanguageTask")
    if _kind(task) not in TASK_KINDS:
        raise refusal(f"kind 'text' or 'llm'; got {_kind(task)!r}")
    return task


Task = Annotated[
    Annotated[TextTask, Tag("text")] | Annotated[LanguageTask, Tag("llm")],
    Discriminator(_kind),
    BeforeValidator(_known),
]
