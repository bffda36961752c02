"""The public names: each is the object of its own module, known to type checkers, and imported when first used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import TINY

import sfumato as sf
from sfumato.core.find import OptionError, UnknownNameError, entries
from sfumato.evaluation.two_sets import compare_sets, open_set
from sfumato.runs.recipe import Recipe, RecipeError


def imported_for_type_checkers() -> dict[str, str]:
    """Return name -> module of the imports under `if TYPE_CHECKING`."""
    tree = ast.parse(Path(sf.__file__).read_text())
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {a.name: n.module or "" for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}


def test_type_checkers_see_what_a_program_gets() -> None:
    seen = imported_for_type_checkers()
    assert sorted(seen) == sorted(sf.__all__) == sf.__all__
    for name, module in seen.items():
        assert getattr(sf, name) is getattr(importlib.import_module(module), name), name
    assert set(sf.__all__) <= set(dir(sf))


def test_nothing_heavy_is_imported_before_a_name_is_used() -> None:
    code = (
        "import sys, sfumato as sf; dir(sf); assert 'torch' not in sys.modules; sf.Level; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_lists_the_public_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'trian'.*Denoiser, .*train"):
        sf.trian  # noqa: B018


def test_train_and_evaluate_are_those_of_the_commands(tiny: Recipe, tmp_path: Path) -> None:
    model = sf.train("edm-digits", tmp_path / "run", TINY, device="cpu", quiet=True)
    assert model.run.recipe.train == tiny.train and model.run.path == tmp_path / "run"
    again = sf.train(tiny, tmp_path / "run", device="cpu", quiet=True)  # finds itself done
    assert again.sample(2, progress=False).images.equal(model.sample(2, progress=False).images)
    by_model = sf.evaluate(model, n=50, extract="pixels", quiet=True)
    by_path = sf.evaluate(tmp_path / "run", n=50, extract="pixels", quiet=True)
    assert [s.value for s in by_model.scores] == pytest.approx([s.value for s in by_path.scores])
    with pytest.raises(UnknownNameError, match="Did you mean 'edm-digits'"):
        sf.train("edm-digit", tmp_path / "other")
    with pytest.raises(RecipeError, match="wdith"):
        sf.train("edm-digits", tmp_path / "other", "network.wdith=3")
    with pytest.raises(OptionError, match="There is no device 'gpu' here"):
        sf.train("edm-digits", tmp_path / "other", device="gpu")
    assert not (tmp_path / "other").exists()


def test_fd_is_that_of_the_command(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (2, 60, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name, part in zip("ab", images):
        np.save(tmp_path / f"{name}.npy", part.numpy())
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    found = sf.fd(a, b, extract="pixels")
    assert sf.fd(a, b, extract="pixels", metrics="kid").scores == found.scores[1:]
    wanted = compare_sets(open_set(str(a)), open_set(str(b)), extract="pixels", quiet=True)
    assert [s.value for s in found.scores] == [s.value for s in wanted.scores] and found.plain == wanted.plain


def test_parts_are_listed_by_axis() -> None:
    assert sf.list_parts("samplers") == list(entries("sampler"))
