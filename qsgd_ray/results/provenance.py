"""Provenance of results: versions, commit, hardware, and whether the search is deterministic; plain JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from qsgd_ray import __version__
from qsgd_ray.config import Study

_PACKAGES = (
    "torch",
    "ray",
    "optuna",
    "qiskit",
    "numpy",
    "scipy",
    "statsmodels",
    "pyarrow",
    "pydantic",
    "transformers",
    "tokenizers",
    "peft",
    "reasoning-gym",
    "schedulefree",
    "pytorch-optimizer",
)


def provenance(study: Study, study_file: Path | None, overrides: list[str], address: str | None) -> dict[str, Any]:
    """Return the record that is stored beside the rows of a study.

    Args:
        study: the study.
        study_file: the file that it comes from. None: from none.
        overrides: the assignments of `--set`, in their order.
        address: of the cluster. None: a private Ray on this machine.
    """
    return environment_record(study_file, overrides) | {
        "search_is_deterministic": study.search.deterministic,
        "cluster": address or "private, on this machine",
    }


def environment_record(study_file: Path | None, overrides: list[str]) -> dict[str, Any]:
    """Return the record of everything that is measured on this machine, now.

    Args:
        study_file: the file that the study comes from. None: from none.
        overrides: the assignments of `--set`, in their order.
    """
    return {
        "qsgd_ray": __version__,
        "commit": _commit(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "study_file": str(study_file) if study_file else None,
        "overrides": overrides,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "gpus": _gpus(),
        },
        "system": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> dict[str, Any] | None:
    """Return the commit of this package's checkout and whether it was changed since; None outside of one."""
    here = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(  # nosec B603, B607 # the user's own git, with words of this file
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"hash": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str | None:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
