"""Where a study runs: a private Ray on this machine, or a cluster that is there already.

In: the study's resources and an address or None. Out, for as long as the `with` block lasts: a `Cluster`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from qsgd_ray.circuits.aer.backend import require_density_matrix
from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import require_memory, total_bytes
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import SHARE_OF_NODE, Study, StudyError
from qsgd_ray.config.arm import CIRCUITS
from qsgd_ray.config.base import SPACES, options
from qsgd_ray.execution._scratch import scratch_folder
from qsgd_ray.execution._session_processes import end_processes, marked, watchdog
from qsgd_ray.storage import Storage
from qsgd_ray.workloads import make_workload

# Ray asks for at least 78,643,200 bytes; what travels here is angles and answers.
PRIVATE_OBJECT_STORE_BYTES = 256 * 2**20
REACH_TIMEOUT_S = 5
STARTS = 3
LATE = "timed out during startup"


@dataclass(frozen=True)
class Cluster:
    """`private`: one node, ours alone, gone with this process. `scratch`: a folder for what Ray itself writes down."""

    private: bool
    scratch: str


@contextmanager
def connect(study: Study, address: str | None, results_path: Path | Storage) -> Iterator[Cluster]:
    """The cluster at `address` (or in RAY_ADDRESS), else a private one for `study` that binds to loopback only."""
    address = _address(address)
    if address:
        with _existing(address, results_path) as cluster:
            yield cluster
    else:
        nodes = [*study.resources.worker_node_resources(), *study.resources.circuit_node_resources()]
        with private_ray(logical_cpus(study, os.cpu_count() or 1), dict.fromkeys(nodes, 1)) as cluster:
            yield cluster


@contextmanager
def private_ray(n_cpus: int, resources: dict[str, float] | None = None) -> Iterator[Cluster]:
    """A Ray of this process alone, on this machine; `resources`: what its node carries besides CPUs."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # otherwise a token file is left in the home directory
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray binds to loopback alone if the node's address is 127.0.0.1, and takes that address only where it believes
    # that no other machine can join (by default macOS and Windows).
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    settle()
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # for the case that ray was imported before the variable was set
    with scratch_folder() as scratch, watchdog(session := str(scratch)):
        start = partial(
            ray.init,
            address="local",
            num_cpus=n_cpus,
            resources=resources,
            object_store_memory=PRIVATE_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=session,  # Ray itself never removes what it keeps of a session
        )
        try:
            start_patiently(start, session)
            yield Cluster(private=True, scratch=session)
        finally:
            try:
                ray.shutdown()
            finally:
                end_processes(session)


def start_patiently(start: Callable[[], object], session: str) -> None:
    """Start Ray, again where its node was late: it gives itself half a minute and no setting, which a crowded machine
    does not keep (ray/_private/node.py, 2.60). What a late start left behind is ended first."""
    for left in reversed(range(STARTS)):
        try:
            with marked(session):
                start()
            return
        except Exception as error:  # Ray raises no narrower one
            if LATE not in str(error) or not left:
                raise
            end_processes(session, grace_s=0)


@contextmanager
def _existing(address: str, results_path: Path | Storage) -> Iterator[Cluster]:
    settle()
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).strip().partition("\n")[0] or type(error).__name__) from None
    try:
        # Ray Train wants its own notes where every node can write: the results are such a place by definition.
        yield Cluster(private=False, scratch=str(results_path / "ray"))
    finally:
        ray.shutdown()


