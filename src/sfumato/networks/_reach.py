"""The receptive field of a network: how many pixels an output pixel sees through its convolutions.

A pass on the meta device is watched, and every feature map carries which columns of the image each of its columns
depends on. Rows behave like columns, since kernels and images are square. A layer changes that as follows, with P the
padding, s the stride and d the dilation of a kernel of K columns:

    convolution     column i of the output sees columns i s - P + d k of the input, k = 0 .. K - 1
    transposed      column j of the input is seen by columns j s - P + d k of the output
    mean, unshuffle column i sees the columns i s .. i s + s - 1
    nearest, shuffle column i sees column i // s
    bilinear        column i of N sees the two of n around i (n - 1) / (N - 1)
    joined, added   the union

Nothing else moves columns. Attention reaches all positions of its level, and a normalisation takes its mean and
variance over them: neither is counted here, and whether the network attends is said beside the number. The count is
exact: where attention and normalisation pass on their input, it is where the gradient of an output pixel is not zero.

References:
    "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", Luo et al., 2016,
        https://arxiv.org/abs/1701.04128
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Seen = np.ndarray  # bool (columns of a feature map, columns of the image)
SIDE, LARGEST = 256, 4096  # of the enlarged image: the first that is looked at, and the last


@dataclass(frozen=True)
class Reach:
    """What an output pixel sees of the image.

    Attributes:
        side: Side of the receptive field in pixels, the largest of all output pixels.
        attends: Whether any layer attends, and so reaches the whole image.
        cut: Whether the border of the largest image that is looked at may cut the field, which then is at least `side`.
    """

    side: int
    attends: bool
    cut: bool = False


def reach(network: nn.Module, shape: tuple[int, ...]) -> Reach:
    """Return the receptive field of a network called as network(x, c_noise, label).

    The image is enlarged until no border cuts the field, or it is as large as memory allows (`LARGEST`).

    Arguments:
        network: Its weights and its mode stay as they are.
        shape: Shape of one input (C, H, W).

    >>> from sfumato.networks.unet import unet
    >>> reach(unet(attention=(1,)), (1, 28, 28))
    Reach(side=124, attends=True, cut=False)
    """
    channels, height, width = shape
    times = -(-SIDE // width)
    while True:
        seen, attends = dependencies(network, (channels, times * height, times * width))
        side = max(map(_extent, seen))
        whole = 2 * side <= times * width
        if whole or 4 * times * width > LARGEST:
            return Reach(side, attends, cut=not whole)
        times *= 4


def _extent(row: np.ndarray) -> int:
    where = np.flatnonzero(row)
    return int(where[-1] - where[0] + 1) if len(where) else 0


def dependencies(network: nn.Module, shape: tuple[int, ...]) -> tuple[Seen, bool]:
    """Return which columns of an image each column of the output depends on, and whether any layer attends.

    Arguments:
        network: Called as network(x, c_noise, label).
        shape: Shape of one input (C, H, W).
    """
    meta = {
        name: torch.empty_like(t, device="meta") for name, t in (*network.named_parameters(), *network.named_buffers())
    }
    x = torch.empty(1, *shape, device="meta")
    with _Watch(x) as watch, torch.no_grad():
        out = torch.func.functional_call(network, meta, (x, torch.zeros((), device="meta"), None))
    return _fitted(watch.seen[id(out)], out.shape[-1]), watch.attends


class _Watch(TorchFunctionMode):
    """Follow which columns of `x` every tensor depends on."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.seen: dict[int, Seen] = {id(x): np.eye(x.shape[-1], dtype=bool)}
        self.held: list[Any] = []  # so that no id is used twice
        self.attends = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        found = [(tensor, self.seen[id(tensor)]) for tensor in _tensors((args, kwargs)) if id(tensor) in self.seen]
        if found:
            self.attends |= name in ("softmax", "scaled_dot_product_attention")
            moved = MOVES.get(name)
            if moved is not None:
                first = found[0][0]
                after = moved(_fitted(found[0][1], first.shape[-1]), args, kwargs, out)
            else:
                most = max(len(seen) for _, seen in found)
                each = [_fitted(seen, most) for seen in {id(seen): seen for _, seen in found}.values()]
                after = each[0] if len(each) == 1 else np.logical_or.reduce(each)
            for tensor in _tensors(out):
                self.seen[id(tensor)] = after
                self.held.append(tensor)
        return out


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        yield from _tensors(tuple(tree.values()))
    elif isinstance(tree, tuple | list):
        for one in tree:
            yield from _tensors(one)


def _fitted(seen: Seen, columns: int) -> Seen:
    """Return what each of so many columns sees, where a layer has spread columns by reshaping."""
    return seen if len(seen) == columns or columns % len(seen) else seen.repeat(columns // len(seen), axis=0)


def _option(args: Any, kwargs: Any, place: int, name: str, default: int) -> int:
    value = args[place] if len(args) > place else kwargs.get(name, default)
    return int(value[-1] if isinstance(value, tuple | list) else value)


def _convolved(seen: Seen, args: Any, kwargs: Any, out: Tensor) -> Seen:
    kernel = args[1].shape[-1]
    stride, padding, dilation = (
        _option(args, kwargs, place, name, default)
        for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    where = np.arange(out.shape[-1])[:, None] * stride - padding + dilation * np.arange(kernel)
    padded = np.vstack((seen, np.zeros_like(seen[:1])))  # beyond the border nothing is seen
    where[(where < 0) | (where >= len(seen))] = len(seen)
    after: Seen = padded[where[:, 0]]
    for column in where.T[1:]:
        after |= padded[column]
    return after


def _transposed(seen: Seen, args: Any, kwargs: Any, out: Tensor) -> Seen:
    stride, padding = (
        _option(args, kwargs, place, name, default) for place, name, default in ((3, "stride", 1), (4, "padding", 0))
    )
    after = np.zeros((out.shape[-1], seen.shape[1]), bool)
    for k in range(args[1].shape[-1]):
        where = np.arange(len(seen)) * stride - padding + k
        inside = (where >= 0) & (where < len(after))
        after[where[inside]] |= seen[inside]
    return after


def _gathered(seen: Seen, args: Any, kwargs: Any, out: Tensor) -> Seen:
    return np.asarray(seen.reshape(out.shape[-1], -1, seen.shape[1]).any(axis=1))


def _interpolated(seen: Seen, args: Any, kwargs: Any, out: Tensor) -> Seen:
    if kwargs.get("mode", "nearest") == "nearest":
        return _fitted(seen, out.shape[-1])
    if (kwargs["mode"], kwargs.get("align_corners")) != ("bilinear", True):
        raise NotImplementedError(f"columns of interpolate({kwargs['mode']!r})")
    ends = len(seen) - 1, out.shape[-1] - 1
    low = np.arange(out.shape[-1]) * ends[0] // ends[1]
    high = -(-np.arange(out.shape[-1]) * ends[0] // ends[1])
    return np.asarray(np.stack((seen[low], seen[high])).any(axis=0))


def _spread(seen: Seen, args: Any, kwargs: Any, out: Tensor) -> Seen:
    return _fitted(seen, out.shape[-1])


MOVES: dict[str, Callable[[Seen, Any, Any, Tensor], Seen]] = {
    "conv2d": _convolved,
    "conv_transpose2d": _transposed,
    "avg_pool2d": _gathered,
    "max_pool2d": _gathered,
    "pixel_unshuffle": _gathered,
    "interpolate": _interpolated,
    "pixel_shuffle": _spread,
}
