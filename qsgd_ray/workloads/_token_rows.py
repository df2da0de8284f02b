"""Texts as tokens: examples and a tokenizer come in; items, and padded batches of any of them, go out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.config import HuggingFaceTask
from qsgd_ray.workloads._chat import IGNORED

_ALLOWED = {
    "classification": "tuples (text, label) or (text, second text, label)",
    "causal": "texts",
}
# What pads each column; the positions of the rest are not looked at.
_PADDING = {"labels": IGNORED, "attention_mask": 0, "token_type_ids": 0}


class TokenRows:
    """Tokenized examples, a data set that pads each batch to its own longest item.

    Args:
        columns: by the name of a model's argument, a list of token ids (or alike) for each item.
        labels: the class of each item. None: each next token is what a model learns.
        pad_id: token that fills items up.

    Attributes:
        lengths: tokens of each item.
    """

    def __init__(self, columns: dict[str, list[list[int]]], labels: list[int] | None, pad_id: int) -> None:
        self._columns, self._labels, self._pad_id = columns, labels, pad_id
        self.lengths = tuple(map(len, columns["input_ids"]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an item: its token ids by the name of a model's argument, and its label.

        Args:
            index: from 0.
        """
        item: dict[str, Any] = {name: column[index] for name, column in self._columns.items()}
        return item if self._labels is None else item | {"labels": self._labels[index]}

    def collate_items(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return items as one batch, padded on the right.

        Args:
            items: those of the batch, at least one.

        Returns:
            int64, each of shape (batch, tokens): `input_ids`, `attention_mask`, perhaps `token_type_ids`, and `labels`,
            of shape (batch,) where items have classes.
        """
        longest = max(len(item["input_ids"]) for item in items)
        batch = {
            name: _padded([item[name] for item in items], longest, _PADDING.get(name, self._pad_id))
            for name in self._columns
        }
        batch["attention_mask"] = _padded([[1] * len(item["input_ids"]) for item in items], longest, 0)
        if self._labels is None:
            batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        else:
            batch["labels"] = torch.tensor([item["labels"] for item in items])
        return batch


def _padded(rows: list[list[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def token_rows(examples: Any, split: str, tokenizer: Any, task: HuggingFaceTask) -> TokenRows:
    """Tokenize the examples of a split; each is cut off at `max_length` tokens.

    Args:
        examples: as `HuggingFaceTask.texts` returns them.
        split: the split's name, for errors.
        tokenizer: a transformers tokenizer with a pad token.
        task: the head, the number of classes and the longest item.

    Raises:
        ValueError: an example of another form, a class that does not exist, or none; one line.
    """
    examples = [*examples] if isinstance(examples, list | tuple) else _refuse(examples, split, task)
    if not examples:
        raise ValueError(f"data: got no items as {split}; allowed: at least one")
    options = {"truncation": True, "max_length": task.max_length, "add_special_tokens": True}
    if task.head == "causal":
        if odd := [one for one in examples if not isinstance(one, str)]:
            _refuse(odd[0], split, task)
        return _causal_rows(tokenizer(examples, **options)["input_ids"], split, tokenizer, task)
    width = len(examples[0]) if isinstance(examples[0], tuple) else 0
    for one in examples:
        if not isinstance(one, tuple) or len(one) != width or width not in (2, 3):
            _refuse(one, split, task)
        if not all(isinstance(text, str) for text in one[:-1]) or type(one[-1]) is not int:
            _refuse(one, split, task)
        if not 0 <= one[-1] < task.n_classes:
            raise ValueError(f"n_classes: got {task.n_classes}; allowed: more than the label {one[-1]} of {split}")
    texts = ([one[index] for one in examples] for index in range(width - 1))
    encoded = tokenizer(*texts, **options)
    columns = {"input_ids": encoded["input_ids"]}
    if empty := [one for one, ids in zip(examples, columns["input_ids"], strict=True) if not ids]:
        raise ValueError(f"data: got {empty[0]!r:.60} in {split}, which has no token; allowed: texts with some")
    # Of tokenizers that have them for models that read none all are 0, which models take for granted.
    if any(any(row) for row in encoded.get("token_type_ids", ())):
        columns["token_type_ids"] = encoded["token_type_ids"]
    return TokenRows(columns, [one[-1] for one in examples], tokenizer.pad_token_id)


def _causal_rows(rows: list[list[int]], split: str, tokenizer: Any, task: HuggingFaceTask) -> TokenRows:
    """Return texts as tokens up to the end of the text; those without a token to predict are left out."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ended = [[*row, *([] if row[-1:] == end else end)][: task.max_length] for row in rows]
    kept = [row for row in ended if len(row) > 1]
    if not kept:
        raise ValueError(f"data: got texts of one token alone as {split}; allowed: longer ones")
    return TokenRows({"input_ids": kept}, None, tokenizer.pad_token_id)


def _refuse(example: Any, split: str, task: HuggingFaceTask) -> Any:
    raise ValueError(f"data: got {example!r:.80} in {split}; allowed: a list of {_ALLOWED[task.head]}")
