"""Diffusion in the latents of an autoencoder: trained in two stages, or together (LSGM).

In two stages an autoencoder is trained first, and any recipe is then trained on what it makes of the images, by
data.latent=RUN; the run is known again by a hash of its weights. Trained together, autoencoder and prior are one run.

References:
    Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. 2022. https://arxiv.org/abs/2112.10752
    Vahdat, Kreis, Kautz. Score-based Generative Modeling in Latent Space. 2021. https://arxiv.org/abs/2106.05931
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes.digits import edm_digits
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.runs.recipe import Data, Ema, Evaluate, Latent, Part, Recipe, Sample, Shape, Train, part

SMALL = {"factor": 2, "latents": 2, "mult": (1,)}  # an 8x8 digit becomes 4x4 places of two numbers
LARGE = {"factor": 4, "latents": 4, "width": 64, "mult": (1, 2)}  # 28x28 become 7x7 of four


def autoencoder_digits() -> Recipe:
    """Variational autoencoder of the UCI digits (8x8): 64 pixels to 32 latents, the first stage of latent-edm-digits.

    Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (network, budget and the
    learned scale of the decoder are ours; no adversarial and no perceptual loss).
    Command: sfumato train autoencoder-digits; sfumato evaluate runs/autoencoder-digits
    Cost: 40,000 images.
    """
    recipe = edm_digits()
    return _coder(recipe, "autoencoder-digits", part("network", "autoencoder", **SMALL))


def latent_edm_digits() -> Recipe:
    """EDM on the latents of autoencoder-digits, class-conditional.

    Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (with EDM for DDPM;
    network and budget are ours).
    Command: sfumato train autoencoder-digits; sfumato train latent-edm-digits
    Cost: 40,000 images, and those of the autoencoder.
    """
    recipe = edm_digits()
    return replace(
        recipe,
        name="latent-edm-digits",
        data=replace(recipe.data, latent="runs/autoencoder-digits"),
        latent=Latent(2, 2),
    )


def lsgm_digits() -> Recipe:
    """Autoencoder and diffusion prior of its latents trained together on the UCI digits (8x8), class-conditional.

    Paper: Vahdat et al., Score-based Generative Modeling in Latent Space, 2021 (networks and budget are ours; the prior
    is EDM with sigma_data = 1, which starts as the standard normal's denoiser).
    Command: sfumato train lsgm-digits; bits per pixel: sfumato likelihood runs/lsgm-digits
    Cost: 40,000 images.
    """
    recipe = edm_digits()
    network = part("network", "lsgm", **SMALL, prior=32, prior_mult=(1, 2))
    return _joint(recipe, "lsgm-digits", network, warmup=8000)


def autoencoder_fashion_mnist_cpu() -> Recipe:
    """Variational autoencoder of Fashion-MNIST (28x28): 784 pixels to 196 latents, for two CPU cores.

    Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (network, budget and the
    learned scale of the decoder are ours; no adversarial and no perceptual loss).
    Command: sfumato train autoencoder-fashion-mnist-cpu
    Cost: 200,000 images.
    """
    recipe = edm_fashion_mnist_cpu()
    return _coder(recipe, "autoencoder-fashion-mnist-cpu", part("network", "autoencoder", **LARGE))


def latent_edm_fashion_mnist_cpu() -> Recipe:
    """EDM on the latents of autoencoder-fashion-mnist-cpu, class-conditional, for two CPU cores.

    Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (with EDM for DDPM;
    network and budget are ours).
    Command: sfumato train autoencoder-fashion-mnist-cpu; sfumato train latent-edm-fashion-mnist-cpu
    Cost: 200,000 images, and those of the autoencoder.
    """
    recipe = edm_fashion_mnist_cpu()
    return replace(
        recipe,
        name="latent-edm-fashion-mnist-cpu",
        data=replace(recipe.data, latent="runs/autoencoder-fashion-mnist-cpu"),
        network=part("network", "unet", width=96, mult=(1,), blocks=3, attention=(0,), head_width=48, patch=1),
        latent=Latent(4, 4),
    )


def lsgm_fashion_mnist_cpu() -> Recipe:
    """Autoencoder and diffusion prior trained together on Fashion-MNIST (28x28), class-conditional, for two CPU cores.

    Paper: Vahdat et al., Score-based Generative Modeling in Latent Space, 2021 (networks and budget are ours; the prior
    is EDM with sigma_data = 1, which starts as the standard normal's denoiser).
    Command: sfumato train lsgm-fashion-mnist-cpu; bits per pixel: sfumato likelihood runs/lsgm-fashion-mnist-cpu
    Cost: 200,000 images.
    """
    recipe = edm_fashion_mnist_cpu()
    options = {"prior": 96, "prior_mult": (1,), "prior_blocks": 3, "attention": (0,), "head_width": 48}
    return _joint(recipe, "lsgm-fashion-mnist-cpu", part("network", "lsgm", **LARGE, **options), warmup=20_000)


def latent_dit_xl2_imagenet256() -> Recipe:
    """DiT-XL/2 on latents of ImageNet at 256x256: 32x32 places of four numbers.

    Paper: Peebles and Xie, Scalable Diffusion Models with Transformers, 2023, table 4: 7 million steps of 256 images
    (with EDM's design in place of iDDPM's, and an autoencoder of one's own in place of Stable Diffusion's).
    Command: sfumato train latent-dit-xl2-imagenet256 data.name=folder:PATH data.latent=RUN
    Hardware and time: 1.3 ZFLOP for 1,792 million images.
    Expected: FID 2.27 with guidance 1.5 (n = 50,000, 250 steps), of iDDPM's design.
    """
    recipe = edm_fashion_mnist_cpu()
    return replace(
        recipe,
        name="latent-dit-xl2-imagenet256",
        data=Data("folder:imagenet", size=256, test=0.0, flip=True, latent="runs/autoencoder-imagenet256"),
        network=part("network", "dit", patch=2, width=1152, depth=28, heads=16),
        train=Train(images=7_000_000 * 256, batch=256, optimizer=part("optimizer", "adamw", lr=1e-4), precision="bf16"),
        ema=Ema(power=(), half_life=(1.77,), warmup=0.0, use="half-1.77"),
        sample=Sample(part("sampler", "heun"), part("grid", "karras", steps=32), guidance=1.5),
        evaluate=Evaluate("inception", 50_000),
        shape=Shape(3, 256, 256, tuple(map(str, range(1000)))),
        latent=Latent(4, 8),
    )


def _coder(recipe: Recipe, name: str, network: Part) -> Recipe:
    """Return the recipe of an autoencoder with the data, budget and averages of a denoiser's."""
    return replace(
        recipe,
        name=name,
        data=replace(recipe.data, labels=False),
        network=network,
        objective=part("objective", "autoencoder"),
        train=replace(recipe.train, precision="fp32"),
    )


def _joint(recipe: Recipe, name: str, network: Part, warmup: int) -> Recipe:
    """Return the recipe of a joint model with the data, budget and sampling of a denoiser's."""
    return replace(
        recipe,
        name=name,
        network=network,
        objective=part("objective", "latent-joint", warmup=warmup),
        sigma_data=1.0,
        train=replace(recipe.train, precision="fp32", clip=1.0),
    )
