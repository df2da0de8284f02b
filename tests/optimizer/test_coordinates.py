import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import reference_optimizer as reference

from qsgd_ray.optimizer._gather import Times
from qsgd_ray.optimizer._shards import HeldBlocks, shards_of
from qsgd_ray.optimizer.coordinates import Shard, coordinates, cut_blocks

scopes = st.sampled_from(["model", "tensor", "all"])
sizes_lists = st.lists(st.integers(0, 9), min_size=1, max_size=6)
widths = st.integers(1, 5)


def numbered(sizes):
    """Parameters whose values are their global indices."""
    return [
        torch.arange(start, start + size, dtype=torch.float64)
        for start, size in zip(np.cumsum([0, *sizes]).tolist(), sizes, strict=False)
    ]


def whole_blocks(held):
    (theta_bw,) = held.by_width(held.theta())
    return theta_bw.long().tolist()


def held_of(parameters, groups):
    shards, ranks = shards_of(parameters)
    return [HeldBlocks([blocks], shards, [parameter.view(-1) for parameter in parameters], ranks) for blocks in groups]


@given(sizes_lists, scopes, widths)
def test_blocks_are_those_of_the_naive_twin(sizes, scope, width):
    groups = coordinates(sizes, scope, width)
    found = [block for held in held_of(numbered(sizes), groups) for block in whole_blocks(held)]
    assert sorted(found) == reference.blocks_of(sizes, scope, width)
    assert sum(len(blocks) for blocks in groups) == len(found)
    assert len({blocks.width for blocks in groups}) == len(groups)


@given(sizes_lists, scopes, widths)
def test_adding_to_the_places_reaches_each_coordinate_once(sizes, scope, width):
    parameters = [torch.zeros(size) for size in sizes]
    for held in held_of(parameters, coordinates(sizes, scope, width)):
        ones = torch.ones(sum(held.sizes))
        held.thetas.add_(ones, [Times(range(len(held.parts)), 1.0)])
    touched = torch.cat(parameters).nonzero().flatten().tolist()
    assert touched == sorted(index for block in reference.blocks_of(sizes, scope, width) for index in block)
    assert set(torch.cat(parameters).tolist()) <= {0.0, 1.0}


@st.composite
def shards(draw):
    """Of a few parameters, each held in runs by the same number of processes, or whole."""
    world = draw(st.integers(1, 3))
    found = []
    for size in draw(sizes_lists):
        inner = sorted(draw(st.lists(st.integers(0, size), min_size=world - 1, max_size=world - 1)))
        found.append((0, *inner, size) if draw(st.booleans()) else (0, size))
    return world, found


@given(shards(), scopes, widths)
def test_each_coordinate_of_a_block_is_held_by_one_process_and_in_its_place(drawn, scope, width):
    world, bounds = drawn
    origins = np.cumsum([0, *(own[-1] for own in bounds)])
    for blocks in coordinates([own[-1] for own in bounds], scope, width):
        expected = [
            segment.origin + i for segment, n in zip(blocks.segments, blocks.sizes, strict=True) for i in range(n)
        ]
        found = {}
        for rank in range(world):
            own = [Shard(some, rank if len(some) > 2 else 0) for some in bounds]
            for index, start, stop, place in blocks.held(own):
                if rank == 0 or own[index].divided:
                    for i in range(stop - start):
                        assert place + i not in found
                        found[place + i] = origins[index] + own[index].start + start + i
        assert [found[place] for place in range(len(expected))] == expected


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
    (blocks,) = coordinates([2, 1, 3], "model", 4)
    assert blocks.segments == ((0, 0, 2, 0), (1, 0, 1, 2), (2, 0, 1, 3))


def one_of(parameters, scope, width):
    (held,) = held_of(parameters, coordinates([parameter.numel() for parameter in parameters], scope, width))
    return held


def test_matrices_are_counted_row_by_row():
    assert one_of([torch.arange(6.0).view(2, 3)], "model", 4).theta().tolist() == [0, 1, 2, 3]


def test_places_of_tensors_that_are_not_contiguous_are_read_and_zeros_where_there_is_none():
    held = one_of([torch.zeros(2, 2), torch.zeros(2)], "all", 3)
    assert held.places([torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t(), None]).joined().tolist() == [1, 3, 2, 4, 0, 0]
    assert held.places([None, None]).joined().tolist() == [0, 0, 0, 0, 0, 0]


def test_places_of_two_dtypes_come_out_in_the_wider():
    held = one_of([torch.zeros(2), torch.zeros(2)], "all", 4)
    assert held.places([torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)]).joined().dtype == torch.float32


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (torch.zeros(3, 2).t(), r"parameter 1 of shape \(2, 3\): got strides \(1, 2\); allowed: contiguous parameters"),
        (torch.zeros(2, dtype=torch.complex64), "got torch.complex64; allowed: real parameters"),
        (torch.zeros(2, device="meta"), "got device meta; allowed: one device for all, here cpu"),
    ],
)
def test_parameters_that_cannot_be_cut_into_blocks_are_refused(second, told):
    with pytest.raises(ValueError, match=told):
        shards_of([torch.zeros(1), second])