def settle() -> None:
    """What Ray reads from the environment when it is imported, and so is set before: less output.

    And no cluster that nobody named.
    """
    # A call that comes after the end would otherwise connect to whatever Ray runs on this machine.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def logical_cpus(study: Study, cores: int) -> int:
    """What a private cluster announces: enough that the study fits, if need be more than there are cores."""
    resources = study.resources
    # Beside a trial's group of workers stands the actor that Tune has for it, with a hundredth of a CPU.
    searching = study.search.workers * resources.cpus_per_worker + (study.search.workers > 1)
    later = max(study.confirm.workers, study.map.workers if study.map is not None else 1)
    training = max(searching, later * resources.cpus_per_worker)
    # Not for those that may come: trials would take their CPUs until then.
    simulating = (resources.circuit_actors or 0) * resources.cpus_per_circuit_actor if needs_circuits(study) else 0
    return int(max(cores, -(-training // 1)) + -(-simulating // 1))


def needs_circuits(study: Study) -> bool:
    """Whether any arm asks for simulated circuits."""
    return any(arm.perturbation is not None and arm.perturbation.uses_circuits for arm in study.arms)


def _no_cluster(address: str, why: str) -> StudyError:
    return StudyError(f"--address: got {address!r}; allowed: the address of a running Ray cluster ({why})")


def _address(address: str | None) -> str | None:
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def refuse_what_cannot_run(study: Study, address: str | None) -> None:
    """`StudyError` for an address where nobody answers, and for what a private cluster here could never hold."""
    address = _address(address)
    if address is None:
        check_memory(study, total_bytes())
        check_gpus(study)
        check_engine(study)
        check_workload(study)
        return
    # Ray itself asks a dead address for minutes.
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, str(error)) from None


def check_gpus(study: Study) -> None:
    """Refuse a study that asks for GPUs on a machine without, in one line."""
    if study.resources.gpus_per_worker > 0:
        import torch

        if not torch.cuda.is_available():
            raise StudyError(
                f"resources.gpus_per_worker: got {study.resources.gpus_per_worker:g}; allowed: 0, "
                "torch sees no CUDA device on this machine"
            )


def shortage(study: Study) -> str | None:
    """What the connected cluster lacks for the largest group of workers, as one line; it may still grow."""
    import ray

    there = ray.cluster_resources()
    workers = max(study.search.workers, study.confirm.workers, study.map.workers if study.map is not None else 1)
    asked = {
        "CPU": workers * study.resources.cpus_per_worker
        + (study.resources.circuit_actors or 0) * study.resources.cpus_per_circuit_actor * needs_circuits(study),
        "GPU": workers * study.resources.gpus_per_worker,
        **study.resources.worker_node_resources(),
        **(study.resources.circuit_node_resources() if needs_circuits(study) else {}),
    }
    short = [_lacking(kind, n, there.get(kind, 0)) for kind, n in asked.items() if there.get(kind, 0) < n]
    return f"The study waits for the cluster to grow: it needs {', '.join(short)}." if short else None


def check_engine(study: Study) -> None:
    """Refuse a study whose circuits are to be simulated by an engine that is not installed, in one line."""
    if study.resources.circuit_engine == "aer" and needs_circuits(study) and not find_spec("qiskit_aer"):
        raise StudyError(
            "resources.circuit_engine: got 'aer'; allowed: auto, torch, chain, since qiskit-aer is not installed here "
            "(pip install 'qsgd-ray[aer]')"
        )


def check_workload(study: Study) -> None:
    """Refuse a study whose model, data or their packages are not here, in one line: every trial of it would fail."""
    try:
        make_workload(study.workload)
    except StudyError as error:
        raise StudyError(f"workload: {error}") from None


def _lacking(kind: str, asked: float, there: float) -> str:
    return f"a node of the kind {kind}" if asked == SHARE_OF_NODE else f"{asked:g} {kind} (has {there:g})"


def check_memory(study: Study, available_bytes: int) -> None:
    """Refuse a study whose circuits this machine could not hold, in one line."""
    for arm in study.arms:
        if arm.perturbation is None or not arm.perturbation.uses_circuits:
            continue
        asked = arm.perturbation
        n_qubits, depth = _largest(asked.n_qubits), _largest(asked.depth)
        try:
            for source, entangle in product(options(asked.source), options(asked.entangle)):
                spec = CircuitSpec(n_qubits, depth, entangle, asked.rotations)
                if source == "circuit":
                    AutoBackend(memory_bytes=available_bytes).pick(spec, batch=1)
                elif source == "noisy" and asked.shots is None:
                    require_density_matrix(n_qubits, available_bytes)
                elif source in CIRCUITS:
                    require_memory(n_qubits, available_bytes)
        except CircuitMemoryError as error:
            raise StudyError(f"arms.{arm.name}.perturbation.{error}") from None


def _largest(value: Any) -> int:
    return int(max(value.edges())) if isinstance(value, SPACES) else value
