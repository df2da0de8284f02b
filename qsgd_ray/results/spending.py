"""Spending of a study: the time that its runs took, in spending.json beside the rows; read, added to, written back.

    DIR/spending.json    {"runs": [{"started_at": ..., "seconds": ..., "node_seconds": {"train": ...}}]}, a run an entry

Seconds are added up by a clock that nobody sets, and a run never writes less than it has written: what is spent only
grows. Of results from before there was such a file the rows tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qsgd_ray.config.json_text import parse_json
from qsgd_ray.storage import Storage, refused

_FILE = "spending.json"
_FIELDS = {"started_at", "seconds", "node_seconds"}
# A century: rows and files may be of unknown origin.
_LONGEST_S = 3.2e9


@dataclass(frozen=True)
class RunSpending:
    """The time of one run of a study, from its start to its end.

    Attributes:
        started_at: when it began, ISO 8601 in UTC; None: of runs that only rows tell of.
        seconds: that it took, >= 0.
        node_seconds: seconds of all of its nodes by their kind (config/budget.py).
    """

    started_at: str | None
    seconds: float
    node_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spending:
    """The time of all runs of a study.

    Attributes:
        runs: in their order.

    Example:
        >>> spending = Spending((RunSpending(None, 60.0, {"": 60.0}), RunSpending(None, 30.0, {"": 30.0})))
        >>> spending.seconds, spending.node_seconds
        (90.0, {'': 90.0})
    """

    runs: tuple[RunSpending, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of all runs together."""
        return math.fsum(run.seconds for run in self.runs)

    @property
    def node_seconds(self) -> dict[str, float]:
        """Seconds of all nodes of all runs, by kind."""
        kinds = sorted({kind for run in self.runs for kind in run.node_seconds})
        return {kind: math.fsum(run.node_seconds.get(kind, 0.0) for run in self.runs) for kind in kinds}

    def with_run(self, run: RunSpending) -> Spending:
        """Return the spending with one more run."""
        return Spending((*self.runs, run))


_NOTHING_SPENT = Spending()


def _read_spending(storage: Storage) -> Spending | None:
    """Return the spending that lies in a storage; None where there is no file.

    Raises:
        StudyError: the file is broken; one line.
    """
    try:
        tree = parse_json(storage.read(_FILE))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise refused(storage.location(), f"whose {_FILE} is broken ({error})", f"a study's {storage.kind}") from None
    runs = tree.get("runs") if isinstance(tree, dict) else None
    if not isinstance(runs, list):
        raise refused(storage.location(_FILE), "without a list of runs", "an object with one")
    return Spending(tuple(_run(run, storage.location(_FILE)) for run in runs))


def write_spending(storage: Storage, spending: Spending) -> None:
    """Put the spending into a storage, whole.

    Args:
        storage: of the study.
        spending: of all its runs.
    """
    storage.put(_FILE, json.dumps({"runs": [asdict(run) for run in spending.runs]}, indent=2).encode())


def _spending_of_rows(trials: pa.Table) -> Spending:
    """Return the spending that rows tell of: the time in which at least one trial ran, on one node.

    Args:
        trials: table of trials; rows without a time are left out.
    """
    known = trials.filter(pc.and_(pc.is_valid(trials["started_at"]), pc.is_valid(trials["elapsed_s"])))
    elapsed_s = known["elapsed_s"].to_numpy()
    possible = (elapsed_s > 0) & (elapsed_s < _LONGEST_S)
    start_s = known["started_at"].cast(pa.int64()).to_numpy()[possible] / 1e6
    end_s = start_s + elapsed_s[possible]
    order = np.argsort(start_s, kind="stable")
    start_s, covered_s = start_s[order], np.maximum.accumulate(end_s[order])
    begin_s = np.maximum(start_s, np.concatenate(([-np.inf], covered_s[:-1])))
    total_s = float(np.sum(np.maximum(covered_s - begin_s, 0.0)))
    return Spending((RunSpending(None, total_s, {"": total_s}),)) if total_s else Spending()


def _run(tree: Any, place: object) -> RunSpending:
    if not isinstance(tree, dict) or tree.keys() != _FIELDS:
        raise refused(place, "with a run of other fields", f"{', '.join(sorted(_FIELDS))}")
    if not isinstance(tree["started_at"], str | None):
        raise refused(place, f"whose started_at is {tree['started_at']!r:.60}", "a time in ISO 8601, or null")
    if not _is_seconds(tree["seconds"]):
        raise refused(place, f"whose seconds are {tree['seconds']!r:.60}", f"a number from 0 to {_LONGEST_S:g}")
    nodes = tree["node_seconds"]
    if not isinstance(nodes, Mapping) or not all(map(_is_seconds, nodes.values())):
        raise refused(
            place, f"whose node_seconds are {nodes!r:.60}", f"numbers from 0 to {_LONGEST_S:g} by kind of node"
        )
    return RunSpending(tree["started_at"], float(tree["seconds"]), {kind: float(s) for kind, s in nodes.items()})


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST_S
