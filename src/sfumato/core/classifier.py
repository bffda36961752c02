"""A classifier of noisy images: log p(y | x) at every level.

It meets the rest of the project as a denoiser does, through (x, level), so the level conditioning of a network is
chosen from the same parts and a classifier guides any denoiser that visits levels it knows. What comes out are logits,

    ln p(y | x; level) = log_softmax(network(c_in x, c_noise))_y,

whose gradient in x is the term that Bayes' rule adds to the score: grad ln p(x | y) = grad ln p(x) + grad ln p(y | x).

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, section 4. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sfumato.core.denoiser import ask
from sfumato.core.level import Level


class NoisyClassifier(nn.Module):
    """Make logits (x, level) -> (B, K) of a network (x, c_noise) -> (B, K).

    Arguments:
        network: Module (x, c_noise) -> unnormalised log-probabilities, (B, classes).
        c_noise: level -> the number that tells the network its noise level.
        c_in: level -> scale of the network's input; None for 1.
        table: The levels a discrete network knows, (1, 0) first; None if it is continuous.
        autocast: dtype in which the network computes; None for the input's own.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        c_noise: Callable[[Level], Tensor],
        c_in: Callable[[Level], Tensor] | None = None,
        table: Level | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.c_noise, self.c_in, self.table, self.autocast = c_noise, c_in, table, autocast

    def forward(self, x: Tensor, level: Level) -> Tensor:
        """Return logits (B, K), in x's dtype.

        Arguments:
            x: Noisy images, shape (B, C, H, W).
            level: Shape () or (B,).
        """
        return ask(
            self.network, x, level, c_noise=self.c_noise, c_in=self.c_in, table=self.table, autocast=self.autocast
        )
