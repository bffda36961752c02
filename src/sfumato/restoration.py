"""From p(x0) to p(x0 | y): a maker of images that restores, and RePaint's way of walking a grid.

A restoration is sampling, with another denoiser: the method wraps it (`methods`), the walk, the grid, the guidance and
the addressed noise stay what they are. Sample k of picture i is made from its own seed, so it does not depend on what
else is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sfumato.core.axes import AXES
from sfumato.core.condition import Label
from sfumato.core.denoiser import Counted, Denoiser, Sampler, State
from sfumato.core.find import check_options, find
from sfumato.core.images import NonFiniteError, finite, in_floats
from sfumato.core.level import Level, like
from sfumato.core.noise import drawn, normal
from sfumato.core.task import Task, TaskError, check_pictures
from sfumato.latent.space import Space
from sfumato.sources import Diffusion

FIXED = AXES["method"].fixed


@dataclass(frozen=True, eq=False)
class Restored:
    """Samples of the posterior, picture by picture.

    Attributes:
        samples: Float (B, K, C, H, W), not clipped.
        nfe: Network calls a sample: those of the denoiser, or of the networks below it where they were counted.
        vjps: Vector-Jacobian products a sample.
    """

    samples: Tensor
    nfe: float
    vjps: int

    @property
    def mean(self) -> Tensor:
        """Mean of the samples, the estimate of least squared error, shape (B, C, H, W)."""
        return self.samples.mean(1)

    def band(self, share: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the pixelwise interval that should hold the truth, two tensors (B, C, H, W).

        Of K draws and the truth, all of one distribution, the truth is as likely at each rank, so it lies between the
        a-th smallest and the a-th largest sample with probability 1 - 2 a / (K + 1), the `right_share`.

        Arguments:
            share: How often it should hold the truth, in (0, 1); the narrowest band that does, or the widest there is.
        """
        rank = rank_of(self.samples.shape[1], share)
        ordered = self.samples.sort(1).values
        return ordered[:, rank - 1], ordered[:, -rank]


def rank_of(count: int, share: float = 0.9) -> int:
    """Return the rank of the samples that bound a band: a, counted from either end."""
    return max(1, int((count + 1) * (1 - share) / 2 + 1e-9))


def right_share(count: int, share: float = 0.9) -> float:
    """Return how often the band of `count` samples holds the truth if they are drawn from the exact posterior.

    >>> right_share(4), right_share(19), right_share(99)
    (0.6, 0.9, 0.9)
    """
    return max(0.0, 1 - 2 * rank_of(count, share) / (count + 1))


def coverage(samples: Tensor, truth: Tensor, share: float = 0.9) -> Tensor:
    """Return how far each pixel of the truth lies within the band of its samples: 1 inside, 0 outside.

    A pixel that equals some of its samples, as the background does, has no rank of its own; it counts with the share of
    the ranks it may take that lie inside. So exact draws give the `right_share` on average whatever the distribution.

    Arguments:
        samples: uint8 or float (B, K, C, H, W).
        truth: The same type, (B, C, H, W).
        share: How often the band should hold the truth, in (0, 1).

    Returns:
        float64 (B, C, H, W) in [0, 1].
    """
    count, rank = samples.shape[1], rank_of(samples.shape[1], share)
    below = (samples < truth.unsqueeze(1)).sum(1)
    last = below + (samples == truth.unsqueeze(1)).sum(1)
    inside = (last.clamp(max=count - rank) - below.clamp(min=rank) + 1).clamp(min=0)
    return inside.double() / (last - below + 1)


