"""Connect to the Ray cluster where a study runs, or start a private one on this machine.

`connect` and `private_ray` are context managers: the `Cluster` that they yield is there as long as the block lasts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from qsgd_ray.circuits.memory import total_bytes
from qsgd_ray.config import Study, StudyError
from qsgd_ray.config.errors import printable
from qsgd_ray.execution import _session_processes
from qsgd_ray.execution._auth import private_token
from qsgd_ray.execution._kept_sigterm import kept_sigterm
from qsgd_ray.execution._ray_messages import first_lines_only
from qsgd_ray.execution._scratch import scratch_folder
from qsgd_ray.execution._session_processes import (
    CORE,
    CoreProcess,
    core_processes,
    end_processes,
    keep_watched,
    marked,
    take_leave,
    watchdog,
)
from qsgd_ray.execution.errors import RayLost
from qsgd_ray.execution.preflight import _logical_cpus, _resolve_address, _unreachable
from qsgd_ray.execution.user_modules import runtime_env_of
from qsgd_ray.execution.worker_requests import _every_resources
from qsgd_ray.storage import Storage

# Ray asks for at least 78,643,200 bytes. Only angles and the circuits' answers travel through the object store.
_OBJECT_STORE_BYTES = 256 * 2**20
# A private Ray is started this often while its node is late.
_STARTS = 3
# Ray's words for a node that was late.
_LATE = "timed out during startup"


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster that this process is connected to.

    Attributes:
        private: True for one node that belongs to this process alone and ends with it.
        scratch: a folder for what Ray itself writes. On a shared cluster it lies among the results, since every node
            must be able to write there.
        core: the processes without which a private Ray cannot go on; empty on a shared cluster.
    """

    private: bool
    scratch: str
    core: tuple[CoreProcess, ...] = ()

    def require_alive(self) -> None:
        """Look whether the processes of a private Ray still run; its watchdog is started anew where it was killed.

        Ray itself may need a minute to notice, and then ends the calling process (rpc_client.h, 2.60).

        Raises:
            RayLost: one of them does not; one line.
        """
        keep_watched()
        for process in self.core:
            if process.process.is_dead():
                raise RayLost.ended(process.name)


@contextmanager
def connect(study: Study, address: str | None, results_path: Path | Storage) -> Iterator[Cluster]:
    """Connect to a running cluster, or start a private one that is large enough for `study`.

    Args:
        study: its resources size a private cluster.
        address: a running cluster's, as `ray.init` takes it. None: the one in RAY_ADDRESS, else a private cluster.
        results_path: where the study's rows go; Ray's own notes of a shared cluster go below it.

    Returns:
        A context manager. Leaving it disconnects, or ends the private cluster.

    Raises:
        StudyError: nothing answers at the address, or this process is connected to a Ray already.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise StudyError(
            f"address: got {address!r} in a process that is connected to Ray already; allowed: after ray.shutdown()"
        )
    address = _resolve_address(address)
    with runtime_env_of(study) as runtime_env:
        if address:
            with _existing(address, results_path, runtime_env) as cluster:
                yield cluster
            return
        workers = _every_resources(study)
        nodes = [kind for one in workers for kind in one.worker_node_resources()]
        nodes += study.resources.circuit_node_resources()
        memory = total_bytes() if any(one.memory_bytes_per_worker for one in workers) else None
        line = (
            "qsgd-ray: the study's process has ended without a word: it was killed, or Ray has ended it. What is "
            f"finished is kept in {printable(str(results_path))}; the same command goes on from there"
        )
        n_cpus = _logical_cpus(study, os.cpu_count() or 1)
        with private_ray(n_cpus, dict.fromkeys(nodes, 1), line, runtime_env, memory) as cluster:
            yield cluster


@contextmanager
def private_ray(
    n_cpus: int,
    resources: dict[str, float] | None = None,
    last_words: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    memory_bytes: int | None = None,
) -> Iterator[Cluster]:
    """Start a Ray for this process alone, on loopback only, and end all of its processes when the block is left.

    They end as well where this process is killed: a watchdog beside it sees to that.

    Args:
        n_cpus: CPUs that the node announces, at least 1; may be more than the machine has.
        resources: what the node announces besides, by name. None: nothing.
        last_words: a line that is printed on standard error where this process ends all at once. None: none.
        runtime_env: what Ray brings to its workers. None: nothing.
        memory_bytes: memory that the node announces. None: as Ray reckons it.

    Returns:
        A context manager that yields the cluster.

    Raises:
        RayLost: Ray did not start, or its core has ended since.

    Example:
        >>> import ray
        >>> with private_ray(n_cpus=1):  # doctest: +SKIP
        ...     ray.get(ray.remote(lambda: 1 + 1).remote())
        2
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray binds to loopback alone if the node's address is 127.0.0.1, and takes that address only where it believes
    # that no other machine can join (by default macOS and Windows).
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # One more process for each group of workers, to hear of nodes that are about to be taken away: here is one alone.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    set_ray_environment()
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # for the case that ray was imported before the variable was set
    # Ray prints of itself also while it starts.
    with (
        first_lines_only(),
        private_token(),
        scratch_folder() as scratch,
        watchdog(session := str(scratch), last_words),
    ):
        start = partial(
            ray.init,
            address="local",
            num_cpus=n_cpus,
            resources=resources,
            runtime_env=runtime_env,
            object_store_memory=_OBJECT_STORE_BYTES,
            **({} if memory_bytes is None else {"_memory": memory_bytes}),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            # Ray itself never removes what it keeps of a session, and opens the folder that it is given to everybody.
            _temp_dir=str(scratch / "r"),
        )
        try:
            try:
                _start_patiently(start, session)
            except Exception as error:  # Ray raises no narrower one
                raise _did_not_start(error) from error
            core = core_processes(session)
            for name in CORE:
                if name not in [process.name for process in core]:  # it has ended since the start
                    raise RayLost.ended(name)
            yield Cluster(private=True, scratch=session, core=core)
        finally:
            with suppress(Exception), kept_sigterm():  # of a Ray that was interrupted while it started, or has died
                ray.shutdown()
            end_processes(session)


