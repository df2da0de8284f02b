import traceback

import pytest
import torch
from support.fake_backends import AnswersWith, CountingBackend, FlakyBackend
from support.replicas import in_two_processes

from qsgd_ray.circuits.backends.replicated import ReplicatedBackend
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError, CircuitsLost
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations

SPEC = CircuitSpec(3)


def angles(batch=5):
    return torch.randn(SPEC.angles_shape(batch), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_replicated_without_other_processes_is_the_inner_backend():
    inner = CountingBackend()
    answer = ReplicatedBackend(inner).submit(SPEC, angles()).result()
    assert torch.equal(answer, expectations(SPEC, angles()))
    assert len(inner.submitted) == 1


@pytest.mark.parametrize("at", ["submit", "result"])
def test_replicated_raises_at_result_what_the_inner_backend_raised(at):
    pending = ReplicatedBackend(FlakyBackend(fail_on=1, at=at)).submit(SPEC, angles())
    for _ in range(2):
        with pytest.raises(CircuitError, match=r"^submission 1 failed$"):
            pending.result()


def test_replicated_tells_what_else_the_inner_backend_ran_into():
    pending = ReplicatedBackend(FlakyBackend(fail_on=1, error=OSError("no route"))).submit(SPEC, angles())
    with pytest.raises(CircuitError, match=r"^circuits failed on rank 0: OSError: no route$") as error:
        pending.result()
    assert isinstance(error.value.__cause__, OSError)


def test_replicated_refuses_an_answer_of_another_shape():
    pending = ReplicatedBackend(AnswersWith(torch.zeros(5, 2))).submit(SPEC, angles())
    with pytest.raises(CircuitError, match=r"^circuits: got an answer of shape \(5, 2\); allowed: \(5, 3\)$"):
        pending.result()


def replica(rank):
    """One process of two: a good answer, failures at submit and at result, and a good answer again."""
    results, tracebacks = [], []
    inner = [
        CountingBackend(),
        FlakyBackend(fail_on=1, at="submit"),
        FlakyBackend(fail_on=1, at="result"),
        FlakyBackend(fail_on=1, at="result", error=ZeroDivisionError("division by zero")),
        FlakyBackend(fail_on=1, at="result", error=CircuitsLost("no answer")),
        FlakyBackend(fail_on=1, at="submit", error=CircuitMemoryError("too large")),
        CountingBackend(),
    ]
    for one in inner:
        # Rank 1 holds other angles, so bits of its own making would show.
        pending = ReplicatedBackend(one).submit(SPEC, angles() + rank)
        try:
            results.append(pending.result())
        except CircuitError as error:
            results.append(f"{type(error).__name__}: {error}")
            tracebacks.append(traceback.format_exc())
    return results, tracebacks, [len(one.submitted) for one in (inner[0], inner[-1])]


def test_replicas_hold_the_bits_of_rank_0_and_fail_together(tmp_path):
    ours, theirs = in_two_processes(replica, tmp_path)
    (results_0, tracebacks_0, asked_0), (results_1, tracebacks_1, asked_1) = ours, theirs
    exact = expectations(SPEC, angles())
    for results in (results_0, results_1):
        assert torch.equal(results[0], exact)
        assert torch.equal(results[6], exact)
    assert results_0[1:6] == [
        "CircuitError: submission 1 failed",
        "CircuitError: submission 1 failed",
        "CircuitError: circuits failed on rank 0: ZeroDivisionError: division by zero",
        "CircuitsLost: no answer",
        "CircuitMemoryError: too large",
    ]
    # Whichever rank is asked why the group ended can tell: in one line, and with rank 0's traceback.
    assert results_1[1:6] == results_0[1:6]
    for at, on_0, on_1 in zip(
        ("submit", "result", "result", "result", "submit"), tracebacks_0, tracebacks_1, strict=True
    ):
        assert f", in {at}\n" in on_0
        assert f", in {at}\n    raise self._error" in on_1
        assert "_OnRank0: " in on_1
    assert "ZeroDivisionError: division by zero\n\nThe above exception was" in tracebacks_1[2]
    assert (asked_0, asked_1) == ([1, 1], [0, 0])
