"""A researcher's notebook: an exact model, a sampler of one's own from another file, a sheet, in at most ten lines."""

from __future__ import annotations

from pathlib import Path

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
