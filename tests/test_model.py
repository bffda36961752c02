"""sfumato.load: the commands as methods; the package itself loads in a moment, without torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sfumato
from sfumato.core.find import OptionError, UnknownNameError
from sfumato.core.task import TaskError
from sfumato.metrics.linear_probe import ProbeError
from sfumato.model import Model, Pictures
from sfumato.restoration import method_of, restore
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.tasks._masks import hidden
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


@pytest.mark.parametrize("classes", [0, "0", [0], torch.tensor([0]), np.array([0]), np.int64(0)])
def test_a_class_alone_is_that_class(model: Model, classes: Any) -> None:
    """The class 0, too, which counts as nothing in Python."""
    made = model.sample(np.int64(2), classes=classes, progress=False)
    assert made.labels.tolist() == [0, 0] and made.images.equal(model.sample([0, 1], [0], progress=False).images)


def test_seeds_may_stand_in_an_array(model: Model) -> None:
    made = model.sample(torch.tensor([4, 5]), progress=False)
    assert made.seeds == (4, 5) and repr(made).endswith("seeds 4 to 5)")
    with pytest.raises(OptionError, match="A seed must be a whole number; got 0.5"):
        model.sample([0.5])


def test_one_word_is_not_its_letters_and_arrays_are_as_good_as_tensors(model: Model) -> None:
    """One name alone, a number of NumPy, images in an array, and a task by its name."""
    names = [s.name for s in model.evaluate(np.int64(50), "fd", m=np.int64(60), extract="pixels", quiet=True).scores]
    assert names == ["FD[pixels]"]
    assert model.likelihood(n=2, splits="test", parts="vlb", steps=3).keys() == {"likelihood"}
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = images.numpy()
    wanted = model.restore(images, model.task("superres"), samples=2).samples
    assert model.restore(shown, "superres", samples=np.int64(2)).samples.equal(wanted)
    turned = model.restore(np.flip(shown, 3), "superres", samples=2).samples
    assert turned.equal(model.restore(images.flip(3), "superres", samples=2).samples)
    for mask in ("half", np.flip(np.eye(8), 0), [0, 0, 4, 4]):
        made = model.edit(shown, np.int64(3), np.float32(0.5), mask=mask)
        hide = hidden(tuple(mask) if isinstance(mask, list) else mask, 8, 8)
        assert made.images[..., ~hide].equal(images[..., ~hide]) and made.labels.tolist() == [3, 3]
    assert model.edit(shown / np.float64(127.5) - 1, strength=0).images.equal(images)


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
    for n, message in (
        (0, "at least one image"),
        (3.0, "n must be a whole number; got 3.0"),
        ("8", "n must be a whole number; got '8'"),
        (True, "n must be a whole number; got True"),
        ([2**63], "seed lies below 2\\^63; got 9223372036854775808"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(n)
    with pytest.raises(OptionError, match="There is no device 'gpu' here"):
        sfumato.load(model.run.path, device="gpu")
    with pytest.raises(RecipeError, match="sample.interval must be two numbers"):
        model.guided(2, (3,))
    task, images = model.task("inpaint"), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    for wrong, message in (
        (images.float() + 200, r"floats lie in \[-1, 1\]; got 200 to 200. Give uint8"),
        (images.int(), "uint8 in .* or floats in .*; got torch.int32"),
        (images[0], "The model makes pictures of shape"),
        (images[:0], "at least one picture; got none"),
    ):
        for asked in (partial(model.restore, task=task), partial(model.restore, task=task, damaged=True), model.edit):
            with pytest.raises(ValueError, match=message):
                asked(wrong)
    with pytest.raises(ValueError, match="Give one class; got 2: 3, 4"):
        model.edit(images, "3,4")
    with pytest.raises(OptionError, match="strength must be a number; got '0.5'"):
        model.edit(images, strength="0.5")
    with pytest.raises(OptionError, match="samples must be a whole number; got 2.5"):
        model.restore(images, task, samples=2.5)
    with pytest.raises(ValueError, match="needs at least 40 images .* got n = 0"):
        model.evaluate(n=0, extract="pixels", quiet=True)
    with pytest.raises(ValueError, match="score by fd needs at least 40 images; got n = 0"):
        sfumato.search(model.run.recipe, ["train.optimizer.lr=1e-3..1e-2"], tmp_path / "search", n=0)
    with pytest.raises(ProbeError, match="at least 1 image; got 0"):
        model.probe(batch=0)
    with pytest.raises(RecipeError, match="steps must be at least 1; got 0"):
        model.sampled("heun", steps=0)
    with pytest.raises(ValueError, match="Labels are whole numbers"):
        model.source([0], torch.tensor([0.5]))
    with pytest.raises(TaskError, match=r"has the shape \(32,\); got \(7,\)"):
        restore(model.source, task, torch.zeros(1, 7), method_of("pigdm"))
    with pytest.raises(RecipeError, match="is not a run"):
        sfumato.load(tmp_path)
