"""The state of optimizers of any class as checkpoints have it: optimizers in; a tree for JSON and named tensors out.

    {"steps": 12, "optimizers": [{"groups": [...], "state": {NAME: ...}, "other": [...], "attributes": {...},
                                  "inside": {...}}]}

A value is itself where it is None, a switch, a finite number, a text or a list; others are a dict that says what they
are: {"tensor": "cpu"}, with "order" where its memory is not row by row, {"tuple": [...]}, {"deque": [...]},
{"dict": [[key, value], ...]}, {"float": "inf"}, {"dtype": "float32"}. A tensor lies in the checkpoint under the path to
it. What is read is data, as with all else.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qsgd_ray.optimizer import DrivenOptimizer
from qsgd_ray.storage import StorageError
from qsgd_ray.training._manifest import DTYPES, StoredTensor

Tree = dict[str, Any]
# Attributes of every optimizer, which are torch's own.
_OF_TORCH = {*vars(torch.optim.Optimizer([torch.zeros(1)], {})), "_step_supports_amp_scaling"}
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
_MOST_LEVELS = 32


class UnsavableState(ValueError):
    """A part of an optimizer's state that is neither a tensor nor plain data; its text names it in one line."""


class _Save:
    """Encode values; tensors are collected by their path."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def encode(self, value: Any, path: str) -> Any:
        """Return the tree of a value; UnsavableState where it is no plain data."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            self.tensors[path] = value.detach()
            place = {"tensor": "cpu" if value.device.type == "cpu" else "device"}
            return place if (order := _order(value)) is None else {**place, "order": order}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if type(value) in (list, tuple, deque):
            items = [self.encode(item, f"{path}.{index}") for index, item in enumerate(value)]
            if isinstance(value, deque):
                return {"deque": items, "maxlen": value.maxlen}
            return items if isinstance(value, list) else {"tuple": items}
        if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
            return {"dict": [[key, self.encode(item, f"{path}.{key}")] for key, item in value.items()]}
        raise UnsavableState(
            f"{path}: got a {type(value).__name__}; allowed: tensors, numbers, texts and lists of such"
        )


def encode_optimizers(driven: DrivenOptimizer, names: Mapping[int, str]) -> tuple[Tree, dict[str, Tensor]]:
    """Return the state of optimizers as a tree for JSON, and its tensors by name, which are not copied.

    Args:
        driven: the optimizers.
        names: of the model's parameters, by their id.

    Raises:
        UnsavableState: an optimizer keeps something that is no plain data, such as a generator of random numbers.
    """
    save = _Save()
    trees = [_encoded(save, optimizer, f"optimizer.{n}", names) for n, optimizer in enumerate(driven.optimizers)]
    return {"steps": driven.n_steps, "optimizers": trees}, save.tensors


def _encoded(save: _Save, optimizer: Any, path: str, names: Mapping[int, str], outer: Any = None) -> Tree:
    tree: Tree = {"groups": [], "state": {}, "other": [], "attributes": {}, "inside": {}}
    if outer is None or optimizer.param_groups is not outer.param_groups:
        for number, group in enumerate(optimizer.param_groups):
            tree["groups"].append(_plain_values(save, group, f"{path}.groups.{number}", skipped={"params"}))
    if outer is None or optimizer.state is not outer.state:
        for key, state in optimizer.state.items():
            if isinstance(key, str | int):
                tree["other"].append([key, save.encode(state, f"{path}.other.{key}")])
            elif id(key) in names:
                tree["state"][names[id(key)]] = save.encode(dict(state), f"{path}.state.{names[id(key)]}")
            else:
                raise UnsavableState(f"{path}: got state of a tensor that is no parameter; allowed: of parameters")
    attributes = {name: value for name, value in vars(optimizer).items() if name not in _OF_TORCH}
    for name, value in attributes.items():
        if isinstance(value, torch.optim.Optimizer):
            tree["inside"][name] = _encoded(save, value, f"{path}.{name}", names, optimizer)
    tree["attributes"] = _plain_values(save, attributes, f"{path}.attributes", skipped={*tree["inside"]})
    return tree


def _plain_values(save: _Save, values: Mapping[str, Any], path: str, skipped: set[str]) -> Tree:
    """Return the trees of the values that are plain data: others, such as functions, are as the class makes them."""
    tree: Tree = {}
    for name, value in values.items():
        if name in skipped:
            continue
        if isinstance(value, _GENERATORS):
            raise UnsavableState(f"{path}.{name}: got a generator of random numbers; allowed: the global ones")
        tensors = dict(save.tensors)
        try:
            tree[name] = save.encode(value, f"{path}.{name}")
        except UnsavableState:
            save.tensors = tensors
    return tree


