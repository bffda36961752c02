"""3x3 convolutions with fewer products, in bfloat16 on CPUs.

Winograd's F(2x2, 3x3) makes 2x2 neighbouring outputs y of 4x4 inputs d with 16 products for each pair of channels,
where the definition takes 36:

    y = A^T [(G w G^T) * (B^T d B)] A,      dL/dw = G^T [sum (A dy A^T) * (B^T d B)] G

with matrices of 0, 1, -1 and 1/2. The gradient of the input is a convolution by the turned weights. What is transformed
is rounded to bfloat16 once more: the error is 1.4 times that of a convolution in bfloat16 for the output, 1.9 times for
the gradient of the input, 2.4 times for that of the weights (`tests/networks/test_winograd.py`), whose sums, and the
weights themselves, are float32 throughout. So it is a precision of its own (train.precision=bf16-winograd) and not
another way to compute the same numbers.

`files/winograd.c` needs a processor that multiplies pairs of bfloat16 (avx512_bf16). One with matrix units (amx_bf16)
convolves faster without it; there, and wherever else the kernel is not at hand, the layers compute in plain bfloat16.
An image does not depend on its batch, and the sums not on the number of threads.

References:
    "Fast Algorithms for Convolutional Neural Networks", Lavin and Gray, 2016, https://arxiv.org/abs/1509.09308
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _fused
from ._native import at, compiled, enough, has

LANES = 16  # channels that the kernel takes at once
TOLERANCE = 2e-2  # of the check, relative to the largest value
TILES, SUMMED = 96, 320  # of 2x2 outputs that are worked on at once, and in the gradient of weights


def fits(weight: Tensor) -> bool:
    """Return whether the kernel is made for weights of this type and so many channels."""
    return weight.dtype == torch.float32 and weight.shape[0] % LANES == weight.shape[1] % LANES == 0


def usable(x: Tensor, weight: Tensor) -> bool:
    """Return whether `convolve` can take these: bfloat16 asked for, and what the kernel is made for."""
    return (
        torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and fits(weight)
        and _fused.usable(x)
        and library() is not None
    )


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor | None = None, plus: Tensor | None = None
) -> Tensor:
    """Return a 3x3 convolution of padding 1 for which `usable` holds, bfloat16 in channels_last.

    Arguments:
        x: Features (B, C, H, W).
        weight: Float32 (D, C, 3, 3).
        bias: Float32 (D,), or None.
        packed: The weights as `pack` returns them, for weights that stay as they are; None to do that here.
        plus: What is added before the sum is rounded (B, D, H, W); None for nothing.
    """
    if plus is not None:
        plus = plus.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    out: Tensor = _Convolve.apply(x.to(torch.bfloat16), weight, bias, packed, plus)
    return out


def pack(weight: Tensor, back: bool = False) -> Tensor:
    """Return transformed weights for the kernel, or with `back` those that make the gradient of the input."""
    out, into = weight.shape[:2]
    packed = torch.empty(16 * out * into, dtype=torch.bfloat16, device=weight.device)
    weight = weight.contiguous(memory_format=torch.channels_last)
    if weight.device.type != "meta":
        _library().pack(at(weight), at(packed), into, out, int(back), torch.get_num_threads())
    return packed


def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what `convolve` returns, by torch's own convolution."""
    return F.conv2d(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), padding=1)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor | None, plus: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _convolved(x, pack(weight) if packed is None else packed, bias, len(weight), plus)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient of this gradient may be asked for: torch knows it
            inputs = [t for t in (x, weight, bias) if t is not None and t.requires_grad]
            found = iter(torch.autograd.grad(plain(x, weight, bias), inputs, grads, create_graph=True))
            own = (next(found) if t is not None and t.requires_grad else None for t in (x, weight, bias))
            return (*own, None, grads[0] if ctx.needs_input_grad[4] else None)
        dy = grads[0].to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx = _convolved(dy, pack(weight, back=True), None, x.shape[1]) if ctx.needs_input_grad[0] else None
        dplus = dy if ctx.needs_input_grad[4] else None
        if not any(ctx.needs_input_grad[1:3]):
            return dx, None, None, None, dplus
        dweight = torch.empty_like(weight, memory_format=torch.channels_last)
        dbias = torch.empty(len(weight), device=x.device)
        images, into, height, width = x.shape
        if x.device.type != "meta":
            threads = torch.get_num_threads()
            enough(
                _library().weigh(
                    at(x), at(dy), at(dweight), at(dbias), images, height, width, into, len(weight),
                    max(threads, SUMMED // 2 // _tiles(x)), threads,
                )
            )  # fmt: skip
        return dx, dweight, None if bias is None else dbias, None, dplus


def _convolved(x: Tensor, packed: Tensor, bias: Tensor | None, out: int, plus: Tensor | None = None) -> Tensor:
    images, into, height, width = x.shape
    y = torch.empty((images, out, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    if x.device.type != "meta":
        threads = torch.get_num_threads()
        at_once = max(1, min(TILES // _tiles(x), -(-images // threads)))
        enough(
            _library().convolve(
                at(x), at(packed), at(bias), at(plus), at(y), images, height, width, into, out, at_once,
                threads,
            )
        )  # fmt: skip
    return y


def _tiles(x: Tensor) -> int:
    return ((x.shape[2] + 1) // 2) * ((x.shape[3] + 1) // 2)


def _library() -> ctypes.CDLL:
    native = library()
    if native is None:
        raise RuntimeError("convolve was called on what is not usable; ask usable(x, weight) first.")
    return native


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, building them once a machine; None if that is impossible or not the faster way."""
    if not has("avx512_bf16") or has("amx_bf16"):
        return None
    native = compiled("winograd.c")
    if native is None:
        return None
    sizes, pointer, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    native.pack.argtypes = [*[pointer] * 2, *[sizes] * 2, number, number]
    native.convolve.argtypes = [*[pointer] * 5, *[sizes] * 6, number]
    native.weigh.argtypes = [*[pointer] * 4, *[sizes] * 6, number]
    return native if _agrees(native) else None


def _agrees(native: ctypes.CDLL) -> bool:
    """Return whether a fresh library computes what torch does, on one small example."""
    ramp = torch.arange(16 * 16 * 9, dtype=torch.float32)
    cl = torch.channels_last
    x = (ramp[: 2 * 16 * 9].square() * 0.7).sin().view(2, 16, 3, 3).bfloat16().contiguous(memory_format=cl)
    weight = (ramp.square() * 0.3).cos().view(16, 16, 3, 3).contiguous(memory_format=cl)
    packed, y = torch.empty(16 * 16 * 16, dtype=torch.bfloat16), torch.empty_like(x)
    native.pack(at(weight), at(packed), 16, 16, 0, 1)
    failed = native.convolve(at(x), at(packed), None, None, at(y), 2, 3, 3, 16, 16, 1, 1)
    expected = F.conv2d(x.float(), weight, padding=1)
    return not failed and bool((y.float() - expected).abs().max() <= TOLERANCE * expected.abs().max())
