"""sfumato.load: the commands as methods; the package itself loads in a moment, without torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sfumato
from sfumato.core.find import UnknownNameError
from sfumato.model import Model, Pictures
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.training.loop import train


@pytest.fixture(scope="module")
def model(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Model:
    run = train(tiny, tmp_path_factory.mktemp("model") / "run", device="cpu", quiet=True)
    return sfumato.load(run.path, device="cpu")


def test_the_package_is_imported_without_torch_in_a_moment() -> None:
    code = "import sys, sfumato, json; print(json.dumps([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules]))"
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert json.loads(done.stdout) == []
    assert min(times) < 0.3, times


def test_samples_are_those_of_the_command_line(model: Model) -> None:
    made = model.sample(6, classes=["3", 7], progress=False)
    wanted = model.run.source()(range(6), torch.tensor([3, 7] * 3))
    assert made.images.equal(wanted) and made.labels.tolist() == [3, 7] * 3
    assert model.sample([4, 5], classes=["3", 7], progress=False).images.equal(wanted[4:])
    assert model.sample(12, progress=False).labels.tolist() == [*range(10), 0, 1]


def test_a_model_is_a_value(model: Model) -> None:
    guided = model.guided(2.5)
    assert (guided.run.recipe.sample.guidance, model.run.recipe.sample.guidance) == (2.5, 1.0)
    other = model.sampled("ddim", steps=4, grid="logsnr", eta=0.5)
    assert str(other.run.recipe.sample.sampler) == "ddim(eta=0.5)"
    assert other.run.recipe.sample.grid.options["steps"] == 4
    assert not other.sample(2, progress=False).images.equal(model.sample(2, progress=False).images)
    with pytest.raises(RecipeError, match="belongs to training"):
        model.having("train.batch=3")
    with pytest.raises(UnknownNameError, match="Did you mean 'heun'"):
        model.sampled("huen")


def test_what_it_shows(model: Model, tmp_path: Path) -> None:
    assert repr(model).startswith("Model('edm-digits', 1x8x8, 10 classes, heun")
    assert "<table>" in model._repr_html_() and "edm-digits" in model._repr_html_()
    made = model.sample(3, progress=False)
    assert repr(made) == "Pictures(3 images 1x8x8, seeds 0 to 2)" and isinstance(made, Pictures)
    assert made._repr_html_().startswith('<img alt="Pictures') and "base64" in made._repr_html_()
    assert made.save(tmp_path / "a" / "sheet.png").stat().st_size > 500
    assert model.steps(2).size[0] > 50


def test_scores_and_code_lengths(model: Model) -> None:
    result = model.evaluate(n=50, extract="pixels", quiet=True)
    assert [score.name for score in result.scores] == ["FD[pixels]", "KID[pixels]"]
    tables = model.likelihood(n=4, parts=("vlb",), steps=5)
    assert tables


def test_bad_requests_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown class 'cat'"):
        model.sample(1, classes=["cat"])
    with pytest.raises(RecipeError, match="at least one image"):
        model.sample(0)
    with pytest.raises(RecipeError, match="is not a run"):
        sfumato.load(tmp_path)
