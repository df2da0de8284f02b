import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.circuits import ENTANGLE, angles_of, dtypes, seeds, specs, twin_expectations
from support.peak_memory import PeakMemory

from qsgd_ray.circuits.chain.expectations import expectations
from qsgd_ray.circuits.spec import CircuitSpec

BOTH_WAYS = pytest.mark.parametrize("expectations", [expectations, twin_expectations])


@BOTH_WAYS
@settings(deadline=None, max_examples=50)
@given(specs(8, 3), seeds, dtypes, st.integers(1, 70), st.data())
def test_splitting_and_permuting_the_batch_changes_no_bit(expectations, spec, seed, dtype, batch, data):
    angles = angles_of(spec, batch, seed, dtype)
    z = expectations(spec, angles)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    cut = data.draw(st.integers(0, batch))
    assert torch.equal(expectations(spec, angles[order]), z[order])
    assert torch.equal(torch.cat((expectations(spec, angles[:cut]), expectations(spec, angles[cut:]))), z)


@BOTH_WAYS
@settings(deadline=None, max_examples=30)
@given(specs(20, 3), seeds, dtypes, st.integers(1, 6), st.integers(1, 200_000))
def test_neither_the_memory_budget_nor_recording_gradients_changes_a_bit(
    expectations, spec, seed, dtype, batch, memory_bytes
):
    angles = angles_of(spec, batch, seed, dtype)
    z = expectations(spec, angles)
    assert torch.equal(expectations(spec, angles, memory_bytes=memory_bytes), z)
    tracked = expectations(spec, angles.clone().requires_grad_(), memory_bytes=memory_bytes)
    assert torch.equal(tracked.detach(), z)


@BOTH_WAYS
@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_for_any_rotations_blocks_of_one_wire_give_the_bits_of_one_block(expectations, depth, entangle):
    # Which terms of a map are known to be zero depends on the rotations, and must not on the block.
    for count in (1, 2, 3):
        for rotations in itertools.product(("rx", "ry", "rz"), repeat=count):
            spec = CircuitSpec(4, depth, entangle, rotations)
            angles = angles_of(spec, 2, count, torch.float32)
            assert torch.equal(expectations(spec, angles, memory_bytes=1), expectations(spec, angles))


@BOTH_WAYS
@pytest.mark.parametrize("entangle", ENTANGLE)
def test_one_circuit_alone_has_the_bits_it_has_among_thousands(expectations, entangle):
    spec = CircuitSpec(30, 2, entangle)
    angles = angles_of(spec, 3001, 1)
    z = expectations(spec, angles)
    for one in (0, 1, 1023, 1024, 2999, 3000):
        assert torch.equal(expectations(spec, angles[one : one + 1])[0], z[one])


@pytest.mark.parametrize(("entangle", "depth"), [("chain", 3), ("ring", 2), ("all", 2), ("none", 2)])
def test_the_memory_budget_bounds_what_the_work_takes(entangle, depth):
    spec, memory_bytes = CircuitSpec(1000, depth, entangle), 2**18
    angles = angles_of(spec, 40, 1)
    with torch.no_grad(), PeakMemory() as memory:
        z = expectations(spec, angles, memory_bytes=memory_bytes)
    stored = 8 * memory_bytes if entangle == "ring" else 0
    assert memory.peak <= 3 * angles.nbytes + 2 * z.nbytes + stored + memory_bytes


@pytest.mark.parametrize(("entangle", "depth", "stored"), [("all", 4, 0), ("ring", 2, 32)])
def test_gradients_keep_carries_at_the_edges_of_blocks_alone(entangle, depth, stored):
    spec, memory_bytes = CircuitSpec(500, depth, entangle), 2**18
    angles = angles_of(spec, 8, 1).requires_grad_()
    with PeakMemory() as memory:
        z = expectations(spec, angles, memory_bytes=memory_bytes)
    # The carries of every site would be 4**(depth-1) numbers a qubit more; a ring keeps 16**(depth-1) from both sides.
    assert memory.peak <= 3 * angles.nbytes + (4 + stored) * z.nbytes + 3 * memory_bytes
