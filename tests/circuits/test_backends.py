from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fakes import AnswersWith, CountingBackend, FlakyBackend

from qsgd_ray.circuits.backends import (
    Answered,
    CircuitError,
    CircuitMemoryError,
    CircuitsLost,
    ReplicatedBackend,
)
from qsgd_ray.circuits.in_process import TorchBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import expectations

SPEC = CircuitSpec(3)


def angles(batch=5, dtype=torch.float64):
    return torch.randn(SPEC.angles_shape(batch), generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_answered_is_there_already():
    answer = torch.ones(2, 3)
    assert Answered(answer).result() is answer


def test_torch_backend_answers_with_the_simulator_in_float64():
    single = angles(dtype=torch.float32).requires_grad_()
    answer = TorchBackend().submit(SPEC, single).result()
    assert answer.dtype == torch.float64
    assert torch.equal(answer, expectations(SPEC, single.detach().double()))
    # An answer is a tensor like any other: autograd may keep it.
    (torch.ones(3, dtype=torch.float64, requires_grad=True) * answer).sum().backward()


def test_differentiating_after_an_answer_works():
    # What the backend leaves in the simulator's caches must not be tied to its inference mode.
    spec = CircuitSpec(7, 1)
    TorchBackend().submit(spec, torch.zeros(1, 1, 7, 2))
    expectations(spec, torch.zeros(1, 1, 7, 2, requires_grad=True)).sum().backward()


def test_torch_backend_refuses_angles_of_another_shape():
    with pytest.raises(CircuitError, match=r"^angles: got shape \(1, 2, 4, 2\); allowed for CircuitSpec"):
        TorchBackend().submit(SPEC, torch.zeros(1, 2, 4, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_torch_backend_refuses_angles_that_are_not_finite(value):
    bad = angles()
    bad[1, 1, 2, 1] = value
    with pytest.raises(CircuitError) as error:
        TorchBackend().submit(SPEC, bad)
    assert str(error.value) == "angles: got 1 of 60 not finite; allowed: finite radians"


def test_finite_angles_whose_sum_overflows_are_answered():
    assert TorchBackend().submit(SPEC, torch.full((5, 2, 3, 2), 1e308, dtype=torch.float64)).result().isfinite().all()


def test_torch_backend_refuses_a_state_that_does_not_fit():
    with pytest.raises(CircuitMemoryError):
        TorchBackend(memory_bytes=300).submit(SPEC, angles())
    assert TorchBackend(memory_bytes=320).submit(SPEC, angles()).result().shape == (5, 3)


def test_replicated_without_other_processes_is_the_inner_backend():
    inner = CountingBackend()
    answer = ReplicatedBackend(inner).submit(SPEC, angles()).result()
    assert torch.equal(answer, expectations(SPEC, angles()))
    assert len(inner.asked) == 1


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


def replica(rank, meet):
    """One process of two: a good answer, failures at submit and at result, and a good answer again."""
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    told = []
    inner = [
        CountingBackend(),
        FlakyBackend(fail_on=1, at="submit"),
        FlakyBackend(fail_on=1, at="result"),
        FlakyBackend(fail_on=1, at="result", error=ZeroDivisionError("division by zero")),
        FlakyBackend(fail_on=1, at="result", error=CircuitsLost("no answer")),
        CountingBackend(),
    ]
    for one in inner:
        # Rank 1 holds other angles, so bits of its own making would show.
        pending = ReplicatedBackend(one).submit(SPEC, angles() + rank)
        try:
            told.append(pending.result())
        except CircuitError as error:
            told.append(f"{type(error).__name__}: {error}")
    dist.destroy_process_group()
    return told, [len(one.asked) for one in (inner[0], inner[-1])]


def other_process(_, meet, file):
    torch.set_num_threads(1)
    torch.save(replica(1, meet), file)


def test_replicas_hold_the_bits_of_rank_0_and_fail_together(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    meet, file = f"file://{tmp_path}/meet", tmp_path / "1.pt"
    other = mp.spawn(other_process, args=(meet, file), nprocs=1, join=False)
    told_0, asked_0 = replica(0, meet)
    while not other.join():
        pass
    told_1, asked_1 = torch.load(file)
    exact = expectations(SPEC, angles())
    for told in (told_0, told_1):
        assert torch.equal(told[0], exact)
        assert torch.equal(told[5], exact)
    assert told_0[1:5] == [
        "CircuitError: submission 1 failed",
        "CircuitError: submission 1 failed",
        "CircuitError: circuits failed on rank 0: ZeroDivisionError: division by zero",
        "CircuitsLost: no answer",
    ]
    kinds = ["CircuitError"] * 3 + ["CircuitsLost"]
    assert told_1[1:5] == [f"{kind}: rank 0's circuits failed; its log says why" for kind in kinds]
    assert (asked_0, asked_1) == ([1, 1], [0, 0])
