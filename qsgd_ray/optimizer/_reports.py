"""Reports of a perturbation: means of norms and the cost of circuits in; telemetry, or plain numbers, out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from qsgd_ray.optimizer._layout import Layout
from qsgd_ray.optimizer._norms import NormMeans
from qsgd_ray.optimizer._prefetch import Prefetch
from qsgd_ray.optimizer.telemetry import GroupNorms, Telemetry


def report(means: NormMeans, prefetch: Prefetch) -> Telemetry:
    """Return the report of a window of norms and of all circuits so far."""
    wait_s, busy_s, n_circuits = prefetch.wait_s, prefetch.busy_s, prefetch.n_circuits
    if means.n == 0:
        return Telemetry(None, None, wait_s, busy_s, n_circuits, 0)
    groups = tuple(GroupNorms(q, step, q / step if step else None) for q, step in means.of_groups())
    return Telemetry(*means.of_model(), wait_s, busy_s, n_circuits, means.n, groups)


def report_state(means: NormMeans, prefetch: Prefetch) -> dict[str, Any]:
    """Return both as plain numbers, from which `means_of` and `restore_prefetch` go on."""
    return {
        "means": means.state(),
        "wait_s": prefetch.wait_s,
        "busy_s": prefetch.busy_s,
        "n_circuits": prefetch.n_circuits,
        "under_way": prefetch.under_way,
    }


def means_of(state: dict[str, Any]) -> NormMeans:
    """Return the means of a `report_state`."""
    return NormMeans.from_state(state["means"])


def restore_prefetch(prefetch: Prefetch, state: dict[str, Any], lay_out: Callable[[], Layout], n_steps: int) -> None:
    """Restore counts; submit the next step's circuits again, where they were under way.

    Args:
        prefetch: takes the counts.
        state: of `report_state`.
        lay_out: returns the layout of the parameters as they are now.
        n_steps: steps taken.
    """
    prefetch.discard()
    prefetch.wait_s, prefetch.busy_s = state["wait_s"], state["busy_s"]
    if state["under_way"]:
        with torch.no_grad():
            prefetch.submit_next(lay_out(), n_steps)
    prefetch.n_circuits = state["n_circuits"]  # those submitted again are counted already
