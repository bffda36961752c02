"""The chain of a run: on which levels its bits are counted.

A DDPM-style run was trained on a table of levels; the table, or a subset even in log-SNR, is its chain. A continuous
run (EDM, flow matching, score SDE) is a denoiser at every level and has no chain of its own, so one is chosen: N levels
evenly spaced in log-SNR from the noisiest level it was trained on down to `NEAREST`, where DDPM's own chain ends, and
then clean. Any chain gives a valid bound; more steps give a tighter one (what is above the limit falls like 1/N), and
so may another last level: below it the decoder pays for detail, above it the chain does. The last step keeps its own
variance sigma^2 ("small-own"), for with shrinking steps that of the step before would be far too small.

The probability-flow ODE and the codec need a denoiser at every level. A network that knows the numbers 1..T of a table
is asked between them by interpolating the number in log-SNR, as the score-SDE code does with its DDPM networks.

A network without c_in knows images at the scale of its schedule only. `own_gauge` finds the path on which it lives:
alpha = 1, the straight line, or the unit circle.

References:
    Kingma, Salimans, Poole, Ho. Variational Diffusion Models. 2021, section 5. https://arxiv.org/abs/2107.00630
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021, appendix C.
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.core.denoiser import Preconditioned
from sfumato.core.gauge import Gauge, flow, ve, vp
from sfumato.core.level import Level
from sfumato.likelihood.vlb import check_variance
from sfumato.runs.part import asks, option
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import RecipeError

NEAREST = 0.01  # nsr of the cleanest level of a chosen chain: DDPM's beta_1 = 1e-4
RANGE = 0.002, 1000.0  # nsr between which continuous runs are asked, though some are trained from 0 to infinity
STEPS = 200  # of a chosen chain
LEARNED = {"range": "learned", "diagonal": "diagonal"}  # recipe.variance -> variance of p


@dataclass(frozen=True, eq=False)
class Chain:
    """The levels a bound is counted on.

    Attributes:
        grid: Levels from noisy to clean, shape (N + 1,).
        variance: Variance of the steps of p, a name in `likelihood.vlb.VARIANCES`.
        words: Description of the chain in a result.
    """

    grid: Level
    variance: str
    words: str


def own_gauge(plan: Plan) -> Gauge:
    """Return the path of levels on which a run's denoiser may be asked.

    Arguments:
        plan: The plan of a resolved recipe.

    Raises:
        RecipeError: If the network knows its own scale only, and that is on none of the three paths.
    """
    if plan.recipe.c_in != "one":
        return vp  # any scale will do, and its coordinate is bounded
    levels = plan.trained_levels(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
    for gauge in (ve, flow, vp):
        if bool((levels.alpha > 0).all()) and bool(((gauge.where(levels)[0] - 1).abs() < 1e-6).all()):
            return gauge
    raise RecipeError(
        "The levels of training lie neither on alpha = 1 nor on alpha + sigma = 1 nor on the unit "
        "circle, and the network knows no other scale (c_in=one). Train with c_in=unit-variance to measure bits."
    )


def on_path(gauge: Gauge, nsr: Tensor) -> Level:
    """Return the levels of a path with the given sigma / alpha, float64, any shape."""
    return gauge.at(gauge.where(Level(torch.ones_like(nsr), nsr))[1])


def own_table(plan: Plan) -> Level | None:
    """Return the table of levels that a run was trained on; None if it is continuous."""
    return plan.table if "schedule" in plan.trained else None


def span(plan: Plan) -> tuple[float, float]:
    """Return (smallest, largest) nsr at which a run was trained, within `RANGE` if it is continuous.

    A draw from a schedule has the schedule's ends. One that reaches from no noise to no signal has none: then they are
    the levels that one of all its images is expected to lie beyond.
    """
    if (table := own_table(plan)) is not None:
        return float(table[1].nsr), float(table[-1].nsr)
    bounded = "draw" not in plan.trained or asks(plan.recipe.draw, "schedule")
    tail = 0.0 if bounded else 1 / max(2, plan.images)
    ends = plan.trained_levels(torch.tensor([tail, 1 - tail], dtype=torch.float64)).nsr.tolist()
    return max(min(ends), RANGE[0]), min(max(ends), RANGE[1])


def chain_of(plan: Plan, steps: int | None = None, near: float | None = None, variance: str | None = None) -> Chain:
    """Choose the chain of a run.

    Arguments:
        plan: The plan of a resolved recipe.
        steps: Number of steps N; None for the whole table, or `STEPS` for a continuous run.
        near: sigma / alpha of the cleanest noisy level of a continuous run; None for `NEAREST`.
        variance: Variance of p; None for the learned one, that of an ancestral sampler, or the small one.

    Raises:
        ValueError: If there are too few steps, more than the table has, the variance is unknown, or `near` is outside
            the levels of training or given for a table.
    """
    if steps is not None and steps < 2:
        raise ValueError(f"A bound needs a chain of at least 2 steps; got {steps}.")
    table = own_table(plan)
    if table is None:
        nearest, far = span(plan)
        near = max(nearest, NEAREST) if near is None else near
        if not nearest <= near < far:
            raise ValueError(f"The last level of a chain lies in [{nearest:g}, {far:g}) of sigma/alpha; got {near:g}.")
        count = steps or STEPS
        nsr = torch.linspace(math.log(far), math.log(near), count, dtype=torch.float64).exp()
        noisy, clean, gauge = on_path(own_gauge(plan), nsr), Level.clean(), own_gauge(plan)
        grid = Level(torch.cat((noisy.alpha, clean.alpha[None])), torch.cat((noisy.sigma, clean.sigma[None])))
        words = f"{count} levels chosen evenly in log-SNR, sigma/alpha {far:g} to {near:g} ({gauge.name} scale)"
        return Chain(grid, check_variance(variance or "small-own"), words)
    if near is not None:
        raise ValueError("This run's chain is its table, which has a cleanest level of its own. Leave `near` out.")
    size = len(table) - 1
    if steps is not None and steps > size:
        raise ValueError(f"This run's table has {size} levels; got {steps} steps.")
    index = torch.arange(1, size + 1) if steps in (None, size) else _evenly(table, int(steps or size))
    grid = table[[*index.flip(0).tolist(), 0]]
    words = f"all {size}" if len(index) == size else f"{len(index)} (even in log-SNR) of the {size}"
    said = LEARNED.get(plan.variance) or option(plan.recipe.sample.sampler, "variance") or "small"
    return Chain(grid, check_variance(variance or said), f"{words} levels of its table")


def _evenly(table: Level, steps: int) -> Tensor:
    """Return the indices of at most `steps` levels of a table that lie most evenly in log-SNR, both ends kept.

    Even in t, the last steps of a linear schedule would be enormous in SNR, and with them the bound.
    """
    known = table[1:].log_snr
    wanted = torch.linspace(float(known[0]), float(known[-1]), steps, dtype=torch.float64)
    return 1 + (known.unsqueeze(0) - wanted.unsqueeze(1)).abs().argmin(1).unique()


def _between(table: Level, c_noise: Callable[[Level], Tensor]) -> Callable[[Level], Tensor]:
    """Return a c_noise for every level from one for the levels of a table: linear in log-SNR between them."""
    known, told = table[1:].log_snr.flip(0).numpy(), c_noise(table[1:]).double().flip(0).numpy()

    def everywhere(level: Level) -> Tensor:
        return torch.from_numpy(np.asarray(np.interp(level.log_snr.numpy(), known, told)))

    return everywhere


def continuous(denoiser: Preconditioned) -> Preconditioned:
    """Return a denoiser that answers at every level: itself, or one that interpolates the numbers of its table."""
    if denoiser.table is None:
        return denoiser
    return Preconditioned(
        denoiser.network,
        denoiser.target,
        c_noise=_between(denoiser.table, denoiser.c_noise),
        c_in=denoiser.c_in,
        variance=denoiser.variance,
        autocast=denoiser.autocast,
    )
