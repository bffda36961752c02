"""Non-leaky augmentation: change the training image, and tell the network how, so that samples are not changed.

The network receives nine numbers that say what was done to its image. Sampling passes nine zeros, "nothing was done",
so the changes do not leak into what it makes. Eight parameters are drawn for each image, each change with its own
chance; with a ~ N(0, 1) and angles uniform on the circle:

    x-flip        mirror left-right, a fair coin, always drawn         label 0
    y-flip        mirror top-bottom, a fair coin                       label 1
    scale         by 2^(0.2 a)                                         label a
    rotation      by an angle theta                                    labels cos theta - 1, sin theta
    anisotropy    stretch by 2^(0.2 a) along phi, shrink across it     labels a cos phi, a sin phi
    translation   by (a1 W, a2 H) / 8                                  labels a1, a2

All but the first happen with probability p each. The numbers are addressed by (seed, position), like everything a
`Loader` does. Flips move pixels and nothing else; the rest is one affine map (scale, then rotation, anisotropy and
translation) and one bicubic resampling with mirrored borders, and only for images that have any of it: an image with
nine zeros leaves bit for bit as it came.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila, Laine, 2022),
    https://arxiv.org/abs/2206.00364, appendix F.2 and table 6. There images are resampled through a wavelet filter
    at twice the resolution; here by a bicubic kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.core.noise import normal, uniform

LABELS = 9
SCALE, STRETCH, SHIFT = 2**0.2, 2**0.2, 1 / 8  # per unit of a
X_FLIP, Y_FLIP, SIZE, THETA, PHI, ANISOTROPY, RIGHT, DOWN = range(8)  # columns of the parameters


def edm_augment(images: Tensor, positions: Tensor, *, seed: int, p: float = 0.12) -> tuple[Tensor, Tensor]:
    """Augment a training batch and say how.

    Arguments:
        images: float (B, C, H, W).
        positions: int64 (B,), the global sample positions that address the randomness.
        seed: Seed of the run.
        p: Chance of each change but the x-flip, in [0, 1].

    Returns:
        The changed images, and the labels float32 (B, 9) for the network.

    Raises:
        ValueError: If `p` is out of range.
    """
    parameters = draw(positions.cpu(), seed=seed, p=p)
    labels = labels_of(parameters).to(images.device, torch.float32)
    return apply(images, parameters), labels


def draw(positions: Tensor, *, seed: int, p: float) -> Tensor:
    """Draw the eight parameters of each image; zero means unchanged.

    Arguments:
        positions: int64 (B,), on the CPU.
        seed: Seed of the run.
        p: Chance of each change but the x-flip, in [0, 1].

    Returns:
        float64 (B, 8): x-flip, y-flip (0 or 1), scale a, theta, phi (radians), anisotropy a, shift right and down a.

    Raises:
        ValueError: If `p` is out of range.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is a probability in [0, 1]; got {p}.")
    u = uniform(positions, (9,), seed=seed, purpose="augment")
    a = normal(positions, (4,), seed=seed, purpose="augment size", dtype=torch.float64)
    happens = u[:, 4:9] < p  # y-flip, scale, rotation, anisotropy, translation
    coins = (u[:, :2] < 0.5).double()
    angles = (2 * u[:, 2:4] - 1) * math.pi
    values = torch.stack((*coins.T, a[:, 0], *angles.T, a[:, 1], a[:, 2], a[:, 3]), dim=1)
    always = torch.ones_like(happens[:, :1])
    return values * torch.cat((always, happens[:, [0, 1, 2, 3, 3, 4, 4]]), dim=1)


def labels_of(parameters: Tensor) -> Tensor:
    """Write parameters (B, 8) as the labels (B, 9) that the network sees; no change gives zeros."""
    theta, phi, stretch = (parameters[:, k] for k in (THETA, PHI, ANISOTROPY))
    return torch.stack(
        (
            parameters[:, X_FLIP],
            parameters[:, Y_FLIP],
            parameters[:, SIZE],
            theta.cos() - 1,
            theta.sin(),
            stretch * phi.cos(),
            stretch * phi.sin(),
            parameters[:, RIGHT],
            parameters[:, DOWN],
        ),
        dim=1,
    )


def apply(images: Tensor, parameters: Tensor) -> Tensor:
    """Change images as parameters say.

    Arguments:
        images: float (B, C, H, W).
        parameters: float64 (B, 8) on the CPU, as `draw` returns them.

    Returns:
        float (B, C, H, W), same dtype and device.
    """
    flips = parameters[:, :2].bool().to(images.device)
    out = torch.where(flips[:, X_FLIP, None, None, None], images.flip(3), images)
    out = torch.where(flips[:, Y_FLIP, None, None, None], out.flip(2), out)
    moved = (parameters[:, [SIZE, THETA, ANISOTROPY, RIGHT, DOWN]] != 0).any(1)
    if moved.any():
        chosen = moved.nonzero().flatten().to(images.device)
        warped = warp(out.index_select(0, chosen), affine(parameters[moved], images.shape[2], images.shape[3]))
        out = out.index_copy(0, chosen, warped)
    return out


def affine(parameters: Tensor, height: int, width: int) -> Tensor:
    """Return the maps (B, 3, 3), float64, that move a point (x right, y down, 1) in pixels from the image's centre."""
    size, theta, phi, stretch = (parameters[:, k] for k in (SIZE, THETA, PHI, ANISOTROPY))
    matrix = _rotation(theta) @ _diagonal(SCALE**size, SCALE**size)
    matrix = _rotation(phi) @ _diagonal(STRETCH**stretch, STRETCH**-stretch) @ _rotation(-phi) @ matrix
    shift = parameters[:, [RIGHT, DOWN]] * SHIFT * torch.tensor([width, height], dtype=torch.float64)
    matrix[:, :2, 2] += shift
    return matrix


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Move images by affine maps, bicubically, with mirrored borders.

    Arguments:
        images: float (B, C, H, W).
        matrix: float64 (B, 3, 3), invertible, as `affine` returns them: where each point goes.

    Returns:
        float (B, C, H, W).
    """
    height, width = images.shape[2:]
    half = torch.tensor([width / 2, height / 2, 1.0], dtype=torch.float64)
    theta = (torch.linalg.inv(matrix) * half / half[:, None])[:, :2].to(images)  # from pixels to grid_sample's [-1, 1]
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def _rotation(angle: Tensor) -> Tensor:
    """Turn by an angle from x (right) towards y (down): clockwise on the screen."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = (angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one)
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _diagonal(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack((x, y, torch.ones_like(x)), dim=1))
