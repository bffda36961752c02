"""The hinge loss of a generator and its discriminator: D stops where an image is on its side by a margin of 1.

    D minimises  max(0, 1 - D(x0)) + max(0, 1 + D(G(z)))       G minimises  -D(G(z))

For densities p of the data and q of G the best D is +1 where p > q and -1 where q > p, its loss there
2 int min(p, q) = 2 (1 - total variation), and G's part of it falls with the total variation. Noise, R1 and the turns of
the two are those of `gan`.

References:
    Lim, Ye. Geometric GAN. 2017. https://arxiv.org/abs/1705.02894
    Miyato et al. Spectral Normalization for Generative Adversarial Networks. 2018, eqs. (16), (17).
    https://arxiv.org/abs/1802.05957
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from sfumato.core.bounds import Depth, Few, NotNegative
from sfumato.objectives.gan import Adversarial, Losses, adversarial

TRAINS = "generator"


def hinge(
    seed: int, noise: Few = 0.0, noise_until: float = 1.0, r1: NotNegative = 0.0, every: Depth = 1
) -> Adversarial:
    """Make the hinge losses of a generator and its discriminator.

    Arguments:
        seed: Seed of the run.
        noise, noise_until, r1, every: As for `gan`.

    Raises:
        ValueError: If noise is negative, noise_until is not in (0, 1], or every is 0.
    """
    losses = Losses(lambda l: functional.relu(1 - l), lambda l: functional.relu(1 + l), _up)  # noqa: E741
    return adversarial(seed, losses, noise, noise_until, r1, every)


def _up(logits: Tensor) -> Tensor:
    return -logits
