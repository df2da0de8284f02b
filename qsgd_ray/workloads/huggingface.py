"""Fine-tuning of transformers models on text: a `HuggingFaceTask` comes in; a `Workload` goes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qsgd_ray.config import HuggingFaceTask, Splits, StudyError
from qsgd_ray.models.flops import StepFlops, step_flops
from qsgd_ray.models.pretrained import TORCH_DTYPES, load_pretrained, load_tokenizer
from qsgd_ray.outcome import Work
from qsgd_ray.workloads._own_workload import OwnBatch
from qsgd_ray.workloads._precision import precision
from qsgd_ray.workloads._text_files import read_examples
from qsgd_ray.workloads._token_rows import TokenRows, token_rows
from qsgd_ray.workloads.supervised import SupervisedWorkload


class HuggingFaceWorkload(SupervisedWorkload):
    """Fine-tuning of a transformers model, or of one that a class makes (see `Workload`).

    Args:
        settings: the task's.
        device: where batches are made.

    Raises:
        StudyError: no such model or data, or a package is missing; one line.
        ValueError: what a method of the class returned cannot be used; one line.
    """

    def __init__(self, settings: HuggingFaceTask, device: str | torch.device = "cpu") -> None:
        settings.require_same_content()
        super().__init__(settings, device)
        self._task = settings
        self._flops: StepFlops | None = None
        self.scales_loss = settings.autocast == "float16"
        self.matmul_dtype = TORCH_DTYPES[settings.autocast or "float32"]

    def _splits(self, settings: HuggingFaceTask, generator: torch.Generator) -> Splits:
        if _states(settings, "data"):
            return settings.data(generator)
        examples = settings.texts(generator) if _states(settings, "texts") else read_examples(settings)
        if not isinstance(examples, Splits):
            raise ValueError(f"texts: got a {type(examples).__name__}; allowed: Splits(train, validation, test)")
        with _own_words():
            tokenizer = load_tokenizer(settings.pretrained, settings.fresh)
        return Splits(**{name: token_rows(part, name, tokenizer, settings) for name, part in examples})

    def _model(self, generator: torch.Generator) -> nn.Module:
        task = self._task
        if _states(task, "model"):
            return task.model(generator)
        with _own_words():
            model: nn.Module = load_pretrained(
                task.pretrained,
                gradient_checkpointing=task.gradient_checkpointing,
                lora=task.lora,
                attention=task.attention,
                n_classes=task.n_classes if task.head == "classification" else None,
                fresh=task.fresh,
                seed=generator.initial_seed(),
            ).model
        return model

    def make_model(self, seed: int) -> nn.Module:
        """Make the model on the CPU: weights that are read, and a head and adapters that depend on the seed alone."""
        model = super().make_model(seed)
        try:
            self._flops = step_flops(model)
        except AttributeError:  # no transformers model, or one that names its sizes otherwise
            self._flops = None
        return model

    def _batch(self, whole: Tensor, chosen: Tensor) -> OwnBatch:
        batch, rows = super()._batch(whole, chosen), self._train.source
        if not isinstance(rows, TokenRows):
            return batch
        return batch._replace(lengths=tuple(rows.lengths[index] for index in whole.tolist()))

    def _loss(self, model: Any, batch: OwnBatch) -> Tensor:
        with precision(self.device, self._task.autocast):
            return super()._loss(model, batch)

    def _measured(self, model: Any, batch: OwnBatch) -> tuple[float, dict[str, tuple[float, float]]]:
        """Return the mean loss of a batch and its metrics, of one forward pass where the class states neither."""
        with precision(self.device, self._task.autocast):
            if not _states(self._task, "loss") and not _states(self._task, "metrics"):
                model = _Answered(self._task.logits(model, batch.items))
            return super()._measured(model, batch)

    def work(self, batch: OwnBatch, world_size: int = 1) -> Work:  # noqa: ARG002
        """Count tokens and operations of the items of a step, over all ranks, without padding.

        Args:
            batch: one rank's part, which has the lengths of all.
            world_size: not looked at.
        """
        n_tokens = sum(batch.lengths)
        n_logits = n_tokens if self._task.head == "causal" else 0
        return Work(n_tokens, 0.0 if self._flops is None else self._flops.count(batch.lengths, n_logits))


class _Answered:
    """A model that has answered: any call gives the logits that it gave."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, **_: Any) -> _Answered:
        return self


def _states(task: HuggingFaceTask, method: str) -> bool:
    """Return True where a task's class has a method of its own."""
    return getattr(type(task), method) is not getattr(HuggingFaceTask, method)


@contextmanager
def _own_words() -> Iterator[None]:
    """Name the fields of this task, and the extra that it needs, in what a loader of models refuses."""
    try:
        yield
    except StudyError as error:
        text = str(error).replace("qsgd-ray[llm]", "qsgd-ray[huggingface]")
        raise StudyError(f"pretrained:{text.removeprefix('model:')}" if text.startswith("model:") else text) from None
