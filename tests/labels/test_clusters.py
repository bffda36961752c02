"""Clusters as labels: a function of images and seed, found again with the run, equal to classes on mixtures."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.cli import main
from sfumato.core.find import UnknownNameError
from sfumato.data import load
from sfumato.data.dataset import DataError
from sfumato.data.streaming import Stream
from sfumato.evaluation import evaluate
from sfumato.labels.clusters import clusters
from sfumato.runs import labelled
from sfumato.runs.identity import identity, key_of
from sfumato.runs.labelled import FILE
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.resolve import load_data, training_data
from sfumato.runs.run import Run
from sfumato.sources import labels_by_share
from sfumato.training.loop import train

metrics = pytest.importorskip("sklearn.metrics")

MIXTURE = ("data.name=toy:mixture", "data.size=8", "data.labels=clusters", "data.labels.count=4", "data.flip=false")


@pytest.fixture(scope="module")
def clustered(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the mixture, told clusters."""
    recipe = override(tiny, [*MIXTURE, "data.first=none", "evaluate.extractor=pixels", "train.images=64"])
    return train(recipe, tmp_path_factory.mktemp("clusters") / "run", quiet=True, device="cpu")


def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has learned, as another process would not know it."""
    for name in ("_learned", "_files", "_made"):
        monkeypatch.setattr(labelled, name, {})


def agree(a: torch.Tensor | None, b: torch.Tensor | None) -> float:
    return float(metrics.adjusted_rand_score(np.asarray(a), np.asarray(b)))


def test_on_a_mixture_clusters_are_classes_on_held_out_images_too(tiny: Recipe) -> None:
    recipe = override(tiny, [*MIXTURE, "data.first=none"])
    for split in ("train", "test"):
        found, true = load_data(recipe, split), load("toy:mixture", size=8, split=split)
        assert agree(found.labels, true.labels) == 1 and found.images.equal(true.images)
    assert found.classes == ("cluster 0", "cluster 1", "cluster 2", "cluster 3")


def test_real_digits_are_clustered_better_by_features_than_by_chance() -> None:
    data = load("digits")
    rule = clusters(data.shape, count=10, features="digits")
    found = rule.label(data.images, rule.learn(data.images))
    assert agree(found, data.labels) > 0.9  # 0 for labels at random
    assert (torch.bincount(found).diff() <= 0).all()  # the largest first


def test_clusters_do_not_depend_on_the_order_of_the_images_but_on_the_seed() -> None:
    data = load("digits", first=300)
    rule, turned = clusters(data.shape, count=20, tries=1), data.images.flip(0)
    learned, again = rule.learn(data.images), rule.learn(turned)
    assert learned["centres"].equal(again["centres"])
    assert rule.label(data.images, learned).flip(0).equal(rule.label(turned, again))
    other = clusters(data.shape, count=20, tries=1, seed=1).learn(data.images)
    assert not other["centres"].equal(learned["centres"])


def test_a_label_is_that_of_the_nearest_centre_whatever_the_batch() -> None:
    data = load("digits", split="test")
    rule = clusters(data.shape, count=7)
    learned = rule.learn(data.images)
    found = rule.label(data.images, learned)
    one = torch.cat([rule.label(image[None], learned) for image in data.images[:20]])
    assert found[:20].equal(one)
    nearest = torch.cdist(torch.from_numpy(pixels(data.images)), learned["centres"].double()).argmin(1)
    assert found.equal(nearest)


def pixels(images: torch.Tensor) -> np.ndarray:
    from sfumato.metrics.features import extractor, features_of

    return features_of(extractor("pixels", tuple(images.shape[1:])), images).astype(np.float64)


def test_the_fields_of_the_recipe(tiny: Recipe) -> None:
    recipe = override(tiny, ["data.labels=clusters", "data.labels.count=20"])
    assert Recipe.from_json(recipe.to_json()) == recipe and str(recipe.data.labels) == "clusters(count=20)"
    assert (
        override(recipe, ["data.labels=true"]) == tiny and override(recipe, ["data.labels=false"]).data.labels is False
    )
    assert tiny.to_json()["data"]["labels"] is True and "learned" not in tiny.to_json()  # as earlier versions wrote it
    with pytest.raises(UnknownNameError, match="Did you mean 'clusters'"):
        override(tiny, ["data.labels=cluster"])
    with pytest.raises(RecipeError, match="Did you mean 'count'"):
        override(recipe, ["data.labels.counts=3"])
    with pytest.raises(RecipeError, match="at least 2; got 1"):
        override(recipe, ["data.labels.count=1"])


def test_a_run_keeps_its_clusters_and_finds_them_again(clustered: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    here = load_data(clustered.recipe, "test").labels
    assert clustered.classes == tuple(f"cluster {k}" for k in range(4)) and len(clustered.recipe.learned) == 64
    assert "labelling" in clustered.about["fingerprint"] and (clustered.path / FILE).exists()
    fresh(monkeypatch)
    monkeypatch.setattr(labelled, "_learn", lambda *_: pytest.fail("learned again"))
    opened = Run.open(clustered.path)
    assert load_data(opened.recipe, "test").labels.equal(here)


def test_a_run_that_goes_on_with_other_clusters_keeps_both(
    clustered: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = shutil.copytree(clustered.path, tmp_path / "run"), load_data(clustered.recipe, "train")
    asked = override(replace(clustered.recipe, learned=""), ["data.labels.features=digits"])
    other = replace(asked, learned=labelled.learned_of(asked, data))
    before = (folder / FILE).read_bytes()
    labelled.keep(other, folder)
    assert other.learned != clustered.recipe.learned and (folder / FILE).read_bytes() == before
    theirs = load_data(other, "test").labels
    fresh(monkeypatch)
    monkeypatch.setattr(labelled, "_learn", lambda *_: pytest.fail("learned again"))
    for recipe in (other, clustered.recipe):
        labelled.kept_in(recipe, folder)
    assert load_data(other, "test").labels.equal(theirs)
    assert not load_data(clustered.recipe, "test").labels.equal(theirs)


def test_without_its_file_they_are_learned_again_and_a_damaged_one_is_refused(
    clustered: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_data(clustered.recipe, "test").labels
    folder = shutil.copytree(clustered.path, tmp_path / "run")
    (folder / FILE).unlink()
    fresh(monkeypatch)
    assert load_data(Run.open(folder).recipe, "test").labels.equal(here)
    fresh(monkeypatch)
    other = replace(Run.open(folder).recipe, learned="0" * 64)
    with pytest.raises(RecipeError, match="is gone.*Restore that file"):
        load_data(other, "test")
    shutil.copy(clustered.path / FILE, folder / FILE)
    damaged = bytearray((folder / FILE).read_bytes())
    damaged[-40] ^= 1
    (folder / FILE).write_bytes(damaged)
    fresh(monkeypatch)
    with pytest.raises(RecipeError, match="does not hold the labels"):
        load_data(Run.open(folder).recipe, "test")


def test_a_run_resumes_with_its_clusters_and_not_with_others(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = override(tiny, ["data.labels=clusters", "data.labels.count=3", "train.rate=constant", "train.images=32"])
    first = train(short, tmp_path / "run", quiet=True, device="cpu")
    fresh(monkeypatch)
    longer = override(short, ["train.images=64"])
    whole = train(longer, tmp_path / "run", quiet=True, device="cpu", allow=("train.images",))
    at_once = train(longer, tmp_path / "other", quiet=True, device="cpu")
    assert whole.recipe.learned == first.recipe.learned == at_once.recipe.learned
    resumed = whole.network("raw").state_dict()
    for name, value in at_once.network("raw").state_dict().items():
        assert value.equal(resumed[name]), name
    with pytest.raises(RecipeError, match="data.labels.count: 3 -> 4"):
        train(override(longer, ["data.labels.count=4"]), tmp_path / "run", quiet=True, device="cpu")
    with pytest.raises(RecipeError, match="data.labels"):
        train(override(longer, ["data.labels=true"]), tmp_path / "run", quiet=True, device="cpu")


def test_clusters_are_asked_for_as_often_as_they_occur(clustered: Run) -> None:
    """And a shift of one position changes no count by more than a few: the shares are filled evenly."""
    asked, prior = clustered.labels(400)
    train_labels = load_data(clustered.recipe, "train").labels
    share = torch.bincount(train_labels, minlength=4) / len(train_labels)
    assert prior == "training" and (torch.bincount(asked, minlength=4) - 400 * share).abs().max() < 3
    shares = torch.tensor([0.62, 0.3, 0.07, 0.01])
    found = labels_by_share(range(2000), shares)
    assert torch.equal(labels_by_share(range(700, 900), shares), found[700:900])  # by the seed alone
    assert torch.equal(clustered.labels(100, first=300)[0], asked[300:])
    for start in range(0, 1000, 97):
        counts = torch.bincount(found[start : start + 1000], minlength=4)
        assert (counts - 1000 * shares).abs().max() <= 4


def test_a_run_with_clusters_is_sampled_guided_and_scored_by_cluster(clustered: Run) -> None:
    result = evaluate(clustered, n=160, metrics=("fd", "per-class"), quiet=True, device="cpu")
    assert [row["class"] for row in result.tables["classes"]] == list(clustered.classes)
    assert result.scores[0].protocol.class_prior == "training" and result.scores[0].floor is not None
    assert main(["sample", str(clustered.path), "--n", "2", "--classes", "cluster 3", "--guidance", "2"]) == 0
    assert list((clustered.path / "samples").glob("*.png"))
    guided = clustered.source()
    assert guided(range(2), torch.tensor([0, 3])).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"\[0, 4\)"):
        guided(range(1), torch.tensor([4]))


def test_what_decides_images_names_the_clusters(clustered: Run) -> None:
    other = clustered.with_recipe(replace(clustered.recipe, learned="0" * 64))
    assert key_of(identity(other)) != key_of(identity(clustered))


def test_refusals(tiny: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got count=97 for 9[0-6]. Set data.labels.count=9[0-6] or less"):
        load_data(override(tiny, ["data.labels=clusters", "data.labels.count=97"]), "train")
    import sfumato.runs.resolve as resolve

    monkeypatch.setattr(
        resolve, "streamed", lambda *_, **__: Stream(None, None, load("digits"), np.zeros(1), (1, 8, 8))
    )  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="in memory, and these are streamed. Set data.stream=false"):
        training_data(override(tiny, ["data.labels=clusters"]))


def test_without_scikit_learn_the_remedy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.cluster", raising=False)
    with pytest.raises(DataError, match=r"sklearn.cluster: pip install 'sfumato\[learn\]'"):
        clusters((1, 8, 8), count=2).learn(load("digits", first=10).images)
