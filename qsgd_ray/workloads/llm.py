"""Fine-tuning a language model on word problems: a `LanguageTask` comes in; its data, model, loss and metric go out.

Every rank divides by the tokens of the whole step, so ranks and micro batches give the loss and the gradient of a
single process (_token_loss.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from qsgd_ray.config import LanguageTask
from qsgd_ray.models.flops import StepFlops, step_flops
from qsgd_ray.models.pretrained import TORCH_DTYPES, load_pretrained, load_tokenizer
from qsgd_ray.optimizer.schedules import RateShape
from qsgd_ray.outcome import AnswerCounts, Evaluation, Work
from qsgd_ray.workloads._chat import encode
from qsgd_ray.workloads._generation import generate_answers
from qsgd_ray.workloads._precision import precision
from qsgd_ray.workloads._token_batches import TokenBatches, TokenStep
from qsgd_ray.workloads._token_loss import backward_step, evaluate_tokens
from qsgd_ray.workloads._word_problems import load_word_problems

# Sequences of a forward pass without gradients.
_EVALUATION_BATCH = 8


class LanguageWorkload:
    """Fine-tuning of a causal language model on word problems (see `Workload`, workloads/protocol.py).

    The loss is the mean cross entropy of the tokens that count, in nats; accuracy is that of these tokens.

    Args:
        settings: model, data, chat format and recipe.
        device: where batches go.

    Raises:
        StudyError: one line: no such model or data, a package is missing, or too few problems fit into the context.
    """

    def __init__(self, settings: LanguageTask, device: str | torch.device = "cpu") -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.rate = RateShape(settings.warmup_steps, settings.decay)
        self.clip_norm = settings.clip_norm
        self.scales_loss = settings.autocast == "float16"
        self.matmul_dtype = TORCH_DTYPES[settings.autocast or settings.dtype]
        self._flops: StepFlops | None = None
        self._tokenizer = load_tokenizer(settings.model)
        problems = load_word_problems(settings.data)
        self._generation_problems = problems.test[: settings.n_answers]
        pad_id, form = self._tokenizer.pad_token_id, settings.form
        self._training = TokenBatches(
            encode(problems.train, self._tokenizer, form).examples,
            batch_size=settings.batch_size,
            micro_batch_size=settings.micro_batch_size,
            pack_to=form.context if form.pack else None,
            pad_id=pad_id,
            device=self.device,
        )
        self._held_out = {
            split: TokenBatches(
                encode(getattr(problems, split), self._tokenizer, form).examples,
                batch_size=1,
                pad_id=pad_id,
                device=self.device,
            )
            for split in ("validation", "test")
        }
        self.steps_per_epoch = settings.steps_per_epoch or self._training.steps_per_epoch

    def make_model(self, seed: int) -> nn.Module:
        """Load the model onto the CPU; adapters and angles depend on the seed alone, and no global generator moves.

        It is read anew each time: a copy to start from would take as much memory as the model.
        """
        settings = self.settings
        model: nn.Module = load_pretrained(
            settings.model,
            dtype=settings.dtype,
            gradient_checkpointing=settings.gradient_checkpointing,
            lora=settings.lora,
            attention=settings.attention,
            seed=seed,
        ).model
        self._flops = step_flops(model)
        return model

    def batches(self, seed: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0) -> Iterator[TokenStep]:
        """Yield this rank's part of each step of the epoch, which begins where the epoch before it ended.

        Args:
            seed: the trial's seed.
            epoch: number of the epoch, from 1; step s of a trial is step s mod n of pass s div n over the data.
            rank: this rank, 0 <= rank < world_size.
            world_size: ranks that train together, 1 to batch_size.
            start: first step of the epoch to yield, from 0.
        """
        step = (epoch - 1) * self.steps_per_epoch + start
        left = self.steps_per_epoch - start
        while left:
            data_pass, pass_step = divmod(step, self._training.steps_per_epoch)
            for part in islice(self._training.steps(seed, data_pass, rank, world_size, pass_step), left):
                yield part
                step, left = step + 1, left - 1

    def backward(
        self,
        model: nn.Module,
        batch: TokenStep,
        world_size: int = 1,
        backward: Callable[[Tensor], object] = Tensor.backward,
    ) -> Tensor:
        """Add the gradient of the mean loss over the tokens of the step.

        Args:
            model: the model, perhaps in DistributedDataParallel or in shards.
            batch: this rank's part, in micro batches.
            world_size: ranks that train together.
            backward: differentiates a scalar loss.

        Returns:
            A detached scalar in nats; its mean over the ranks is the loss of the step.
        """
        with self._precision():
            return backward_step(model, batch, world_size, backward) * (world_size / batch.n_tokens)

    def work(self, batch: TokenStep, world_size: int = 1) -> Work:  # noqa: ARG002
        """Count tokens and operations of the examples of a step, over all ranks, without padding.

        Args:
            batch: one rank's part, which has the lengths of all.
            world_size: not looked at.
        """
        flops = 0.0 if self._flops is None else self._flops.count(batch.lengths, batch.n_tokens)
        return Work(sum(batch.lengths), flops)

    def _precision(self) -> AbstractContextManager[object]:
        return precision(self.device, self.settings.autocast)

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], rank: int = 0, world_size: int = 1
    ) -> Evaluation:
        """Sum loss and right predictions over the tokens that count in this rank's share of a split.

        Args:
            model: the bare model, whole or in shards.
            split: "validation" or "test".
            rank: this rank, 0 <= rank < world_size; its share is problems rank::world_size.
            world_size: ranks that evaluate together.
        """
        with self._precision():
            return evaluate_tokens(model, self._held_out[split].share(rank, world_size, _EVALUATION_BATCH))

    def answers(self, model: nn.Module, rank: int = 0, world_size: int = 1) -> AnswerCounts | None:
        """Generate answers to this rank's share of the first `n_answers` test problems, and count the right ones.

        Args:
            model: the bare model with all its weights.
            rank: this rank, 0 <= rank < world_size.
            world_size: ranks that generate together.

        Returns:
            Counts over the share; None where `n_answers` is 0.
        """
        if not self._generation_problems:
            return None
        with self._precision():
            answers = generate_answers(
                model,
                self._tokenizer,
                self._generation_problems,
                self.settings.form,
                max_new_tokens=self.settings.max_new_tokens,
                rank=rank,
                world_size=world_size,
            )
        n_without_number = sum(answer.number is None for answer in answers)
        return AnswerCounts(sum(answer.correct for answer in answers), n_without_number, len(answers))
