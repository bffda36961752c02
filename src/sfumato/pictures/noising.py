"""The noising sheet: what each schedule does to an image on its way to noise.

Row by schedule, column by time t: x = alpha(t) x0 + sigma(t) n, with one noise n per image for every schedule and
time, so that only the level differs. Shown on the unit circle, x / hypot(alpha, sigma).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sfumato.core.find import find
from sfumato.core.images import to_float
from sfumato.core.level import Schedule
from sfumato.core.noise import normal
from sfumato.pictures._ask import drawn
from sfumato.report._canvas import Frame, draw
from sfumato.report.sheet import name_seeds
from sfumato.report.strip import on_circle, ratio
from sfumato.runs.run import Run


def noising(
    run: Run,
    *,
    n: int = 2,
    schedules: str = "",
    columns: int = 11,
    split: str = "train",
    seed: int = 0,
    root: Path | None = None,
) -> Image.Image:
    """The forward process of several schedules on the same images and noise.

    Arguments:
        run: A trained run.
        n: Number of images.
        schedules: Names of schedules, separated by commas; the run's own beside linear and cosine if empty.
        columns: Number of times shown, >= 2.
        split: Part of the data that the real images are taken from: train, val or test.
        seed: Seed of the noise.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
    """
    own = run.recipe.schedule
    names = [w.strip() for w in str(schedules).split(",")] if schedules else [own.name, "linear", "cosine"]
    made = {name: own.entry()(**own.options) if name == own.name else find("schedule", name)() for name in names}
    images = drawn(run, split, n, root).images
    return drawing(images, made, columns, seed=seed, title=f"{run.title}: noising {run.recipe.data.name}")


def drawing(
    images: Tensor, schedules: Mapping[str, Schedule], columns: int = 11, *, seed: int = 0, title: str = ""
) -> Image.Image:
    """Show the forward process of several schedules on the same images and the same noise.

    Arguments:
        images: Clean, uint8, shape (B, C, H, W); each is a group of rows.
        schedules: name -> schedule.
        columns: Times shown, evenly from t = 0 to t = 1, >= 2.
        seed: Seed of the first image's noise; image i gets that of seed + i.
        title: Text above the sheet.

    Returns:
        RGB picture; sigma / alpha stands below every image.

    Raises:
        ValueError: If there are fewer than two columns or no schedule.
    """
    if columns < 2 or not schedules:
        raise ValueError(f"A noising sheet has a schedule and two times at least; got {len(schedules)} and {columns}.")
    x0 = to_float(images.cpu())
    seeds = range(seed, seed + len(x0))
    noise = normal(seeds, x0.shape[1:], purpose="noising", dtype=x0.dtype)
    times = torch.linspace(0, 1, columns, dtype=torch.float64)
    cells, notes = [], []
    for i in range(len(x0)):
        for schedule in schedules.values():
            levels = schedule(times)
            cells.append(on_circle(levels.noisy(x0[i].expand(columns, -1, -1, -1), noise[i]), levels))
            notes += [ratio(level) for level in levels]
    words = f"x = αx0 + σn, rescaled to unit variance; σ/α below each image; noise of {name_seeds(seeds)}."
    frame = Frame(
        title=title,
        rows=[name for _ in x0 for name in schedules],
        columns=[f"t = {t:.3g}" for t in times.tolist()],
        caption=words,
        notes=notes,
        group=len(schedules),
    )
    return draw(torch.cat(cells), columns, frame)[0]
