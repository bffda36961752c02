"""What a network holds inside: the output of its blocks, averaged over space.

A block is a module of the network, named by its path (`down.0`, `middle`, `blocks.3`), whose output is a map of
features (B, C, H, W) or a row of tokens (B, N, C). Any network has some: they are found by running it once. By default
those are taken that stand in the network's outermost lists of modules, with what stands beside such lists and has parts
of its own: input blocks, middle and output blocks of a U-Net, the layers of a transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def pooled(network: nn.Module, call: Callable[[], object], names: Sequence[str], count: int) -> dict[str, Tensor]:
    """Run a network and return the mean over space of blocks' outputs, float32 (B, C), in the order of their calls.

    Arguments:
        network: The network that `call` runs.
        call: Runs the network on a batch once.
        names: Paths of blocks; what has no features is left out.
        count: Images of the batch, B.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, out: Any) -> None:
        first = next((part for part in out if isinstance(part, Tensor)), None) if isinstance(out, tuple | list) else out
        if isinstance(first, Tensor) and first.ndim in (3, 4) and len(first) == count:
            found[name] = first.float().mean((2, 3) if first.ndim == 4 else 1).cpu()

    with _watched(network, names, keep), torch.inference_mode():
        call()
    return found


@contextmanager
def _watched(network: nn.Module, names: Sequence[str], keep: Callable[[str, Any], None]) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        return lambda module, given, out: keep(name, out)

    handles = [network.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def all_blocks(network: nn.Module, call: Callable[[], object], count: int) -> list[str]:
    """Return the paths of all blocks of a network, in the order of their calls. Arguments as for `pooled`."""
    return list(pooled(network, call, [name for name, _ in network.named_modules() if name], count))


def usual_blocks(network: nn.Module, blocks: Sequence[str]) -> list[str]:
    """Return which blocks are taken by default: see the head of this file.

    Arguments:
        network: The network that has them.
        blocks: The paths of all its blocks.
    """
    lists = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    listed = [name for name in blocks if name.rpartition(".")[0] in outermost]
    beside = [name for name in blocks if any(network.get_submodule(name).children()) and not _meets(name, outermost)]
    top = [name for name in beside if not any(name.startswith(f"{other}.") for other in beside)]
    return [name for name in blocks if name in {*listed, *top}] or list(blocks)


def _meets(name: str, lists: Sequence[str]) -> bool:
    """Return whether a module holds one of some lists, or stands inside one."""
    return any(name.startswith(f"{other}.") or other.startswith(f"{name}.") for other in lists)
