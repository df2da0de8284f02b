"""A small model, its training, and the naive twin beside it, for the optimizer under other libraries' trainers."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from support import reference_optimizer as reference

# Dynamo's import; of torch, not of what it compiles.
QUIET_DYNAMO = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
SINES = ({"scope": "tensor"}, {"scope": "all"})
PERTURBATIONS = (*SINES, {"source": "circuit"})
DRAWN = ({"source": "random_sign", "scope": "all"}, {"source": "sampled", "shots": 20})
KERNELS = ({}, {"foreach": False}, {"foreach": True}, {"fused": True})


def named(options):
    return "-".join(f"{name}={value}" for name, value in options.items()) or "plain"


def a_model(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2)).to(dtype)


def some_batches(n, dtype=torch.float64):
    return torch.randn(n, 8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def loss_of(model, batch):
    return (model(batch) - batch[:, :2].sin()).square().mean()


def train(model, optimizer, batches, scheduler=None):
    for batch in batches:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        if scheduler is not None:
            advance(scheduler)


def advance(scheduler):
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(1.0)  # a loss that never falls
    else:
        scheduler.step()


def flat(parameters):
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def in_two_groups(model, **second):
    """Matrices and vectors, as trainers with and without weight decay have them."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0, **second}]


class Twin:
    """The naive twin, one for each parameter group, stepped by the optimizer's pre-hook.

    It sees the gradients, learning rates and betas that the optimizer sees, and nothing else of it.
    """

    def __init__(self, optimizer, scheduler=None, scope="tensor", n_qubits=4):
        self.optimizer, self.scheduler = optimizer, scheduler
        self.groups = [
            reference.AdamWWithSignal(
                flat(group["params"]).numpy(),
                *(group["lr"], *group["betas"], group["eps"], group["weight_decay"], group["lambda_"]),
                reference.blocks_of([parameter.numel() for parameter in group["params"]], scope, n_qubits),
                reference.sine_signal,
            )
            for group in optimizer.param_groups
        ]
        optimizer.register_step_pre_hook(lambda *_: self.step())

    def step(self):
        groups = self.optimizer.param_groups
        rates = self.scheduler.get_last_lr() if self.scheduler else [group["lr"] for group in groups]
        for twin, group, rate in zip(self.groups, groups, rates, strict=True):
            twin.lr, (twin.beta1, twin.beta2) = float(rate), group["betas"]
            twin.step(flat([parameter.grad for parameter in group["params"]]).double().numpy())

    @property
    def steps(self):
        return self.groups[0].t

    def distance(self):
        return max(
            np.abs(flat(group["params"]).double().numpy() - twin.theta).max()
            for twin, group in zip(self.groups, self.optimizer.param_groups, strict=True)
        )
