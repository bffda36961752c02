"""The page on one's own data: its commands run from top to bottom on a folder of pictures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main
from sfumato.runs.run import Run

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "your-own-data.md"
SMALL = "network.width=16 network.blocks=1 network.mult=1,2 network.attention=() train.precision=fp32 train.batch=64 "
SMALL += "train.sheet_every=1000000 sample.grid.steps=4 --device cpu"
EXTRA = {"train": SMALL, "sample": "--device cpu", "evaluate": "--device cpu --quiet"}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("sfumato ")]


def photos(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(240):
        codes = generator.integers(0, 80, (20 + i % 3, 24, 3), dtype=np.uint8)
        codes[5:15, 5:15, i % 2] = 200
        place = folder / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(codes).save(place / f"{i:03d}.{('png', 'tif', 'bmp')[i % 3]}")


@pytest.mark.slow
def test_every_command_of_the_page_works_as_printed(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    told = ""
    for words in commands():
        assert main([*words, *EXTRA.get(words[0], "").split()]) == 0, words
        told += "".join(capsys.readouterr())
    assert len(commands()) == 7
    assert "evaluate.extractor=digits does not take images of (3, 16, 16); scores use random" in told
    assert "240 images, 2 classes; 0 bad" in told and "FD[random]" in told
    recipe = Run.open("runs/photos").recipe
    assert recipe.evaluate.extractor == "random" and recipe.shape.classes == ("cat", "dog")
    assert (tmp_path / "photos.png").exists() and list((tmp_path / "runs/photos/results").glob("*.json"))
