"""Change a real picture with a model of such pictures: noise it and walk down (SDEdit), or encode and decode it.

Both are walks of the grid that sampling uses. SDEdit starts part of the way down, so that what is coarser than the
noise it adds survives; encoding walks up the deterministic path to the noise that stands for the picture, and decodes
it under another class.

References:
    Meng et al. SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations. 2022.
    https://arxiv.org/abs/2108.01073
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, section 4.3. https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level, like
from sfumato.core.task import Task, TaskError, check_pictures
from sfumato.methods.replacement import replacement
from sfumato.samplers.ddim import ddim, encode
from sfumato.sources import Diffusion, check_labels, without_gradients
from sfumato.tasks._masks import Mask
from sfumato.tasks.inpaint import inpaint


def edit(
    source: Diffusion,
    images: Tensor,
    strength: float,
    *,
    seeds: Sequence[int],
    labels: Tensor | None = None,
    mask: Mask | None = None,
) -> Tensor:
    """Noise pictures to a level of the grid and walk down from there (SDEdit).

    Arguments:
        source: What makes pictures; its guidance and labels say what they become.
        images: Float (B, C, H, W) in [-1, 1].
        strength: Share of the grid's steps that is walked, in [0, 1]. 0 is the picture itself; 1 starts from pure noise
            and is the plain sample of the seed.
        seeds: One per picture.
        labels: int64 (B,) or None.
        mask: Where the picture may change: bool (H, W), or as `inpaint` takes it; None for everywhere.

    Returns:
        Float (B, C, H, W), not clipped; where the mask forbids a change, exactly the picture.

    Raises:
        TaskError: For a strength out of range, a picture or mask of another shape, or NaN pixels.
    """
    found = edited(source, images, strength, seeds=seeds, labels=labels, mask=mask)
    return found.finish(deque(found.states, maxlen=1)[0].x)


@dataclass(frozen=True, eq=False)
class Watched:
    """A picture that changes step by step.

    Attributes:
        states: The state after every step; for strength 0 the picture.
        steps: How many there are.
        finish: Last image (B, C, H, W) -> the result, which obeys what is known of it to the last bit.
    """

    states: Iterator[State]
    steps: int
    finish: Callable[[Tensor], Tensor]


def edited(
    source: Diffusion,
    images: Tensor,
    strength: float,
    *,
    seeds: Sequence[int],
    labels: Tensor | None = None,
    mask: Mask | None = None,
) -> Watched:
    """Begin an edit whose steps can be watched; arguments and errors as for `edit`."""
    keep, images = _kept(source, images, mask), images.to(source.device)
    grid = source.grid[first_entry(len(source.grid) - 1, strength) :]
    finish = partial(_restore_kept, keep, images)
    if len(grid) == 1:
        return Watched(iter([State(images, grid[0], images)]), 1, finish)
    noise = source.noise(seeds)
    start = noise.start()
    if strength < 1:  # a walk starts at sigma (start): so this is alpha x0 + sigma n
        x0 = _encoded(source, images)
        start = start + like(1 / grid[0].nsr, x0) * x0
    walker = source.having(denoiser=_keeping(source, keep, images), grid=grid)
    return Watched(walker.walk(start, noise, labels), len(grid) - 1, finish)


def reencode(
    source: Diffusion, images: Tensor, labels: Tensor | None, to: Tensor | None, *, mask: Mask | None = None
) -> Tensor:
    """Encode pictures as noise under their class and decode it under another, with deterministic DDIM.

    Arguments:
        source: What makes pictures; its grid is walked up, then down.
        images: Float (B, C, H, W) in [-1, 1].
        labels: What the pictures show, int64 (B,) or None.
        to: What they become, int64 (B,) or None.
        mask: Where the picture may change: bool (H, W), or as `inpaint` takes it; None for everywhere.

    Returns:
        Float (B, C, H, W), not clipped; where the mask forbids a change, exactly the picture.

    Raises:
        TaskError: If the grid is too short, or a picture or mask does not fit.
    """
    found = reencoded(source, images, labels, to, mask=mask)
    return found.finish(deque(found.states, maxlen=1)[0].x)


def reencoded(
    source: Diffusion, images: Tensor, labels: Tensor | None, to: Tensor | None, *, mask: Mask | None = None
) -> Watched:
    """Begin to decode what is encoded before the first state; arguments and errors as for `reencode`."""
    if len(source.grid) < 3:
        raise TaskError(f"Encoding needs a grid of at least 2 steps; this one has {len(source.grid) - 1}.")
    keep, images = _kept(source, images, mask), images.to(source.device)
    old, new = (check_labels(each, len(images), source.classes) for each in (labels, to))

    def states() -> Iterator[State]:
        with torch.no_grad():
            x0 = source.space.encode(images)
            latent = deque(encode(source.denoiser, x0, source.grid, label=old), maxlen=1)[0].x
        for state in without_gradients(ddim(_keeping(source, keep, images), latent, source.grid, label=new)):
            yield source.shown(state)

    return Watched(states(), len(source.grid) - 1, partial(_restore_kept, keep, images))


def first_entry(steps: int, strength: float) -> int:
    """Return the entry of a grid where an edit starts: any strength above 0 takes at least one step.

    Arguments:
        steps: Number of steps of the grid.
        strength: In [0, 1].

    Raises:
        TaskError: If the strength is outside [0, 1].

    >>> [first_entry(20, s) for s in (0.0, 0.01, 0.5, 1.0)]
    [20, 19, 10, 0]
    """
    if not 0 <= strength <= 1:
        raise TaskError(f"The strength of an edit lies in [0, 1] (0 the picture, 1 a new one); got {strength}.")
    return steps - math.ceil(round(strength * steps, 9))


def said(grid: Level, strength: float) -> str:
    """Return what was done to a picture, for captions."""
    return f"edited with strength {strength:g}, noised to sigma / alpha = {float(start_level(grid, strength).nsr):.3g}"


def said_encoded(own: str) -> str:
    """Return what was done to a picture that was encoded under its own class, for captions."""
    return f"encoded as {own} and decoded"


def start_level(grid: Level, strength: float) -> Level:
    """Return the level that an edit of a strength noises the picture to."""
    return grid[first_entry(len(grid) - 1, strength)]


def _kept(source: Diffusion, images: Tensor, mask: Mask | None) -> Task:
    """Return the task that sees what may not change."""
    task = inpaint(source.shape, mask=torch.ones(source.shape[1:], dtype=torch.bool) if mask is None else mask)
    check_pictures(task, images)
    return task


def _encoded(source: Diffusion, images: Tensor) -> Tensor:
    with torch.no_grad():
        return source.space.encode(images)


def _keeping(source: Diffusion, keep: Task, images: Tensor) -> Denoiser:
    """Return the denoiser that is told what may not change; in latents, where a pixel has no place, only the result is.

    What is kept is put into the result in either space (`_restore_kept`).
    """
    if source.space.shape != source.shape:
        return source.denoiser
    return replacement(source.denoiser, keep, keep.apply(images))


def _restore_kept(keep: Task, images: Tensor, x: Tensor) -> Tensor:
    return x if keep.blind else keep.seen(images) + (x - keep.seen(x))
