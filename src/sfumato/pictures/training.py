"""A run's training as an animation: the sheets it wrote, made of the same noise, with a row per class."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from sfumato.core.images import untile
from sfumato.report.save import animated
from sfumato.report.sheet import sheet
from sfumato.runs.check import sampled_shape
from sfumato.runs.drawn import SHEETS
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
    files = sorted((run.path / SHEETS).glob("*.png"))
    if not files:
        raise RecipeError(f"{run.path} has no sheets. Train with train.sheet_every=IMAGES to have some.")
    _, height, width = sampled_shape(run.plan)
    frames = []
    for file in files:
        with Image.open(file) as picture:
            images, columns = untile(_pixels(picture), height, width)
        rows = len(images) // columns
        frames.append(
            sheet(
                images,
                columns,
                row_labels=run.classes[:rows] if len(run.classes) >= rows else (),
                seeds=range(len(images)),
                title=run.title,
                caption=f"After {int(file.stem):,} training images; weights {run.recipe.ema.use}.",
                zoom=zoom,
            )
        )
    each = int(1000 * seconds / (len(frames) + HOLD - 1))
    return Image.open(io.BytesIO(animated(frames, [*[each] * (len(frames) - 1), HOLD * each])))


def _pixels(picture: Image.Image) -> Tensor:
    """Return a picture as uint8 (3, H, W)."""
    values = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return values.reshape(picture.height, picture.width, 3).permute(2, 0, 1)