class _Load:
    """Decode values; tensors are made for what will be read into them."""

    def __init__(self, stored: Mapping[str, StoredTensor], device: torch.device) -> None:
        self.tensors: dict[str, Any] = {}
        self._stored, self._device = stored, device

    def decode(self, tree: Any, path: str, like: Tensor | None = None, level: int = 0) -> Any:
        """Return the value of a tree; `like`: the parameter that it is state of. StorageError where it is none."""
        if tree is None or isinstance(tree, bool | int | float | str):
            return tree
        if level > _MOST_LEVELS:
            raise StorageError(f"{path}: got more than {_MOST_LEVELS} levels; allowed: fewer")
        if isinstance(tree, list):
            return [self.decode(item, f"{path}.{index}", like, level + 1) for index, item in enumerate(tree)]
        match tree:
            case {"tensor": "cpu" | "device" as place, **rest} if rest.keys() <= {"order"}:
                return self._tensor(path, place, like, rest.get("order"))
            case {"tuple": list(items)}:
                return tuple(self.decode(items, path, like, level))
            case {"deque": list(items), "maxlen": int() | None as most}:
                return deque(self.decode(items, path, like, level), most)
            case {"float": "inf" | "-inf" | "nan" as text}:
                return float(text)
            case {"dtype": str(name)} if name in {each for each, _ in DTYPES.values()}:
                return getattr(torch, name)
            case {"dict": list(pairs)} if all(_is_pair(pair) for pair in pairs):
                return {key: self.decode(value, f"{path}.{key}", like, level + 1) for key, value in pairs}
        raise StorageError(f"{path}: got {tree!r:.40}; allowed: a value of an optimizer's state")

    def _tensor(self, path: str, place: str, like: Tensor | None, order: Any) -> Any:
        stored = self._stored.get(path)
        if stored is None:
            raise StorageError(f"{path}: got no tensor of this name; allowed: all tensors of the training")
        dtype = getattr(torch, DTYPES[stored.dtype][0])
        if order is not None:
            if not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(len(stored.shape)))):
                raise StorageError(f"{path}: got the order {order!r:.40}; allowed: each dimension once")
            device = "cpu" if place == "cpu" else self._device
            memory = torch.zeros([stored.shape[dim] for dim in order], dtype=dtype, device=device)
            tensor = memory.permute([order.index(dim) for dim in range(len(order))])
        elif (
            like is not None and stored.shape == tuple(like.shape) and (place == "device" or like.device.type == "cpu")
        ):
            tensor = torch.zeros_like(like, dtype=dtype, requires_grad=False)
        else:
            tensor = torch.zeros(stored.shape, dtype=dtype, device="cpu" if place == "cpu" else self._device)
        self.tensors[path] = tensor
        return tensor


def _order(tensor: Tensor) -> list[int] | None:
    """Return the dimensions by falling stride; None where that is their own order, or where memory has gaps.

    The bits of a product of matrices may depend on it: QR gives its factors column by column.
    """
    if tensor.is_contiguous() or hasattr(tensor, "to_local"):
        return None
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda dim: (-strides[dim], dim))
    return order if tensor.permute(order).is_contiguous() else None


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str | int)


def restore_optimizers(
    driven: DrivenOptimizer, tree: Any, stored: Mapping[str, StoredTensor], parameters: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Put a state into optimizers that were just made; return its tensors by name, whose numbers are still to be read.

    Args:
        driven: the optimizers, as the training has them at its first step.
        tree: what `encode_optimizers` returned.
        stored: the tensors of the checkpoint.
        parameters: the model's, by name.

    Raises:
        StorageError: the tree is none of these optimizers.
    """
    device = next(iter(parameters.values())).device if parameters else torch.device("cpu")
    load = _Load(stored, device)
    match tree:
        case {"steps": int(steps), "optimizers": list(trees)} if len(trees) == len(driven.optimizers):
            driven.n_steps = steps
        case _:
            raise StorageError(f"optimizer: got another state; allowed: that of {len(driven.optimizers)} optimizers")
    for number, (optimizer, one) in enumerate(zip(driven.optimizers, trees, strict=True)):
        _restore(load, optimizer, one, f"optimizer.{number}", parameters)
    return load.tensors


_PARTS = {"groups": list, "state": dict, "other": list, "attributes": dict, "inside": dict}


def _restore(
    load: _Load, optimizer: Any, tree: Any, path: str, parameters: Mapping[str, Tensor], outer: Any = None
) -> None:
    if not isinstance(tree, dict) or {name: type(part) for name, part in tree.items()} != _PARTS:
        raise StorageError(f"{path}: got {tree!r:.40}; allowed: {', '.join(_PARTS)}")
    shares_groups = outer is not None and optimizer.param_groups is outer.param_groups
    if len(tree["groups"]) != (0 if shares_groups else len(optimizer.param_groups)):
        raise StorageError(f"{path}.groups: got {len(tree['groups'])}; allowed: {len(optimizer.param_groups)}")
    for number, (group, values) in enumerate(zip(optimizer.param_groups, tree["groups"], strict=False)):
        group.update(_decoded_values(load, values, f"{path}.groups.{number}", forbidden={"params"}))
    for name, state in tree["state"].items():
        if name not in parameters:
            raise StorageError(f"{path}.state: got {name!r:.60}; allowed: the trained parameters")
        parameter = parameters[name]
        optimizer.state[parameter] = load.decode(state, f"{path}.state.{name}", parameter)
    for pair in tree["other"]:
        if not _is_pair(pair):
            raise StorageError(f"{path}.other: got {pair!r:.40}; allowed: pairs of a name and a value")
        optimizer.state[pair[0]] = load.decode(pair[1], f"{path}.other.{pair[0]}")
    for name, value in _decoded_values(load, tree["attributes"], f"{path}.attributes", forbidden=_OF_TORCH).items():
        if name not in vars(optimizer) and hasattr(type(optimizer), name):
            raise StorageError(f"{path}.attributes: got {name!r:.60}; allowed: attributes of the optimizer")
        setattr(optimizer, name, value)
    for name, inner in tree["inside"].items():
        if not isinstance(found := vars(optimizer).get(name), torch.optim.Optimizer):
            raise StorageError(f"{path}.inside: got {name!r:.60}; allowed: optimizers inside this one")
        _restore(load, found, inner, f"{path}.{name}", parameters, optimizer)


def _decoded_values(load: _Load, values: Any, path: str, forbidden: set[str]) -> dict[str, Any]:
    if not isinstance(values, dict) or forbidden & values.keys():
        raise StorageError(
            f"{path}: got {values!r:.40}; allowed: values by name, without {', '.join(sorted(forbidden))}"
        )
    return {name: load.decode(value, f"{path}.{name}") for name, value in values.items()}
