"""A few coordinates here and there in memory: tensors and places in; read, added to and put back all at once.

An operation of torch on a slice takes a microsecond or two of Python, whatever its length: with the first coordinates
of 272 tensors, read, perturbed and written, that is 2 ms. So models of many tensors do it in a C++ loop, those of few
and other dtypes in torch's operations; the bits are the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.optimizer.coordinates import Part
from qsgd_ray.optimizer.native.compiler import library, source

# Types whose memory is what it seems; others may be DTensors, or stand for something else.
PLAIN = (Tensor, torch.nn.Parameter)


class Times(NamedTuple):
    """So many times the values, for these of the places."""

    which: Sequence[int]
    factor: float | Tensor


class Places(Protocol):
    """Some runs of coordinates in memory; those of tensors that were None are zeros, and stay as they are."""

    def joined(self) -> Tensor:
        """All runs end to end, a copy."""
        ...

    def put_(self, values: Tensor) -> None:
        """Take these, which lie end to end."""
        ...

    def add_(self, values: Tensor, times: Sequence[Times]) -> None:
        """Add so many times these, which lie end to end. Places that are in no `times` stay as they are."""
        ...

    def same(self, values: Tensor) -> bool:
        """Are these what they hold, end to end? It may say no of 0 and -0 or of two nan: then theta is asked anew."""
        ...


class TorchPlaces:
    """Places by torch's operations: any dtype, any device. A tensor that is not contiguous is read as a copy."""

    def __init__(self, parts: Sequence[Part], tensors: Sequence[Tensor | None], like: Tensor) -> None:
        self._sizes = [part.stop - part.start for part in parts]
        self._like = like
        self.runs: list[Tensor | None] = []
        for index, start, stop, _ in parts:
            tensor = tensors[index]
            if tensor is None:
                self.runs.append(None)
            elif tensor.is_contiguous():  # one call, not two: of 26 tensors in 46 microseconds, not 74
                self.runs.append(tensor.as_strided((stop - start,), (1,), tensor.storage_offset() + start))
            else:
                self.runs.append(tensor.reshape(-1)[start:stop])

    def joined(self) -> Tensor:
        """Runs of several dtypes come out in the widest; where there are none, in that of `like`."""
        like = next((run for run in self.runs if run is not None), self._like)
        filled = [
            like.new_zeros(size) if run is None else run for run, size in zip(self.runs, self._sizes, strict=True)
        ]
        return torch.cat(filled) if filled else like.new_zeros(0)

    def put_(self, values: Tensor) -> None:
        runs = [
            (run, value) for run, value in zip(self.runs, values.split(self._sizes), strict=True) if run is not None
        ]
        if runs:
            torch._foreach_copy_([run for run, _ in runs], [value for _, value in runs])

    def add_(self, values: Tensor, times: Sequence[Times]) -> None:
        pieces = values.split(self._sizes)
        for which, factor in times:
            to = [run for index in which if (run := self.runs[index]) is not None]
            by = [pieces[index] for index in which if self.runs[index] is not None]
            if any(run.dtype != values.dtype for run in to):
                by = [piece.to(run.dtype) for piece, run in zip(by, to, strict=True)]
            if isinstance(factor, Tensor):
                torch._foreach_add_(to, torch._foreach_mul(by, factor))
            elif factor != 0 and to:
                torch._foreach_add_(to, by, alpha=factor)

    def same(self, values: Tensor) -> bool:
        return torch.equal(self.joined(), values)


class NativePlaces:
    """Places by a C++ loop. The tensors are float32, on the CPU and contiguous."""

    def __init__(self, kernels: Kernels, where: Where, tensors: Sequence[Tensor | None]) -> None:
        self._kernels = kernels
        self._where = where
        self._tensors = tensors  # their memory is pointed at
        starts = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        self._pointers = np.array([starts[index] for index in where.parameters], dtype=np.int64)
        self._pointers += where.offsets if 0 not in starts else where.offsets * (self._pointers != 0)
        self._at = address(self._pointers), where.sizes_at, len(where.parameters)

    def joined(self) -> Tensor:
        values = torch.empty(self._where.length)
        self._kernels.gather(*self._at, values.data_ptr())
        return values

    def put_(self, values: Tensor) -> None:
        self._kernels.put(*self._at, values.data_ptr())

    def add_(self, values: Tensor, times: Sequence[Times]) -> None:
        self._kernels.add(*self._at, values.data_ptr(), address(self._factors(times)))

    def add_product(self, values: Tensor, by: NativePlaces, times: Sequence[Times]) -> None:
        """Add so many times the product of these, which lie end to end and are float64, and of what is at `by`; what
        that is not, stays as it is. To the bits of `add_` of the product, rounded to float32."""
        factors = self._factors(times)
        self._kernels.add_product(*self._at, values.data_ptr(), address(by._pointers), address(factors))

    def same(self, values: Tensor) -> bool:
        return bool(self._kernels.same(*self._at, values.data_ptr()))

    def _factors(self, times: Sequence[Times]) -> NDArray[np.float32]:
        factors = np.zeros(len(self._pointers), dtype=np.float32)
        for which, factor in times:
            factors[which] = float(factor)
        return factors


class Where(NamedTuple):
    """Parts as arrays: of each the parameter, how many bytes into its memory it begins, and how long it is."""

    parameters: list[int]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sizes_at: int
    length: int

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Where:
        sizes = np.array([part.stop - part.start for part in parts], dtype=np.int64)
        offsets = np.array([4 * part.start for part in parts], dtype=np.int64)
        return cls([part.parameter for part in parts], offsets, sizes, address(sizes), int(sizes.sum()))


def address(array: NDArray[Any]) -> int:
    """Where its memory begins."""
    at: int = array.__array_interface__["data"][0]  # array.ctypes takes ten times as long
    return at


class Kernels:
    """The functions of native/gather.cpp; addresses go in as plain numbers."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        places = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        self.gather, self.put, self.same = loaded.gather, loaded.put, loaded.same
        self.add, self.add_product = loaded.add, loaded.add_product
        self.gather.argtypes = self.put.argtypes = self.same.argtypes = places
        self.add.argtypes = (*places, ctypes.c_void_p)
        self.add_product.argtypes = (*places, ctypes.c_void_p, ctypes.c_void_p)
        for function in (self.gather, self.put, self.add, self.add_product):
            function.restype = None


def native_kernels() -> Kernels | None:
    """What NativePlaces calls; None, and one line in the log, where they cannot be compiled."""
    loaded = library(source("gather.cpp"))
    return None if loaded is None else Kernels(loaded)


def fit_native(tensors: Sequence[Tensor | None]) -> bool:
    """May C++ point at all of these? Float32, on the CPU, dense, contiguous, and their memory is what it seems."""
    for x in tensors:  # a loop and `is`: a third less time than all(...) of a generator and ==
        if x is None:
            continue
        if x.dtype is not torch.float32 or not x.is_cpu or x.layout is not torch.strided or type(x) not in PLAIN:
            return False
        if not x.is_contiguous() or x.is_neg() or x._is_zerotensor():
            return False
    return True
