"""Settings of a language task: word problems, how they become tokens, adapters; frozen, checked, JSON round trip."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.spaces import Frozen, refuse

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

    `gsm-symbolic`: drawn from templates by `data_seed` (workloads/gsm_symbolic.py). `gsm8k`: GSM8K, from the hub or
    from `path`, a folder with a copy of it (workloads/gsm8k.py); its test split is theirs, validation is taken out of
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
                raise refuse("path with source gsm8k only")
            if self.train_size is None:
                raise refuse("train_size, with source gsm-symbolic")
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
