"""Check that a task of one's own repeats itself: a first step here and in a new process gives the same numbers, or not.

The other process has another seed of hashes, other global generators and a later clock. Digests of everything that a
first step makes are compared in the order in which it is made, so the first that differs names the culprit.

    python -m qsgd_ray.workloads.determinism FILE    (the other process: reads the task from FILE, adds its digests)
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.config import OwnTask, StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.config.own_task import IMPORTS_ONLY, code
from qsgd_ray.outcome import user_line
from qsgd_ray.workloads import Workload, make_workload

# A data set is read as far as a first step and an evaluation do; this ends a process that waits for something else.
_TIMEOUT_S = 600
_ALLOWED = "draws from the generator that it gets, and neither a clock, another generator nor the order of a set"
_SEED = 1


def require_repeatable(tasks: Sequence[OwnTask], n_threads: int = 1) -> None:
    """Refuse tasks whose data, model, loss, gradient or metrics come out otherwise the second time.

    Args:
        tasks: of one class.
        n_threads: of torch, as in the trials.

    Raises:
        StudyError: what differs first, or the line of the user's code that raised; one line.
    """
    if not tasks:
        return
    kind = tasks[0].kind
    for task, there in zip(tasks, _in_a_new_process(tasks, n_threads), strict=True):
        here = _first_step(task, n_threads)
        for name in [*here, *(there.keys() - here.keys())]:
            if here.get(name) != there.get(name):
                raise StudyError(f"workload: got {kind}, whose {name} differs in a second process; allowed: {_ALLOWED}")


def explained(task: OwnTask, error: BaseException) -> StudyError:
    """Return what a user's class raised before training as one line, with the line of the user's file.

    Args:
        task: its settings.
        error: with its traceback.
    """
    if isinstance(error, StudyError):
        return error
    import traceback

    text = "".join(traceback.format_exception(error))
    reason = f"{type(error).__name__}: {one_line(error, limit=160)}"
    place = user_line(text)
    if place is None and isinstance(error, ValueError):  # of what the class returned
        return StudyError(f"workload: {task.kind}.{one_line(error, limit=200)}")
    return StudyError(f"workload: {place or task.kind}: {reason}")


def _first_step(task: OwnTask, n_threads: int) -> dict[str, str]:
    """Return digests of what a first step makes, in its order, by name."""
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(n_threads)
    try:
        return _digests(make_workload(task))
    except Exception as error:  # the user's code
        raise explained(task, error) from None
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)


def _digests(workload: Workload) -> dict[str, str]:
    found: dict[str, str] = {}
    torch.default_generator.manual_seed(_SEED)  # as a trial seeds dropout
    batch = next(iter(workload.batches(_SEED, 1, 0, 1)))
    found["training data"] = _digest(batch)
    model = workload.make_model(_SEED)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[f"initial {name}"] = _digest(tensor)
    model.train()
    found["loss"] = _digest(workload.backward(model, batch, 1))
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = _digest(parameter.grad)
    for split in ("validation", "test"):
        evaluation = workload.evaluate(model, split, 0, 1)
        found[f"{split} loss"] = repr(evaluation.loss_sum)
        found |= {f"{split} {name}": repr(value) for name, value in evaluation.sums.items()}
    return found


def _digest(value: Any) -> str:
    """Return a digest of tensors in nested lists, tuples and dicts, and of plain values."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        text = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return hashlib.sha256(f"{value.dtype} {tuple(value.shape)}".encode() + text).hexdigest()
    if isinstance(value, dict):
        return _digest([[str(name), _digest(item)] for name, item in value.items()])
    if isinstance(value, list | tuple):
        return hashlib.sha256("".join(_digest(item) for item in value).encode()).hexdigest()
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _in_a_new_process(tasks: Sequence[OwnTask], n_threads: int) -> list[dict[str, str]]:
    kind, found = type(tasks[0]), code(type(tasks[0]))
    words = {
        "path": [str(found.root), *sys.path],
        "module": kind.__module__,
        "class": kind.__name__,
        "fields": [task.model_dump(mode="json") for task in tasks],
        "n_threads": n_threads,
    }
    environment = os.environ | {"PYTHONHASHSEED": str(1 + int.from_bytes(os.urandom(2), "big"))}
    with tempfile.TemporaryDirectory(prefix="qsgd-ray-check-") as folder:
        file = Path(folder) / "task.json"
        file.write_text(json.dumps(words))
        command = [sys.executable, "-m", "qsgd_ray.workloads.determinism", str(file)]
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
        try:
            done = subprocess.run(  # nosec B603 # this package's own module, with a file that it wrote
                command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise StudyError(
                f"workload: got {tasks[0].kind}, whose first step takes more than {_TIMEOUT_S} s; allowed: less"
            ) from None
        answer = json.loads(file.read_text())
    if "error" in answer:
        raise StudyError(answer["error"])
    if "digests" not in answer:
        reason = one_line(done.stderr, part="last", limit=200) or f"exit code {done.returncode}"
        raise StudyError(
            f"workload: got {tasks[0].kind}, which a new process cannot import "
            f"({reason}); allowed: a module that can be imported"
        )
    return list(answer["digests"])


def _answer(file: Path) -> None:
    """Read tasks from a file, take the first step of each, and write the digests into the file."""
    words = json.loads(file.read_text())
    sys.path[:0] = [place for place in words["path"] if place not in sys.path]
    os.environ[IMPORTS_ONLY] = "1"  # a script that calls `run` as it is imported is told so, and starts no study
    kind = getattr(importlib.import_module(words["module"]), words["class"])
    try:
        digests = [_first_step(kind.model_validate(fields), words["n_threads"]) for fields in words["fields"]]
        file.write_text(json.dumps(words | {"digests": digests}))
    except StudyError as error:
        file.write_text(json.dumps(words | {"error": str(error)}))


if __name__ == "__main__":
    _answer(Path(sys.argv[1]))
