"""GroupNorm, gain, shift and SiLU in one pass over memory, on CPUs.

Between two convolutions a residual block computes, for channel c of group g and image i,

    y = SiLU(u A + B),    u = (x - mean_g) / sqrt(var_g + eps),    A, B of shape (images, channels)

which torch does in up to six passes with two changes of type: a third of a training step on a CPU whose matrix units
make convolutions cheap. `files/norm_act.c` does it in one call each way, in float32 whatever the storage, image by
image, so an image does not depend on its batch. The gradient, with d = dL/dy SiLU'(u A + B) and N values in a group:

    dB = sum d,  dA = sum d u  (over positions),    dx = (A d - sum_g(A dB)/N - u sum_g(A dA)/N) / sqrt(var_g + eps)

Without a compiler, or with ``SFUMATO_NATIVE=0`` (`_native`), everything is computed by torch as before: the same
numbers up to rounding.

References:
    "Group Normalization", Wu and He, 2018, https://arxiv.org/abs/1803.08494
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._native import at, compiled, enough

STORES: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.bfloat16: ("-DHALF",)}
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}  # of the check, relative to the largest value


_standing_for: ContextVar[str] = ContextVar("standing_for", default="meta")


@contextlib.contextmanager
def standing_for(device: str) -> Iterator[None]:
    """Let tensors on the meta device be treated as those of a device of this type inside the block."""
    token = _standing_for.set(device)
    try:
        yield
    finally:
        _standing_for.reset(token)


def acting(x: Tensor) -> str:
    """Return the type of the device that a tensor is on, or that it stands for."""
    return _standing_for.get() if x.device.type == "meta" else x.device.type


def usable(x: Tensor) -> bool:
    """Return whether `norm_act` can take this tensor: a plain channels_last CPU tensor of a known type."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and acting(x) == "cpu"
        and x.dtype in STORES
        and x.ndim == 4
        and x.numel() > 0
        and not differentiated(x)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # a graph would hold numbers, not the kernel
        and library(x.dtype) is not None
    )


def differentiated(x: Tensor) -> bool:
    """Return whether a function transform (torch.func.jvp) watches this tensor, which only torch's operations obey."""
    return (
        bool(torch._C._functorch.is_functorch_wrapped_tensor(x))
        or torch.autograd.forward_ad.unpack_dual(x).tangent is not None
    )


def norm_act(x: Tensor, groups: int, eps: float, gain: Tensor, shift: Tensor, silu: bool) -> Tensor:
    """Return SiLU(GN(x) gain + shift), or without the SiLU.

    Arguments:
        x: Features (B, C, H, W) for which `usable` holds.
        groups: A divisor of C.
        eps: Added to the variance.
        gain, shift: Float32, (C,) for all images or (B, C).
        silu: Whether SiLU follows.

    Returns:
        The shape, type and memory format of `x`.
    """
    return _NormAct.apply(x, gain.contiguous(), shift.contiguous(), groups, eps, silu)


def plain(x: Tensor, groups: int, eps: float, gain: Tensor, shift: Tensor, silu: bool) -> Tensor:
    """Return what `norm_act` returns, by torch's own operations in the wider type."""
    wide = torch.promote_types(x.dtype, gain.dtype)
    by_channel = (-1, x.shape[1], 1, 1)
    h = F.group_norm(x.to(wide), groups, eps=eps) * gain.view(by_channel) + shift.view(by_channel)
    return (F.silu(h) if silu else h).to(x.dtype)


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        images, channels, height, width = x.shape
        y = torch.empty_like(x)
        mean, rstd = torch.empty(2, images, groups, device=x.device).unbind(0)
        if x.device.type != "meta":
            native = _library(x.dtype)
            enough(
                native.forward(
                    at(x), at(gain), at(shift), _stride(gain), _stride(shift), at(y), at(mean), at(rstd), images,
                    height * width, channels, groups, eps, int(silu), torch.get_num_threads(),
                )
            )  # fmt: skip
        ctx.save_for_backward(x, gain, shift, mean, rstd)
        ctx.options = (groups, eps, silu)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, shift, mean, rstd = ctx.saved_tensors
        groups, eps, silu = ctx.options
        if torch.is_grad_enabled():  # the gradient of this gradient may be asked for: torch knows it
            inputs = [t for t in (x, gain, shift) if t.requires_grad]
            y = plain(x, groups, eps, gain, shift, silu)
            found = iter(torch.autograd.grad(y, inputs, grads, create_graph=True))
            return (*(next(found) if t.requires_grad else None for t in (x, gain, shift)), None, None, None)
        images, channels, height, width = x.shape
        dy = grads[0].to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        dgain, dshift = torch.empty(2, images, channels, device=x.device).unbind(0)
        if x.device.type != "meta":
            enough(
                _library(x.dtype).backward(
                    at(dy), at(x), at(gain), at(shift), _stride(gain), _stride(shift), at(mean), at(rstd),
                    at(dx), at(dgain), at(dshift), images, height * width, channels, groups, int(silu),
                    torch.get_num_threads(),
                )
            )  # fmt: skip
        shared = (dgain if gain.ndim == 2 else dgain.sum(0), dshift if shift.ndim == 2 else dshift.sum(0))
        return dx, *shared, None, None, None


def _stride(by_channel: Tensor) -> int:
    return by_channel.shape[1] if by_channel.ndim == 2 else 0


def _library(dtype: torch.dtype) -> ctypes.CDLL:
    native = library(dtype)
    if native is None:
        raise RuntimeError("norm_act was called on a tensor that is not usable; ask usable(x) first.")
    return native


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled kernels for a storage type, building them once a machine; None if that is not possible."""
    native = compiled("norm_act.c", STORES[dtype])
    if native is None:
        return None
    sizes, pointer, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    ends = (number, number)
    native.forward.argtypes = [*[pointer] * 3, *[sizes] * 2, *[pointer] * 3, *[sizes] * 4, ctypes.c_float, *ends]
    native.backward.argtypes = [*[pointer] * 4, *[sizes] * 2, *[pointer] * 5, *[sizes] * 4, *ends]
    return native if _agrees(native, dtype) else None


def _agrees(native: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Return whether a fresh library computes what torch does, on one small example."""
    ramp = torch.arange(2 * 16 * 9, dtype=torch.float32)
    x = (ramp * 0.7).sin().mul(3).add(1).view(2, 16, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    gain, shift = (ramp[:32] * 0.3).cos().view(2, 16), (ramp[:32] * 0.9).sin().view(2, 16)
    y, mean, rstd = torch.empty_like(x), torch.empty(2, 4), torch.empty(2, 4)
    failed = native.forward(at(x), at(gain), at(shift), 16, 16, at(y), at(mean), at(rstd), 2, 9, 16, 4, 1e-5, 1, 1)
    expected = plain(x, 4, 1e-5, gain, shift, True).float()
    return not failed and bool((y.float() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max())
