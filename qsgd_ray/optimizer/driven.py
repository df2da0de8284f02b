"""Optimizers of any class behind one interface: what the training loop calls, however a step is taken.

kind         a step is                                                        such as
-----------  ---------------------------------------------------------------  -----------------------------
plain        one gradient, then `step()`                                      SGD, Muon, Lion, schedule-free
closure      `step(closure)`, which asks for gradients as often as it likes   L-BFGS
two_passes   one gradient, then `step(closure)`, which asks for another one   SAM
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.optimizer._around import Around
from qsgd_ray.optimizer.telemetry import Telemetry
from qsgd_ray.random_keys import named_seed

_StepKind = Literal["plain", "closure", "two_passes"]


def _step_kind(cls: type[Any]) -> _StepKind:
    """Return how a class takes its steps.

    Args:
        cls: a subclass of torch.optim.Optimizer.

    Example:
        >>> import torch
        >>> _step_kind(torch.optim.LBFGS)
        'closure'
    """
    if callable(getattr(cls, "first_step", None)) and callable(getattr(cls, "second_step", None)):
        return "two_passes"
    closure = inspect.signature(inspect.unwrap(cls.step)).parameters.get("closure")
    return "closure" if closure is not None and closure.default is inspect.Parameter.empty else "plain"


class DrivenOptimizer:
    """One or several optimizers of any class, driven as one, with the paper's Q around them where it is asked for.

    What an optimizer draws at random follows from the seed and the step, and leaves torch's, numpy's and Python's
    generators as they were: dropout is the same beside every optimizer, and a resumed training draws alike.

    Args:
        optimizers: the optimizers, each with its own parameters; one of another kind than `plain` is alone.
        seed: names the draws.
        around: the perturbation. None: there is none.

    Attributes:
        optimizers: as given.
        kind: how a step is taken (see the table above).
        n_steps: steps taken.

    Raises:
        ValueError: several optimizers, one of which takes its steps by a closure.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], seed: int, around: Around | None = None) -> None:
        self.optimizers = tuple(optimizers)
        kinds = {_step_kind(type(optimizer)) for optimizer in optimizers}
        if len(optimizers) > 1 and kinds != {"plain"}:
            name = next(type(one).__name__ for one in optimizers if _step_kind(type(one)) != "plain")
            raise ValueError(f"groups: got {name}, which evaluates the model itself; allowed: as the only optimizer")
        (self.kind,) = kinds
        self.n_steps = 0
        self._seed, self._around = seed, around
        self._draws = not all(type(one).__module__.startswith("torch.optim.") for one in optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers, the very dicts."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Drop the gradients of all parameters."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def train(self) -> None:
        """Switch to the parameters at which gradients are taken, for optimizers that have others to evaluate."""
        self._switch("train")

    def eval(self) -> None:
        """Switch to the parameters that are evaluated and kept."""
        self._switch("eval")

    def _switch(self, mode: Literal["train", "eval"]) -> None:
        for optimizer in self.optimizers:
            if callable(switch := getattr(optimizer, mode, None)):
                switch()

    def step(self, evaluate: Callable[[], Tensor] | None = None) -> None:
        """Take one step.

        Args:
            evaluate: clears the gradients, computes them anew and returns the loss. None with the kind `plain`, whose
                gradients are there already; needed by the others.

        Raises:
            ValueError: a perturbation and a parameter that cannot be cut into blocks.
            CircuitError: the backend's.
            Exception: whatever the optimizer's own class raises.
        """
        if self.kind == "two_passes":
            assert evaluate is not None
            evaluate()
        with self._own_draws():
            if self.kind == "closure":
                assert evaluate is not None
                self.optimizers[0].step(self._taking(evaluate))  # type: ignore[arg-type]
            else:
                if self._around is not None:
                    self._around.take()
                for optimizer in self.optimizers:
                    optimizer.step(*([evaluate] if self.kind == "two_passes" else []))  # type: ignore[arg-type]
        if self._around is not None:
            self._around.add()
        self.n_steps += 1

    def _taking(self, evaluate: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return `evaluate`, after whose first call Q is taken at this gradient."""
        first = True

        def closure() -> Tensor:
            nonlocal first
            loss = evaluate()
            if first and self._around is not None:
                self._around.take()
            first = False
            return loss

        return closure

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Seed the global generators for the time of a step, and put them back; torch's own optimizers draw nothing."""
        if not self._draws:
            yield
            return
        seed = named_seed("optimizer", self._seed, self.n_steps)
        devices = sorted({parameter.device.index for parameter in self._parameters() if parameter.is_cuda})
        of_numpy, of_python = np.random.get_state(), random.getstate()
        with torch.random.fork_rng(devices):
            torch.default_generator.manual_seed(seed)
            for device in devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            try:
                yield
            finally:
                np.random.set_state(of_numpy)
                random.setstate(of_python)

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def telemetry(self) -> Telemetry:
        """Return what the perturbation did since the last call; without one, that nothing was perturbed."""
        if self._around is None:
            return Telemetry(None, None, 0.0, 0.0, 0, 0)
        return self._around.telemetry()

    def telemetry_state(self) -> dict[str, Any] | None:
        """Return the perturbation's counts and norms as plain numbers; None without one."""
        return None if self._around is None else self._around.telemetry_state()

    def load_telemetry_state(self, state: dict[str, Any]) -> None:
        """Go on from a `telemetry_state`, after parameters and groups have been loaded."""
        assert self._around is not None
        self._around.load_telemetry_state(state)
