"""Notebooks run: ten lines of a researcher, with a sampler from another file, and those of examples/ as they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

OWN = '''
from sfumato.core.denoiser import State
from sfumato.core.level import like

def straight(denoiser, x, grid, *, noise, label=None):
    """Walk straight along the noise that the denoiser sees."""
    for s, t in zip(grid[:-1], grid[1:]):
        x0 = denoiser(x, s, label).x0
        x = like(t.alpha, x) * x0 + like(t.sigma / s.sigma, x) * (x - like(s.alpha, x) * x0)
        yield State(x, t, x0)
'''
NOTEBOOK = """
import torch, sfumato as sf
from sfumato.core.exact import Gaussian
from sfumato.core.find import find
from sfumato.core.images import to_uint8
from sfumato.grids import karras
from sfumato.report.sheet import sheet
sf.allow("own")
model = Gaussian(torch.zeros(64), torch.ones(64))
*_, last = find("sampler", "own:straight")(model, 80 * torch.randn(8, 64), karras(9), noise=None)
sheet(to_uint8(last.x.reshape(8, 1, 8, 8)), 4, title="exact").save("sheet.png")
"""


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFUMATO_WITH", "")
    assert len(NOTEBOOK.strip().splitlines()) <= 10
    exec(compile(NOTEBOOK, "notebook", "exec"), {})
    assert (tmp_path / "sheet.png").stat().st_size > 1000


NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def run_cells(file: Path) -> dict[str, Any]:
    """Run the code cells of a notebook in their order, in one namespace, and return it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(file.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{file.name}, cell {number}", "exec"), names)
    return names


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_small_and_listed(file: Path) -> None:
    assert file.stat().st_size < 100_000
    assert f"[{file.name}]({file.name})" in (file.parent / "README.md").read_text()


def test_the_notebook_of_an_own_sampler_measures_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_cells(next(file for file in NOTEBOOKS if file.stem == "own_sampler"))
    assert abs(names["order"] - 1) < 0.1
    reached = names["last"].x
    assert reached.shape == (32, 64) and names["drawn"].size[0] > 100
