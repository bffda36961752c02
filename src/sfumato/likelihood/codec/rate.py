"""Rate against distortion: what an image costs when its sending is stopped early.

When the receiver of DDPM's Algorithms 3 and 4 stands at level t it has been sent the terms before it and can show
x0-hat = D(x_t). So a bound, read from the noisy end, is a rate-distortion curve:

    rate(j)       = L_T + sum of the terms before grid[j]      bits/dim
    distortion(j) = RMSE of x0-hat at grid[j]                  on the scale 0..255

At the last noisy level, rate + L_0 is the whole bound (an identity that the tests hold to rounding). On images most of
the rate buys detail that no eye sees: DDPM spends 1.78 bits/dim to come within an RMSE of 0.95 of 255 levels, and 1.97
more on the rest.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, section 4.3, Figure 5, Table 4.
    https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.level import Level
from sfumato.likelihood.vlb import Bound

CODES = 127.5  # codes per unit of [-1, 1]


@dataclass(frozen=True, eq=False)
class Curve:
    """Hold a rate-distortion curve, from the noisiest level to the cleanest noisy one; float64, shape (N,) each.

    Attributes:
        levels: grid[0] .. grid[N - 1].
        rate: Mean over images of the bits/dim sent before that level.
        rate_error: Standard error of the rate over images.
        rmse: Root of the mean squared error of x0-hat over images and pixels, on 0..255.
        rmse_error: Standard error of the RMSE (delta method).
    """

    levels: Level
    rate: Tensor
    rate_error: Tensor
    rmse: Tensor
    rmse_error: Tensor


def rates(bound: Bound) -> Tensor:
    """Return the bits/dim sent before each of grid[0..N-1], per image, shape (B, N)."""
    sent = torch.cat((torch.zeros_like(bound.terms[:, :1]), bound.terms[:, :-1].cumsum(1)), 1)
    return bound.prior.unsqueeze(1) + sent


def rate_distortion(bound: Bound) -> Curve:
    """Read a bound as a rate-distortion curve.

    Arguments:
        bound: Terms of the bound of B images; finite standard errors need B >= 2.
    """
    rate, mse = rates(bound), bound.x0_mse
    root = math.sqrt(len(mse))
    rmse = mse.mean(0).sqrt()
    return Curve(
        levels=bound.grid[:-1],
        rate=rate.mean(0),
        rate_error=rate.std(0, correction=1) / root,
        rmse=CODES * rmse,
        rmse_error=CODES * mse.std(0, correction=1) / root / (2 * rmse),
    )


def cheapest(levels: Level, x0_mse: Tensor, steps: int) -> list[int]:
    """Choose the sub-grid of a given number of steps whose total rate is least.

    A step from level i straight to level j costs ``(snr_j - snr_i) mse_i / 2`` nats per dimension, so long steps pay
    for what x0-hat did not know at their start. The least total is found by dynamic programming.

    Arguments:
        levels: Noisy to clean, all noisy, shape (L,).
        x0_mse: Mean squared error of x0-hat at each, shape (L,).
        steps: Number of steps, in 1 .. L - 1.

    Returns:
        steps + 1 indices, from 0 to L - 1.

    Raises:
        ValueError: If there are not so many levels.

    >>> nsr = Level.of(1.0, [8.0, 4.0, 2.0, 1.0, 0.5])
    >>> cheapest(nsr, torch.tensor([1.0, 1.0, 1.0, 0.1, 0.1]), 2)  # x0-hat learns something at the fourth level
    [0, 3, 4]
    """
    count = len(levels)
    if not 1 <= steps < count:
        raise ValueError(f"{count} levels make 1 to {count - 1} steps; got {steps}.")
    snr = levels.log_snr.exp()
    cost = 0.5 * (snr.unsqueeze(0) - snr.unsqueeze(1)) * x0_mse.double().unsqueeze(1)
    cost = torch.where(torch.ones_like(cost).triu(1).bool(), cost, torch.inf)
    least, came = cost[0], []
    for _ in range(steps - 1):
        least, back = (least.unsqueeze(1) + cost).min(0)
        came.append(back)
    path = [count - 1]
    for back in reversed(came):
        path.append(int(back[path[-1]]))
    return [0, *reversed(path)]


def equal_rate(bound: Bound, steps: int) -> Level:
    """Choose a sub-grid whose steps carry equal shares of the rate.

    Reverse channel coding pays a few bits of overhead per step and image, so a codec wants few steps of equal rate
    rather than the many of the bound's own grid.

    Arguments:
        bound: On a fine grid, over any images of the kind to be coded.
        steps: At most that many steps before the last one, which ends clean; fewer where one fine step holds more
            than its share.

    Returns:
        Levels of the bound's grid, its first and its last two included.

    Raises:
        ValueError: If `steps` is not in 1 .. N - 1.
    """
    rate = rates(bound).mean(0)
    if not 1 <= steps < len(rate):
        raise ValueError(f"equal_rate chooses 1 to {len(rate) - 1} steps of this bound's grid; got {steps}.")
    shares = rate[0] + (rate[-1] - rate[0]) * torch.linspace(0, 1, steps + 1, dtype=rate.dtype)
    index = torch.searchsorted(rate.contiguous(), shares).clamp(max=len(rate) - 1)
    index[0], index[-1] = 0, len(rate) - 1
    return bound.grid[torch.cat((index.unique(), torch.tensor([len(rate)])))]
