"""Grids: which levels a sampler visits, from noisy to clean; N steps are N + 1 levels and the last is (1, 0).

A grid is only a batch of levels. Entries differ in what they are made from:

    from a table (discrete networks know no other levels)
        full        all T levels
        respaced    a subset: N evenly rounded ones, "ddimN" (integer stride), or sections "90,60,60,20,20"
        listed      the ones that are named
        trailing    every T/N-th level counted from the noisy end, which is always visited
        quadratic   dense near the clean end
        iddpm       those within a range of nsr, evenly indexed (EDM's "iDDPM" discretisation of a cosine table)
    from a schedule
        uniform     times evenly spaced
    from numbers
        karras      sigma^(1/rho) evenly spaced                         EDM, eq. (5)
        levels      those that are given, as `sfumato schedule` computes them
        logsnr      log-SNR evenly spaced (sigma geometric)             EDM's "VE" discretisation; DPM-Solver
        flow        straight-line times, optionally shifted to noise    flow matching, SD3

EDM's "VP" discretisation is ``uniform(vp(), N, t_min=1e-3)``. The betas of a shortened chain need no derivation:
`Kernel.between` works for any two levels.

References:
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021, section 4.
    https://arxiv.org/abs/2102.09672
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, appendix D.2. https://arxiv.org/abs/2010.02502
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, Table 1 and appendix C.
    https://arxiv.org/abs/2206.00364
    Lin, Liu, Li, Yang. Common Diffusion Noise Schedules and Sample Steps Are Flawed. 2024, Table 2.
    https://arxiv.org/abs/2305.08891
    Esser et al. Scaling Rectified Flow Transformers for High-Resolution Image Synthesis. 2024, eq. (23).
    https://arxiv.org/abs/2403.03206
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.core.bounds import (
    Fraction,
    NoLimit,
    NotNegative,
    Nsr,
    Positive,
    Steps,
    UpToOne,
    Warp,
    Whole,
    check_sigmas,
    check_times,
)
from sfumato.core.level import Level, Schedule


def _then_clean(levels: Level) -> Level:
    """Append the clean level."""
    return Level(torch.cat((levels.alpha, torch.ones(1))), torch.cat((levels.sigma, torch.zeros(1))))


def _at_sigmas(sigmas: Tensor) -> Level:
    """Make a grid of alpha = 1 from descending sigmas, shape (N,)."""
    return _then_clean(Level(torch.ones_like(sigmas), sigmas))


def _pick(table: Level, indices: list[int], what: str) -> Level:
    """Make a grid of table entries, given indices into 1..T in rising order."""
    if len(set(indices)) != len(indices) or not indices or min(indices) < 1 or max(indices) >= len(table):
        raise ValueError(f"{what} does not give distinct levels in a table of {len(table) - 1}; use fewer steps.")
    return table[[*reversed(indices), 0]]


def _check_steps(steps: int, most: int | None = None) -> None:
    if steps < 1 or (most is not None and steps > most):
        limit = "" if most is None else f" and at most the table's {most}"
        raise ValueError(f"A grid has at least 1 step{limit}; got steps = {steps}.")


def full(table: Level) -> Level:
    """Visit every level of a table.

    Arguments:
        table: From clean to noisy, shape (T + 1,).

    Returns:
        Shape (T + 1,), from noisy to clean.
    """
    return table[torch.arange(len(table) - 1, -1, -1)]


def respaced(table: Level, steps: Whole = 0, spec: str = "") -> Level:
    """Visit a subset of a table's levels.

    Arguments:
        table: From clean to noisy, shape (T + 1,).
        steps: N evenly spaced levels, both ends kept, rounded; 0 if `spec` says how many.
        spec: "ddim" for the first integer stride that gives N levels, counted from the cleanest, N being `steps`;
            "ddimN" is the same; or comma-separated counts, one for each of as many equal sections of the table, from
            the cleanest.

    Returns:
        Shape (N + 1,).

    Raises:
        ValueError: If no stride fits, a section is too short for its count, or the number of levels is said twice or
            not at all.

    >>> from sfumato.core.table import Table
    >>> table = Table.from_betas(torch.full((300,), 0.01, dtype=torch.float64)).levels
    >>> len(respaced(table, spec="10,15,20")), len(respaced(table, spec="ddim50")), len(respaced(table, 7))
    (46, 51, 8)
    """
    if bool(steps) == (spec not in ("", "ddim")):
        raise ValueError(
            f"respaced takes either steps or spec, or both with spec = 'ddim'; got steps = {steps}, spec = {spec!r}."
        )
    spec = f"ddim{steps}" if spec == "ddim" else spec
    size = len(table) - 1
    if spec.startswith("ddim"):
        wanted = _counts(spec[4:])[0]
        if wanted == 1:
            raise ValueError("ddim1 is the cleanest level alone, from which no walk starts. Use steps = 1 instead.")
        strides = [stride for stride in range(1, size + 1) if len(range(0, size, stride)) == wanted]
        if not strides:
            raise ValueError(f"No integer stride takes {wanted} of {size} levels. Use steps = {wanted} instead.")
        return _pick(table, [1 + i for i in range(0, size, strides[0])], spec)
    counts = _counts(spec) if spec else [steps]
    base, extra = divmod(size, len(counts))
    indices, start = [], 1
    for position, count in enumerate(counts):
        length = base + (position < extra)
        if count > length:
            raise ValueError(
                f"A section of {length} levels cannot give {count} steps (spec {spec or steps!r}); ask for at most "
                f"{length}."
            )
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        last = position == len(counts) - 1  # of one level in all, or in the noisiest section, a walk starts there
        # summed rather than multiplied: published checkpoints were sampled at these roundings
        place = length - 1.0 if count == 1 and last else 0.0
        for _ in range(count):
            indices.append(start + round(place))
            place += stride
        start += length
    return _pick(table, indices, f"respaced {spec or steps!r}")


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 0 or not any(counts):
        raise ValueError(f"A spec is 'ddimN' or counts like '90,60,60,20,20'; got {text!r}.")
    return counts


def listed(table: Level, entries: tuple[Whole, ...] = ()) -> Level:
    """Visit the entries of a table that are named, as checkpoints with a spacing of their own ask for.

    Arguments:
        table: From clean to noisy, shape (T + 1,).
        entries: Numbers in 1..T, falling; the step that DDPM counts as t is entry t + 1.

    Raises:
        ValueError: If none are named, or they do not fall, or are not in the table.
    """
    return _pick(table, sorted(entries), f"listed {entries}")


def trailing(table: Level, steps: Steps = 50) -> Level:
    """Visit every T/N-th level of a table, counted from the noisiest.

    Arguments:
        table: From clean to noisy, shape (T + 1,).
        steps: Number N of steps, in [1, T].
    """
    size = len(table) - 1
    _check_steps(steps, size)
    return _pick(table, [round(size * (i + 1) / steps) for i in range(steps)], f"trailing {steps}")


def quadratic(table: Level, steps: Steps = 50, reach: UpToOne = 0.8) -> Level:
    """Visit levels whose index grows quadratically, dense near the clean end.

    Arguments:
        table: From clean to noisy, shape (T + 1,).
        steps: Number N of steps.
        reach: Where the last index lies, as a share of T; DDIM's code stops at 0.8 (the walk starts there).
    """
    size = len(table) - 1
    _check_steps(steps, size)
    end = math.sqrt(reach * size)
    roots = torch.linspace(0 if steps > 1 else end, end, steps, dtype=torch.float64)
    # the last root squared may fall short of reach * T by a rounding error
    return _pick(table, [min(size, 1 + int(r * r + 1e-9)) for r in roots.tolist()], f"quadratic {steps}")


def uniform(schedule: Schedule, steps: Steps = 50, t_min: Fraction = 0.0, t_max: UpToOne = 1.0) -> Level:
    """Visit evenly spaced times of a schedule.

    If the schedule is clean at t_min the last step ends there; otherwise (t_min > 0, or a schedule that starts at
    sigma_min) the N times include t_min and one step to the clean level follows.

    Arguments:
        schedule: Time in [0, 1] -> level.
        steps: Number N of steps.
        t_min: Time of the last noisy level.
        t_max: Time of the first level.
    """
    _check_steps(steps)
    check_times(t_min, t_max)
    reaches_clean = float(schedule(torch.tensor(t_min, dtype=torch.float64)).sigma) == 0
    count = steps + 1 if reaches_clean else steps
    levels = schedule(torch.linspace(t_max, t_min, count, dtype=torch.float64))
    return _then_clean(levels[:-1] if reaches_clean else levels)


def karras(steps: Steps = 18, sigma_min: Nsr = 0.002, sigma_max: Nsr = 80.0, rho: Warp = 7.0) -> Level:
    """EDM's grid: sigma^(1/rho) evenly spaced from sigma_max to sigma_min, then 0.

    Arguments:
        steps: Number N of steps.
        sigma_min: Smallest nsr of a noisy level.
        sigma_max: Largest nsr, that of the first level.
        rho: Larger puts more levels near sigma_min; 1 is uniform.
    """
    _check_steps(steps)
    check_sigmas(sigma_min, sigma_max)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    return _at_sigmas((high + share * (low - high)) ** rho)


def logsnr(steps: Steps = 18, sigma_min: Nsr = 0.002, sigma_max: Nsr = 80.0) -> Level:
    """Log-SNR evenly spaced: a geometric sequence of nsr from sigma_max to sigma_min, then 0.

    Arguments:
        steps: Number N of steps.
        sigma_min: Smallest nsr of a noisy level.
        sigma_max: Largest nsr, that of the first level.
    """
    _check_steps(steps)
    check_sigmas(sigma_min, sigma_max)
    return _at_sigmas(torch.linspace(math.log(sigma_max), math.log(sigma_min), steps, dtype=torch.float64).exp())


def levels(alphas: tuple[NotNegative, ...] = (), sigmas: tuple[Positive, ...] = (), called: str = "") -> Level:
    """Visit the levels that are given, then the clean one: `sfumato schedule RUN` computes them.

    Arguments:
        alphas: Signal coefficients, from noisy to clean.
        sigmas: Noise coefficients, as many.
        called: Name of the grid in captions, such as computed-6; "" to name its levels.

    Raises:
        ValueError: If there are none, not as many of each, or the noise does not fall.
    """
    if not alphas or len(alphas) != len(sigmas):
        raise ValueError(f"A grid of levels has as many alphas as sigmas, at least 1; got {alphas} and {sigmas}.")
    grid = _then_clean(Level.of(list(alphas), list(sigmas)))
    if bool((torch.atan2(grid.sigma, grid.alpha).diff() >= 0).any()):
        raise ValueError(f"The noise of a grid falls from level to level; got alphas {alphas} and sigmas {sigmas}.")
    return grid


def flow(steps: Steps = 50, shift: Nsr = 1.0, t_min: Fraction = 0.0) -> Level:
    """Straight-line times from 1 to 0, level (1 - t, t).

    Arguments:
        steps: Number N of steps.
        shift: Multiplies nsr: t becomes shift t / (1 + (shift - 1) t). 1 is uniform; 3 suits larger images.
        t_min: Time, before the shift, of the last noisy level; 0 spaces the clean level evenly, too.
    """
    _check_steps(steps)
    if not shift > 0:
        raise ValueError(f"shift must be positive; got {shift}.")
    if not 0 <= t_min < 1:
        raise ValueError(f"t_min lies in [0, 1); got {t_min}.")
    t = torch.linspace(1, t_min, steps if t_min else steps + 1, dtype=torch.float64)
    t = shift * t / (1 + (shift - 1) * t)
    return _then_clean(Level(1 - t, t)) if t_min else Level(1 - t, t)


def iddpm(table: Level, steps: Steps = 50, sigma_min: NoLimit = 0.002, sigma_max: NoLimit = 81.0) -> Level:
    """Visit a table's levels within a range of nsr, evenly indexed and rounded.

    With a cosine table of 1000 steps this is EDM's "iDDPM" discretisation.

    Arguments:
        table: From clean to noisy, shape (T + 1,).
        steps: Number N of steps.
        sigma_min: Levels of smaller nsr are left out.
        sigma_max: Levels of larger nsr are left out.

    References:
        Karras et al. 2022, Table 1 and appendix C.3.
    """
    inside = ((table.nsr >= sigma_min) & (table.nsr <= sigma_max)).nonzero().flatten().flip(0).tolist()
    _check_steps(steps, len(inside))
    stride = (len(inside) - 1) / max(steps - 1, 1)
    return _pick(table, [inside[round(stride * i)] for i in reversed(range(steps))], f"iddpm {steps}")
