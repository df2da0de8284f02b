"""Check before a study starts that it can run, and say how large a cluster it needs.

Each check raises `StudyError` with one line that names the field, what it holds and what is allowed. What fails here
would otherwise fail in every trial, minutes later.
"""

from __future__ import annotations

import os
import socket
from itertools import product
from typing import Any

from qsgd_ray.circuits.aer.backend import require_density_matrix
from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import require_memory, total_bytes
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import SHARE_OF_NODE, OwnTask, Study, StudyError, Task
from qsgd_ray.config.arm import CIRCUITS
from qsgd_ray.config.base import SPACES, options
from qsgd_ray.execution._optimizer_checks import require_optimizers
from qsgd_ray.execution.requirements import _require_modules_here
from qsgd_ray.execution.worker_requests import _every_resources, resources_by_arm
from qsgd_ray.workloads import make_workload
from qsgd_ray.workloads.determinism import explained, require_repeatable

# Ray itself tries a dead address for minutes.
_REACH_TIMEOUT_S = 5


def require_runnable(study: Study, address: str | None) -> None:
    """Refuse a study whose cluster does not answer, or that a private cluster on this machine could never run.

    Args:
        study: with a private cluster its memory, GPUs, packages and workload are checked.
        address: a running cluster's. None: the one in RAY_ADDRESS, else a private cluster. What a running cluster lacks
            may still come, so of that only the connection is checked.

    Raises:
        StudyError: the first thing that is missing.
    """
    address = _resolve_address(address)
    if address is None:
        _check_memory(study, total_bytes())
        _check_worker_memory(study, total_bytes())
        _check_gpus(study)
        _require_modules_here(study)
        _check_workload(study)
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, str(error)) from None


def _resolve_address(address: str | None) -> str | None:
    """Return the address of the cluster to connect to, RAY_ADDRESS if none is given; None is a private cluster."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def _unreachable(address: str, reason: str) -> StudyError:
    """Return the error that says that no cluster answers.

    Args:
        address: as the user gave it.
        reason: the system's or Ray's own words, one line.
    """
    return StudyError(f"--address: got {address!r}; allowed: the address of a running Ray cluster ({reason})")


def _check_memory(study: Study, available_bytes: int) -> None:
    """Refuse a study whose circuits do not fit into memory.

    Args:
        study: every arm is checked at the largest of its numbers of qubits and depths.
        available_bytes: memory of the machine that simulates.

    Raises:
        StudyError: a circuit is too large.
    """
    for arm in study.arms:
        if arm.perturbation is None or not arm.perturbation.uses_circuits:
            continue
        perturbation = arm.perturbation
        n_qubits, depth = _largest(perturbation.n_qubits), _largest(perturbation.depth)
        try:
            for source, entangle in product(options(perturbation.source), options(perturbation.entangle)):
                spec = CircuitSpec(n_qubits, depth, entangle, perturbation.rotations)
                if source == "circuit":
                    AutoBackend(memory_bytes=available_bytes).pick(spec, batch=1)
                elif source == "noisy" and perturbation.shots is None:
                    require_density_matrix(n_qubits, available_bytes)
                elif source in CIRCUITS:
                    require_memory(n_qubits, available_bytes)
        except CircuitMemoryError as error:
            raise StudyError(f"arms.{arm.name}.perturbation.{error}") from None


def _largest(value: Any) -> int:
    return int(max(value.values_to_check())) if isinstance(value, SPACES) else value


def _check_gpus(study: Study) -> None:
    """Refuse a study that asks for GPUs on a machine without."""
    for resources in _every_resources(study):
        if resources.gpus_per_worker > 0:
            import torch

            if not torch.cuda.is_available():
                raise StudyError(
                    f"{_asking(study, 'gpus_per_worker')}: got {resources.gpus_per_worker:g}; allowed: 0, "
                    "torch sees no CUDA device on this machine"
                )


def _check_worker_memory(study: Study, available_bytes: int) -> None:
    """Refuse a study whose largest group of workers asks for more memory than this machine has.

    Args:
        study: every arm, and every second attempt, is checked.
        available_bytes: memory of the machine.
    """
    for resources in _every_resources(study):
        if resources.memory_bytes_per_worker * _most_workers(study) > available_bytes:
            raise StudyError(
                f"{_asking(study, 'memory_gb_per_worker')}: got {resources.memory_gb_per_worker:g} for each of "
                f"{_most_workers(study)}; allowed: {available_bytes / 1e9:.3g} in all on this machine"
            )


def _asking(study: Study, field: str) -> str:
    """Return the path of the first field of this name that asks for something."""
    paths = [("resources", study.resources), *((f"arms.{arm.name}.resources", arm.resources) for arm in study.arms)]
    return next((f"{path}.{field}" for path, one in paths if getattr(one, field, None)), "resources.on_out_of_memory")


def _most_workers(study: Study) -> int:
    """Return the most training workers of any stage's trial."""
    return max(study.search.workers, study.confirm.workers, study.map.workers if study.map is not None else 1)


