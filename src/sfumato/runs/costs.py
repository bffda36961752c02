"""What making an image costs, counted by walking a recipe's grid with a stand-in for its network.

What the network and its training cost is counted by its kind (`runs.kinds`) and kept in the plan (`Plan.cost`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Prediction
from sfumato.core.level import Level
from sfumato.runs.guided import guide
from sfumato.runs.plan import Plan
from sfumato.sources import Diffusion


class Blank:
    """Stand in for a denoiser: it sees grey everywhere and remembers the levels it was asked at, of each image.

    Arguments:
        variance: Learned variance of the recipe, as in `Recipe`.
    """

    def __init__(self, variance: str) -> None:
        self.learned = variance != "none"
        self.levels: list[Level] = []

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        self.levels += [level] * len(x)
        return Prediction(0 * x, 0 * x if self.learned else None)


def sampling_cost(plan: Plan) -> tuple[int, int]:
    """Return the steps of the grid and the network calls of an image, by walking the grid once on one pixel.

    Arguments:
        plan: With its shape. A model that makes an image in one pass has one step and one call.
    """
    if not plan.kind.walks:
        return 1, 1
    blank = Blank(plan.variance)
    denoiser, sampler = guide(plan, blank, weak=None if plan.recipe.sample.autoguidance is None else blank)
    source = Diffusion(denoiser, sampler, plan.grid, (plan.channels, 1, 1), classes=plan.classes)
    for _ in source.states([0], torch.zeros(1, dtype=torch.int64) if plan.classes else None):
        pass
    return len(plan.grid) - 1, len(blank.levels)
