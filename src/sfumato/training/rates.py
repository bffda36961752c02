"""Learning-rate schedules: (images seen, share of the budget spent) -> multiplier of the base rate.

Each entry is a function of two clocks. `seen` counts images and drives warm-ups and decays of papers that state them
in updates or images; `spent` in [0, 1] is the share of the run's budget, in images or in minutes, and drives schedules
that must end with the run.

References:
    Karras et al. Analyzing and Improving the Training Dynamics of Diffusion Models. 2024, eq. (67).
    https://arxiv.org/abs/2312.02696
    Haegele et al. Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations. 2024 (hold, then linear).
    https://arxiv.org/abs/2405.18392
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sfumato.core.bounds import Count, Fraction, NotNegative, Positive, Share

Rate = Callable[[int, float], float]


def _ramp(seen: int, warmup: float) -> float:
    return min(1.0, (seen + 1) / warmup) if warmup > 0 else 1.0


def constant(warmup: NotNegative = 0.0) -> Rate:
    """Hold the rate after a linear warm-up of `warmup` images.

    Arguments:
        warmup: Images over which the rate rises from 0.
    """
    return lambda seen, spent: _ramp(seen, warmup)


def linear(warmup: NotNegative = 0.0, hold: Fraction = 0.0) -> Rate:
    """Hold until the share `hold` of the budget, then fall linearly to zero at its end.

    Arguments:
        warmup: Images over which the rate rises from 0.
        hold: Share of the budget before the rate falls, in [0, 1).
    """
    return lambda seen, spent: _ramp(seen, warmup) * min(1.0, max(0.0, 1 - spent) / (1 - hold))


def stages(count: Count = 1, warmup: NotNegative = 0.0) -> Rate:
    """Fall linearly to zero in each of `count` equal stages of the budget (progressive distillation).

    Arguments:
        count: Number of stages.
        warmup: Images over which the rate rises from 0.
    """
    if count < 1:
        raise ValueError(f"stages counts at least 1 stage; got {count}.")
    return lambda seen, spent: _ramp(seen, warmup) * (1 - min(spent, 1.0) * count % 1)


def cosine(warmup: NotNegative = 0.0) -> Rate:
    """Fall along half a cosine to zero at the end of the budget.

    Arguments:
        warmup: Images over which the rate rises from 0.
    """
    return lambda seen, spent: _ramp(seen, warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, spent)))


def inverse_sqrt(warmup: NotNegative = 0.0, after: Positive = 1e6, cooldown: Share = 0.0) -> Rate:
    """Fall as 1 / sqrt(seen / after) beyond `after` images (EDM2), then to zero over the last `cooldown` share.

    Arguments:
        warmup: Images over which the rate rises from 0.
        after: Images after which the rate begins to fall.
        cooldown: Share of the budget at its end in which the rate falls to 0.
    """

    def rate(seen: int, spent: float) -> float:
        end = min(1.0, max(0.0, 1 - spent) / cooldown) if cooldown > 0 else 1.0
        return _ramp(seen, warmup) * end / math.sqrt(max(1.0, seen / after))

    return rate
