"""The U-Nets of iDDPM and ADM ("Diffusion Models Beat GANs"), and EDM's version of the latter.

iDDPM normalises adaptively, GN(h) * (1 + s) + b, adds a class embedding, has several heads and resamples by
convolutions. ADM resamples inside residual blocks (as BigGAN does), attends at 32, 16 and 8, and gives every head 64
channels. Twice the channels come out when the variance is learned. c_noise is the step 0..T-1 (in units of a
thousandth of the chain, if the training rescales it).

| network | width | mult | blocks | attention | heads | resampling | parameters (out_channels 6) |
|---|---|---|---|---|---|---|---|
| iDDPM, 32 | 128 | 1,2,2,2 | 3 | 16,8 | 4 | conv | 52,546,438 |
| iDDPM, 64 | 128 | 1,2,3,4 | 3 | 16,8 | 4 | conv | 121,063,942 |
| ADM, 64 | 192 | 1,2,3,4 | 3 | 32,16,8 | 64 channels each | block | 295,904,454 with 1000 classes |
| ADM, 128 | 256 | 1,1,2,3,4 | 2 | 32,16,8 | 4 | block | 421,529,606 with 1000 classes |
| ADM, 256 | 256 | 1,1,2,2,4,4 | 2 | 32,16,8 | 64 channels each | block | 553,838,086 with 1000 classes |

(A network here has one row more in its class table, for the null label.) An upsampler takes the low-resolution image,
enlarged, as three channels more.

References:
    "Improved Denoising Diffusion Probabilistic Models", Nichol and Dhariwal, 2021, https://arxiv.org/abs/2102.09672
    "Diffusion Models Beat GANs on Image Synthesis", Dhariwal and Nichol, 2021, https://arxiv.org/abs/2105.05233
    "Elucidating the Design Space of Diffusion-Based Generative Models", Karras et al., 2022,
        https://arxiv.org/abs/2206.00364, appendix F
"""

from __future__ import annotations

from sfumato.core.bounds import ByLevel, ByLevelOr0, Depth, Few, Fraction, Size, Whole

from ._blocks import Style
from ._embeddings import Sinusoid, geometric
from ._ladder import Embedder, LadderUNet, attended_levels, ladder, level_widths

RESAMPLING = ("block", "conv", "mean")


def check_resample(resample: str) -> None:
    """Refuse an unknown kind of resampling."""
    if resample not in RESAMPLING:
        raise ValueError(f"Unknown resampling {resample!r}. Available: {', '.join(RESAMPLING)}.")


def adm_style(
    adaptive: bool, rescale: bool, heads: ByLevel, head_width: ByLevelOr0, dropout: float, groups: int, group_width: int
) -> Style:
    """Return the blocks of ADM; the arguments are those of `adm`."""
    return Style(
        groups=groups,
        group_width=group_width,
        eps=1e-5,
        adaptive=adaptive,
        scale=0.5**0.5 if rescale else 1.0,
        dropout=dropout,
        heads=heads,
        head_width=head_width,
        law="torch",
    )


def adm(
    channels: int = 3,
    out_channels: int = 3,
    classes: int = 0,
    size: int = 64,
    width: Size = 192,
    mult: tuple[Few, ...] = (1, 2, 3, 4),
    blocks: Depth = 3,
    attention: tuple[Whole, ...] = (32, 16, 8),
    heads: ByLevel = 4,
    head_width: ByLevelOr0 = 64,
    bridge: bool = True,
    adaptive: bool = True,
    resample: str = "block",
    rescale: bool = False,
    dropout: Fraction = 0.0,
    groups: Size = 32,
    group_width: Size = 1,
    sin_first: bool = False,
    endpoint: bool = False,
    augments: int = 0,
    embedding: Size = 4,
    vector: int = 0,
    extra: int = 0,
) -> LadderUNet:
    """ADM's U-Net, iDDPM's with resample="conv"; c_noise is the step 0..T-1.

    Arguments:
        channels: Image channels in; twice as many for an upsampler.
        out_channels: Image channels out; twice as many for a learned variance.
        classes: Number of classes, 0 = unlabelled; the label is added to the embedding.
        size: Side of the training images, which places the attention.
        width: Channels in units of which `mult` counts, even.
        mult: Channels of each level in units of `width`, finest first; a first level of 1/2 is allowed.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention: Sides of the feature maps with attention.
        heads: Heads of attention where `head_width` is 0; or a number for each level, finest first. The middle has
            those of the coarsest.
        head_width: Channels per head, or a number for each level; 0 = count by `heads`.
        bridge: Whether the middle has attention.
        adaptive: Whether the embedding scales and shifts (AdaGN); otherwise it is added.
        resample: What resamples: block (residual blocks), conv (convolutions) or mean (no weights).
        rescale: Whether residual sums are multiplied by 1/sqrt(2).
        dropout: Probability inside the blocks.
        groups: Largest number of groups of the normalisation.
        group_width: Least number of channels in a group; EDM uses 4.
        sin_first: Whether the sines come first in the embedding, as in DDPM.
        endpoint: Whether the slowest frequency is exactly 1/10000, as in DDPM.
        augments: Number of augmentation labels that EDM's training passes; 0 = none.
        embedding: Length of the embedding in units of `width`; EDM's channel_mult_emb.
        vector: Numbers of a condition's vector; 0 for none.
        extra: Channels of a condition's image, which join the first layer; 0 for none.

    Returns:
        A network whose output is zero until it is trained.

    Raises:
        ValueError: For a size, attention side or heads that do not fit.
    """
    check_resample(resample)
    style = adm_style(adaptive, rescale, heads, head_width, dropout, groups, group_width)
    sinusoid = Sinusoid(geometric(width // 2, endpoint=endpoint), sin_first)
    embedder = Embedder(sinusoid, width, embedding * width, classes, augments, early=False, law=style.law)
    attended = attended_levels(attention, size, len(mult))
    widths = level_widths(width, mult)
    return ladder(
        embedder, style, channels, out_channels, widths, widths[0], blocks, attended, bridge, resample, vector=vector,
        extra=extra,
    )  # fmt: skip