def measured(task: Task, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Damage pictures: ``A x0 + s z`` with the noise of each picture's own seed.

    Arguments:
        task: What happens to them.
        images: Clean pictures, float (B, C, H, W) in [-1, 1].
        seeds: One per picture.

    Raises:
        TaskError: If the pictures have another shape, or hold NaN.
    """
    check_pictures(task, images)
    if task.noise == 0 or task.blind:
        return task.apply(images)
    return task.measure(images, normal(seeds, task.measured, purpose="measurement", device=images.device).to(images))


def measured_shapes(task: Task) -> list[tuple[int, ...]]:
    """Return the shapes of a picture that a task takes: the original's, and that of a measurement that is smaller."""
    small = len(task.measured) == 3 and task.measured != task.shape
    return [task.shape, *([task.measured] if small else [])]


def measurement(task: Task, images: Tensor, damaged: bool, seeds: Sequence[int]) -> tuple[Tensor | None, Tensor]:
    """Return a person's pictures as originals, None if they are damaged already, and what is measured of them.

    Arguments:
        task: What happens or has happened to them.
        images: uint8, or float in [-1, 1], (B, C, H, W), of one of `measured_shapes`; those of a measurement's own
            shape are damaged already.
        damaged: Whether they are damaged already.
        seeds: One per picture, of the noise of measuring.

    Raises:
        TaskError: If they are of another shape, or damaged and not of the shape of a measurement.
    """
    clean, small = in_floats(images), measured_shapes(task)[1:]
    if tuple(images.shape[1:]) == task.measured != task.shape:
        return None, clean
    check_pictures(task, clean)
    if damaged and small:
        raise TaskError(f"A damaged picture has the shape of a measurement, {task.measured}; got {task.shape}.")
    if damaged:
        return None, clean if task.measured == task.shape else task.apply(clean)
    return images, measured(task, clean, seeds)


def said(task: Task, method: str) -> str:
    """Return what was done to a picture, for captions."""
    return f"{task.words}, restored by {method}"


def method_of(name: str | Callable[..., Denoiser], **options: Any) -> Callable[..., Denoiser]:
    """Return a method with its options bound: (denoiser, task, y, sigma_data) -> denoiser.

    Arguments:
        name: Name of a method (`sfumato list method`), or a function.
        options: Checked against its signature.

    Raises:
        UnknownNameError: For an unknown method.
        OptionError: For an unknown option, or a value of the wrong type.
    """
    entry = find("method", name) if isinstance(name, str) else name
    checked = check_options(f"method {name!r}", entry, options, fixed=FIXED)
    told = "sigma_data" in entry.__annotations__

    def bound(denoiser: Denoiser, task: Task, y: Tensor, sigma_data: float) -> Denoiser:
        return entry(denoiser, task, y, **({"sigma_data": sigma_data} if told else {}), **checked)

    return bound


def restore(
    source: Diffusion,
    task: Task,
    y: Tensor,
    method: Callable[..., Denoiser],
    *,
    samples: int = 4,
    seeds: Sequence[int] | None = None,
    labels: Label | None = None,
    sigma_data: float = 0.5,
    progress: Callable[[int], None] | None = None,
    asked: Callable[[], tuple[int, ...]] | None = None,
) -> Restored:
    """Draw pictures that explain measurements.

    Arguments:
        source: What makes pictures from noise; its sampler, grid and guidance are used as they are.
        task: How the measurements came about.
        y: Measurements, shape (B, *task.measured).
        method: What makes a denoiser of a denoiser, a task and measurements; see `method_of`.
        samples: K, pictures drawn per measurement.
        seeds: One per measurement, 0..B-1 if None. Sample k of seed s is that of seed s + k 2^32.
        labels: Classes int64 (B,), a `Condition`, or None.
        sigma_data: Standard deviation of clean pixels.
        progress: Told of every finished picture.
        asked: Says how many images each network below the source was asked about so far (`Run.counted_walk`), so that a
            guided step counts twice; the calls of the source's denoiser are counted if None.

    Returns:
        The samples. For a linear task without noise the last state is projected onto A x0 = y, which every sample of
        the exact posterior obeys.

    Raises:
        TaskError: If the method cannot do this task, or a measurement is not finite.
        NonFiniteError: If a sample is not finite.
    """
    if samples < 1:
        raise TaskError(f"There must be at least one sample per picture; got {samples}.")
    if tuple(y.shape[1:]) != task.measured:
        raise TaskError(f"A measurement of {task.words} has the shape {task.measured}; got {tuple(y.shape[1:])}.")
    if not bool(y.isfinite().all()):
        raise TaskError("A measurement holds NaN or infinity; restore pictures that are numbers.")
    each = seeds_of(range(len(y)) if seeds is None else seeds, samples)
    ys = y.to(source.device).repeat_interleave(samples, 0)
    wanted = None if labels is None else labels[torch.arange(len(y)).repeat_interleave(samples)]
    counts, done = Counted(source.denoiser), []
    products: list[int] = []
    before = 0 if asked is None else sum(asked())
    for start in range(0, len(ys), source.batch):
        part = slice(start, start + source.batch)
        already = counts.vjps
        walker = source.having(denoiser=method(counts, of_space(task, source.space), ys[part], sigma_data))
        x = walker.floats(each[part].tolist(), None if wanted is None else wanted[part])
        products.append(counts.vjps - already)
        x = agreeing(task, ys[part], x)
        if not bool(finite(x).all()):
            raise NonFiniteError(f"{int((~finite(x)).sum())} of {len(x)} restored pictures hold NaN or infinity.")
        done.append(x.cpu())
        if progress is not None:
            progress(len(x))
    stacked = torch.cat(done).reshape(len(y), samples, *task.shape)
    rows = counts.rows if asked is None else sum(asked()) - before
    calls = rows / len(ys)
    return Restored(stacked, int(calls) if calls.is_integer() else round(calls, 2), products[0])


def of_space(task: Task, space: Space) -> Task:
    """Return a task of images as one of what a sampler walks: itself, or that of decoded latents, which is not linear.

    Arguments:
        task: What happened to images of the space.
        space: The space of the model that restores.
    """
    if space.shape == space.image:
        return task
    name = f"{task.name} of decoded latents"
    return Task(name, task.words, space.shape, task.measured, lambda z: task.apply(space.decode(z)), noise=task.noise)


def seeds_of(seeds: Sequence[int], samples: int) -> Tensor:
    """Return the seeds of all samples, int64 (B * samples,): sample k of seed s is that of seed s + k 2^32."""
    first = torch.as_tensor(seeds, dtype=torch.int64)
    return (first[:, None] + (torch.arange(samples) << 32)[None, :]).reshape(-1)


def agreeing(task: Task, y: Tensor, x: Tensor) -> Tensor:
    """Project pictures onto A x0 = y, if the task is linear and without noise; else return them as they are."""
    return task.pinv(y) + (x - task.seen(x)) if task.linear and task.noise == 0 and not task.blind else x


def resampled(sampler: Sampler, times: int = 10, length: int = 1) -> Sampler:
    """Walk each stretch of a grid several times, going back up in between (RePaint).

    Down the stretch with the sampler, then up with the forward process,
    ``x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) z``, so that what was filled in
    is seen by the rest before the noise is gone. The last stretch is walked as often, and ends clean.

    Arguments:
        sampler: Any sampler; a multistep one starts anew with every stretch.
        times: Walks of each stretch, >= 1; 1 leaves a one-step sampler as it is.
        length: Steps of a stretch, >= 1.

    Returns:
        A sampler. It yields every state on the way, and asks for noise under numbers of its own.

    Raises:
        ValueError: If an argument is below 1.

    References:
        Lugmayr et al. RePaint: Inpainting using Denoising Diffusion Probabilistic Models. 2022, section 4.2.
        https://arxiv.org/abs/2201.09865
    """
    if times < 1 or length < 1:
        raise ValueError(f"Resampling needs times >= 1 and length >= 1; got {times} and {length}.")

    def walk(
        denoiser: Denoiser,
        x: Tensor,
        grid: Level,
        *,
        noise: Callable[[int], Tensor] | None = None,
        label: Label | None = None,
    ) -> Iterator[State]:
        asked = 0
        for start in range(0, len(grid) - 1, length):
            stretch = grid[start : start + length + 1]
            for again in range(times):
                if again:
                    x = _up(x, stretch[-1], stretch[0], drawn(noise, asked))
                    asked += 1
                for state in sampler(denoiser, x, stretch, noise=partial(_later, noise, asked), label=label):
                    x = state.x
                    yield state
                asked += len(stretch) - 1

    return walk


def _later(noise: Callable[[int], Tensor] | None, first: int, step: int) -> Tensor:
    return drawn(noise, first + step)


def _up(x: Tensor, s: Level, t: Level, z: Tensor) -> Tensor:
    """Return a draw of q(x_t | x_s) for t noisier than s."""
    kept = t.alpha / s.alpha
    return like(kept, x) * x + like((t.sigma**2 - (kept * s.sigma) ** 2).clamp(min=0).sqrt(), x) * z
