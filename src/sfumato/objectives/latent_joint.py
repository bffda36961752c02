"""The joint objective of an autoencoder and the diffusion prior of its latents (LSGM).

    L(x)  =  -ln p(x | z)  +  w [ CE(z; D)  -  H(q(z | x)) ]   +   denoising loss of D at sg(z)
             reconstruction       what the latent costs              how the prior learns

CE is the bound of the denoiser D on -ln p(z) (`latent.bound`), with the weights that make it a likelihood. Its gradient
reaches the encoder through z, and the prior's own weights are held fixed in it; they learn from the last term, whose
draw and weighting are any recipe's, at a latent through which no gradient passes. In nats per number of x; the
denoising loss is a mean over the latent's numbers, with a scale of its own, since it moves other weights than the rest.

With D the denoiser of N(0, I), CE is |z|^2 / 2 + d/2 ln 2 pi and the first two terms are the plain VAE's. Both calls of
the prior have a level and a noise of their own, addressed by the sample's position.

Is it stable? CE bounds -ln p(z) for every D, trained or not, so an encoder gains nothing by finding latents that D
does not know: it can only lower a true bound. What is left is noise, and the correction to N(0, I) is computed with the
same noise as the standard normal's own error, so it starts without any. Warm-up and a clipped gradient do the rest.

References:
    Vahdat, Kreis, Kautz. Score-based Generative Modeling in Latent Space. 2021, equations (7)-(9), algorithm 2.
    https://arxiv.org/abs/2106.05931
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sfumato.core import noise
from sfumato.core.bounds import NotNegative, Nsr, Share, Whole
from sfumato.core.denoiser import Preconditioned, Target
from sfumato.core.level import Level
from sfumato.latent.autoencoder import Autoencoder
from sfumato.latent.bound import cross_entropy
from sfumato.objectives._latent import held, posterior_noise, weight_of
from sfumato.objectives._noising import Loss, Noising, squared_error

TRAINS = "joint"


def latent_joint(
    draw: Callable[[Tensor], Level],
    weighting: Callable[[Level, Target], Tensor],
    seed: int,
    batch: int,
    label_dropout: Share = 0.1,
    stratified: bool = True,
    kl: NotNegative = 1.0,
    warmup: Whole = 0,
    near: Nsr = 0.01,
    far: Nsr = 100.0,
) -> Callable[..., Loss]:
    """Make LSGM's loss: reconstruction, minus the entropy of q, plus the cross entropy, and what the prior learns by.

    Arguments:
        draw: Quantile function of the levels at which the prior learns: u (B,) in (0, 1) -> Level (B,).
        weighting: (level, target) -> weight of |D - z|^2 there, shape (B,).
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        label_dropout: Probability that the prior learns from a latent without its label.
        stratified: Spread the batch's levels evenly, those of both terms.
        kl: Weight of what the latent costs; 1 for the evidence lower bound.
        warmup: Training images over which that weight rises linearly from 0; 0 for none.
        near, far: sigma / alpha between which the cross entropy is integrated.

    Returns:
        A function of the model, x0 (B, C, H, W), label int64 (B,) or None, positions int64 (B,) and augmentation labels
        (not used), giving a `Loss` with the parts "reconstruction", "entropy", "cross_entropy" and "prior".

    Raises:
        ValueError: If `near` is not below `far`.
    """
    if not near < far:
        raise ValueError(f"The cross entropy is integrated from sigma/alpha = near to far; got {near:g}, {far:g}.")
    learning = Noising(draw, seed, batch, label_dropout, stratified)

    def loss(
        model: Preconditioned, x0: Tensor, label: Tensor | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        coder = Autoencoder(model.network.get_submodule("coder"), autocast=model.autocast)
        posterior, numbers = coder.encode(x0), x0[0].numel()
        z = posterior.sample(posterior_noise(posterior.mean, positions, seed))
        rebuilt, entropy = coder.reconstruction(x0, z) / numbers, posterior.entropy() / numbers
        u = noise.uniform(positions, seed=seed, purpose="prior-level").cpu()
        u = ((positions.cpu() % batch) + u) / batch if stratified else u
        n = noise.normal(positions, z.shape[1:], seed=seed, purpose="prior-noise", device=z.device, dtype=z.dtype)
        with held(model.network.get_submodule("prior")):
            cross = cross_entropy(model, z, n, u, near=near, far=far, label=label)[0] / numbers
        known = z.detach()
        level, eps = learning.levels(positions), learning.noise(known, positions)
        f, _ = model.raw(level.noisy(known, eps), level, learning.label(label, positions))
        learned = squared_error(model, f, known, eps, level, weighting, "mean")
        each = rebuilt + weight_of(kl, warmup, positions, x0) * (cross - entropy) + learned
        parts = {"reconstruction": rebuilt, "entropy": entropy, "cross_entropy": cross, "prior": learned}
        return Loss(each, level, {name: value.detach() for name, value in parts.items()})

    return loss
