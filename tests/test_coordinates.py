import numpy as np
import pytest
import reference_circuits as reference
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from qsgd_ray.coordinates import coordinates
from qsgd_ray.optimizer import SuperpositionalAdamW

scopes = st.sampled_from(["model", "tensor", "all"])
sizes_lists = st.lists(st.integers(0, 9), min_size=1, max_size=6)
widths = st.integers(1, 5)


def numbered(sizes):
    """Parameters whose values are their global indices."""
    return [
        torch.arange(start, start + size, dtype=torch.float64)
        for start, size in zip(np.cumsum([0, *sizes]).tolist(), sizes, strict=False)
    ]


@given(sizes_lists, scopes, widths)
def test_blocks_are_those_of_the_naive_twin(sizes, scope, width):
    groups = coordinates(numbered(sizes), scope, width)
    found = [block for blocks in groups for block in blocks.gather(numbered(sizes)).long().tolist()]
    assert sorted(found) == reference.blocks_of(sizes, scope, width)
    assert sum(len(blocks) for blocks in groups) == len(found)
    assert len({blocks.width for blocks in groups}) == len(groups)


@given(sizes_lists, scopes, widths)
def test_adding_to_the_views_of_split_pieces_reaches_each_coordinate_once(sizes, scope, width):
    parameters = [torch.zeros(size) for size in sizes]
    for blocks in coordinates(parameters, scope, width):
        pieces = blocks.split(torch.ones(len(blocks), blocks.width))
        for view, piece in zip(blocks.views(parameters), pieces, strict=True):
            view.add_(piece)
    touched = torch.cat(parameters).nonzero().flatten().tolist()
    assert touched == sorted(index for block in reference.blocks_of(sizes, scope, width) for index in block)
    assert set(torch.cat(parameters).tolist()) <= {0.0, 1.0}


def test_a_block_of_the_model_may_span_tensors():
    (blocks,) = coordinates([torch.zeros(2), torch.zeros(1, 1), torch.zeros(3)], "model", 4)
    assert blocks.segments == ((0, 0, 2, 0), (1, 0, 1, 2), (2, 0, 1, 3))


def test_matrices_are_counted_row_by_row():
    (blocks,) = coordinates([torch.zeros(2, 3)], "model", 4)
    assert blocks.gather([torch.arange(6.0).view(2, 3)]).tolist() == [[0, 1, 2, 3]]


def test_gather_reads_tensors_that_are_not_contiguous_and_zeros_where_there_is_none():
    (blocks,) = coordinates([torch.zeros(2, 2), torch.zeros(2)], "all", 3)
    assert blocks.gather([torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t(), None]).tolist() == [[1, 3, 2], [4, 0, 0]]
    assert blocks.gather([None, None]).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_gather_of_two_dtypes_comes_out_in_the_wider():
    (blocks,) = coordinates([torch.zeros(2), torch.zeros(2)], "all", 4)
    assert blocks.gather([torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)]).dtype == torch.float32


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (torch.zeros(3, 2).t(), r"parameter 1 of shape \(2, 3\): got strides \(1, 2\); allowed: contiguous parameters"),
        (torch.zeros(2, dtype=torch.complex64), "got torch.complex64; allowed: real parameters"),
        (torch.zeros(2, device="meta"), "got device meta; allowed: one device for all, here cpu"),
    ],
)
@pytest.mark.parametrize("scope", ["model", "tensor", "all"])
def test_parameters_that_cannot_be_cut_into_blocks_are_refused(second, told, scope):
    with pytest.raises(ValueError, match=told):
        coordinates([torch.zeros(1), second], scope, 2)


def test_sharded_parameters_are_refused_in_one_line(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        layer = fully_shard(torch.nn.Linear(3, 2), mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(
            ValueError, match=r"^parameter 0 of shape \(2, 3\): got a DTensor, sharded by FSDP2; allowed:"
        ):
            SuperpositionalAdamW(layer.parameters())
    finally:
        dist.destroy_process_group()
