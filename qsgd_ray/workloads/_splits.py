"""Data of a task of one's own: a data set or tensors in; batches of chosen items on a device out."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from qsgd_ray.config import Splits

SplitName = Literal["train", "validation", "test"]


class Part:
    """One split, ready for batches; tensors lie on the device, items of a data set are moved there batch by batch.

    Args:
        source: a torch `Dataset` with a length, a tensor or an array, or a tuple of such with one first axis. A data
            set with a method `collate_items(items)` puts its batches together itself.
        name: the split's.
        device: where batches are.

    Attributes:
        source: as it came.
        n: number of items.

    Raises:
        ValueError: anything else, or no items; one line.
    """

    def __init__(self, source: Any, name: SplitName, device: torch.device) -> None:
        self._device, self._name = device, name
        self._tensors: tuple[Tensor, ...] | None = None
        self.source = source
        self._is_one = isinstance(source, Tensor | np.ndarray)
        if isinstance(source, TensorDataset):
            source = source.tensors
        columns = (source,) if self._is_one else source
        if isinstance(columns, tuple | list) and columns and all(isinstance(c, Tensor | np.ndarray) for c in columns):
            self._tensors = tuple(torch.as_tensor(column).to(device) for column in columns)
            lengths = [len(column) if column.ndim else 0 for column in self._tensors]
            if len({*lengths}) > 1:
                raise ValueError(f"data: got {name} tensors of {lengths} items; allowed: of the same number")
            self.n = lengths[0]
        elif (
            hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, str | bytes | dict)
        ):
            self.n = len(source)
        else:
            kind = type(source).__name__
            raise ValueError(f"data: got a {kind} as {name}; allowed: a Dataset with a length, or a tuple of tensors")
        if not self.n:
            raise ValueError(f"data: got no items as {name}; allowed: at least one")

    def take(self, indices: Tensor) -> Any:
        """Return the items at these indices (int64, on the CPU) as a batch on the device."""
        if self._tensors is not None:
            rows = indices.to(self._device)
            batch = tuple(column[rows] for column in self._tensors)
            return batch[0] if self._is_one else batch
        collate = getattr(self.source, "collate_items", default_collate)
        return _moved(collate([self.source[index] for index in indices.tolist()]), self._device)


def parts_of(splits: Any, device: torch.device) -> dict[str, Part]:
    """Return the three parts of the data that a user's class returned.

    Raises:
        ValueError: it is no `Splits`, or one of them cannot be used; one line.
    """
    if not isinstance(splits, Splits):
        raise ValueError(f"data: got a {type(splits).__name__}; allowed: Splits(train, validation, test)")
    return {name: Part(source, name, device) for name, source in splits}  # type: ignore[arg-type]


def _moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with all its tensors on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(value, device) for value in batch)
    return batch
