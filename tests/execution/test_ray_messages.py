"""Of a message of Ray's own one line is printed, and of a worker's nothing changes."""

import sys
from types import SimpleNamespace

import pytest

from qsgd_ray.execution._ray_messages import first_lines_only


@pytest.fixture
def printed(monkeypatch):
    """Messages as Ray's own function gets them."""
    messages = []
    worker = SimpleNamespace(print_to_stdstream=lambda data, ignore_prefix: messages.append((data, ignore_prefix)))
    monkeypatch.setitem(sys.modules, "ray._private.worker", worker)
    return messages


def test_the_first_line_of_each_message_is_left_and_ray_s_function_is_put_back(printed):
    worker = sys.modules["ray._private.worker"]
    before = worker.print_to_stdstream
    with first_lines_only():
        worker.print_to_stdstream({"lines": ["lost. Last lines:\n  a\n  b", "x"], "pid": "raylet"}, ignore_prefix=False)
    assert printed == [({"lines": ["lost. Last lines:", "x"], "pid": "raylet"}, False)]
    assert worker.print_to_stdstream is before


def test_a_ray_without_that_function_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray._private.worker", SimpleNamespace())
    with first_lines_only():
        assert not vars(sys.modules["ray._private.worker"])
