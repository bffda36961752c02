"""Where a run is watched besides its own files: each entry is a tracker, named in `train.track`.

metrics.jsonl and scores.jsonl are always written and are what every other command reads; a tracker copies. TensorBoard
and Weights & Biases come with the extra 'track'; without it, naming them is refused before training starts.

    sfumato train edm-digits train.track=tensorboard        tensorboard --logdir runs/edm-digits/tensorboard
    WANDB_MODE=offline sfumato train edm-digits train.track=wandb           later: wandb sync runs/edm-digits/wandb/*
"""

from __future__ import annotations

import csv as csv_format
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sfumato.core.optional import optional
from sfumato.core.reading import read_bytes
from sfumato.core.writing import replace_text
from sfumato.runs.recipe import Recipe, RecipeError


class Tracker(Protocol):
    """Take what a run has to show, as it comes."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Take a record of metrics.jsonl."""
        ...

    def score(self, record: Mapping[str, Any]) -> None:
        """Take a record of scores.jsonl."""
        ...

    def picture(self, name: str, images: int, path: Path) -> None:
        """Take a picture written at so many images seen."""
        ...

    def close(self) -> None:
        """Finish; the run has ended or is leaving."""
        ...


def csv(folder: Path, recipe: Recipe) -> Tracker:
    """A table, RUN/metrics.csv: a row per record, a column per number."""
    return _Csv(folder)


def tensorboard(folder: Path, recipe: Recipe) -> Tracker:
    """TensorBoard: event files in RUN/tensorboard, with images; needs the extra 'track'."""
    return _TensorBoard(folder, recipe)


def wandb(folder: Path, recipe: Recipe) -> Tracker:
    """Weights & Biases, offline too (WANDB_MODE=offline); files in RUN/wandb; needs the extra 'track'."""
    return _WandB(folder, recipe)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record, lists by place: loss_by_log_snr/03 is the fourth bin of `training.log_bins`.

    >>> _numbers({"loss": 0.5, "loss_by_log_snr": [None, 2.0], "images": 64})
    {'loss': 0.5, 'loss_by_log_snr/01': 2.0}
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, list):
            found |= {f"{key}/{i:02d}": float(v) for i, v in enumerate(value) if v is not None}
        elif isinstance(value, int | float) and key not in ("step", "images"):
            found[key] = float(value)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the whole rows of a table of numbers; a damaged line costs that line, and no table is none."""
    if not path.is_file():
        return []
    heading, *lines = read_bytes(path).decode(errors="replace").splitlines() or [""]
    rows = [dict(zip(heading.split(","), line.split(","))) for line in lines if line.count(",") == heading.count(",")]
    return [row for row in rows if re.fullmatch("[0-9]{1,18}", row.get("step", ""))]


class _Csv:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"

    def record(self, record: Mapping[str, Any]) -> None:
        row = {"step": record["step"], "images": record["images"], **_numbers(record)}
        rows = _rows(self.path)
        kept = [r for r in rows if int(r["step"]) < record["step"]]  # a resumed run writes its steps again
        columns = list(dict.fromkeys(name for r in (*rows[:1], row) for name in r))
        out = io.StringIO(newline="")
        writer = csv_format.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows([*kept, row])
        replace_text(self.path, out.getvalue())

    def score(self, record: Mapping[str, Any]) -> None:
        """Scores have a file of their own."""

    def picture(self, name: str, images: int, path: Path) -> None:
        """A table holds no pictures."""

    def close(self) -> None:
        """Every row is written when it comes."""


class _TensorBoard:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        library = optional("torch.utils.tensorboard", "track", "train.track=tensorboard", RecipeError)
        self.writer: Any = library.SummaryWriter(str(folder / "tensorboard"))
        self.writer.add_text("recipe", "```\n" + json.dumps(recipe.to_json(), indent=1) + "\n```")

    def record(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers(record).items():
            self.writer.add_scalar(name, value, record["images"])

    def score(self, record: Mapping[str, Any]) -> None:
        self.writer.add_scalar(f"score/{record['name']}", record["value"], record["images"])

    def picture(self, name: str, images: int, path: Path) -> None:
        self.writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), images, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class _WandB:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.client = client = optional("wandb", "track", "train.track=wandb", RecipeError)
        self.run: Any = client.init(
            project=os.environ.get("WANDB_PROJECT", "sfumato"),
            name=folder.name,
            dir=str(folder),
            config=recipe.to_json(),
            id=f"{recipe.hash}-{folder.name}"[:60],
            resume="allow",
            settings=client.Settings(console="off", silent=True),
        )
        self.run.define_metric("*", step_metric="images")

    def record(self, record: Mapping[str, Any]) -> None:
        self.run.log({"images": record["images"], **_numbers(record)})

    def score(self, record: Mapping[str, Any]) -> None:
        self.run.log({"images": record["images"], f"score/{record['name']}": record["value"]})

    def picture(self, name: str, images: int, path: Path) -> None:
        self.run.log({"images": images, name: self.client.Image(str(path))})

    def close(self) -> None:
        self.run.finish()
