"""Inpainting: some pixels are hidden. A picks the others, so A A^T = I and A+ = A^T.

References:
    Lugmayr et al. RePaint: Inpainting using Denoising Diffusion Probabilistic Models. 2022.
    https://arxiv.org/abs/2201.09865
"""

from __future__ import annotations

from sfumato.core.task import Task, image_shape
from sfumato.tasks._masks import Mask, hidden, masked


def inpaint(shape: tuple[int, ...], mask: Mask = "half", seed: int = 0, noise: float = 0.0) -> Task:
    """Fill in the pixels that a mask hides.

    Arguments:
        shape: Shape of a picture, (C, H, W).
        mask: "half", "random 30%", a box top,left,height,width, or a mask of the image's size (white is hidden).
        seed: Seed of the choice of random pixels.
        noise: Standard deviation added to the seen pixels.

    Raises:
        TaskError: If the mask does not fit.
    """
    size = image_shape("inpaint", shape)
    hide = hidden(mask, *size[1:], seed)
    share = int(100 * float(hide.double().mean()) + 0.5)  # a half goes up, as on the page
    return masked("inpaint", f"inpaint, {share}% hidden", size, hide, noise)
