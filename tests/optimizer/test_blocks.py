"""Blocks of coordinates: those of the naive twin, on whichever process they lie."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import reference_optimizer as reference

from qsgd_ray.optimizer import count_blocks
from qsgd_ray.optimizer._blocks import Shard, blocks_of, cut_blocks
from qsgd_ray.optimizer._gather import Scale
from qsgd_ray.optimizer._local_blocks import LocalBlocks
from qsgd_ray.optimizer._shards import shards_of

scopes = st.sampled_from(["model", "tensor", "all"])
sizes_lists = st.lists(st.integers(0, 9), min_size=1, max_size=6)
widths = st.integers(1, 5)


def numbered(sizes):
    """Parameters whose values are their global indices."""
    return [
        torch.arange(start, start + size, dtype=torch.float64)
        for start, size in zip(np.cumsum([0, *sizes]).tolist(), sizes, strict=False)
    ]


def whole_blocks(local):
    (theta_bw,) = local.by_width(local.theta())
    return theta_bw.long().tolist()


def local_blocks(parameters, groups):
    shards, processes = shards_of(parameters)
    return [
        LocalBlocks([blocks], shards, [parameter.view(-1) for parameter in parameters], processes) for blocks in groups
    ]


@given(sizes_lists, scopes, widths)
def test_blocks_are_those_of_the_naive_twin(sizes, scope, width):
    groups = blocks_of(sizes, scope, width)
    indices = [block for local in local_blocks(numbered(sizes), groups) for block in whole_blocks(local)]
    assert sorted(indices) == reference.blocks_of(sizes, scope, width)
    assert count_blocks(sizes, scope, width) == len(indices)
    assert len({blocks.width for blocks in groups}) == len(groups)


@given(sizes_lists, scopes, widths)
def test_adding_to_the_slices_reaches_each_coordinate_once(sizes, scope, width):
    parameters = [torch.zeros(size) for size in sizes]
    for local in local_blocks(parameters, blocks_of(sizes, scope, width)):
        ones = torch.ones(sum(local.sizes))
        local.thetas.add_(ones, [Scale(range(len(local.parts)), 1.0)])
    touched = torch.cat(parameters).nonzero().flatten().tolist()
    assert touched == sorted(index for block in reference.blocks_of(sizes, scope, width) for index in block)
    assert set(torch.cat(parameters).tolist()) <= {0.0, 1.0}


@st.composite
def shards(draw):
    """Draw the shards of a few parameters, each held in runs by the same number of processes, or whole."""
    world = draw(st.integers(1, 3))
    bounds = []
    for size in draw(sizes_lists):
        inner = sorted(draw(st.lists(st.integers(0, size), min_size=world - 1, max_size=world - 1)))
        bounds.append((0, *inner, size) if draw(st.booleans()) else (0, size))
    return world, bounds


@given(shards(), scopes, widths)
def test_each_coordinate_of_a_block_is_held_by_one_process_and_in_its_place(drawn, scope, width):
    world, bounds = drawn
    origins = np.cumsum([0, *(own[-1] for own in bounds)])
    for blocks in blocks_of([own[-1] for own in bounds], scope, width):
        expected = [
            segment.origin + i for segment, n in zip(blocks.segments, blocks.sizes, strict=True) for i in range(n)
        ]
        coordinates = {}
        for rank in range(world):
            own = [Shard(some, rank if len(some) > 2 else 0) for some in bounds]
            for index, start, stop, offset in blocks.local_parts(own):
                if rank == 0 or own[index].divided:
                    for i in range(stop - start):
                        assert offset + i not in coordinates
                        coordinates[offset + i] = origins[index] + own[index].start + start + i
        assert [coordinates[offset] for offset in range(len(expected))] == expected


@given(shards(), widths)
def test_blocks_are_cut_where_no_process_has_them_within_one_parameter(drawn, width):
    _, bounds = drawn
    owner = [
        (index, process)
        for index, own in enumerate(bounds)
        for process in range(len(own) - 1)
        for _ in range(own[process + 1] - own[process])
    ]
    expected = [
        start
        for start in range(0, len(owner), width)
        if len({*owner[start : start + width]}) > 1 or start + width > len(owner)
    ]
    cut = cut_blocks([Shard(own, 0) for own in bounds], width)
    assert sorted(start for blocks in cut for start in blocks.starts().tolist()) == expected
    assert all(blocks.n_coordinates == len(blocks) * blocks.width for blocks in cut)


def test_a_block_of_the_model_may_span_tensors():
    (blocks,) = blocks_of([2, 1, 3], "model", 4)
    assert blocks.segments == ((0, 0, 2, 0), (1, 0, 1, 2), (2, 0, 1, 3))


def one_of(parameters, scope, width):
    (local,) = local_blocks(parameters, blocks_of([parameter.numel() for parameter in parameters], scope, width))
    return local


def test_matrices_are_counted_row_by_row():
    assert one_of([torch.arange(6.0).view(2, 3)], "model", 4).theta().tolist() == [0, 1, 2, 3]


def test_slices_of_tensors_that_are_not_contiguous_are_read_and_zeros_where_there_is_none():
    local = one_of([torch.zeros(2, 2), torch.zeros(2)], "all", 3)
    assert local.slices([torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t(), None]).gather().tolist() == [1, 3, 2, 4, 0, 0]
    assert local.slices([None, None]).gather().tolist() == [0, 0, 0, 0, 0, 0]


def test_slices_of_two_dtypes_come_out_in_the_wider():
    local = one_of([torch.zeros(2), torch.zeros(2)], "all", 4)
    assert local.slices([torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)]).gather().dtype == torch.float32


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (torch.zeros(3, 2).t(), r"parameter 1 of shape \(2, 3\): got strides \(1, 2\); allowed: contiguous parameters"),
        (torch.zeros(2, dtype=torch.complex64), "got torch.complex64; allowed: real parameters"),
        (torch.zeros(2, device="meta"), "got device meta; allowed: one device for all, here cpu"),
    ],
)
def test_parameters_that_cannot_be_cut_into_blocks_are_refused(second, message):
    with pytest.raises(ValueError, match=message):
        shards_of([torch.zeros(1), second])
