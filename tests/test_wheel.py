"""The built wheel works in an empty environment with its core dependencies alone, and does the README's main job."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_importing_the_package_is_quick_and_loads_no_torch() -> None:
    code = (
        "import time; t = time.process_time(); import sfumato; spent = time.process_time() - t\n"
        "import sys; assert not {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules), sorted(sys.modules)\n"
        "print(spent)"
    )
    spent = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(spent) < 0.3


def test_every_extra_is_declared_and_tests_have_them_all() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {"hub", "data", "app", "track", "onnx", "docs"} <= set(extras)
    tested = next(each for each in extras["test"] if each.startswith("sfumato["))
    others = {"test", "track"}  # of the trackers, tests need TensorBoard alone
    assert set(tested[len("sfumato[") : -1].split(",")) == set(extras) - others


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(words, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith(("sfumato/", "sfumato-")) for name in names)
    pages = ("app/page.html", "app/page.js", "app/picture.js", "app/told.js", "app/page.css", "report/page.html.j2")
    for needed in ("py.typed", "data/files/digits.npz", *pages):
        assert f"sfumato/{needed}" in names, needed
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_does_the_main_job_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python, program = place / "bin" / "python", place / "bin" / "sfumato"
    words = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(words, check=True)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SFUMATO_DATA")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(program), *words], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert PROJECT["name"] in run("--version")
    small = ["train.images=256", "train.batch=64", "network.width=16", "network.head_width=16", "network.blocks=1"]
    run("train", "edm-digits", *small, "sample.grid.steps=3", "--out", "run", "--device", "cpu", "--quiet")
    run("sample", "run", "--strip", "--device", "cpu")
    assert "FD[digits]" in run("evaluate", "run", "--n", "200", "--device", "cpu", "--quiet")
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 2
    assert "heun" in run("list", "samplers") and "edm-digits" in run("explain", "edm-digits")
    asked = [str(program), "app", "run"]
    said = subprocess.run(asked, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert said.returncode == 2 and "pip install 'sfumato[app]'" in said.stderr  # an extra that is not there says so
