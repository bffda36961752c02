"""Sampling killed by a real SIGKILL goes on where it was, and the set is that of an uninterrupted run (P16)."""

from __future__ import annotations

import signal
import time

from PIL import Image
from tests.processes.processes import Alone, command_line

from sfumato.cli import main
from sfumato.runs.override import override
from sfumato.training.loop import train

MANY = 100_000  # more than it can make before it is killed


def pixels(folder):
    """The images of a folder by file name."""
    return {path.name: Image.open(path).tobytes() for path in sorted(folder.glob("seed-*.png"))}


def test_sigkill_between_images_makes_only_what_is_missing(tiny, tmp_path):
    train(override(tiny, ["train.images=32"]), tmp_path / "run", quiet=True)
    words = ["sample", str(tmp_path / "run"), "sample.batch=4", "grid.steps=6", "--device", "cpu"]
    folder = tmp_path / "killed"
    process = Alone(command_line, [*words, "--n", str(MANY), "--images", str(folder)])
    end = time.monotonic() + 120
    while len(list(folder.glob("seed-*.png"))) < 12:
        assert process.poll() is None, process.said()
        assert time.monotonic() < end, "no images appeared"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = pixels(folder)
    times = {name: (folder / name).stat().st_mtime_ns for name in kept}
    count = len(kept) + 12
    words += ["--n", str(count)]
    assert main([*words, "--images", str(folder)]) == 0
    untouched = [(folder / name).stat().st_mtime_ns == when for name, when in times.items()]
    assert all(untouched), "a whole image was made again"
    assert main([*words, "--images", str(tmp_path / "straight")]) == 0
    assert len(pixels(folder)) == count
    assert pixels(folder) == pixels(tmp_path / "straight")
