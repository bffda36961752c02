"""What a network costs: parameters, multiply-adds, and the memory of its levels.

The network runs once on the meta device, where tensors have shapes and no values, so a network of any size is measured
in a fraction of a second and without its memory. One multiply-add (MAC) is two floating-point operations (FLOP);
papers print either, so both are here. Only products count (convolutions, linear layers, attention).

Of one image, training keeps at a level of H x W positions

    features    4 bytes * sum of the widths of its convolutions' outputs * H W        linear in the pixels
    attention   4 bytes * heads * layers * (H W)^2                                     quadratic in the pixels

so that attention at twice the side costs sixteen times the memory. (The fused kernel does not store the second one,
but still computes it.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sfumato.networks._valueless import Valueless

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class LevelCost:
    """Memory of one resolution for one image, in bytes of float32."""

    height: int
    width: int
    features: int
    attention: int


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one forward pass of one image."""

    parameters: int
    macs: int
    levels: tuple[LevelCost, ...]

    @property
    def gmac(self) -> float:
        """Billions of multiply-adds."""
        return self.macs / 1e9

    @property
    def gflop(self) -> float:
        """Billions of floating-point operations, two per multiply-add."""
        return 2 * self.macs / 1e9

    def table(self) -> str:
        """Return the report as text, one line per level."""
        lines = [
            f"parameters {self.parameters:,}",
            f"forward    {self.gmac:.3f} GMAC = {self.gflop:.3f} GFLOP per image",
            f"{'level':>9}  {'features':>12}  {'attention':>12}   (~ pixels; ~ pixels squared)",
        ]
        lines += [
            f"{f'{v.height}x{v.width}':>9}  {v.features / 2**20:>8.2f} MiB  {v.attention / 2**20:>8.2f} MiB"
            for v in self.levels
        ]
        return "\n".join(lines)


class Shapes(TorchDispatchMode):
    """Know the shapes of a group normalisation; torch would go through its arithmetic to find them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_group_norm.default and args[0].device.type == "meta":
            x, images, groups = args[0], args[3], args[6]
            return torch.empty_like(x), x.new_empty(images, groups), x.new_empty(images, groups)
        return func(*args, **(kwargs or {}))


class _Meter(Shapes):
    """Record the sizes of convolution outputs, and of attention matrices by their number of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.features: dict[tuple[int, int], int] = {}
        self.attention: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.convolution.default and out.ndim == 4:
            side = (out.shape[-2], out.shape[-1])
            self.features[side] = self.features.get(side, 0) + out.numel() * FLOAT_BYTES
        elif func is torch.ops.aten._softmax.default and out.ndim > 2:
            self.attention[out.shape[-1]] = self.attention.get(out.shape[-1], 0) + out.numel() * FLOAT_BYTES
        return out


def parameter_count(network: nn.Module) -> int:
    """Return the number of learned values."""
    return sum(p.numel() for p in network.parameters())


def cost(network: nn.Module, shape: tuple[int, ...], *, level: bool = True) -> Cost:
    """Measure a network on one image without computing anything.

    Arguments:
        network: Called as network(x, c_noise, label); its weights and its mode stay as they are.
        shape: Shape of one input, (C, H, W), or (latent,) for a generator.
        level: Whether the network is told a noise level; without, it is called as network(x, label).

    Returns:
        Parameters, multiply-adds and memory per level, finest level first. A network without convolutions reports
        attention at its positions, written positions x 1.

    >>> from sfumato.networks.unet import unet
    >>> print(cost(unet(width=16, head_width=16), (1, 28, 28)).table())
    parameters 351,476
    forward    0.012 GMAC = 0.023 GFLOP per image
        level      features     attention   (~ pixels; ~ pixels squared)
        14x14      0.13 MiB      0.00 MiB
          7x7      0.14 MiB      0.04 MiB
    """
    meta = {name: torch.empty_like(t, device="meta") for name, t in _tensors(network)}
    x = torch.empty(1, *shape, device="meta")
    with _Meter() as meter, FlopCounterMode(display=False) as flops, Valueless():
        told = (torch.zeros((), device="meta"),) if level else ()
        torch.func.functional_call(network, meta, (x, *told, None))
    sides = dict.fromkeys(sorted(meter.features, reverse=True), 0)
    for positions, size in meter.attention.items():
        side = next((s for s in sides if s[0] * s[1] == positions), (positions, 1))
        sides[side] = sides.get(side, 0) + size
    levels = tuple(LevelCost(h, w, meter.features.get((h, w), 0), size) for (h, w), size in sides.items())
    return Cost(parameter_count(network), flops.get_total_flops() // 2, levels)


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]