def keep_start_watched() -> None:
    """Start the watchdog of a private Ray anew where it was killed; for the time in which Ray starts.

    A running one is looked after by `Cluster.require_alive`.
    """
    keep_watched()


def leave_process(exit_code: int, cluster: Cluster | None = None) -> NoReturn:
    """End this process at once, after it has said itself what there is to say.

    Where it has a private Ray that runs, it is replaced by one that ends that Ray. Threads that still use Ray end here
    and now: while Ray ends they could end the process with a code of their own, as Ray's core does where its raylet is
    gone (ray/raylet_ipc_client, 2.60).

    Args:
        exit_code: the exit code of the process, 0 to 255.
        cluster: of this process. None: it has none, or one that was just starting, which the watchdog ends.
    """
    take_leave()
    if cluster is not None and cluster.private:
        script = [sys.executable, "-P", _session_processes.__file__, cluster.scratch, "--exit", str(exit_code)]
        os.execv(sys.executable, script)  # nosec B606 # a file of this package; no shell is wanted
    os._exit(exit_code)


def _start_patiently(start: Callable[[], object], session: str) -> None:
    """Start Ray, again where its node was late.

    Ray gives its node half a minute and has no setting for it (ray/_private/node.py, 2.60). On a crowded machine that
    is too short. What a late start left behind is ended before the next one.
    """
    for left in reversed(range(_STARTS)):
        try:
            with marked(session):
                start()
            return
        except Exception as error:  # Ray raises no narrower one
            if _LATE not in str(error) or not left:
                raise
            end_processes(session, grace_s=0)


def _did_not_start(error: Exception) -> RayLost:
    reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
    return RayLost(f"Ray did not start ({reason}). What is finished is kept; the same command tries again")


@contextmanager
def _existing(address: str, results_path: Path | Storage, runtime_env: dict[str, Any] | None) -> Iterator[Cluster]:
    set_ray_environment()
    import ray

    try:
        ray.init(address=address, runtime_env=runtime_env, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _unreachable(address, str(error).strip().partition("\n")[0] or type(error).__name__) from None
    try:
        # Ray Train wants its own notes where every node can write: the results are such a place by definition.
        yield Cluster(private=False, scratch=str(results_path / "ray"))
    finally:
        with kept_sigterm():
            ray.shutdown()


def set_ray_environment() -> None:
    """Set the environment variables that Ray reads when it is imported: less output, and no cluster by surprise.

    Call it before the first `import ray`. Variables that are set already stay, except RAY_ENABLE_AUTO_CONNECT: a call
    that comes after the end would otherwise connect to whatever Ray runs on this machine.
    """
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
