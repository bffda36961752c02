"""The adversarial objective: a generator against a discriminator that learns to tell its images from real ones.

    D minimises  CE(real, D(x0 + n)) + CE(fake, D(G(z) + n'))       G minimises  CE(real, D(G(z) + n'))

CE(t, l) = -t ln s(l) - (1 - t) ln(1 - s(l)) with the logistic s. With real = 1 and fake = 0 this is the GAN with the
non-saturating loss of G; where D cannot tell, both logits are 0 and D's loss is 2 ln 2 = 1.386. Neither loss measures
the images: they say which side is winning.

Two ways to weaken a D that wins too early, since then G learns nothing from it:

    smoothing   real = 0.9 (one-sided), and fake = 0.1 as well (two-sided). The best D for densities p of the data and
                q of G is s(l) = (real p + fake q) / (p + q), so a confident D is drawn back.
    noise       x + n, n ~ N(0, std^2), on whatever D sees, real or made, once each; std falls linearly to 0 at a share
                of the budget. Distributions of low dimension then overlap, and D cannot be perfect.

A third keeps D flat around the data, where a steep one would throw G about:

    R1          (r1 / 2) |grad_x D(x)|^2 of every real image x as D sees it, added to D's loss

The target of G is `real`, as in the code that smoothing is known from. G may learn from every k-th batch only
(`every`), so that D leads. D sees real and made images in passes of their own, so that BatchNorm never mixes them. All
random numbers are addressed by the sample's position.

References:
    Goodfellow et al. Generative Adversarial Nets. 2014. https://arxiv.org/abs/1406.2661
    Radford, Metz, Chintala. Unsupervised Representation Learning with DCGAN. 2016. https://arxiv.org/abs/1511.06434
    Salimans et al. Improved Techniques for Training GANs. 2016, section 3.4 (smoothing).
    https://arxiv.org/abs/1606.03498
    Arjovsky, Bottou. Towards Principled Methods for Training Generative Adversarial Networks. 2017, section 3 (noise).
    https://arxiv.org/abs/1701.04862
    Mescheder, Geiger, Nowozin. Which Training Methods for GANs do actually Converge? 2018, eq. (9) (R1).
    https://arxiv.org/abs/1801.04406
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.core import noise as addressed
from sfumato.core.bounds import Depth, Few, NotNegative

TRAINS = "generator"


class Pair(Protocol):
    """A network to train, whose discriminator(images, label) gives logits (B,), positive for real images."""

    def discriminator(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits (B,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """One side's loss for a batch.

    Attributes:
        each: One loss per image (B,), differentiable.
        parts: Further numbers per image (B,) to log.
    """

    each: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Losses:
    """What logits (B,) cost, one number each.

    Attributes:
        real: D's loss on real images.
        fake: D's loss on made ones.
        generator: G's loss on what it made.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Adversarial:
    """The two losses of a pair; see `gan` for what is not said here.

    Attributes:
        seed: Seed of the run.
        losses: What logits cost.
        noise, noise_until: Noise on what D sees.
        r1: Weight of the squared gradient.
        every: Batches of D for each of G.
    """

    seed: int
    losses: Losses
    noise: float = 0.0
    noise_until: float = 1.0
    r1: float = 0.0
    every: int = 1

    def discriminator(
        self, pair: Pair, x0: Tensor, made: Tensor, label: Tensor | None, positions: Tensor, spent: float
    ) -> Half:
        """Return D's loss.

        Arguments:
            pair: Network whose `discriminator` is D.
            x0: Real images (B, C, H, W).
            made: Images of G, detached from it, as many and of the same labels.
            label: int64 (B,) or None.
            positions: int64 (B,), addresses of the noise.
            spent: Share of the training budget, in [0, 1].

        Returns:
            The loss, with D's belief that real ("real") and made ("fake") images are real, both in (0, 1).
        """
        shown = self.shown(x0, positions, "real", spent)
        if self.r1:
            shown = shown.detach().requires_grad_()
        real = pair.discriminator(shown, label)
        fake = pair.discriminator(self.shown(made, positions, "made", spent), label)
        each = self.losses.real(real) + self.losses.fake(fake)
        if self.r1:
            (slope,) = torch.autograd.grad(real.sum(), shown, create_graph=True)
            each = each + self.r1 / 2 * slope.square().flatten(1).sum(dim=1)
        return Half(each, {"real": real.detach().sigmoid(), "fake": fake.detach().sigmoid()})

    def generator(self, pair: Pair, made: Tensor, label: Tensor | None, positions: Tensor, spent: float) -> Half:
        """Return G's loss. Arguments as for `discriminator`, with `made` attached to G."""
        return Half(self.losses.generator(pair.discriminator(self.shown(made, positions, "made", spent), label)))

    def std(self, spent: float) -> float:
        """Return the standard deviation of the noise when a share of the budget is spent."""
        return self.noise * max(0.0, 1 - spent / self.noise_until)

    def shown(self, images: Tensor, positions: Tensor, what: str, spent: float) -> Tensor:
        """Return images as D sees them: with noise once, while there is any.

        Arguments:
            images: Real or made images, (B, C, H, W).
            positions: Addresses of the noise, int64 (B,).
            what: "real" or "made"; the two have noise of their own.
            spent: Share of the training budget used so far, in [0, 1].
        """
        std = self.std(spent)
        if std == 0:
            return images
        purpose = f"discriminator-{what}"
        n = addressed.normal(
            positions, images.shape[1:], seed=self.seed, purpose=purpose, device=images.device, dtype=images.dtype
        )
        return images + std * n


def gan(
    seed: int,
    real: float = 1.0,
    fake: float = 0.0,
    noise: Few = 0.0,
    noise_until: float = 1.0,
    r1: NotNegative = 0.0,
    every: Depth = 1,
) -> Adversarial:
    """Make the losses of a generator and its discriminator, with label smoothing and annealed noise if asked.

    Arguments:
        seed: Seed of the run.
        real: D's target for real images and G's for its own: 1, or 0.9 with smoothing.
        fake: D's target for made images: 0, or 0.1 with two-sided smoothing.
        noise: Standard deviation of the noise that D sees at the start, in units of [-1, 1]; 0 for none.
        noise_until: Share of the budget at which it has fallen to 0.
        r1: Weight of the squared gradient of D's logit at real images; 0 for none. Of one image, so D has no BatchNorm.
        every: Batches that D learns from for each that G does.

    Raises:
        ValueError: If the targets are not 0 <= fake < real <= 1, noise is negative, noise_until is not in (0, 1], or
            every is 0.
    """
    if not 0 <= fake < real <= 1:
        raise ValueError(f"Targets are shares with 0 <= fake < real <= 1; got fake={fake:g}, real={real:g}.")
    losses = Losses(*(partial(_cross_entropy, target=target) for target in (real, fake, real)))
    return adversarial(seed, losses, noise, noise_until, r1, every)


def adversarial(seed: int, losses: Losses, noise: float, noise_until: float, r1: float, every: int) -> Adversarial:
    """Return the losses of a pair once their numbers are checked; see `gan`."""
    if noise < 0 or not 0 < noise_until <= 1:
        raise ValueError(
            f"noise is a standard deviation >= 0 and noise_until a share in (0, 1]; got {noise:g}, {noise_until:g}."
        )
    if every < 1:
        raise ValueError(f"every counts D's batches for each of G's, at least 1; got {every}.")
    return Adversarial(seed, losses, noise, noise_until, r1, every)


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")
