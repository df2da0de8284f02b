"""Checks of a study's optimizers before its first trial: each is made at points of its spaces, and takes two steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from qsgd_ray.config import Arm, OwnTask, Study, StudyError
from qsgd_ray.config.base import Point
from qsgd_ray.config.errors import one_line
from qsgd_ray.config.optimizer_class import keyword_problem
from qsgd_ray.optimizer import DrivenOptimizer, make_driven_optimizer
from qsgd_ray.optimizer.factory import require_scalable
from qsgd_ray.workloads import Workload
from qsgd_ray.workloads.determinism import explained


def require_optimizers(study: Study, workload: Workload) -> None:
    """Refuse a study with an optimizer that cannot train its model.

    Its class is made over the parameters of the study's own model, at both ends of every range and at every option of a
    choice, and takes two steps on a product of two matrices, as the model itself may be large.

    Args:
        study: arms without an optimizer of their own are not looked at.
        workload: the study's.

    Raises:
        StudyError: one line with the arm, and what its class says; or what a user's class raises as it makes the model.
    """
    arms = [arm for arm in study.arms if arm.optimizer is not None]
    if not arms:
        return
    try:
        model = workload.make_model(0)
    except Exception as error:  # the user's code, of a task of their own
        if not isinstance(task := getattr(workload, "settings", None), OwnTask):
            raise
        raise explained(task, error) from None
    for arm in arms:
        _check_keywords(arm)
        for point in _points(arm):
            at = arm.at(point).model_copy(update={"perturbation": None})
            require_scalable(arm, make_driven_optimizer(at, model, None), workload.scales_loss)
            _take_steps(at)


def _check_keywords(arm: Arm) -> None:
    """Check the keywords of settings that came by `--set`, which no class has seen."""
    assert arm.optimizer is not None
    for group, optimizer in arm.optimizer.members:
        field = f"arms.{arm.name}.optimizer.{group}".rstrip(".")
        try:
            problem = keyword_problem(optimizer.name, optimizer.settings)
        except StudyError as error:
            raise StudyError(f"{field}.name: {error}") from None
        if problem is not None:
            keyword, allowed = problem
            raise StudyError(f"{field}.{keyword}: got {optimizer.settings.get(keyword)!r:.60}; allowed: {allowed}")


def _points(arm: Arm) -> Iterator[Point]:
    """Yield points that have both ends of every range and every option of a choice of the arm among them."""
    n_points = max((len(space.edges()) for space in arm.spaces().values()), default=1)
    for number in range(n_points):
        yield arm.point_at_edges(number)


def _take_steps(arm: Arm) -> None:
    """Take two steps of each optimizer on a small model of two matrices, which all of them can train."""
    assert arm.optimizer is not None
    for group, optimizer in arm.optimizer.members:
        alone = arm.model_copy(update={"optimizer": optimizer.model_copy(update={"parameters": None})})
        small = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
        with torch.random.fork_rng(devices=[]):
            driven = make_driven_optimizer(alone, small, None)
            try:
                _steps(driven, small)
            except Exception as error:  # the class is another's: whatever it raises would end every trial
                field = f"arms.{arm.name}.optimizer.{group}".rstrip(".")
                text = one_line(error, limit=150)
                raise StudyError(
                    f"{field}: {optimizer.name} cannot take a step: {type(error).__name__}: {text}"
                ) from None


def _steps(driven: DrivenOptimizer, model: nn.Module) -> None:
    inputs = torch.linspace(-1.0, 1.0, 15).view(5, 3)

    def evaluate() -> torch.Tensor:
        with torch.enable_grad():
            driven.zero_grad()
            loss: torch.Tensor = model(inputs).square().mean()
            loss.backward()
        return loss.detach()

    driven.train()
    for _ in range(2):
        if driven.kind == "plain":
            evaluate()
            driven.step()
        else:
            driven.step(evaluate)
    driven.eval()
