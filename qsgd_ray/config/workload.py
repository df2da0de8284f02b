"""Shipped workloads: a model, data and everything that goes with them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from qsgd_ray.config._numbers import MOST, Flag, Real, Seed, Whole
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings
from qsgd_ray.config.circuit import Entangle, Rotation, entangle_by_name
from qsgd_ray.config.metric import _AccuracyTask

LossOn = Literal["answer", "all"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Dtype = Literal["float32", "bfloat16"]
HalfPrecision = Literal["bfloat16", "float16"]

# Tokens of a sequence of the text task.
LONGEST = 4096
_MOST_SEQUENCES = 2**24
# Of a split of the text task; the whole of it lies in memory as int64: 2 GiB.
_MOST_TOKENS_OF_SPLIT = 2**28
_MOST_PROBLEMS = 10_000_000
_MOST_TOKENS = 2**20
_MOST_WIDTH = 65_536
_MOST_LAYERS = 1024


class Lora(Settings):
    """Low-rank adapters (arXiv 2106.09685) beside the named linear layers; all other weights are frozen.

    The angles of quantum attention are trained too.

    Attributes:
        r: rank of the adapters, >= 1.
        alpha: the adapters' output is scaled by alpha / r, > 0.
        dropout: of the adapters' input, in [0, 1).
        target_modules: names of the linear layers that get an adapter, at least one.

    Example:
        >>> Lora(r=4).target_modules
        ('q_proj', 'v_proj')
    """

    r: Whole = Field(default=8, ge=1, le=4096)
    alpha: Real = Field(default=16.0, gt=0)
    dropout: Real = Field(default=0.0, ge=0, lt=1)
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = ("q_proj", "v_proj")


class WordProblems(Settings):
    """Grade-school word problems with worked answers, in three splits that share no question.

    The default sizes are close to those of GSM8K.

    Attributes:
        source: `gsm-symbolic`, drawn from templates (workloads/_gsm_symbolic.py), or `gsm8k` (workloads/_gsm8k.py),
            whose test split is its own and whose validation split is taken out of its training split.
        path: folder with a copy of GSM8K. None: from the hub.
        train_size: problems to train on, >= 1. None, with `gsm8k`: all that are left.
        validation_size: problems to validate on, >= 1.
        test_size: problems to test on, >= 1.
        data_seed: of the problems that are drawn, or of the split, 0 to 2^32 - 1.
        annotations: False takes GSM8K's <<48/2=24>> out of the answers.

    Raises:
        InvalidSettings: `gsm-symbolic` with a path, or without a train_size.

    Example:
        >>> WordProblems(train_size=64, validation_size=8, test_size=8).source
        'gsm-symbolic'
    """

    source: Literal["gsm-symbolic", "gsm8k"] = "gsm-symbolic"
    path: str | None = None
    train_size: Whole | None = Field(default=7000, ge=1, le=_MOST_PROBLEMS)
    validation_size: Whole = Field(default=400, ge=1, le=_MOST_PROBLEMS)
    test_size: Whole = Field(default=1319, ge=1, le=_MOST_PROBLEMS)
    data_seed: Seed = 2511
    annotations: Flag = True

    @model_validator(mode="after")
    def _fits_the_source(self) -> Self:
        if self.source == "gsm-symbolic":
            if self.path is not None:
                raise refusal("path with source gsm8k only")
            if self.train_size is None:
                raise refusal("train_size, with source gsm-symbolic")
        return self


class ChatFormat(Settings):
    """Format in which a word problem becomes tokens, by the chat template of the model's tokenizer.

    Attributes:
        system: the system message. None: the template decides.
        loss_on: tokens on which the loss counts: `answer`, the answer and the end of the turn, or `all`.
        context: the most tokens of a sequence, >= 8.
        too_long: an example that has more is left out (`drop`) or cut (`truncate`).
        pack: several examples share a sequence of up to `context` tokens, and none sees another.

    Example:
        >>> ChatFormat(context=192).loss_on
        'answer'
    """

    system: str | None = None
    loss_on: LossOn = "answer"
    context: Whole = Field(default=2048, ge=8, le=_MOST_TOKENS)
    too_long: Literal["drop", "truncate"] = "drop"
    pack: Flag = False


Decay = Literal["constant", "linear"]


class QuantumAttention(Settings):
    """Quantum attention in every layer: (softmax(S / sqrt(d)) + Phi(S)) V, S = Q K^T (arXiv 2511.01918, Eq. 3 to 5).

    The circuits' angles, one tensor a layer, are parameters of the model like any other: every arm trains them, and a
    `Perturbation` reaches them where its scope does (`tensor`: the first n_qubits of each such tensor).

    Attributes:
        n_qubits: qubits of a circuit, 1 to 12.
        depth: layers of a circuit (circuits/spec.py), 1 to 64.
        entangle: the circuit's CNOTs: `chain` (True), `ring`, `all` or `none` (False).
        rotations: the gates of a layer on every qubit, in their order; at least one of `rx`, `ry`, `rz`.
        readout: number that Phi takes from the circuit's state (models/attention.py): `amplitude` or `probability`.
        per_head: True: a circuit for each head of each layer, instead of one a layer.
        phi: False: no circuit and no angles; the model without quantum attention, bit for bit.
        compiled: True: Phi by torch.compile, which takes seconds at first.

    Example:
        >>> Transformer(attention=QuantumAttention(n_qubits=2)).attention.depth
        2
    """

    n_qubits: Whole = Field(default=4, ge=1, le=12)
    depth: Whole = Field(default=2, ge=1, le=64)
    entangle: Annotated[Entangle, BeforeValidator(entangle_by_name)] = "chain"
    rotations: Annotated[tuple[Rotation, ...], Field(min_length=1)] = ("ry", "rz")
    readout: Literal["amplitude", "probability"] = "amplitude"
    per_head: Flag = False
    phi: Flag = True
    compiled: Flag = False


class Transformer(Settings):
    """Transformer classifier of the paper (arXiv 2511.01918, settings table; models/transformer.py).

    Attributes:
        d_model: width of the embeddings, >= 1; divisible by `n_heads`.
        n_heads: attention heads of a layer, >= 1.
        d_feedforward: width of the feed-forward layers, >= 1.
        n_layers: layers, >= 1.
        dropout: in [0, 1).
        attention: quantum attention in every layer. None: softmax attention alone.

    Raises:
        InvalidSettings: `n_heads` does not divide `d_model`.

    Example:
        >>> Transformer().d_model
        64
    """

    d_model: Whole = Field(default=64, ge=1, le=_MOST_WIDTH)
    n_heads: Whole = Field(default=4, ge=1, le=_MOST_WIDTH)
    d_feedforward: Whole = Field(default=128, ge=1, le=_MOST_WIDTH)
    n_layers: Whole = Field(default=2, ge=1, le=_MOST_LAYERS)
    dropout: Real = Field(default=0.1, ge=0, lt=1)
    attention: QuantumAttention | None = None

    @model_validator(mode="after")
    def _heads_divide(self) -> Transformer:
        if self.d_model % self.n_heads:
            raise refusal(f"d_model divisible by n_heads; got {self.d_model} and {self.n_heads}")
        return self


class TextTask(_AccuracyTask):
    """Synthetic sequence classification (workloads/text.py defines the generator of each family).

    The defaults are calibrated on Adam alone (docs/findings_history.md, 2026-11-22).

    Attributes:
        kind: `text`.
        family: evidence of the class: `motif`, `order` or `match`.
        difficulty: share of sequences whose evidence is redrawn without regard to their label, 0 to 1.
        n_classes: 2 to 16; with `match` at most vocabulary and length - 1.
        vocabulary: tokens that there are, 6 to 4096.
        length: tokens of a sequence, 8 to 4096.
        train_size: sequences to train on, >= batch_size.
        validation_size: sequences to validate on, >= 1.
        test_size: sequences to test on, >= 1.
        data_seed: of all three splits, 0 to 2^32 - 1.
        batch_size: sequences of a step, over all workers, >= 1.
        target_accuracy: validation accuracy whose first epoch is recorded, in (0, 1).
        model: the classifier.

    Raises:
        InvalidSettings: a batch larger than the training data, or more classes than a family has room for.

    Example:
        >>> TextTask(length=32).accuracy_name
        'accuracy'
    """

    kind: Literal["text"] = "text"
    family: Literal["motif", "order", "match"] = "order"
    difficulty: Real = Field(default=0.10, ge=0, le=1)
    n_classes: Whole = Field(default=2, ge=2, le=16)
    vocabulary: Whole = Field(default=12, ge=6, le=4096)
    length: Whole = Field(default=16, ge=8, le=LONGEST)
    train_size: Whole = Field(default=832, ge=1, le=_MOST_SEQUENCES)
    validation_size: Whole = Field(default=1024, ge=1, le=_MOST_SEQUENCES)
    test_size: Whole = Field(default=2048, ge=1, le=_MOST_SEQUENCES)
    data_seed: Seed = 2511
    batch_size: Whole = Field(default=32, ge=1, le=_MOST_SEQUENCES)
    target_accuracy: Real = Field(default=0.9, gt=0, lt=1)
    model: Transformer = Transformer()

    @property
    def accuracy_name(self) -> str:
        """Name of the share of right answers, for reports."""
        return "accuracy"

    @model_validator(mode="after")
    def _fits(self) -> TextTask:
        if self.batch_size > self.train_size:
            raise refusal(f"batch_size <= train_size; got {self.batch_size} and {self.train_size}")
        for split in SPLITS:
            size = getattr(self, f"{split}_size")
            if size * self.length > _MOST_TOKENS_OF_SPLIT:
                raise refusal(
                    f"{split}_size * length <= {_MOST_TOKENS_OF_SPLIT:,} tokens, as data lies in memory; "
                    f"got {size} * {self.length}"
                )
        if self.family == "match" and self.n_classes > min(self.vocabulary, self.length - 1):
            raise refusal(
                f"n_classes at most vocabulary and length - 1 for family match; got {self.n_classes} with vocabulary "
                f"{self.vocabulary} and length {self.length}"
            )
        return self


class LanguageTask(_AccuracyTask):
    """Fine-tuning of a causal language model on word problems (workloads/llm.py).

    The order of the data goes on from epoch to epoch: step s of a trial is step s mod n of pass s div n over the
    training data, a pass having n steps.

    Attributes:
        kind: `llm`.
        model: a name that models/pretrained.py knows: a folder, a model of the hub, `smollm2-135m`.
        data: the word problems.
        form: the tokens that are made of them.
        lora: adapters that are trained in place of the weights. None: all weights are trained.
        attention: quantum attention in every layer. None: softmax attention alone.
        dtype: of weights, gradients and moments.
        autocast: mixed precision, matrix products in half precision from float32 weights; with `float16` the loss is
            scaled, and steps whose gradients overflow are left out. None: off.
        gradient_checkpointing: True: activations are computed again in the backward pass, which saves their memory.
        batch_size: sequences of a step, over all workers, >= 1.
        micro_batch_size: the most sequences of a forward pass, >= 1. None: a worker's whole part of a batch.
        steps_per_epoch: steps after which a trial is measured, >= 1. None: a pass over the training data.
        warmup_steps: steps over which the learning rate rises from 0, >= 0.
        decay: the learning rate afterwards: `constant`, or `linear`, to 0 after the trial's last step.
        clip_norm: the largest norm that the gradient of a step keeps, > 0. None: it is not clipped.
        n_answers: test problems, the first ones, that are answered by generation at the end of a confirmation, >= 0.
        max_new_tokens: the most tokens of such an answer, >= 1.
        target_accuracy: accuracy whose first epoch is recorded, in (0, 1). Accuracy is the share of right tokens, of
            those on which the loss counts, each predicted from all that comes before it.

    Raises:
        InvalidSettings: more answers or a larger batch than there are problems, or autocast of other than float32.

    Example:
        >>> LanguageTask(lora=Lora(r=8), batch_size=4).accuracy_name
        'accuracy of answer tokens'
    """

    kind: Literal["llm"] = "llm"
    model: str = "smollm2-135m"
    data: WordProblems = WordProblems()
    form: ChatFormat = ChatFormat()
    lora: Lora | None = None
    attention: QuantumAttention | None = None
    dtype: Dtype = "float32"
    autocast: HalfPrecision | None = None
    gradient_checkpointing: Flag = False
    batch_size: Whole = Field(default=1, ge=1, le=_MOST_PROBLEMS)
    micro_batch_size: Whole | None = Field(default=None, ge=1, le=_MOST_PROBLEMS)
    steps_per_epoch: Whole | None = Field(default=None, ge=1, le=MOST)
    warmup_steps: Whole = Field(default=0, ge=0, le=MOST)
    decay: Decay = "constant"
    clip_norm: Real | None = Field(default=None, gt=0)
    n_answers: Whole = Field(default=0, ge=0, le=_MOST_PROBLEMS)
    max_new_tokens: Whole = Field(default=256, ge=1, le=_MOST_TOKENS)
    target_accuracy: Real = Field(default=0.9, gt=0, lt=1)

    @property
    def accuracy_name(self) -> str:
        """Name of the share of right tokens, for reports."""
        return "accuracy of answer tokens" if self.form.loss_on == "answer" else "accuracy of tokens"

    @property
    def required_modules(self) -> dict[str, str]:
        """Modules that training needs: transformers, and peft for adapters."""
        needed = {"transformers": "workload.model"}
        return needed if self.lora is None else needed | {"peft": "workload.lora"}

    @property
    def has_long_steps(self) -> bool:
        """True: a step takes seconds."""
        return True

    @property
    def is_language_model(self) -> bool:
        """True: losses are in nats a token."""
        return True

    @model_validator(mode="after")
    def _enough_problems(self) -> Self:
        if self.n_answers > self.data.test_size:
            raise refusal(f"n_answers at most data.test_size ({self.data.test_size}); got {self.n_answers}")
        if self.data.train_size is not None and self.batch_size > self.data.train_size:
            raise refusal(f"batch_size at most data.train_size ({self.data.train_size}); got {self.batch_size}")
        if self.autocast is not None and self.dtype != "float32":
            raise refusal(f"autocast with dtype float32 only; got {self.autocast} and {self.dtype}")
        return self
