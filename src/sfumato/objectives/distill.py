"""Progressive distillation: a student learns to do in one DDIM step what its teacher does in two, again and again.

With N student steps the times are t = i / N. From x_t the teacher steps to t - 1/(2N) and on to s = t - 1/N, where it
holds x_s. The clean image that one DDIM step of the student must believe in to arrive there as well is

    x* = (x_s - r x_t) / (alpha_s - r alpha_t),    r = sigma_s / sigma_t,

so the student's loss is w |D(x_t) - x*|^2. When a stage ends the student becomes the teacher and N is halved. At the
first stage both are the model that training starts from (`train.start`), so the teacher here is always a copy of the
student at the beginning of its stage; it is saved with the run.

Stages are equal shares of the budget in images, and a learning rate that falls to zero in each is
``rate=stages rate.count=HALVINGS``. (The published code also begins Adam's moments anew; they fade within a stage.)

References:
    Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. 2022, algorithm 2.
    https://arxiv.org/abs/2202.00512
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sfumato.core.bounds import Depth, Share, Steps
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Preconditioned, Target
from sfumato.core.level import Level, Schedule, like
from sfumato.objectives._noising import Loss, Noising, Weighting, squared_error

TRAINS = "denoiser"


def two_steps(teacher: Denoiser, x: Tensor, t: Level, middle: Level, s: Level, label: Label | None = None) -> Tensor:
    """Return the clean image that makes one DDIM step from t to s end where the teacher's two do, (B, C, H, W).

    Arguments:
        teacher: Steps from t to `middle` and from there to s.
        x: Images at level t, (B, C, H, W).
        t, middle, s: Levels of shape () or (B,), from noisy to clean.
        label: int64 (B,) or None.
    """
    at_middle = _ddim(x, teacher(x, t, label).x0, t, middle)
    at_s = _ddim(at_middle, teacher(at_middle, middle, label).x0, middle, s)
    ratio = s.sigma / t.sigma
    scale = s.alpha - ratio * t.alpha
    return like(1 / scale, x) * at_s - like(ratio / scale, x) * x


def _ddim(x: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    ratio = s.sigma / t.sigma
    return like(s.alpha - ratio * t.alpha, x) * x0 + like(ratio, x) * x


class Distill(nn.Module):
    """The loss of this file, which owns the teacher; make it with `distill`."""

    stage: Tensor

    def __init__(
        self,
        teacher: Preconditioned,
        schedule: Schedule,
        weighting: Weighting,
        noising: Noising,
        counts: list[int],
        images: int,
    ) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False)
        self.schedule, self.weighting, self.noising = schedule, weighting, noising
        self.counts, self.images = counts, images
        self.register_buffer("stage", torch.tensor(-1))

    def steps_at(self, position: int) -> tuple[int, int]:
        """Return (stage, student's steps N) of the batch that holds a position."""
        first = position // self.noising.batch * self.noising.batch  # a stage begins with a whole batch
        stage = min(len(self.counts) - 1, first * len(self.counts) // self.images)
        return stage, self.counts[stage]

    def forward(
        self,
        denoiser: Preconditioned,
        x0: Tensor,
        label: Tensor | None,
        positions: Tensor,
        augment: Tensor | None = None,
    ) -> Loss:
        stage, steps = self.steps_at(int(positions[0]))
        if stage > int(self.stage):
            self.teacher.network.load_state_dict(denoiser.network.state_dict())
            self.stage.fill_(stage)
        self.teacher.eval()
        time = ((self.noising.quantiles(positions) * steps).floor() + 1).clamp(max=steps) / steps
        t, middle, s = (self.schedule(time - share / steps) for share in (0.0, 0.5, 1.0))
        x, told = t.noisy(x0, self.noising.noise(x0, positions)), self.noising.label(label, positions)
        with torch.no_grad():
            goal = two_steps(self.teacher, x, t, middle, s, told)
            n = (x - like(t.alpha, x) * goal) / like(t.sigma, x)
        f, _ = denoiser.raw(x, t, told, augment)
        return Loss(squared_error(denoiser, f, goal, n, t, self.weighting, "mean"), t)


def distill(
    teacher: Preconditioned,
    schedule: Schedule,
    weighting: Callable[[Level, Target], Tensor],
    seed: int,
    batch: int,
    images: int,
    steps: Steps = 1024,
    halvings: Depth = 8,
    label_dropout: Share = 0.0,
    stratified: bool = True,
) -> Distill:
    """Make progressive distillation's loss: one student step for two of the teacher, halved stage by stage.

    Arguments:
        teacher: A model like the student; its weights are taken from the student when a stage begins.
        schedule: Time in [0, 1] -> level, the one that sampling walks evenly.
        weighting: (level, target) -> weight of |D - x*|^2; snr with plus=1 or floor=1 in the paper.
        seed: Seed of the run.
        batch: Global batch size.
        images: The run's budget, divided equally among the stages.
        steps: Steps N0 of the first teacher, a multiple of 2^halvings.
        halvings: Stages; the last student takes N0 / 2^halvings steps.
        label_dropout: Probability that an image is shown without its label.
        stratified: Spread the batch's times evenly.

    Returns:
        A module called with (denoiser, x0, label, positions, augment).

    Raises:
        ValueError: If the steps cannot be halved so often.
    """
    if halvings < 1 or steps < 2 or steps % 2**halvings:
        near = max(1, round(steps / 2**halvings)) * 2**halvings if halvings > 0 else steps
        raise ValueError(
            f"distill halves steps={steps} halvings={halvings} times, so steps is a multiple of 2^halvings "
            f"({2 ** max(halvings, 0)}) and halvings at least 1. The nearest is steps={near}."
        )
    counts = [steps // 2 ** (i + 1) for i in range(halvings)]
    noising = Noising(lambda u: schedule(u), seed, batch, label_dropout, stratified)
    return Distill(teacher, schedule, weighting, noising, counts, images)
