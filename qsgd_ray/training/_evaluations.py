"""Gradients of one batch, as often as an optimizer asks for them within a step: all with the same dropout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qsgd_ray.training.replica import Replica


class Evaluations:
    """The evaluations of one step of an optimizer that takes a closure; called, it evaluates.

    Each begins with the generators as they were before the step, so that a line search sees one function of the
    parameters, and leaves those of the optimizer as it found them. `finish` puts them where one evaluation ends.

    Args:
        compute: clears the gradients, computes them and returns this replica's loss, nats.
        replica: this process. The loss that the optimizer sees is the mean over all replicas, so that they all take
            the same decisions.

    Attributes:
        n: evaluations so far.
        first_loss: this replica's loss at the parameters before the step, nats; None: there was no evaluation yet.
    """

    def __init__(self, compute: Callable[[], Tensor], replica: Replica) -> None:
        self._compute, self._replica = compute, replica
        self._start = self._end = self._generators()
        self.n = 0
        self.first_loss: Tensor | None = None

    def __call__(self) -> Tensor:
        """Evaluate once; return the mean loss over the replicas."""
        outer = self._generators()
        self._put(self._start)
        with torch.enable_grad():
            loss = self._compute()
        self._end = self._generators()
        self._put(outer)
        self.n += 1
        if self.first_loss is None:
            self.first_loss = loss
        if self._replica.world_size == 1:
            return loss
        return loss.new_tensor(self._replica.all_reduce_sum(loss.item())[0] / self._replica.world_size)

    def finish(self) -> None:
        """Leave the generators where one evaluation of the batch leaves them."""
        self._put(self._end)

    def _generators(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._replica.device_type == "cuda":
            states.append(torch.cuda.get_rng_state(self._replica.device))
        return states

    def _put(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self._replica.device)
