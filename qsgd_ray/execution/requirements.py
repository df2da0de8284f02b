"""Packages that a study's own arms need: asked of this machine, or of a cluster's nodes, before the first trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from qsgd_ray.config import Study, StudyError
from qsgd_ray.config.base import options
from qsgd_ray.config.optimizer_class import PACKAGES, module_of
from qsgd_ray.execution.worker_requests import _every_resources

# A worker process trains; a circuit actor simulates. Without actors the workers do both.
Role = Literal["worker", "circuits"]
# Modules by name, with what is installed to have them.
_PACKAGES = {
    "qsgd_ray": "qsgd-ray",
    "torch": "torch",
    "qiskit": "qiskit",
    "qiskit_aer": "qiskit-aer",
    "transformers": "transformers",
    "peft": "peft",
    **PACKAGES,
}
# Versions on which the bits of a trial may depend.
_COMPARED = ("python", "torch", "ray", "qsgd-ray", "qiskit", "qiskit-aer", "schedulefree", "pytorch-optimizer")
# A node that is busy may start no process for the question; what it lacks then shows in its trials.
_ANSWER_S = 60.0
_MOST_NODES = 64


@dataclass(frozen=True)
class NodeReport:
    """The packages of one machine.

    Attributes:
        node: its host name or address.
        role: what processes of the study do there.
        versions: by package, `python` too; None for one that is not installed.
        missing: modules that were asked for and are not there.
    """

    node: str
    role: Role
    versions: Mapping[str, str | None]
    missing: tuple[str, ...]


def _needed_modules(study: Study, role: Role) -> dict[str, str]:
    """Return the modules that a process of the study imports, each with the field that asks for it.

    Args:
        study: its arms, workload and engine decide.
        role: of the process.
    """
    needed = {"qsgd_ray": "study", "torch": "study"}
    perturbations = {arm.name: arm.perturbation for arm in study.arms if arm.perturbation is not None}
    simulates = (role == "circuits") != (study.resources.circuit_actors is None)
    for name, perturbation in perturbations.items():
        if simulates and perturbation.uses_circuits and study.resources.circuit_engine == "aer":
            needed.setdefault("qiskit_aer", "resources.circuit_engine")
        if simulates and "noisy" in options(perturbation.source):
            needed.setdefault("qiskit_aer", f"arms.{name}.perturbation.source")
    for arm in study.arms if role == "worker" else ():
        for name in arm.optimizer_names:
            needed.setdefault(module_of(name), f"arms.{arm.name}.optimizer")
    if role == "worker":
        for task in (study.workload, *(task for arm in study.arms for task in study.tasks_of(arm))):
            needed |= task.required_modules
    return needed


def _require_modules_here(study: Study) -> None:
    """Raise `StudyError`, one line, where this machine lacks a package that the study's processes need."""
    for role in _roles(study):
        for module, field in _needed_modules(study, role).items():
            if find_spec(module) is None:
                raise _lacking("this machine", module, field)


def require_modules_there(study: Study, reports: Iterable[NodeReport]) -> None:
    """Raise `StudyError`, one line, where a node lacks a package that the study's processes need.

    Args:
        study: its arms decide.
        reports: of the nodes.
    """
    for report in reports:
        for module, field in _needed_modules(study, report.role).items():
            if module in report.missing:
                raise _lacking(f"node {report.node}", module, field)


def _lacking(where: str, module: str, field: str) -> StudyError:
    package = _PACKAGES.get(module, module)
    return StudyError(
        f"{field}: got a study that needs {package}, which {where} lacks; allowed: with it (pip install {package})"
    )


def version_differences(here: NodeReport, reports: Iterable[NodeReport]) -> list[str]:
    """Return a line for each package whose version on a node is not this process's; bits may differ by it.

    Args:
        here: of this process.
        reports: of the nodes.
    """
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for report in reports:
        for package in _COMPARED:
            there, mine = report.versions.get(package), here.versions.get(package)
            if there is not None and mine is not None and there != mine:
                names = nodes.setdefault((package, there, mine), [])
                if report.node not in names:
                    names.append(report.node)
    return [
        f"Node {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} has {package} {there}, "
        f"this process {mine}: rows of the two may differ in their last bits."
        for (package, there, mine), names in nodes.items()
    ]


def report_here() -> NodeReport:
    """Return the packages of this process."""
    return NodeReport("this machine", "worker", *_portable_look()((), _COMPARED))


def ask_nodes(study: Study) -> list[NodeReport]:
    """Ask the nodes of the connected cluster that are alive and of a kind on which the study's processes may be.

    A node that does not answer within a minute is left out, and one that comes later is not asked: what it lacks shows
    as the ending `unavailable` of its trials.

    Args:
        study: its arms say what is asked, its resources where.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = ray.remote(num_cpus=0, max_retries=0)(_portable_look())
    questions: dict[Any, tuple[str, Role]] = {}
    for role in _roles(study):
        of_worker = {tuple(one.worker_node_resources().items()): None for one in _every_resources(study)}
        kinds = [*map(dict, of_worker)] if role == "worker" else [study.resources.circuit_node_resources()]
        modules = tuple(_needed_modules(study, role))
        hosts = {node["NodeID"]: node for one in kinds for node in _hosts(ray.nodes(), one)}
        for node in [*hosts.values()][:_MOST_NODES]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            question = asked.options(scheduling_strategy=strategy).remote(modules, _COMPARED)
            questions[question] = node["NodeManagerHostname"] or node["NodeManagerAddress"], role
    answered, _ = (
        ray.wait([*questions], num_returns=max(1, len(questions)), timeout=_ANSWER_S) if questions else ([], 0)
    )
    reports = []
    for question in questions:
        if question in answered:
            try:
                reports.append(NodeReport(*questions[question], *ray.get(question)))
            except ray.exceptions.RayError:  # its node went away meanwhile
                continue
    return reports


def _hosts(nodes: list[dict[str, Any]], kinds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the nodes that are alive and have CPUs and every resource named in `kinds`."""
    return [node for node in nodes if node["Alive"] and all(node["Resources"].get(kind) for kind in ("CPU", *kinds))]


def _roles(study: Study) -> list[Role]:
    simulates = any(arm.perturbation is not None and arm.perturbation.uses_circuits for arm in study.arms)
    return ["worker", "circuits"] if simulates and study.resources.circuit_actors is not None else ["worker"]


def _portable_look() -> Any:
    """Return a function of modules and packages: the packages' versions, and the modules that cannot be found.

    It is made here, and so travels by its code: a node may lack this package itself.
    """

    def look(modules: tuple[str, ...], packages: tuple[str, ...]) -> tuple[dict[str, str | None], tuple[str, ...]]:
        import platform
        from importlib.metadata import PackageNotFoundError, version
        from importlib.util import find_spec

        versions: dict[str, str | None] = {}
        for package in packages:
            try:
                versions[package] = platform.python_version() if package == "python" else version(package)
            except PackageNotFoundError:
                versions[package] = None
        return versions, tuple(module for module in modules if find_spec(module) is None)

    return look
