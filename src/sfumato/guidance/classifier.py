"""Classifier guidance: follow the gradient of a classifier that was trained on noisy images.

By Bayes' rule grad ln p(x_t | y) = grad ln p(x_t) + grad ln p(y | x_t), and the denoiser is the score in other words,
D = (x + sigma^2 score) / alpha. So guidance of strength s is

    D(x; y) = D(x) + s (sigma^2 / alpha) grad ln p(y | x)

with the gradient taken at x = x_t: ADM's algorithm 2, for any sampler, and on top of a conditional model too. For
ancestral sampling, algorithm 1 instead shifts each step's mean by its variance times s grad ln p: give
``shift=gradient(logits, s)`` to `samplers.ancestral`. At s = 0 nothing is computed. At alpha = 0, where flow matching
starts, x holds nothing of the image: p(y | x) is the prior, its gradient 0, and nothing is added.

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, algorithms 1 and 2.
    https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sfumato.core.condition import Label, part_of
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like

Logits = Callable[[Tensor, Level], Tensor]  # (x, level) -> unnormalised log-probabilities, (B, K)


def classifier(denoiser: Denoiser, logits: Logits, scale: float = 1.0) -> Denoiser:
    """Guide a denoiser by a noisy-image classifier (ADM, algorithm 2).

    Arguments:
        denoiser: Conditional or not; it receives the label as well.
        logits: (x, level) -> (B, K), differentiable in x.
        scale: Strength s; 0 is none, 1 is Bayes' rule.

    Returns:
        A denoiser; it must be called with labels in [0, K).
    """
    slope = gradient(logits, scale)

    def guided(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        prediction = denoiser(x, level, label)
        seen = level.alpha > 0
        if scale == 0 or not bool(seen.any()):
            return prediction
        per_alpha = torch.where(seen, level.sigma**2 / torch.where(seen, level.alpha, 1.0), 0.0)
        towards = like(per_alpha, x) * slope(x, level, label)
        return replace(prediction, x0=prediction.x0 + towards)

    return guided


def gradient(logits: Logits, scale: float = 1.0) -> Callable[[Tensor, Level, Label | None], Tensor]:
    """Return the function (x, level, label) -> scale * grad_x ln p(label | x), the shift of ADM's algorithm 1.

    Arguments:
        logits: (x, level) -> (B, K), differentiable in x.
        scale: Strength s of the shift; 0 is none.

    Raises:
        ValueError: When called without labels, or with one outside [0, K).
    """

    def slope(x: Tensor, level: Level, label: Label | None) -> Tensor:
        asked = part_of(label, "label")
        if asked is None:
            raise ValueError("Classifier guidance needs labels to guide towards; this call has none.")
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            out = logits(at, level)
            if int(asked.min()) < 0 or int(asked.max()) >= out.shape[1]:
                raise ValueError(
                    f"This classifier knows the labels 0 to {out.shape[1] - 1}; got {int(asked.min())} to "
                    f"{int(asked.max())}. A classifier must be trained on the model's own classes."
                )
            chosen = out.log_softmax(1).gather(1, asked.unsqueeze(1))
            (grad,) = torch.autograd.grad(chosen.sum(), at)
        return scale * grad

    return slope


SHIFT = gradient  # what a sampler that can shift its steps takes in place of `classifier`: algorithm 1