def _check_workload(study: Study) -> None:
    """Refuse a study whose model, data or their packages are not here, or whose optimizers cannot train the model."""
    for task in _tasks_of(study):
        try:
            workload = make_workload(task)
        except StudyError as error:
            raise StudyError(f"workload: {str(error).removeprefix('workload: ')}") from None
        except Exception as error:  # the user's code, of a task of their own
            if not isinstance(task, OwnTask):
                raise
            raise explained(task, error) from None
        require_optimizers(study, workload)


def _tasks_of(study: Study) -> list[Task]:
    """Return the tasks that a study's arms train on, each once; of what is searched in them, the edges."""
    tasks: list[Task] = [] if all(arm.workload for arm in study.arms) else [study.workload]
    for arm in study.arms:
        tasks += [task for task in study.tasks_of(arm) if task not in tasks]
    return tasks


def require_repeatable_tasks(study: Study) -> None:
    """Refuse a study with a task of the user's own that does not repeat itself; others have been tested."""
    tasks = [task for task in _tasks_of(study) if isinstance(task, OwnTask)]
    require_repeatable(tasks, max(1, int(study.resources.cpus_per_worker)))


def needs_circuits(study: Study) -> bool:
    """Return True where any arm of the study takes its signal from simulated circuits."""
    return any(arm.perturbation is not None and arm.perturbation.uses_circuits for arm in study.arms)


def _logical_cpus(study: Study, cores: int) -> int:
    """Return how many CPUs a private cluster announces: enough for the study, if need be more than there are cores.

    Args:
        study: its largest group of workers and its smallest pool of circuit actors fit side by side.
        cores: what the machine has, at least 1.
    """
    resources = study.resources
    cpus_per_worker = max(one.cpus_per_worker for one in _every_resources(study))
    # Beside a trial's group of workers stands the actor that Tune has for it, with a hundredth of a CPU.
    searching = study.search.workers * cpus_per_worker + (study.search.workers > 1)
    training = max(searching, _most_workers(study) * cpus_per_worker)
    # Not for actors that may be added later: trials would take their CPUs until then.
    simulating = (resources.circuit_actors or 0) * resources.cpus_per_circuit_actor if needs_circuits(study) else 0
    return int(max(cores, -(-training // 1)) + -(-simulating // 1))


def shortage(study: Study) -> str | None:
    """Return one line that names what the connected cluster lacks for the study's largest group of workers.

    None where nothing is missing. A cluster with an autoscaler may still grow, so this is no error.
    """
    import ray

    present = ray.cluster_resources()
    workers, of_arms = _most_workers(study), [study.resources, *resources_by_arm(study).values()]
    needed = {
        "CPU": workers * max(one.cpus_per_worker for one in of_arms)
        + (study.resources.circuit_actors or 0) * study.resources.cpus_per_circuit_actor * needs_circuits(study),
        "GPU": workers * max(one.gpus_per_worker for one in of_arms),
        "memory": workers * max(one.memory_bytes_per_worker for one in of_arms),
        **{kind: share for one in of_arms for kind, share in one.worker_node_resources().items()},
        **(study.resources.circuit_node_resources() if needs_circuits(study) else {}),
    }
    missing = [_lacking(kind, n, present.get(kind, 0)) for kind, n in needed.items() if present.get(kind, 0) < n]
    return f"The study waits for the cluster to grow: it needs {', '.join(missing)}." if missing else None


def _lacking(kind: str, needed: float, present: float) -> str:
    if kind == "memory":
        return f"{needed / 1e9:g} GB of memory (has {present / 1e9:.3g})"
    return f"a node of the kind {kind}" if needed == SHARE_OF_NODE else f"{needed:g} {kind} (has {present:g})"
