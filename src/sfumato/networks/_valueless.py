"""Networks called without values: on the meta device, where tensors have shapes and no memory.

A network of somebody else may make tensors on the CPU, or hold some that are no buffers. Such a tensor joins those
without values as one of them, as it would be moved to the device of the others.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


class Valueless(TorchDispatchMode):
    """Let operations on the meta device take tensors of the CPU.

    >>> import torch
    >>> with Valueless():
    ...     (torch.arange(3) * torch.ones(2, 1, device="meta")).shape
    torch.Size([2, 3])
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if len({leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}) > 1:
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        return func(*args, **kwargs)
