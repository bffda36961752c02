"""Consistency tuning: a denoiser learns to say the same all along a noising path, and so to jump to its end.

For one image and one noise, D(x_t) should equal D(x_r) at a slightly cleaner r, and D(x) = x where there is no noise; a
model for which that holds maps any point of a path to the path's clean end in one call. The loss is

    w (|D(x_t) - stop(D(x_r))| ),     |d| = sqrt(sum of d^2 + c^2) - c,

with the same dropout on both sides. r starts far away and comes nearer stage by stage (nsr for t and r):

    r = max(0, t (1 - q^-(k + 1) (1 + b sigmoid(-t)))),    k = stage, 0 at first,

so at k = 0, for t of little noise, r = 0 and the loss is that of denoising: a diffusion model is the starting point
(`train.start`) and is tuned. One call of `ddim` on a grid of one step samples it, and more steps with ``fresh=true``.

References:
    Geng et al. Consistency Models Made Easy. 2024. https://arxiv.org/abs/2406.14548
    Song et al. Consistency Models. 2023. https://arxiv.org/abs/2303.01469
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core.bounds import Depth, Few, NotNegative, Share
from sfumato.core.condition import Label
from sfumato.core.denoiser import Preconditioned, Target
from sfumato.core.level import Level, like
from sfumato.objectives._noising import Loss, Noising

TRAINS = "denoiser"


def nearer(nsr: Tensor, k: int, q: float = 2.0, b: float = 8.0) -> Tensor:
    """Return r, the cleaner nsr at which a path is compared, shape of `nsr`.

    Arguments:
        nsr: t, >= 0.
        k: Stage, >= 0; r comes nearer to t by the factor q each time.
        q: Factor between two stages, > 1.
        b: How much farther away r lies at small t.
    """
    return (nsr * (1 - q ** -(k + 1) * (1 + b * torch.sigmoid(-nsr)))).clamp(min=0)


def consistency(
    draw: Callable[[Tensor], Level],
    weighting: Callable[[Level, Target], Tensor],
    seed: int,
    batch: int,
    images: int,
    stages: Depth = 8,
    q: Few = 2.0,
    b: Few = 8.0,
    c: NotNegative = 0.0,
    label_dropout: Share = 0.0,
    stratified: bool = True,
) -> Callable[..., Loss]:
    """Make the consistency loss of a path's two levels, which come nearer stage by stage.

    Arguments:
        draw: Quantile function of the training levels: u (B,) in (0, 1) -> Level (B,).
        weighting: (level, target) -> weight, shape (B,); edm in the paper.
        seed: Seed of the run.
        batch: Global batch size.
        images: The run's budget, divided equally among the stages.
        stages: How often the levels come nearer, and how near in the end.
        q: Factor of each stage, > 1.
        b: How much farther away the second level lies at little noise.
        c: Rounds the distance off at 0; 0 is the plain Euclidean norm.
        label_dropout: Probability that an image is shown without its label.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.

    Returns:
        A function of denoiser, x0 (B, C, H, W), label int64 (B,) or None, positions int64 (B,) and augmentation labels
        or None, giving a `Loss`.

    Raises:
        ValueError: If an option is out of range.
    """
    if stages < 1 or not q > 1 or c < 0:
        raise ValueError(f"consistency needs stages >= 1, q > 1 and c >= 0; got {stages}, {q} and {c}.")
    noising = Noising(draw, seed, batch, label_dropout, stratified)

    def loss(
        denoiser: Preconditioned, x0: Tensor, label: Tensor | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        t, n = noising.levels(positions), noising.noise(x0, positions)
        told = noising.label(label, positions)
        stage = min(stages - 1, int(positions[0]) // batch * batch * stages // images)
        goal = _goal(denoiser, x0, n, t, nearer(t.nsr, stage, q, b), told, augment)
        x = t.noisy(x0, n)
        f, _ = denoiser.raw(x, t, told, augment)
        distance = (denoiser.denoised(f, x, t) - goal).square().flatten(1).sum(1)
        tiny = torch.finfo(distance.dtype).tiny  # the root has no slope at 0
        each = (distance + max(c * c, tiny)).sqrt() - c
        return Loss(each * weighting(t, denoiser.target).to(each), t)

    return loss


def _goal(
    denoiser: Preconditioned, x0: Tensor, n: Tensor, t: Level, nsr: Tensor, label: Label | None, augment: Tensor | None
) -> Tensor:
    """Return stop(D(x_r)), x0 itself where r = 0, with the dropout that the other side will draw."""
    clean = like(nsr == 0, x0).bool().to(x0.device)
    safe = torch.where(nsr > 0, nsr, t.nsr)
    r = Level(t.alpha, t.alpha * safe)
    devices = [x0.device] if x0.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        x = r.noisy(x0, n)
        f, _ = denoiser.raw(x, r, label, augment)
        return torch.where(clean, x0, denoiser.denoised(f, x, r))
