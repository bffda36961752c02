"""Sampling killed by a real SIGKILL goes on where it was, and the set is that of an uninterrupted run (P16)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from PIL import Image

from sfumato.cli import main
from sfumato.runs.override import override
from sfumato.training.loop import train

COUNT = 100


def pixels(folder):
    """The images of a folder by file name."""
    return {path.name: Image.open(path).tobytes() for path in sorted(folder.glob("seed-*.png"))}


def test_sigkill_between_images_makes_only_what_is_missing(tiny, tmp_path):
    train(override(tiny, ["train.images=32"]), tmp_path / "run", quiet=True)
    words = ["sample", str(tmp_path / "run"), "--n", str(COUNT), "sample.batch=4", "grid.steps=24", "--device", "cpu"]
    folder = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "sfumato", *words, "--images", str(folder)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while len(list(folder.glob("seed-*.png"))) < 12:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "no images appeared"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = pixels(folder)
    times = {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert 12 <= len(kept) < COUNT, "the kill came too late to show anything"
    assert main([*words, "--images", str(folder)]) == 0
    untouched = [(folder / name).stat().st_mtime_ns == when for name, when in times.items()]
    assert all(untouched), "a whole image was made again"
    assert main([*words, "--images", str(tmp_path / "straight")]) == 0
    assert len(pixels(folder)) == COUNT
    assert pixels(folder) == pixels(tmp_path / "straight")
