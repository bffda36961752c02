"""The likelihood of an image along the probability-flow ODE.

In a gauge (see `core.gauge`) the flow and its divergence are

    dy/du = A' D + S' (y - A D) / S,        div = (A' - S' A / S) tr J_D + d S' / S,

so the density at the near (clean) level follows from that at the far one, where it is N(0, (A^2 + S^2) I):

    ln p_near(y_near) = ln p_far(y_far) + integral of div du.

The trace needs d derivatives; Hutchinson's estimate ``e . J_D e`` with a fixed random sign vector e per image
(Rademacher: exact for diagonal J) needs one; without a probe all d are paid for. The linear part counts as e . e, which
is d for signs.

Images are codes, not densities. Uniform dequantisation spreads code c over its bin, and the density in bits/dim plus
the offset -log2(bin width) is, on average over the dequantisation, an upper bound on -log2 P(codes):

    centred   x = x0 + (u - 1/2) / 127.5         offset log2(127.5) = 6.9943...    bins around the codes themselves
    unit      x = (c + u) / 128 - 1              offset 7                          the convention of the score-SDE code

The image is taken to be at the near level as it stands (no noise is added, it is not scaled): what is measured is the
model's density at that level. These numbers and the variational bound answer different questions.

A network that knows only its own scale (no c_in) needs the gauge of its schedule: `vp` for variance-preserving chains,
`flow` for flow matching, `ve` for alpha = 1.

References:
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021, eqs. (39)-(40).
    https://arxiv.org/abs/2011.13456
    Grathwohl et al. FFJORD. 2019, eq. (8). https://arxiv.org/abs/1810.01367
    Theis, van den Oord, Bethge. A Note on the Evaluation of Generative Models. 2016, section 3.1.
    https://arxiv.org/abs/1511.01844
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import noise
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser
from sfumato.core.find import nearest
from sfumato.core.gauge import Gauge
from sfumato.core.level import Level, like
from sfumato.likelihood import dormand_prince
from sfumato.likelihood.dormand_prince import Slope, Walk
from sfumato.likelihood.vlb import BITS


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Hold the ODE likelihood of every image; float64 on the CPU.

    Attributes:
        bits: Bits/dim, offset included, shape (B,).
        offset: Bits/dim added for the width of a code's bin.
        latent: The image at the far level, in the gauge, shape of x.
        log_det: The integrated divergence in nats, shape (B,).
        nfe: Denoiser calls per image, int64, shape (B,).
    """

    bits: Tensor
    offset: float
    latent: Tensor
    log_det: Tensor
    nfe: Tensor


def _centred(x0: Tensor, u: Tensor) -> Tensor:
    return x0 + (u - 0.5) / 127.5


def _unit(x0: Tensor, u: Tensor) -> Tensor:
    return (((x0 + 1) * 127.5).round() + u) / 128 - 1


BINS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "centred": (_centred, math.log2(127.5)),
    "unit": (_unit, 7.0),
}


def dequantise(x0: Tensor, seeds: noise.Ids, bins: str = "centred") -> tuple[Tensor, float]:
    """Spread every code uniformly over its bin.

    Arguments:
        x0: Images on the 256 codes in [-1, 1], shape (B, ...).
        seeds: One seed per image, shape (B,); the spread depends on nothing else.
        bins: "centred" or "unit", see above.

    Returns:
        The continuous images, the shape of `x0`, and the offset in bits/dim.

    Raises:
        ValueError: For an unknown kind of bins.
    """
    if bins not in BINS:
        raise ValueError(nearest("kind of bins", bins, BINS))
    spread, offset = BINS[bins]
    u = noise.uniform(seeds, x0.shape[1:], purpose="dequantise", device=x0.device, dtype=x0.dtype)
    return spread(x0, u), offset


def probes(seeds: noise.Ids, x: Tensor) -> Tensor:
    """Return a Rademacher vector (+1 or -1 per element) for every image, the shape and dtype of x."""
    words = noise.words(seeds, x[0].numel(), purpose="hutchinson", device=x.device)
    return ((words & 1) * 2 - 1).to(x.dtype).reshape(x.shape)


