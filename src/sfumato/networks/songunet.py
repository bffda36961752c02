"""The U-Nets of "Score-Based Generative Modeling through SDEs", DDPM++ and NCSN++, as EDM trains them.

Both divide residual sums by sqrt(2), resample inside residual blocks (whose shortcuts are then always projected), add
the embedding, and attend at 16x16, once per level on the way up. They differ by

    DDPM++   sinusoids of c_noise, 2x2 mean and nearest resampling
    NCSN++   random Fourier features of c_noise (scale 16), smooth resampling (1, 3, 3, 1), and the image itself on a
             second path down; for images of 256 and more shorter paths, `image_skip` down and `image_out` up

c_noise is ln(sigma)/4 in EDM, ln(sigma) or 999 t in the original. EDM passes nine augmentation labels.

| data (EDM) | mult | blocks | parameters DDPM++ | NCSN++ |
|---|---|---|---|---|
| CIFAR-10, 32, unconditional | 2,2,2 | 4 | 55,733,891 | 56,397,827 |
| CIFAR-10, 32, 10 classes | 2,2,2 | 4 | 55,735,299 | 56,400,643 |
| FFHQ, AFHQ, 64 | 1,2,2,2 | 4 | 61,805,571 | 62,761,091 |

References:
    "Score-Based Generative Modeling through SDEs", Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix H
    "Elucidating the Design Space of Diffusion-Based Generative Models", Karras et al., 2022,
        https://arxiv.org/abs/2206.00364, appendix F
"""

from __future__ import annotations

import math

import torch

from sfumato.core.bounds import Depth, Few, Fraction, Size, Whole

from ._blocks import Style
from ._embeddings import Sinusoid, geometric
from ._ladder import Embedder, LadderUNet, attended_levels, ladder, level_widths

ZERO = 1e-5  # gain of the layers that almost start at zero


def songunet(
    channels: int = 3,
    out_channels: int = 3,
    classes: int = 0,
    size: int = 32,
    width: Size = 128,
    mult: tuple[Size, ...] = (2, 2, 2),
    blocks: Depth = 4,
    attention: tuple[Whole, ...] = (16,),
    fourier: bool = False,
    fourier_scale: Few = 16.0,
    taps: tuple[Depth, ...] = (1, 1),
    image_path: bool = False,
    image_skip: bool = False,
    image_out: bool = False,
    adaptive: bool = False,
    rescale: bool = True,
    dropout: Fraction = 0.0,
    augments: int = 0,
    vector: int = 0,
    extra: int = 0,
) -> LadderUNet:
    """DDPM++, and NCSN++ with fourier=True, taps=(1, 3, 3, 1), image_path=True; c_noise of any scale.

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out.
        classes: Number of classes, 0 = unlabelled; the label is added to the features of the noise level.
        size: Side of the training images, which places the attention.
        width: Channels in units of which `mult` counts, even.
        mult: Channels of each level in units of `width`, finest first.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention: Sides of the feature maps with attention: after every block down, after the last block up.
        fourier: Whether 2 * width random Fourier features embed c_noise; otherwise `width` sinusoids.
        fourier_scale: Standard deviation of the random frequencies, in cycles per unit of c_noise.
        taps: Resampling filter, an even number of taps.
        image_path: Whether the image joins at every level on the way down, convolved and halved on a path of its own.
        image_skip: Whether the halved image joins there through a 1x1 convolution instead (input_skip).
        image_out: Whether every level on the way up makes an image, doubled and added (output_skip).
        adaptive: Whether the embedding scales and shifts; otherwise it is added, as published.
        rescale: Whether residual sums are multiplied by 1/sqrt(2).
        dropout: Probability inside the blocks.
        augments: Number of augmentation labels; 0 = none.
        vector: Numbers of a condition's vector; 0 for none.
        extra: Channels of a condition's image, which join the first layer; 0 for none.

    Returns:
        A network whose output is almost zero (gain 1e-5) until it is trained.

    Raises:
        ValueError: For a size or an attention side that the levels do not have, or for two image paths down.
    """
    if image_path and image_skip:
        raise ValueError("The image has one path down: image_path or image_skip, not both.")
    path = "residual" if image_path else "skip" if image_skip else ""
    style = Style(
        group_width=4, eps=1e-6, adaptive=adaptive, scale=0.5**0.5 if rescale else 1.0, dropout=dropout, heads=1,
        law="xavier", zero=ZERO, attention_gain=0.2**0.5, taps=taps, project=True,
    )  # fmt: skip
    if fourier:
        sinusoid = Sinusoid(2 * math.pi * fourier_scale * torch.randn(width), sin_first=True, stored=True)
    else:
        sinusoid = Sinusoid(geometric(width // 2, endpoint=True), sin_first=True)
    features = width * (2 if fourier else 1)
    embedder = Embedder(sinusoid, features, 4 * width, classes, augments, early=True, law=style.law)
    attended = attended_levels(attention, size, len(mult))
    return ladder(
        embedder, style, channels, out_channels, level_widths(width, mult), width, blocks, attended, True, "block",
        last_only=True, image_path=path, images_out=image_out, vector=vector, extra=extra,
    )  # fmt: skip
