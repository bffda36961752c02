"""The noising sheet: what schedules do to the run's own images."""

from __future__ import annotations

from pathlib import Path

from PIL.Image import Image

from sfumato.core.find import find
from sfumato.pictures._ask import drawn
from sfumato.report import noising as draw
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
) -> Image:
    """The forward process of several schedules on the same images and noise.

    Arguments:
        run: The run.
        n: Images.
        schedules: Names of schedules, separated by commas; the run's own beside linear and cosine if empty.
        columns: Times shown.
        split: Which real images.
        seed: Of the noise.
        root: Data root.
    """
    own = run.recipe.schedule
    names = [w.strip() for w in str(schedules).split(",")] if schedules else [own.name, "linear", "cosine"]
    made = {name: own.entry()(**own.options) if name == own.name else find("schedule", name)() for name in names}
    images = drawn(run, split, n, root).images
    return draw.noising(images, made, columns, seed=seed, title=f"Noising: {run.recipe.data.name}")
