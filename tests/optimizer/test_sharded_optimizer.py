"""One process, replicas (DDP) and shards (FSDP2) take the same steps; two and three processes, by gloo on the CPU."""

from functools import cache

import pytest
import torch
from support.replicas import spawn
from support.sharded_runs import Case, run, work

from qsgd_ray.config import NoiseSettings

pytestmark = pytest.mark.slow

NOISE = NoiseSettings(depolarizing_1q=0.01, depolarizing_2q=0.02, p01=0.02, p10=0.03)
SOURCES = [
    {"source": "sine"},
    {"source": "gradient"},
    {"source": "random_sign", "seed": 3},
    {"source": "shuffled", "seed": 3},
    {"source": "circuit"},
    {"source": "sampled", "shots": 50, "seed": 3},
    {"source": "noisy", "noise": NOISE, "shots": 50, "seed": 3},
]
EVERY_SOURCE = [{**source, "scope": scope} for source in SOURCES for scope in ("tensor", "all")]
OTHER_READINGS = [
    {"source": "sine", "scope": "model"},
    {"source": "circuit", "scope": "model"},
    {"source": "shuffled", "scope": "tensor", "placement": "moments", "direction": "preconditioned"},
    {"source": "shuffled", "scope": "all", "placement": "moments", "direction": "preconditioned", "formula": "paper"},
    {"source": "sine", "scope": "tensor", "direction": "preconditioned"},
    {"source": "sine", "scope": "all", "direction": "preconditioned", "formula": "paper"},
]
FEW = [
    {"source": "circuit", "scope": "tensor"},
    {"source": "random_sign", "scope": "all"},
    {"source": "sampled", "scope": "all", "shots": 20},
]
OF_TWO = [
    *(Case("ddp", {**options, **kernel}) for options in FEW for kernel in ({"fused": True}, {"foreach": True})),
    *(Case("fsdp", options) for options in EVERY_SOURCE + OTHER_READINGS),
    *(Case("fsdp", {**options, **kernel}) for options in FEW for kernel in ({"fused": True}, {"foreach": True})),
    *(Case("fsdp", options, checkpoint=True) for options in FEW),
    *(Case(how, options) for how in ("hsdp", "mixed") for options in FEW),
    *(Case("fsdp", {"source": source, "scope": "all", "fused": True}, kernel=True) for source in ("sine", "shuffled")),
    *(Case(how, options, split=True) for how in ("ddp", "fsdp") for options in FEW),
]
# Three cut rows and blocks at other places, and give one of them no row of some parameters.
OF_THREE = [
    *(Case("fsdp", {"source": source, "scope": "all", "n_qubits": 5}) for source in ("random_sign", "circuit")),
    *(Case(how, options) for how in ("fsdp", "mixed") for options in FEW[:2]),
    Case("fsdp", {"source": "random_sign", "scope": "all", "fused": True}, kernel=True),
]
CASES = [(world, case) for world, cases in ((2, OF_TWO), (3, OF_THREE)) for case in cases]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The report of each process, by the number of processes."""

    @cache
    def of(world):
        folder = tmp_path_factory.mktemp(f"ranks{world}")
        cases = [case for its_world, case in CASES if its_world == world]
        spawn(work, (world, str(folder), cases), world)
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]

    return of


@cache
def _alone(options, kernel):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch's fused kernel rounds otherwise with two
    try:
        return run(Case("alone", dict(options), kernel=kernel))
    finally:
        torch.set_num_threads(threads)


def alone(case):
    return _alone(tuple(case.options.items()), case.kernel)


def same_bits(result, expected):
    return all(torch.equal(a, b) for a, b in zip(result["parameters"], expected["parameters"], strict=True))


def farthest(result, expected):
    pairs = zip(result["parameters"], expected["parameters"], strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def exact(case):
    """Where all ranks have the same gradients, and no step depends on how a tensor is cut, as torch's fused does."""
    cut = case.how == "fsdp" and case.options.get("fused") and not case.kernel
    return not case.split and not cut


def those(wanted):
    cases = [(world, case) for world, case in CASES if wanted(case)]
    return pytest.mark.parametrize(("world", "case"), cases, ids=[f"{world}-{case.name}" for world, case in cases])


@those(exact)
def test_several_processes_take_one_s_steps_bit_for_bit(ranks, world, case):
    for rank in ranks(world):
        assert same_bits(rank["runs"][case.name], alone(case))


@those(lambda case: not exact(case))
def test_where_gradients_or_torch_s_kernel_are_rounded_otherwise_they_are_as_near(ranks, world, case):
    results = [rank["runs"][case.name] for rank in ranks(world)]
    assert all(same_bits(other, results[0]) for other in results)
    assert farthest(results[0], alone(case)) < 1e-6  # of numbers up to 1; 9e-8 on 2026-11-22


def test_replicas_and_shards_of_a_split_batch_agree(ranks):
    for options in FEW:
        ddp, fsdp = (ranks(2)[0]["runs"][Case(how, options, split=True).name] for how in ("ddp", "fsdp"))
        assert farthest(ddp, fsdp) < 1e-6


@those(lambda case: exact(case) and not case.checkpoint)  # which resumes with an optimizer that has other norms
def test_norms_are_the_whole_model_s_on_every_rank(ranks, world, case):
    for rank in ranks(world):
        assert rank["runs"][case.name]["norms"] == pytest.approx(alone(case)["norms"], rel=1e-6)


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_that_are_laid_out_otherwise_than_their_parameters_change_nothing(ranks, world):
    for rank in ranks(world):
        assert len(rank["layouts"]) == 12
        for theta, expected in rank["layouts"].values():
            torch.testing.assert_close(theta, expected, rtol=0, atol=1e-6)


def test_other_shards_are_refused_in_one_line(ranks):
    for rank in ranks(2) + ranks(3):
        message = rank["refusals"][0]
        assert message.startswith(
            "parameter 0 of shape (4, 6): got placements (Shard(dim=1),); allowed: replicated, or"
        )
    for rank in ranks(3)[:2]:
        message = (
            "parameter 1 of shape (4,): got a shard among processes [0, 1]; allowed: the same for all, here [0, 1, 2]"
        )
        assert rank["refusals"][1] == message
