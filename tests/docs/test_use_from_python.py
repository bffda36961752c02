"""The code of docs/how-to/use-from-python.md runs from top to bottom, and does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import TINY

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-from-python.md"
SMALLER = {'"train.images=60_000"': "*TINY", "n=1000": "n=50"}


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller model; own loop, own sampler and guidance by hand are checked by their results."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    for before, after in SMALLER.items():
        assert before in code
        code = code.replace(before, after)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"TINY": TINY}
    exec(code, names)
    losses = names["losses"]
    assert sum(losses[-50:]) < 0.7 * sum(losses[:50])
    assert names["errors"][0] / names["errors"][1] == pytest.approx(4, rel=0.15)
    cfg = names["sf"].find("guidance", "cfg")(names["inner"], 2.0)
    source = names["sf"].Diffusion(
        cfg, names["heun"], names["grid"], names["model"].source.shape, classes=10, device=names["model"].device
    )
    assert (source(range(8), names["threes"]).int() - names["by_hand"].int()).abs().max() <= 1
    for name in ("digits", "steps", "threes", "few-steps", "churned"):
        assert (tmp_path / f"{name}.png").stat().st_size > 500
