"""Units of tests: what one process runs in a row where several share the tests (pytest-xdist, `--dist loadgroup`).

The scheduler hands a unit to whoever is nearly done with the one before, in the order in which their first tests were
collected (xdist/scheduler/loadscope.py, 3.8). A long unit that comes late leaves the others nothing to do meanwhile.
"""

from collections.abc import Iterable

import pytest

from support.places import TESTS

# Those of more than a minute, the longest first; measured on two cores, 2026-12-01.
LONGEST = (
    "cluster",
    "killed",
    "cli",
    "own",
    "job",
    "local-cluster",
    "end_to_end/test_wheel.py",
    "optimizer/test_sharded_optimizer.py",
)


def in_units(items: Iterable[pytest.Item]) -> None:
    """Mark each test with its unit.

    Tests that share the cluster are one; those that a marker names otherwise are another; and a file is one, so that
    no fixture of a module is made by two processes.
    """
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        if "cluster" in getattr(item, "fixturenames", ()):
            unit = "cluster"
        elif item.path.name == "test_cli.py":
            unit = "cli"
        else:
            unit = item.path.relative_to(TESTS).as_posix()
        item.add_marker(pytest.mark.xdist_group(unit))


def unit_of(item: pytest.Item) -> str:
    """Return the unit that a test is marked with."""
    return str(item.get_closest_marker("xdist_group").args[0])


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests of the longest units before all others, which stay in their order."""
    ranks = {unit: rank for rank, unit in enumerate(LONGEST)}
    return sorted(items, key=lambda item: ranks.get(unit_of(item), len(LONGEST)))
