"""Coded files of an earlier version decode to what it decoded: of a run at EDM's levels and of a logit-normal flow.

`saved/` holds two runs of 128 images exported by an earlier version, a coded image of each (six
steps, about 390 bytes) and the picture that the same version made of the whole file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main

SAVED = Path(__file__).parent / "saved"

pytest.importorskip("constriction", reason="coded files need the extra: pip install 'sfumato[coding]'")


@pytest.mark.parametrize("kind", ["edm", "flow"])
def test_a_coded_file_of_an_earlier_version_decodes(kind: str, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(SAVED / kind, tmp_path / kind)
    words = ["decompress", str(run), str(SAVED / f"{kind}.sfm"), "-o", str(tmp_path / "back.png"), "--device", "cpu"]
    assert main(words) == 0
    assert "step 6 of 6" in capsys.readouterr().out
    before, now = (np.asarray(Image.open(path), int) for path in (SAVED / f"{kind}.png", tmp_path / "back.png"))
    assert np.abs(before - now).max() <= 1, "the same picture, up to the rounding of another machine"
    assert before.std() > 20
