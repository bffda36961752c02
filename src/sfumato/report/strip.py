"""The strip: how an image emerges from noise, step by step.

A walk visits levels (alpha_k, sigma_k), k = 0..N. Column k shows two rows per seed,

    x       x_k / hypot(alpha_k, sigma_k), cut to [-1, 1]     the noisy image on the unit circle; x_N is the sample
    D(x)    the estimate of x0 that was made from x_k         at k = N the sample itself

so both rows end at the same image. Scaling to the unit circle changes nothing for variance-preserving levels and makes
variance-exploding ones (sigma up to 80) visible; the clean level (1, 0) is left as it is.

`gif` plays the same columns one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import State
from sfumato.core.images import to_uint8
from sfumato.core.level import Level, like
from sfumato.core.writing import write_whole
from sfumato.report._canvas import Frame, draw
from sfumato.report.save import animated, check_ending
from sfumato.report.sheet import name_seeds

What = Literal["x", "x0", "both"]
SHOWN: dict[str, tuple[tuple[int, ...], str]] = {  # which of (x, D(x)) a row shows, and in words
    "x": ((0,), "x rescaled to unit variance"),
    "x0": ((1,), "D(x), the estimate of x0"),
    "both": ((0, 1), "x rescaled to unit variance, and D(x), the estimate of x0 made from it"),
}
COLUMNS = 20  # at most, unless told otherwise


class Walker(Protocol):
    """What a strip needs of an image source: its grid, its start and its states (`sources.Diffusion` is one)."""

    grid: Level

    def begin(self, seeds: Sequence[int]) -> Tensor: ...

    def states(self, seeds: Sequence[int], labels: Label | None = None) -> Iterator[State]: ...


def walk(
    source: Walker, seeds: Sequence[int], labels: Label | None = None, every: int | None = None
) -> list[tuple[int, Level, Tensor, Tensor]]:
    """Sample and keep what columns k = 0, every, 2 every, ..., N show.

    Arguments:
        source: Where the images come from.
        seeds: One seed per image.
        labels: One class per image, int64 (B,), a `Condition`, or None for no class.
        every: Steps between columns, >= 1; None for at most 20 columns.

    Returns:
        For each column: step k, its level, x and D(x) as uint8 images, shape (B, C, H, W).

    Raises:
        ValueError: If `every` is not positive.
    """
    steps = len(source.grid) - 1
    every = -(-steps // (COLUMNS - 1)) if every is None else every
    if every < 1:
        raise ValueError(f"A strip shows every k-th step, k >= 1; got {every}.")
    wanted = {*range(0, steps, every), steps}
    x, level = source.begin(seeds), source.grid[0]
    columns: list[tuple[int, Level, Tensor, Tensor]] = []
    k = 0
    for state in source.states(seeds, labels):
        if k in wanted:
            columns.append((k, level, on_circle(x, level), to_uint8(state.x0.cpu())))
        x, level, k = state.x, state.level, k + 1
    columns.append((k, level, on_circle(x, level), to_uint8(x.cpu())))
    return columns


def on_circle(x: Tensor, level: Level) -> Tensor:
    """Return noisy images as uint8 after scaling their level to the unit circle; the shape of x."""
    return to_uint8((x / like(torch.hypot(level.alpha, level.sigma), x)).cpu())


def strip(
    source: Walker,
    seeds: Sequence[int],
    labels: Label | None = None,
    every: int | None = None,
    what: What = "both",
    *,
    row_labels: Sequence[str] = (),
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Show the iterative denoising: a row of x, of the estimates D(x), or both for every seed.

    Arguments:
        source: A diffusion model with its sampler and grid.
        seeds: One seed per image.
        labels: One class per image, int64 (B,), a `Condition`, or None for no class.
        every: Steps between columns; None for at most 20 columns.
        what: "x", "x0" or "both".
        row_labels: One label per seed, for example class names; the seeds if empty.
        title: Text above the strip.
        caption: Text that follows the statement on seeds and steps.

    Returns:
        RGB picture; its last column is the sample.

    Raises:
        ValueError: If `every` is not positive, or labels do not fit the source or the seeds.
    """
    if what not in SHOWN:
        raise ValueError(f"A strip shows 'x', 'x0' or 'both'; got {what!r}.")
    columns = walk(source, seeds, labels, every)
    names = list(row_labels) or [f"seed {s}" for s in seeds]
    if len(names) != len(seeds):
        raise ValueError(f"One row label per seed: got {len(names)} labels for {len(seeds)} seeds.")
    kinds, shown = SHOWN[what]
    images = [(x, x0)[kind][i] for i in range(len(names)) for kind in kinds for _, _, x, x0 in columns]
    rows = [row for name in names for row in (f"{name}: x", "D(x)")] if what == "both" else names
    steps = columns[-1][0]
    words = f"{name_seeds(seeds).capitalize()}, {steps} steps: {shown}; the last column is the sample. {caption}"
    frame = Frame(
        title=title,
        rows=rows,
        columns=[f"{k}\n{ratio(level)}" for k, level, _, _ in columns],
        corner="step\nσ/α",
        caption=words.strip(),
        group=2 if what == "both" else 0,
    )
    return draw(torch.stack(images), len(columns), frame)[0]


