"""Optimizers of one's own: small, real, and each with a habit that the drive of optimizers must bear or refuse."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor


class Descent(torch.optim.Optimizer):
    """Gradient descent."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, **more) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "bent": more.get("bent", False)})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, parameter.grad, group)
        return loss

    def move(self, parameter: Tensor, gradient: Tensor, group: dict) -> None:
        parameter.sub_(gradient, alpha=group["lr"])


class Spoiling(Descent):
    """Descent that uses up its gradients and puts its parameters elsewhere in memory."""

    def move(self, parameter, gradient, group):
        parameter.data = parameter.detach() - gradient.mul_(group["lr"])
        gradient.zero_()


class Drawing(Descent):
    """Descent with noise of every global generator; it remembers what it drew."""

    def move(self, parameter, gradient, group):
        noise = torch.randn_like(gradient) + np.random.random() + random.random()
        self.state[parameter].setdefault("drawn", []).append(noise)
        parameter.sub_(gradient + 0.01 * noise, alpha=group["lr"])


class Remembering(Descent):
    """Descent along a mean of gradients, kept in places of every kind: state, groups, attributes."""

    def __init__(self, params, lr=0.1) -> None:
        super().__init__(params, lr)
        self.n_moves = 0
        self.longest = torch.zeros(())
        self.kernel = Descent.move  # no data: as the class makes it

    def move(self, parameter, gradient, group):
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
            state["past"] = ([], {"first": None, "worst": float("-inf"), "dtype": torch.float32})
            state["turned"] = torch.zeros(parameter.numel(), 3).T
        self.n_moves += 1
        self.longest = torch.maximum(self.longest, gradient.norm())
        group["seen"] = group.get("seen", 0.0) + float(gradient.norm())
        state["mean"].lerp_(gradient, 0.3)
        state["turned"].add_(gradient.reshape(1, -1))
        state["past"][0].append(gradient.norm())
        state["past"][1]["worst"] = max(state["past"][1]["worst"], float(gradient.norm()))
        pace = 1 + 0.01 * (self.n_moves % 7) + 0.01 * float(self.longest) + 0.001 * group["seen"]
        pace += 0.001 * float(sum(state["past"][0])) + 0.001 * float(state["turned"].sum())
        parameter.sub_(state["mean"], alpha=group["lr"] * pace)


class WithGenerator(Descent):
    """Descent with a generator of its own, which no checkpoint can have."""

    def __init__(self, params, lr=0.1) -> None:
        super().__init__(params, lr)
        self.generator = torch.Generator()


class WithObject(Descent):
    """Descent that keeps an object in its state, which no checkpoint can have."""

    def move(self, parameter, gradient, group):
        self.state[parameter]["object"] = object()
        super().move(parameter, gradient, group)


class OfTensors(Descent):
    """Descent that keeps state of a tensor that is no parameter."""

    def move(self, parameter, gradient, group):
        self.state[torch.zeros(2)] = {"x": 1}
        super().move(parameter, gradient, group)


class Sharpness(torch.optim.Optimizer):
    """Sharpness-aware descent (arXiv 2010.01412) around another optimizer, in two passes."""

    def __init__(self, params, base_optimizer, rho=0.05) -> None:
        super().__init__(params, {"rho": rho})
        self.base_optimizer = base_optimizer(self.param_groups)
        self.param_groups, self.state = self.base_optimizer.param_groups, self.base_optimizer.state

    def _gradients(self):
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    @torch.no_grad()
    def first_step(self):
        norm = torch.stack([p.grad.norm() for p in self._gradients()]).norm()
        self._old = [(p, p.clone()) for p in self._gradients()]
        for p in self._gradients():
            p.add_(p.grad * (self.param_groups[0]["rho"] / (norm + 1e-12)))

    @torch.no_grad()
    def second_step(self):
        for p, old in self._old:
            p.copy_(old)
        del self._old
        self.base_optimizer.step()

    def step(self, closure=None):
        self.first_step()
        closure()
        self.second_step()


class Averaging(Descent):
    """Descent whose mean over the steps is evaluated: it has to be switched."""

    def __init__(self, params, lr=0.1) -> None:
        super().__init__(params, lr)
        self.mode = "eval"

    def train(self):
        self._swap("train")

    def eval(self):
        self._swap("eval")

    @torch.no_grad()
    def _swap(self, mode):
        if mode != self.mode:
            for parameter, state in self.state.items():
                other = state["other"].clone()
                state["other"].copy_(parameter)
                parameter.copy_(other)
        self.mode = mode

    def move(self, parameter, gradient, group):
        if self.mode != "train":
            raise RuntimeError("step in the mode eval")
        state = self.state[parameter]
        if not state:
            state["other"], state["n"] = parameter.detach().clone(), 0
        super().move(parameter, gradient, group)
        state["n"] += 1
        state["other"].lerp_(parameter, 1 / state["n"])


class Failing(Descent):
    """Descent that cannot take a step."""

    def move(self, parameter, gradient, group):
        raise NotImplementedError("no step\nin two lines")


class NoRate(torch.optim.Optimizer):
    """An optimizer without a learning rate."""

    def __init__(self, params) -> None:
        super().__init__(params, {})


class NoParameters(torch.optim.Optimizer):
    """An optimizer that is made from a model."""

    def __init__(self, model, lr=0.1) -> None:
        super().__init__(model.parameters(), {"lr": lr})


class Needy(Descent):
    """Descent with a keyword that has no default."""

    def __init__(self, params, horizon, lr=0.1) -> None:
        super().__init__(params, lr)
        self.horizon = horizon


no_class = 3