def _trace(x0: Tensor, y: Tensor, probe: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (e . J e, |e|^2) for a probe e, or (tr J, d) without one; rows do not mix."""
    if probe is not None:
        (jt,) = torch.autograd.grad((x0 * probe).sum(), y)
        return (jt * probe).flatten(1).sum(1), (probe * probe).flatten(1).sum(1)
    total = torch.zeros(len(y), dtype=y.dtype, device=y.device)
    for i in range(y[0].numel()):
        (row,) = torch.autograd.grad(x0.flatten(1)[:, i].sum(), y, retain_graph=True)
        total = total + row.flatten(1)[:, i]
    return total, torch.full_like(total, y[0].numel())


def _slope(denoiser: Denoiser, gauge: Gauge, probe: Tensor | None, label: Label | None) -> Slope:
    def slope(u: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        level, (da, ds) = gauge.at(u), gauge.slope(u)
        on = rows.to(y.device)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            x0 = denoiser(y, level, None if label is None else label[on]).x0
            jacobian, size = _trace(x0, y, None if probe is None else probe[on])
        x0, y = x0.detach(), y.detach()
        dy = like(da - ds * level.alpha / level.sigma, y) * x0 + like(ds / level.sigma, y) * y
        jacobian, size = jacobian.to("cpu", torch.float64), size.to("cpu", torch.float64)
        return dy, (da - ds * level.alpha / level.sigma) * jacobian + ds / level.sigma * size

    return slope


def likelihood(
    denoiser: Denoiser,
    x: Tensor,
    near: Level,
    far: Level,
    *,
    gauge: Gauge,
    probe: Tensor | None,
    offset: float = 0.0,
    label: Label | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    watch: Callable[[Walk], None] | None = None,
) -> Likelihood:
    """Return the bits/dim of continuous images under the probability-flow ODE.

    Arguments:
        denoiser: Any denoiser that autograd can differentiate.
        x: Images at the near level, shape (B, C, H, W) or (B, d), e.g. from `dequantise`.
        near: The cleanest level the denoiser is asked for, shape (), sigma > 0.
        far: The noisiest level, shape ().
        gauge: Coordinate of the walk; also the scale in which the denoiser is asked.
        probe: Hutchinson vectors, e.g. `probes(seeds, x)`, the shape of x; None for the exact trace (d derivatives).
        offset: Bits/dim added for the bin width, from `dequantise`.
        label: int64 (B,), or None.
        rtol: Relative tolerance, per image.
        atol: Absolute tolerance, per image.
        watch: Called after every round of steps, for progress.

    Returns:
        A `Likelihood`; an image's value does not depend on its batch.

    Raises:
        ValueError: If near is clean, or not cleaner than far.
        ArithmeticError: If the walk does not arrive.
    """
    if float(near.sigma) <= 0 or not float(near.nsr) < float(far.nsr):
        raise ValueError(
            "The ODE runs from a noisy level near the clean end to a noisier one; "
            f"got nsr {float(near.nsr):.6g} to {float(far.nsr):.6g}. Start at the model's smallest noise."
        )
    (k, start), (_, stop) = gauge.where(near), gauge.where(far)
    slope, y = _slope(denoiser, gauge, probe, label), x / like(k, x)
    walk = dormand_prince.walk(slope, y, float(start), float(stop), rtol=rtol, atol=atol)
    state = next(walk)
    while not bool(state.done.all()):
        if watch is not None:
            watch(state)
        state = next(walk)
    size = x[0].numel()
    end = gauge.at(stop)
    variance = float(end.alpha**2 + end.sigma**2)
    square = state.y.flatten(1).square().sum(1).to("cpu", torch.float64)
    log_far = -0.5 * (square / variance + size * math.log(2 * math.pi * variance))
    log_p = log_far + state.l - size * float(k.log())  # p(x) dx = p(y) dy with y = x / k
    return Likelihood(-log_p * BITS / size + offset, offset, state.y, state.l, state.nfe)
