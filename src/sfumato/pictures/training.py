"""A run's training as an animation: the sheets it wrote, made of the same noise, with a row per class."""

from __future__ import annotations

import io

from PIL import Image

from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run

HOLD = 4  # times as long is the last sheet shown


def training(run: Run, *, seconds: float = 6.0, zoom: int = 3) -> Image.Image:
    """An animated GIF of training: the same seeds at every sheet, a row per class.

    Arguments:
        run: The run; train.sheet_every says how often it wrote a sheet.
        seconds: How long the animation takes.
        zoom: Picture pixels per image pixel.

    Raises:
        RecipeError: If the run has no sheets.
    """
    files = sorted((run.path / "sheets").glob("*.png"))
    if not files:
        raise RecipeError(f"{run.path} has no sheets. Train with train.sheet_every=IMAGES to have some.")
    frames = []
    for file in files:
        with Image.open(file) as sheet:
            size = (sheet.width * zoom, sheet.height * zoom)
            frames.append(sheet.convert("RGB").resize(size, Image.Resampling.NEAREST))
    each = int(1000 * seconds / (len(frames) + HOLD - 1))
    written = io.BytesIO()
    frames[0].save(
        written,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        loop=0,
        duration=[*[each] * (len(frames) - 1), HOLD * each],
    )
    return Image.open(io.BytesIO(written.getvalue()))
