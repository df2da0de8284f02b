"""Fine-tuning of Hugging Face models: a model and data of the hub or of folders are named; loss and metrics follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config._folder_content import DATA_FILES, MODEL_FILES, folder_at, folder_digest
from qsgd_ray.config._numbers import MOST, Flag, Real, Seed, Whole
from qsgd_ray.config._problems import refusal
from qsgd_ray.config.errors import StudyError, _shown, one_line
from qsgd_ray.config.metric import Metric
from qsgd_ray.config.own_task import Splits, _CommonFields
from qsgd_ray.config.supervised import SupervisedTask
from qsgd_ray.config.workload import HalfPrecision, Lora, QuantumAttention

if TYPE_CHECKING:
    import torch

# Models that a name alone decides, to the bit (models/pretrained.py).
_FIXED = ("tiny", "smollm2-135m")
# Branches and tags of the hub move; a commit does not.
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
_COMMIT = "one of the hub with its commit, owner/name@ and 40 hexadecimal digits"
_SOURCES = {"pretrained": MODEL_FILES, "dataset": DATA_FILES}
_MOST_CLASSES = 65_536
_MOST_TOKENS = 2**20
# The label that torch and transformers leave out of a loss.
_IGNORED = -100

_Text = Annotated[str, Field(min_length=1, max_length=1000)]
_Column = Annotated[str, Field(min_length=1, max_length=200)]


class _Limits(_CommonFields):
    batch_size: Whole = Field(default=16, ge=1, le=MOST)


class HuggingFaceTask(SupervisedTask):
    """Fine-tuning of a transformers model on text: classification of sequences, or causal language modelling.

    It is used as it is, or derived from: a class may state `texts` (examples of its own), `data`, `model`, `loss`,
    `metrics` and further fields. Weights come from safetensors files, and no code of a model or data set is run.

    A trial is named by the content of both: by the commit of what is on the hub, and by a hash of the files of a
    folder, which `content` holds.

    Attributes:
        pretrained: `tiny`, `smollm2-135m`, a folder that `save_pretrained` of a model and its tokenizer has written, or
            a model of the hub with its commit, `owner/name@commit`.
        dataset: a folder of parquet, jsonl or csv files whose names or folders begin with train, validation (val, dev)
            or test; or a data set of the hub with its commit. None: the class states `texts` or `data`.
        subset: a folder within the data set. None: all of it.
        head: `classification`: the cross entropy of a head over the sequence; `causal`: that of each next token.
        n_classes: of `classification`, 2 to 65,536. Labels are 0 to n_classes - 1, or words, which are numbered in
            their alphabetical order.
        text_column: column of the text.
        pair_column: column of a second text, with which the first is read. None: there is none.
        label_column: column of the class.
        held_out: share of the training rows that a missing split is drawn from by `data_seed`, in (0, 1).
        train_size: rows to train on, drawn by `data_seed`, >= 1. None: all.
        validation_size: rows to validate on, likewise.
        test_size: rows to test on, likewise.
        max_length: the most tokens of an example, the rest is cut off, >= 2.
        fresh: True: the weights are drawn from the trial's seed; of the model its config.json is read alone.
        lora: adapters that are trained, with the head, in place of the weights. None: all weights are trained.
        attention: quantum attention in every layer. None: softmax attention alone.
        autocast: matrix products in half precision; with `float16` the loss is scaled. None: float32.
        gradient_checkpointing: True: activations are computed again in the backward pass, which saves their memory.
        batch_size: examples of a step, over all workers, >= 1.
        data_seed: names the draws of rows, 0 to 2^32 - 1. All arms and seeds have the same.
        target_accuracy: validation accuracy whose first epoch is recorded, in (0, 1).
        clip_norm: the largest norm that the gradient of a step keeps, > 0. None: it is not clipped.
        content: hashes of the folders that are named, filled in; not to be stated.

    Raises:
        InvalidSettings: a wrong field, a folder that is not there, or a hub name without its commit.

    Example:
        >>> from qsgd_ray.config import HuggingFaceTask, Splits
        >>> class Echo(HuggingFaceTask):
        ...     def texts(self, generator):
        ...         return Splits(train=[("yes", 1), ("no", 0)], validation=[("yes", 1)], test=[("no", 0)])
        >>> Echo.model_fields["head"].default
        'classification'
    """

    packages: ClassVar[tuple[str, ...]] = ("peft", "transformers")

    pretrained: _Text
    dataset: _Text | None = None
    subset: _Text | None = None
    head: Literal["classification", "causal"] = "classification"
    n_classes: Whole = Field(default=2, ge=2, le=_MOST_CLASSES)
    text_column: _Column = "text"
    pair_column: _Column | None = None
    label_column: _Column = "label"
    held_out: Real = Field(default=0.1, gt=0, lt=1)
    train_size: Whole | None = Field(default=None, ge=1, le=MOST)
    validation_size: Whole | None = Field(default=None, ge=1, le=MOST)
    test_size: Whole | None = Field(default=None, ge=1, le=MOST)
    max_length: Whole = Field(default=128, ge=2, le=_MOST_TOKENS)
    fresh: Flag = False
    lora: Lora | None = None
    attention: QuantumAttention | None = None
    autocast: HalfPrecision | None = None
    gradient_checkpointing: Flag = False
    batch_size: Whole = Field(default=16, ge=1, le=MOST)
    data_seed: Seed = 0
    content: dict[str, str] = Field(default_factory=dict, max_length=len(_SOURCES))

    @property
    def measured(self) -> tuple[Metric, ...]:
        """Accuracy and loss of `classification`; loss and perplexity of `causal`."""
        if self.head == "classification":
            return super().measured
        loss = Metric("loss", direction="min", unit="nats")
        return (loss, Metric("perplexity", direction="min", kind="geometric"))

    @property
    def required_modules(self) -> dict[str, str]:
        """Modules that training needs: transformers, peft for adapters, and what the class's module names."""
        needed = {name: field for name, field in super().required_modules.items() if name not in self.packages}
        needed["transformers"] = "workload.pretrained"
        return needed if self.lora is None else needed | {"peft": "workload.lora"}

    @property
    def has_long_steps(self) -> bool:
        """True but for the tiny model of tests."""
        return self.pretrained != "tiny"

    @property
    def is_language_model(self) -> bool:
        """True for `causal`: its losses are in nats a token."""
        return self.head == "causal"

    @classmethod
    def _required(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def _limits(cls) -> type[_CommonFields]:
        return _Limits

    @model_validator(mode="after")
    def _whole(self) -> Self:
        states_data = any(getattr(type(self), name) is not getattr(HuggingFaceTask, name) for name in ("texts", "data"))
        if self.dataset is None and not states_data:
            raise refusal("dataset: a folder or a data set of the hub, or a class with a method texts; got None")
        if self.dataset is not None and states_data:
            raise refusal(f"dataset: None, as {type(self).__name__} states its own; got {_shown(self.dataset)}")
        if self.head == "causal" and self.pair_column is not None:
            raise refusal(f"pair_column: None with head causal; got {_shown(self.pair_column)}")
        inner = Path(self.subset or "")
        if inner.is_absolute() or ".." in inner.parts:
            raise refusal(f"subset: a folder within the data set; got {_shown(self.subset)}")
        found = {name: self._content_of(name) for name in _SOURCES}
        self.__dict__["content"] = {name: content for name, content in found.items() if content is not None}
        return self

    def _content_of(self, name: str) -> str | None:
        """Return what names the content of a folder, its hash and its path; None where its name does."""
        source = getattr(self, name)
        if source is None or (name == "pretrained" and source in _FIXED):
            return None
        said = self.content.get(name, "")
        if said.endswith(f" {source}"):  # of stored settings: the folder may not be here, and nothing is read of it
            return said
        if (folder := folder_at(source)) is not None:
            try:
                return f"{folder_digest(folder, _SOURCES[name])} {source}"
            except OSError as error:
                raise refusal(f"{name}: a folder that can be read; {one_line(error, limit=160)}") from None
        if not _HUB_ID.fullmatch(source):
            fixed = "".join(f"{word!r}, " for word in _FIXED) if name == "pretrained" else ""
            raise refusal(f"{name}: {fixed}a folder, or {_COMMIT}; got {_shown(source)}")
        return None

    def require_same_content(self) -> None:
        """Refuse to train on folders whose content is not that of the settings.

        Raises:
            StudyError: a folder has changed, or is not there; one line.
        """
        for name, said in self.content.items():
            digest, _, source = said.partition(" ")
            folder = folder_at(source)
            try:
                here = "no such folder" if folder is None else folder_digest(folder, _SOURCES[name])
            except OSError as error:
                here = one_line(error, limit=160)
            if here != digest:
                raise StudyError(f"{name}: got {source!r} with content {here}; allowed: {digest}, as the study has it")

    def texts(self, generator: torch.Generator) -> Splits:
        """Return examples: of `classification` tuples (text, label) or (text, second text, label), else texts.

        The default, which is not called, reads `dataset`.

        Args:
            generator: torch's, on the CPU; seeded from `data_seed`.
        """
        raise NotImplementedError

    def data(self, generator: torch.Generator) -> Splits:
        """Return encoded data, where a class does it itself; see `SupervisedTask.data`.

        By default the examples of `texts` are tokenized: an item is a dict of `input_ids` and `labels`, and a batch,
        padded on the right to its longest item, has `attention_mask` too.

        Args:
            generator: torch's, on the CPU; seeded from `data_seed`.
        """
        raise NotImplementedError

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        """Return a model on the CPU, where a class makes its own; by default `pretrained` with its head and adapters.

        Args:
            generator: torch's, for weights that are drawn by hand.
        """
        raise NotImplementedError

    def logits(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the model's logits, in float32 at least.

        Args:
            model: a transformers model, perhaps with adapters, in DistributedDataParallel or in shards.
            batch: as `data` says.

        Returns:
            Shape (batch, n_classes); of `causal` (batch, tokens, vocabulary).
        """
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits: torch.Tensor = model(**inputs).logits
        return logits.float() if logits.element_size() < 4 else logits

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the mean cross entropy in nats; of `causal` over the tokens of each text and then over the texts.

        Args:
            model: as in `logits`.
            batch: as in `logits`.
        """
        from torch.nn.functional import cross_entropy

        logits = self.logits(model, batch)
        if self.head == "classification":
            return cross_entropy(logits, batch["labels"])
        losses, counted = _token_losses(logits, batch["labels"])
        return (losses.sum(dim=1) / counted.sum(dim=1).clamp(min=1)).mean()

    def metrics(self, model: torch.nn.Module, batch: Any) -> Mapping[str, tuple[Any, Any]]:
        """Return right classes and their number; of `causal`, as perplexity, the loss of all tokens and their number.

        Args:
            model: as in `logits`.
            batch: as in `logits`.
        """
        logits, labels = self.logits(model, batch), batch["labels"]
        if self.head == "classification":
            return {"accuracy": ((logits.argmax(dim=1) == labels).sum(), len(labels))}
        losses, counted = _token_losses(logits, labels)
        return {"perplexity": (losses.double().sum(), counted.sum())}


def _token_losses(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Return the cross entropy of each next token, 0 where none counts, and where one counts: (batch, tokens - 1)."""
    from torch.nn.functional import cross_entropy

    targets = labels[:, 1:]
    losses = cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none", ignore_index=_IGNORED)
    return losses, targets != _IGNORED
