"""`sfumato probe`: what is read in a network does not depend on batches, and what cannot be read is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli import main
from sfumato.data import load
from sfumato.evaluation.probe import probe
from sfumato.evaluation.probed import Images, Look
from sfumato.metrics.flags import flagged
from sfumato.metrics.linear_probe import ProbeError
from sfumato.recipes.digits_families import adm_digits_classifier
from sfumato.recipes.gans import dcgan_digits
from sfumato.report.sections import CURVES
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.runs.run import Run
from sfumato.training.loop import train

pytest.importorskip("sklearn")

SHORT = ("train.images=32", "train.batch=32", "train.sheet_every=1000000")


@pytest.fixture(scope="module")
def trained(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = override(tiny, [*SHORT, "data.first=none", "train.precision=bf16"])
    return train(recipe, tmp_path_factory.mktemp("probe") / "run", quiet=True, device="cpu")


def measured(run: Run, **options: object):
    return probe(run, n=200, m=100, quiet=True, device="cpu", **options)  # type: ignore[arg-type]


def test_what_is_read_depends_on_neither_batch_nor_repetition(trained: Run) -> None:
    whole, parts = (measured(trained, at=(0.1,), batch=batch) for batch in (100, 7))
    assert whole.tables == parts.tables and whole.curves == parts.curves
    again = measured(trained, at=(0.1, 1.0), blocks=("middle",))
    assert again.tables["probe"][0]["at 0.1"] == whole.tables["probe"][2]["at 0.1"]
    (best,) = whole.tables["probe, best"]
    rows = {row["block"]: row for row in whole.tables["probe"]}
    assert list(rows) == ["down.0", "down.1", "middle", "up.0", "up.1", "noisy input"]
    assert rows[best["block"]][best["level"]] == best["accuracy"] and best["m"] == 100
    assert best["above PCA"]["value"] == pytest.approx(best["accuracy"]["value"] - best["PCA"]["value"])
    assert best["pixels"]["value"] > 0.85  # digits are nearly linear in their pixels
    for result, plots in ((whole, 1), (again, 2)):  # one level is drawn block by block only
        assert len(CURVES["probe"][1](result.curves["probe"]).axes) == plots


def test_images_in_the_order_of_their_noise(trained: Run) -> None:
    """The features of image i do not depend on how many images are looked at, and differ by level."""
    images, look = Images.of(trained, "test", 20, 300, None), Look.of(trained, None, torch.device("cpu"), 8)
    level = look.levels((0.3,))[0]
    x = look.noisy(images.held, level, 0, 300)
    assert x[5:9].equal(look.noisy(images.held, level, 5, 4))
    assert not look.noisy(images.train, level, 0, 1).equal(look.noisy(images.held, level, 0, 1))
    spread = (x - level.alpha * (images.held.images / 127.5 - 1)).std() / float(level.sigma)
    assert float(level.nsr) == pytest.approx(0.3, rel=0.01)
    assert float(spread) == pytest.approx(1, abs=4 / (2 * x.numel()) ** 0.5)  # four standard errors


def test_random_labels_are_read_by_chance(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images.of(trained, "test", 300, 360, None)
    rng = np.random.default_rng(0)
    random = [replace(d, labels=torch.from_numpy(rng.integers(0, 10, len(d)))) for d in (images.train, images.held)]
    monkeypatch.setattr(Images, "of", lambda *_: Images(*random, ()))
    result = measured(trained, at=(0.1,), blocks=("middle",))
    low, high = result.tables["probe, best"][0]["accuracy"]["interval"]
    assert low < 0.1 < high


def test_the_classes_of_the_data_are_read_even_if_the_model_was_not_told_them(trained: Run) -> None:
    data = replace(trained.recipe.data, labels=False)
    images = Images.of(trained.with_recipe(replace(trained.recipe, data=data)), "test", 50, 50, None)
    assert images.train.labels is not None and images.train.classes == load("digits").classes


def test_a_discriminator_and_a_classifier_are_probed_too(tmp_path: Path) -> None:
    small = ("network.up=[8]", "network.down=[8]", "network.latent=8")
    gan = train(override(dcgan_digits(), [*SHORT, *small]), tmp_path / "gan", quiet=True, device="cpu")
    found = measured(gan)
    assert [row["block"] for row in found.tables["probe"]][:1] == ["convs.0"] and "clean" in found.tables["probe"][0]
    with pytest.raises(ProbeError, match="no levels"):
        measured(gan, at=(0.1,))
    narrow = ("network.width=16", "network.head_width=16", "train.precision=fp32")
    reader = train(override(adm_digits_classifier(), [*SHORT, *narrow]), tmp_path / "reader", quiet=True, device="cpu")
    found = measured(reader, at=(0.1,))
    assert any("levels.0" in row["block"] for row in found.tables["probe"])


def test_a_model_that_always_saw_classes_is_flagged(trained: Run) -> None:
    always = trained.with_recipe(override(trained.recipe, ["objective.label_dropout=0"]))
    assert flagged("never-without") in measured(always, at=(0.1,), blocks=("middle",)).provenance["flags"]


def test_refusals(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="Unknown block of unet 'midle'. Did you mean 'middle'"):
        measured(trained, blocks=("midle",))
    with pytest.raises(ProbeError, match=r"trained at levels from 0.00\d+ to [\d.]+; got 1000"):
        measured(trained, at=(1000.0,))
    with pytest.raises(ProbeError, match=r"--n must lie in \[2, \d+\]"):
        probe(trained, n=10**6, quiet=True, device="cpu")
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    data = replace(trained.recipe.data, name=str(tmp_path), labels=False)
    with pytest.raises(ProbeError, match="asks which class an image is of.*no labels"):
        probe(trained.with_recipe(replace(trained.recipe, data=data)), quiet=True, device="cpu")


def test_the_command_writes_pictures_and_refuses_in_one_sentence(
    trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["probe", str(trained.path), "--at", "0.1", "0.3", "--block", "middle", "up.1", "--n", "100", "--m", "50"]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "clean PCA" in said and "above PCA" in said
    written = {file.suffix + file.stem[-10:] for file in (trained.path / "results").glob("probe-test-n100-m50-*")}
    assert len(written) == 3
    assert main(["probe", str(trained.path), "--block", "attic"]) == 2
    assert "Unknown block of unet 'attic'" in capsys.readouterr().err
