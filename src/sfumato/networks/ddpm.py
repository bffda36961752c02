"""The U-Net of "Denoising Diffusion Probabilistic Models".

Residual blocks to which the embedding is added, one head of attention at 16x16, resampling by convolutions of which the
halving one pads right and below only (so that its windows are those of TensorFlow). c_noise is the integer step 0..T-1.

| data | width | mult | parameters |
|---|---|---|---|
| CIFAR-10, 32 | 128 | 1,2,2,2 | 35,746,307 |
| CelebA, 64 (DDIM) | 128 | 1,2,2,2,4 | 78,700,803 |
| LSUN, CelebA-HQ, 256 | 128 | 1,1,2,2,4,4 | 113,673,219 |

References:
    "Denoising Diffusion Probabilistic Models", Ho et al., 2020, https://arxiv.org/abs/2006.11239, appendix B
    "Denoising Diffusion Implicit Models", Song et al., 2021, https://arxiv.org/abs/2010.02502, appendix D
"""

from __future__ import annotations

from sfumato.core.bounds import Depth, Fraction, Size, Whole

from ._blocks import Style
from ._embeddings import Sinusoid, geometric
from ._ladder import Embedder, LadderUNet, attended_levels, ladder, level_widths


def ddpm(
    channels: int = 3,
    out_channels: int = 3,
    classes: int = 0,
    size: int = 32,
    width: Size = 128,
    mult: tuple[Size, ...] = (1, 2, 2, 2),
    blocks: Depth = 2,
    attention: tuple[Whole, ...] = (16,),
    dropout: Fraction = 0.1,
    groups: Size = 32,
    resample: str = "corner",
    vector: int = 0,
    extra: int = 0,
) -> LadderUNet:
    """Ho's U-Net; c_noise is the step 0..T-1.

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out; twice as many for a learned variance.
        classes: Number of classes, 0 = unlabelled; the label is added to the embedding.
        size: Side of the training images, which places the attention.
        width: Channels of the finest level, even.
        mult: Channels of each level in units of `width`, finest first.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention: Sides of the feature maps with attention.
        dropout: Probability inside the blocks.
        groups: Groups of the normalisation.
        resample: What resamples: corner (convolutions) or mean (no weights; resamp_with_conv=False of the original).
        vector: Numbers of a condition's vector; 0 for none.
        extra: Channels of a condition's image, which join the first layer; 0 for none.

    Returns:
        A network whose output is zero until it is trained.

    Raises:
        ValueError: For a size or an attention side that the levels do not have.
    """
    if resample not in ("corner", "mean"):
        raise ValueError(f"Unknown resample {resample!r}. Available: corner, mean.")
    style = Style(groups=groups, eps=1e-6, adaptive=False, dropout=dropout, law="xavier")
    sinusoid = Sinusoid(geometric(width // 2, endpoint=True), sin_first=True)
    embedder = Embedder(sinusoid, width, 4 * width, classes, augments=0, early=False, law=style.law)
    attended = attended_levels(attention, size, len(mult))
    widths = level_widths(width, mult)
    return ladder(
        embedder, style, channels, out_channels, widths, width, blocks, attended, True, resample, vector=vector,
        extra=extra,
    )  # fmt: skip
