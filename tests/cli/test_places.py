"""Where a result goes is tried before the work: nothing is sampled for a place that cannot be written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.runs.run import Run

PICTURES = {  # commands that take --out, with the words that follow the run
    "sample": ("--n", "1"),
    "sweep": ("grid.steps=2,3", "--n", "1"),
    "edit": ("{picture}", "--n", "1"),
    "encode": ("--n", "1"),
    "restore": ("{picture}", "task=inpaint", "--samples", "1"),
    "compress": ("--n", "1"),
    "picture": (),
}
INSIDE = {  # commands that write into the run, with the place
    "evaluate": ("results", "--n", "50"),
    "probe": ("results", "--n", "50", "--m", "50"),
    "likelihood": ("results", "--n", "2"),
    "schedule": ("grids", "--seeds", "16"),
    "ema": ("averages", "--width", "0.1"),
}


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network computes: whatever does so here was asked to work in vain."""

    def refused(self: object, *args: object, **options: object) -> None:
        raise AssertionError("the network was called before the place was tried")

    monkeypatch.setattr("torch.nn.Conv2d.forward", refused)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    return path


@pytest.mark.parametrize("command", PICTURES)
def test_out_below_a_file_is_refused_before_the_work(
    cli: Callable, labelled: Path, picture: Path, idle: None, command: str
) -> None:
    if command == "compress":
        pytest.importorskip("constriction")
    words = [word.format(picture=picture) for word in PICTURES[command]]
    first = ["strip", labelled] if command == "picture" else [labelled]
    out = picture / "inside.png"
    said = cli(command, *first, *words, "--out", out, *(() if command == "picture" else ("--device", "cpu")))
    assert said.code == 2
    assert str(out) in said.err and "cannot be written" in said.err and "Name another path" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("command", INSIDE)
def test_a_run_that_cannot_be_written_is_refused_before_the_work(
    cli: Callable, labelled: Path, tmp_path: Path, idle: None, command: str
) -> None:
    place, *words = INSIDE[command]
    copy = tmp_path / "run"
    shutil.copytree(labelled, copy, ignore=shutil.ignore_patterns("results"))
    (copy / place).write_text("a file in the folder's place")
    said = cli(command, copy, *words, "--device", "cpu")
    assert said.code == 2
    assert f"{copy / place} cannot be written" in said.err and "Copy the run" in said.err


@pytest.mark.parametrize("command", ["sample", "edit", "encode", "sweep", "picture"])
def test_a_name_that_is_no_png_is_refused_before_the_work(
    cli: Callable, labelled: Path, picture: Path, idle: None, tmp_path: Path, command: str
) -> None:
    words = [word.format(picture=picture) for word in PICTURES[command]]
    first = ["strip", labelled] if command == "picture" else [labelled]
    said = cli(command, *first, *words, "--out", tmp_path / "sheet.jpg", "--device", "cpu")
    assert said.code == 2 and "Name it sheet.png" in said.err
    assert not (tmp_path / "sheet.jpg").exists()


def test_the_place_of_a_run_is_its_folder(labelled: Path) -> None:
    before = sorted(labelled.iterdir())
    assert Run.open(labelled).place("results") == labelled / "results"
    assert sorted(labelled.iterdir()) == before  # nothing is left behind


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("evaluate", "--n", "50", "--extract", "pixels", "--metrics", "fd"), r"FD\[pixels\] [\d.]+ \["),
        (("evaluate", "--n", "50", "--extract", "pixels", "--metrics", "memorization"), r"(?m)^[\w, ]*: {"),
        (("likelihood", "--n", "2", "--parts", "vlb", "--steps", "4"), r"likelihood.*: {.*VLB"),
    ],
)
def test_what_was_found_is_said_where_it_cannot_be_written(
    cli: Callable, labelled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], found: str
) -> None:
    """A disk that is full when the result is written: the work is not lost, and the error names the file."""
    copy = tmp_path / "run"
    shutil.copytree(labelled, copy, ignore=shutil.ignore_patterns("results"))
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.parent == copy / "results":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    said = cli(words[0], copy, *words[1:], "--device", "cpu", "--quiet")
    assert said.code == 2 and "No space left on device: " in said.err and ".json" in said.err, said.err
    assert "What was found and not written:" in said.err and re.search(found, said.err), said.err
    assert not list((copy / "results").glob("*.json"))
