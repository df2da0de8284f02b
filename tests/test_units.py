"""Several processes share the tests unit by unit: no fixture of a file is made twice, and the long units come first."""

import re

import pytest
from support.places import TESTS
from support.units import LONGEST, in_units, longest_first, unit_of


class Item:
    """A test that is collected and never runs."""

    def __init__(self, file: str, *fixtures: str, group: str | None = None) -> None:
        self.path, self.fixturenames = TESTS / file, fixtures
        self.markers = [pytest.mark.xdist_group(group)] if group else []

    def add_marker(self, marker) -> None:
        self.markers.append(marker)

    def get_closest_marker(self, name: str):
        return next((marker.mark for marker in self.markers if marker.name == name), None)


def test_a_file_is_a_unit_unless_its_tests_share_more_or_are_told_otherwise():
    items = [
        Item("config/test_arm.py"),
        Item("search/test_tune.py"),
        Item("search/test_tune.py", "searched", "cluster"),
        Item("commands/test_cli.py"),
        Item("end_to_end/test_chaos.py", group="killed"),
    ]
    in_units(items)
    units = ["config/test_arm.py", "search/test_tune.py", "cluster", "cli", "killed"]
    assert [unit_of(item) for item in items] == units
    assert [len(item.markers) for item in items] == [1] * 5


def test_the_tests_of_a_running_session_have_units(request):
    mine = [item for item in request.session.items if item.path.name == "test_units.py"]
    assert {unit_of(item) for item in mine} == {"test_units.py"}


def test_the_longest_units_come_first_and_nothing_else_changes_its_place():
    items = [Item("a.py"), Item("b.py", group="own"), Item("c.py"), Item("d.py", "cluster"), Item("e.py", group="own")]
    in_units(items)
    assert [item.path.name for item in longest_first(items)] == ["d.py", "b.py", "e.py", "a.py", "c.py"]


@pytest.mark.parametrize("unit", LONGEST)
def test_a_unit_that_is_called_long_is_there(unit):
    if unit.endswith(".py"):
        assert (TESTS / unit).exists()
    else:
        named = rf'xdist_group\("{unit}"\)|unit = "{unit}"'
        assert any(re.search(named, path.read_text()) for path in TESTS.rglob("*.py") if path.name != "test_units.py")
