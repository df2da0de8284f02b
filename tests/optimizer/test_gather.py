"""Coordinates here and there: the C++ loop does what torch's operations do, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.optimizers import NEEDS_COMPILER

from qsgd_ray.native import compiler as native
from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer import _layout as layout
from qsgd_ray.optimizer._blocks import Part
from qsgd_ray.optimizer._gather import NativeSlices, Scale, SliceTable, TorchSlices, all_native, gather_kernels


@st.composite
def slices(draw):
    """Tensors of which some are None, and runs in them that do not overlap."""
    tensors, parts, offset = [], [], 0
    for index in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 9))
        tensors.append(
            None if draw(st.booleans()) else torch.randn(size, generator=torch.Generator().manual_seed(index))
        )
        start = draw(st.integers(0, size - 1))
        stop = draw(st.integers(start + 1, size))
        parts.append(Part(index, start, stop, offset))
        offset += stop - start
    return tensors, parts, offset


@NEEDS_COMPILER
@given(slices(), st.floats(-3, 3, width=32), st.sets(st.integers(0, 4)))
def test_both_ways_read_add_and_put_the_same_bits(drawn, factor, which):
    tensors, parts, length = drawn
    twins = [None if tensor is None else tensor.clone() for tensor in tensors]
    values = torch.randn(length, generator=torch.Generator().manual_seed(9))
    some = sorted(which & set(range(len(parts))))
    ours = NativeSlices(gather_kernels(), SliceTable.of(parts), tensors)
    theirs = TorchSlices(parts, twins, values)
    assert torch.equal(ours.gather(), theirs.gather())
    for own in (ours, theirs):
        own.add_(values, [Scale(some, factor)])
    assert torch.equal(ours.gather(), theirs.gather())
    for own in (ours, theirs):
        own.scatter_(values)
    assert torch.equal(ours.gather(), theirs.gather())
    for tensor, twin in zip(tensors, twins, strict=True):
        assert tensor is twin is None or torch.equal(tensor, twin)


@NEEDS_COMPILER
@given(slices(), st.floats(-3, 3, width=32), st.sets(st.integers(0, 4)), st.data())
def test_a_product_is_added_as_torch_adds_it_rounded(drawn, factor, which, data):
    tensors, parts, length = drawn
    twins = [None if tensor is None else tensor.clone() for tensor in tensors]
    draw = torch.Generator().manual_seed(8)
    by = [
        None if data.draw(st.booleans()) else torch.randn(9, generator=draw) * 10.0 ** data.draw(st.integers(-30, 30))
        for _ in tensors
    ]
    s = torch.randn(length, generator=draw, dtype=torch.float64)
    some = sorted(which & set(range(len(parts))))
    ours, gradients = (NativeSlices(gather_kernels(), SliceTable.of(parts), of) for of in (tensors, by))
    theirs, twin_gradients = TorchSlices(parts, twins, s.float()), TorchSlices(parts, by, s.float())
    ours.add_product(s, gradients, [Scale(some, factor)])
    with_gradient = [index for index in some if by[parts[index].parameter] is not None]
    theirs.add_((s * twin_gradients.gather()).float(), [Scale(with_gradient, factor)])
    for tensor, twin in zip(tensors, twins, strict=True):
        assert tensor is twin is None or torch.equal(tensor, twin)


@NEEDS_COMPILER
@given(slices(), st.data())
def test_what_lies_there_is_told_from_anything_else(drawn, data):
    tensors, parts, _ = drawn
    for some in (
        NativeSlices(gather_kernels(), SliceTable.of(parts), tensors),
        TorchSlices(parts, tensors, torch.zeros(0)),
    ):
        values = some.gather()
        assert some.equal(values)
        there = [part for part in parts if tensors[part.parameter] is not None]
        if there:
            part = data.draw(st.sampled_from(there))
            values[data.draw(st.integers(part.offset, part.offset + part.stop - part.start - 1))] += 1
            assert not some.equal(values)


@pytest.mark.parametrize(
    "other",
    [torch.zeros(3).double(), torch.zeros(3, 2)[:, 0], torch._neg_view(torch.zeros(3)), torch.zeros(3, device="meta")],
    ids=["float64", "strided", "negated", "meta"],
)
def test_what_no_pointer_can_be_had_of_goes_by_torch(other):
    assert all_native([torch.zeros(2), None, torch.nn.Parameter(torch.zeros(2))])
    assert not all_native([torch.zeros(2), other])


@pytest.mark.parametrize("placement", ["update", "moments"])
@pytest.mark.parametrize("direction", ["gradient", "preconditioned"])
@pytest.mark.parametrize("compiler", [None, "/no/such/compiler"])
def test_a_large_model_s_steps_are_a_small_one_s_bit_for_bit(monkeypatch, placement, direction, compiler):
    results = []
    for native_from in (2**20, 1):
        monkeypatch.setattr(layout, "NATIVE_FROM", native_from)
        if native_from == 1 and compiler:
            monkeypatch.setattr(native, "_libraries", {})
            monkeypatch.setattr(native, "_built", lambda *_: None)
            monkeypatch.setenv("CXX", compiler)
        parameters = [torch.nn.Parameter(torch.linspace(-1, 1, n)) for n in (9, 2, 1, 30)]
        groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lambda_": 3.0, "lr": 0.1}]
        optimizer = SuperpositionalAdamW(groups, placement=placement, direction=direction)
        for step in range(5):
            for index, parameter in enumerate(parameters):
                parameter.grad = None if index == step else torch.cos(parameter.detach() * (step + 1))
            optimizer.step()
        results.append(torch.cat([parameter.detach() for parameter in parameters]))
    assert torch.equal(*results)


class Reusing:
    """Kernels that are called once freed memory of the tables' size has been taken and filled by somebody else."""

    def __init__(self, size):
        self._kernels, self._size = gather_kernels(), size

    def __getattr__(self, name):
        def call(*arguments):
            held = [np.full(self._size, np.nan, dtype=np.float32) for _ in range(64)]
            result = getattr(self._kernels, name)(*arguments)
            del held
            return result

        return call


