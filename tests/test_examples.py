"""Every example runs as it stands and says what it promises; those that train are slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
SHORTER = {"digits.py": ("BUDGET = 60_000", "BUDGET = 2_000"), "own_data.py": ("IMAGES = 20_000", "IMAGES = 1_000")}
LEFT = {
    "digits.py": ("runs/examples/digits/samples/threes.png", "runs/examples/digits/samples/steps.png"),
    "own_data.py": ("runs/examples/own-data/samples.png", "runs/examples/own-data/photos-16.zip"),
    "import_and_sample.py": ("runs/examples/imported/samples.png",),
}


def run(name: str, folder: Path) -> str:
    code = (FOLDER / name).read_text()
    before, after = SHORTER.get(name, ("", ""))
    assert before in code
    (folder / name).write_text(code.replace(before, after) if before else code)
    source = str(FOLDER.parent / "src")
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_listed_and_short() -> None:
    files = {file.name for file in FOLDER.glob("*.py")}
    assert files == {"toy.py", "digits.py", "own_data.py", "own_sampler.py", "import_and_sample.py"}
    listed = (FOLDER / "README.md").read_text()
    for name in files:
        assert f"[{name}]({name})" in listed
        assert len((FOLDER / name).read_text().splitlines()) <= 42


def test_toy_samplers_reach_the_data(tmp_path: Path) -> None:
    lines = run("toy.py", tmp_path).splitlines()
    found = {line.split(":")[0]: float(line.split("ring ")[1].split()[0]) for line in lines}
    assert found["heun    20 steps"] < 0.06 < found["heun     5 steps"]


def test_own_sampler_measures_its_order(tmp_path: Path) -> None:
    last = run("own_sampler.py", tmp_path).splitlines()[-1]
    assert abs(float(last.rsplit(" ", 1)[1]) - 2) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_examples_leave_their_pictures(name: str, tmp_path: Path) -> None:
    run(name, tmp_path)
    for file in LEFT[name]:
        assert (tmp_path / file).stat().st_size > 500
