"""Tasks of one's own that run out of memory, or whose process dies, as often as they are told to."""

import os
from pathlib import Path

import torch

from support.own_tasks import Rings


class Greedy(Rings):
    """A task whose loss asks for more memory than any machine has, as often as its file has not been written to."""

    counter: str = ""
    n_times: int = 0
    raises: bool = False

    def loss(self, model, batch):
        attempts = Path(self.counter)
        n_before = len(attempts.read_text()) if attempts.exists() else 0
        if n_before < self.n_times:
            attempts.write_text("x" * (n_before + 1))
            if self.raises:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            torch.empty(2**50)  # 4 PiB, of which the allocator has none
        return super().loss(model, batch)


class Dying(Rings):
    """A task whose process ends, as often as its file has not been written to."""

    counter: str = ""
    n_times: int = 1

    def loss(self, model, batch):
        attempts = Path(self.counter)
        n_before = len(attempts.read_text()) if attempts.exists() else 0
        if n_before < self.n_times:
            attempts.write_text("x" * (n_before + 1))
            os._exit(1)
        return super().loss(model, batch)
