"""UniPC: a multistep predictor whose next network call also corrects the step it came from.

The predictor takes DPM-Solver++'s polynomial step from x_t to x_s. The call D(x_s, s), needed for the following step
anyway, is one more node of the polynomial on the step just taken: repeating that step from x_t with it (r = 1) gives
the corrected x_s from which the walk goes on. So the corrector raises the order by one and costs no call:

    predict   x_s  = step(x_t; P_t, P_{t-1}, ..., order p)
    call      P_s  = D(x_s, s)
    correct   x_s' = step(x_t; P_t, P_{t-1}, ..., P_s, order p + 1)

Solved for all weights, the paper's free function B(h) cancels. It stays only where a single difference is used and its
weight is set to B(h) / 2: B = h ("bh1") or B = 1 - e^{-h} ("bh2"); "exact" integrates there too. States are the
predictor's x_s (the corrected ones belong to the next call), and the last step is not corrected.

References:
    Zhao et al. UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models. 2023,
    algorithms 1 and 2. https://arxiv.org/abs/2302.04867
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level
from sfumato.core.noise import Noise
from sfumato.samplers._multistep import Moments, Point, check_choice, check_order, exponential, points

ORDER = 3
_KIND: dict[str, Moments] = {"bh1": "linear", "bh2": "midpoint", "exact": "exact"}


def unipc(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    order: int = 2,
    variant: Literal["bh1", "bh2", "exact"] = "bh2",
    lower_final: bool = True,
) -> Iterator[State]:
    """Walk the ODE with UniPC: a multistep predictor and a free corrector, one call a step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: Never asked for; the sampler is deterministic.
        label: Class of each image, int64 (B,); None for none.
        order: Order of the predictor, 1 to 3.
        variant: Weight of a lone difference: the paper's "bh1" or "bh2", or its "exact" integral.
        lower_final: Lower the order to the number of steps left, as published.

    Yields:
        The state after every step; nfe = N.

    Raises:
        ValueError: If the order is not 1, 2 or 3.
    """
    check_order("unipc", order, 3)
    check_choice("unipc", "variant", variant, _KIND)
    kind = _KIND[variant]
    past: deque[tuple[Point, Tensor]] = deque(maxlen=order)  # newest first; the newest is the step's own start
    steps = len(grid) - 1
    start, used = x, 0
    for i, (t, s) in enumerate(pairwise(points(grid))):
        x0 = denoiser(x, grid[i], label).x0
        if past:
            base, base_x0 = past[0]
            x = exponential(start, base_x0, base, t, [*list(past)[1 : 1 + used], (t, x0)], kind=kind)
        past.appendleft((t, x0))
        used = min(len(past) - 1, steps - 1 - i) if lower_final else len(past) - 1
        start = x
        x = exponential(x, x0, t, s, list(past)[1 : 1 + used], kind=kind)
        yield State(x, grid[i + 1], x0)
