"""Run a small model by one process or by several, its parameters whole or in shards; save each rank's bits."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor
from torch.distributed.tensor import Shard as Sharded
from torch.nn.parallel import DistributedDataParallel

from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer import _chunked_step as chunked_step
from support.replicas import group

STEPS = 20


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        how: alone (one process), ddp, fsdp, hsdp (a mesh of replicas and shards), mixed (some parameters whole, the
            others in shards).
        options: the optimizer's.
        split: each rank has its share of the batch; else every rank has all of it.
        checkpoint: the run goes through a checkpoint in its middle.
        kernel: the one-pass step runs, as it does for large models.
    """

    how: str
    options: dict = field(default_factory=dict)
    split: bool = False
    checkpoint: bool = False
    kernel: bool = False

    @property
    def name(self) -> str:
        words = [
            self.how,
            *(f"{name}={value}" for name, value in self.options.items() if name not in ("noise", "seed")),
        ]
        return "-".join(words + [flag for flag in ("split", "checkpoint", "kernel") if getattr(self, flag)])


class Small(nn.Module):
    """Sizes that two and three ranks cut unevenly: shards of 0 to 4 rows, blocks of 4 across every kind of border."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first = nn.Linear(5, 7)
        self.frozen = nn.Linear(7, 7)
        self.frozen.requires_grad_(False)
        self.second = nn.Linear(7, 3, bias=False)
        self.scale = nn.Parameter(torch.rand(1))
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.second(self.frozen(self.first(x).tanh()).tanh()) * self.scale)


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(12, 5, generator=generator), torch.randn(12, 2, generator=generator)


def optimizer_of(model, case, **more):
    groups = [
        {"params": list(model.first.parameters()), "lambda_": 2.0},
        {"params": [*model.frozen.parameters(), *model.second.parameters(), model.scale, *model.last.parameters()]},
    ]
    return SuperpositionalAdamW(groups, lr=0.02, weight_decay=0.1, telemetry_every=5, **{**case.options, **more})


def run(case, rank=0, world=1, folder=None):
    """Return the parameters after STEPS steps, whole, and the norms of the telemetry."""
    with mock.patch.object(chunked_step, "NATIVE_FROM", 1 if case.kernel else chunked_step.NATIVE_FROM):
        return _run(case, rank, world, folder)


def _run(case, rank, world, folder):
    model = Small()
    network = model
    if case.how == "ddp":
        network = DistributedDataParallel(model)
    elif case.how != "alone":
        flat, both = ((world,), ("shards",)), ((1, world), ("replicas", "shards"))
        shape, names = both if case.how == "hsdp" else flat
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        ignored = {model.scale, *model.last.parameters()} if case.how == "mixed" else None
        fully_shard(model, mesh=mesh, ignored_params=ignored)
    optimizer = optimizer_of(model, case)
    for step in range(STEPS):
        if case.checkpoint and step == STEPS // 2:
            optimizer = through_a_checkpoint(model, optimizer, case, folder)
        x, y = (part[rank::world] if case.split else part for part in batch(step))
        optimizer.zero_grad()
        (network(x) - y).square().mean().backward()
        if world > 2 and not case.split:
            make_gradients_equal(model, x, y)
        optimizer.step()
    telemetry = optimizer.telemetry()
    return {
        "parameters": [whole(parameter.detach()) for parameter in model.parameters()],
        "norms": [
            telemetry.perturbation_norm,
            telemetry.adam_step_norm,
            *(x for group in telemetry.groups for x in group),
        ],
    }


def make_gradients_equal(model, x, y):
    """Set the gradients of one process: the mean of three equal numbers is rounded, the mean of two is not."""
    alone = Small()
    with torch.no_grad():
        for to, parameter in zip(alone.parameters(), model.parameters(), strict=True):
            to.copy_(whole(parameter))
    (alone(x) - y).square().mean().backward()
    for theirs, parameter in zip(alone.parameters(), model.parameters(), strict=True):
        if isinstance(parameter, DTensor) and theirs.grad is not None:
            parameter.grad = distribute_tensor(theirs.grad, parameter.device_mesh, parameter.placements)
        else:
            parameter.grad = theirs.grad


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def through_a_checkpoint(model, optimizer, case, folder):
    """Save in the middle of a prefetch, load into an optimizer that never took a step, and return that."""
    dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=folder / case.name)
    optimizer.zero_grad()  # torch lays nothing out for parameters that have a gradient
    fresh = optimizer_of(model, case)
    theta = [copy.deepcopy(whole(parameter.detach())) for parameter in model.parameters()]
    # torch lays out a state to load into: by a step of length 0, which moves nothing.
    state = {"optimizer": get_optimizer_state_dict(model, fresh)}
    dcp.load(state, checkpoint_id=folder / case.name)
    set_optimizer_state_dict(model, fresh, state["optimizer"])
    assert all(torch.equal(a, whole(b.detach())) for a, b in zip(theta, model.parameters(), strict=True))
    return fresh


def laid_out_otherwise(rank, world):
    """Return parameters after two steps with gradients laid out otherwise, each beside those of one process.

    The gradients are partial sums, shards or whole where the parameters are not.
    """
    mesh = init_device_mesh("cpu", (world,))
    layouts = {
        "partial": ([Replicate()], [Partial("sum")]),
        "sharded": ([Replicate()], [Sharded(0)]),
        "columns": ([Sharded(0)], [Sharded(1)]),
        "whole": ([Sharded(0)], [Replicate()]),
    }
    thetas = {}
    for options in ({"scope": "tensor"}, {"scope": "all", "source": "shuffled"}, {"direction": "preconditioned"}):
        for name, (own, its) in layouts.items():
            theta, gradient = torch.linspace(-1, 1, 20).view(5, 4), torch.linspace(2, -1, 20).view(5, 4)
            alone = nn.Parameter(theta.clone())
            shared = nn.Parameter(distribute_tensor(theta, mesh, own))
            for parameter in (alone, shared):
                optimizer = SuperpositionalAdamW([parameter], lr=0.1, telemetry_every=1, **options)
                for _ in range(2):
                    parameter.grad = gradient
                    if parameter is shared:
                        share = gradient * {0: 2.0, 1: -1.0}.get(rank, 0.0)
                        partial = its[0].is_partial()
                        parameter.grad = (DTensor.from_local if partial else distribute_tensor)(
                            share if partial else gradient, mesh, its
                        )
                    came = parameter.grad
                    optimizer.step()
                    assert parameter.grad is came
            thetas[f"{name}-{options}"] = (whole(shared.detach()), alone.detach())
    return thetas


def without_a_gradient_here(rank, world):
    """Step where a whole parameter, beside one in shards, has no gradient on the first process: it ends."""
    mesh = init_device_mesh("cpu", (world,))
    for options in ({"source": "random_sign"}, {"source": "circuit"}):
        sharded = nn.Parameter(distribute_tensor(torch.ones(4, 6), mesh, [Sharded(0)]))
        everywhere = nn.Parameter(torch.ones(3))
        optimizer = SuperpositionalAdamW([sharded, everywhere], **options)
        for _ in range(3):
            sharded.grad = distribute_tensor(torch.ones(4, 6), mesh, [Sharded(0)])
            everywhere.grad = None if rank == 0 else torch.ones(3)
            optimizer.step()


def refusals(rank, world):
    """Return the messages for parameters that are sharded otherwise than by rows over one dimension of a mesh."""
    mesh, fewer = init_device_mesh("cpu", (world,)), DeviceMesh("cpu", list(range(world - 1)))
    columns = nn.Parameter(distribute_tensor(torch.zeros(4, 6), mesh, [Sharded(1)]))
    refused = [[columns]]
    over_all = nn.Parameter(distribute_tensor(torch.zeros(4), mesh, [Sharded(0)]))
    if 1 < len(fewer.mesh) > rank:
        refused.append([over_all, nn.Parameter(distribute_tensor(torch.zeros(4), fewer, [Sharded(0)]))])
    messages = []
    for parameters in refused:
        try:
            SuperpositionalAdamW(parameters)
        except ValueError as error:
            messages.append(str(error))
    return messages


def work(rank, world, folder, cases):
    """Run one process of a group, and save its report."""
    torch.set_num_threads(1)
    with group(f"{folder}/store", rank, world):
        runs = {case.name: run(case, rank, world, Path(folder)) for case in cases}
        without_a_gradient_here(rank, world)
        report = {"runs": runs, "refusals": refusals(rank, world), "layouts": laid_out_otherwise(rank, world)}
        torch.save(report, f"{folder}/{rank}.pt")
