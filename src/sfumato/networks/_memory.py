"""How much memory a pass through a network holds at its peak, found without its memory.

The pass runs on the meta device, where tensors have shapes and no values, and every storage is counted from when an
operation makes it until nothing refers to it. The network then computes as it would on the named device: the choices
that depend on it (fused attention, the fused normalisation) ask `_layers.acting`.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sfumato.networks._fused import standing_for
from sfumato.networks._valueless import Valueless


class _Live(TorchDispatchMode):
    """Count the bytes of the storages that operations make and that are still referred to, and their largest sum."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def _freed(self, size: int) -> None:
        self.live -= size


def peak_bytes(
    network: nn.Module,
    shape: Sequence[int],
    told: Sequence[float | None] = (),
    *,
    device: str = "cpu",
    half: bool = False,
    training: bool = True,
) -> int:
    """Return the most bytes that a pass holds at once beside the network's weights; in training, gradients included.

    Arguments:
        network: Its weights and its mode stay as they are.
        shape: Shape of the input, (B, C, H, W), or (B, latent) for a generator.
        told: What it is called with beside: a noise level, None for no label.
        device: Type of the device that is asked about, "cpu" or "cuda".
        half: Whether it computes in a type of two bytes (autocast): its weights are then cast once a pass. A network
            that mixes types is counted in four bytes.
        training: Whether a backward pass follows.
    """
    kind = torch.bfloat16 if half else torch.float32
    tensors = [*network.named_parameters(), *network.named_buffers()]
    meta = {
        name: torch.empty_like(t, device="meta", dtype=kind if t.is_floating_point() else None).requires_grad_(
            training and isinstance(t, nn.Parameter)
        )
        for name, t in tensors
    }
    x = torch.empty(*shape, device="meta", dtype=kind)
    gradients = contextlib.nullcontext() if training else torch.no_grad()
    with standing_for(device), gradients, _Live([*meta.values(), x]) as live, Valueless():
        rest = [value if value is None else torch.full((len(x),), value, device="meta") for value in told]
        try:
            out: Tensor = torch.func.functional_call(network, meta, (x, *rest))
        except RuntimeError:  # a network that makes float32 of its own: autocast casts it, here nothing does
            if half:
                return peak_bytes(network, shape, told, device=device, training=training)
            raise
        if training:
            out.float().square().sum().backward()
        del out
    # autocast holds its casts through the pass, and makes gradients of four bytes
    weights = sum(t.numel() for name, t in network.named_parameters())
    return live.peak + (weights * (4 if training else 2) if half else 0)