def ratio(level: Level) -> str:
    """Write sigma / alpha of one level shortly.

    >>> [ratio(Level.of(a, s)) for a, s in ((1, 80), (1, 0.0021), (1, 0), (0, 1))]
    ['80', '0.0021', '0', '∞']
    """
    value = float(level.nsr) + 0.0  # a table starts at -0
    return "∞" if value == float("inf") else f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def gif(
    source: Walker,
    seeds: Sequence[int],
    labels: Label | None,
    path: Path | str,
    *,
    columns: int = 8,
    every: int | None = None,
    seconds: float = 4.0,
    hold: float = 1.5,
    names: Sequence[str] = (),
    title: str = "",
    caption: str = "",
    command: str = "",
) -> Image.Image:
    """Write the denoising as an animation: x at the left, D(x) at the right.

    Arguments:
        source: A diffusion model with its sampler and grid.
        seeds: One seed per image.
        labels: One class per image, int64 (B,), a `Condition`, or None for no class.
        path: Ends in .gif.
        columns: Images per row of either side.
        every: Steps between frames; None for at most 48 frames.
        seconds: How long the walk takes.
        hold: How long the last frame stays, in seconds.
        names: One name per image, for example its class; () for none.
        title: Text above the images.
        caption: Text that follows the statement on seeds and step.
        command: What makes it again; kept in the file.

    Returns:
        The last frame: the samples.

    Raises:
        ValueError: If the path does not end in .gif, or `every` is not positive.
    """
    path = check_ending(path, moving=True)
    steps = len(source.grid) - 1
    states = walk(source, seeds, labels, -(-steps // 47) if every is None else every)
    columns = min(columns, len(seeds))
    notes = [list(names[i : i + columns]) for i in range(0, len(names), columns)]
    notes = [[*row, *[""] * (columns - len(row))] * 2 for row in notes]
    frames = []
    for k, level, x, x0 in states:
        frame = Frame(
            title=title,
            columns=("x, the noisy image", "D(x), the estimate of x0"),
            caption=f"{name_seeds(seeds).capitalize()}. Step {k} of {steps}, σ/α = {ratio(level)}. {caption}".strip(),
            notes=[name for row in notes for name in row],
            block=columns,
        )
        sides = torch.stack([_full_rows(side, columns) for side in (x, x0)], 1)
        frames.append(draw(sides.flatten(0, 2), 2 * columns, frame)[0])
    durations = [max(20, round(1000 * seconds / len(frames)))] * (len(frames) - 1) + [round(1000 * hold)]
    write_whole(path, animated(frames, durations, command))
    return frames[-1]


def _full_rows(images: Tensor, columns: int) -> Tensor:
    """Return images (B, C, H, W) in rows, (R, columns, C, H, W), the last one filled up with white."""
    lacking = images.new_full((-len(images) % columns, *images.shape[1:]), 255)
    return torch.cat((images, lacking)).unflatten(0, (-1, columns))