# NumPy itself keeps freed arrays of up to 1,024 bytes, and hands them out again as they were.
@NEEDS_COMPILER
@pytest.mark.parametrize("n_tensors", [20, 300, 5000])
def test_no_kernel_reads_memory_that_was_given_back(n_tensors):
    tensors = [torch.full((3,), float(index)) for index in range(n_tensors)]
    parts = [Part(index, 1, 3, 2 * index) for index in range(n_tensors)]
    by = [torch.ones(3) for _ in tensors]
    ours, others = (NativeSlices(Reusing(n_tensors), SliceTable.of(parts), of) for of in (tensors, by))
    values, scales = torch.ones(2 * n_tensors), [Scale(range(n_tensors), 0.5)]
    ours.add_(values, scales)
    ours.add_product(values.double(), others, scales)
    assert all(tensor.tolist() == [index, index + 1, index + 1] for index, tensor in enumerate(tensors))
    ours.scatter_(ours.gather())
    assert ours.equal(torch.arange(n_tensors).repeat_interleave(2) + 1.0)


@NEEDS_COMPILER
def test_steps_that_are_sampled_have_the_bits_of_those_that_are_not():
    def trained(telemetry_every):
        generator = torch.Generator().manual_seed(3)
        model = [torch.nn.Parameter(torch.randn(5, generator=generator)) for _ in range(300)]
        optimizer = SuperpositionalAdamW(model, lr=1e-3, lambda_=0.5, telemetry_every=telemetry_every, fused=True)
        for _ in range(6):
            for parameter in model:
                parameter.grad = torch.randn(5, generator=generator)
            optimizer.step()
        return torch.cat([parameter.detach() for parameter in model])

    assert torch.equal(trained(1), trained(None))
