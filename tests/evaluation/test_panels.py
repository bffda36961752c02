"""What is measured: names, floors that hold no reference image, classes, memory, and what is refused beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data import load
from sfumato.evaluation import cached_features, evaluate
from sfumato.evaluation.panels import CHECKS, Evidence, distance, expand, memory, per_class, view_of, views
from sfumato.evaluation.rows import Rows
from sfumato.evaluation.scoring import some, without
from sfumato.metrics.extractors.inception import InceptionFeatures
from sfumato.metrics.features import extractor
from sfumato.metrics.inception_net import blank
from sfumato.metrics.score import check_sizes
from sfumato.runs.override import override
from sfumato.runs.run import Run
from sfumato.sources import balanced_labels
from sfumato.training.loop import train


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    recipe = override(tiny, ["train.images=64", "sample.grid.steps=2", "evaluate.n=80"])
    return train(recipe, tmp_path_factory.mktemp("measured") / "run", quiet=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_names_are_spelt_out_and_unknown_ones_offer_the_nearest():
    assert expand(["prdc", "fd", "recall"]) == ["precision", "recall", "density", "coverage", "fd"]
    assert views(expand(["fd", "is", "memorization", "sfid"])) == {"logits", "pixels", "spatial"}
    with pytest.raises(ValueError, match="Did you mean 'memorization'"):
        expand(["memorisation"])


def test_sizes_are_refused_before_any_image_is_made(run, monkeypatch):
    monkeypatch.setattr(Run, "denoiser", lambda self, use=None, device="cpu": pytest.fail("an image was made"))
    for metrics, words in ((("fd-infinity",), "at least 5001"), (("per-class",), "at least 40 images of each class")):
        with pytest.raises(ValueError, match=words):
            evaluate(run, n=80, metrics=metrics, extract="digits", device="cpu", quiet=True)
    with pytest.raises(ValueError, match="were trained on.*--split test"):
        evaluate(run, n=80, metrics=("memorization",), split="train", extract="digits", device="cpu", quiet=True)
    with pytest.raises(ValueError, match="sFID needs 'inception'"):
        evaluate(run, n=80, metrics=("sfid",), extract="digits", device="cpu", quiet=True)
    check_sizes(["fd-infinity"], 6000, 100)  # the reference may be small: its part of the bias stays


def test_every_measure_of_a_run_and_no_image_made_twice(run, monkeypatch):
    names = ("fd", "kid", "prdc", "is", "1nn", "memorization")
    first = evaluate(run, n=80, metrics=("fd",), extract="digits", device="cpu", quiet=True)
    again = evaluate(run, n=80, metrics=names, extract="digits", device="cpu", quiet=True)
    assert [s.name for s in again.scores] == [
        f"{m}[digits]" for m in ("FD", "KID", "precision", "recall", "density", "coverage", "IS", "1-NN")
    ]
    assert again.scores[0].value == first.scores[0].value
    assert all(s.floor is not None and s.floor.n == s.n for s in again.scores)
    assert again.scores[6].floor.value > again.scores[6].value  # real digits are sharper and more varied
    rows = {row["measure"]: row for row in again.tables["memorization"]}
    assert rows["exact copies of training images"]["generated"] == 0
    assert set(again.curves["distances"]["groups"]) == {"generated to train", "test to train"}
    assert again.panels["neighbours"]["nearest"].shape == (8, 3, 1, 8, 8)
    assert json.loads(again.path.read_text())["tables"]["memorization"] == again.tables["memorization"]
    monkeypatch.setattr(Run, "denoiser", lambda self, use=None, device="cpu": pytest.fail("an image was made again"))
    last = evaluate(run, n=80, metrics=("kid",), extract="digits", split="train", m=90, device="cpu", quiet=True)
    assert last.scores[0].m == 90 and any("trained on" in flag for flag in last.scores[0].flags)


def test_a_floor_is_between_different_images_and_subsets_keep_balance():
    whole = load("digits", split="train")
    part = some(whole, 100)
    assert len(without(whole, part)) == len(whole) - 100
    assert some(whole, len(whole)) is whole
    with pytest.raises(ValueError, match="m must lie in"):
        some(whole, 2000)
    rows = torch.cat([(whole.labels == k).nonzero()[:30, 0] for k in range(10)])
    even = whole.subset(rows)
    assert torch.bincount(some(even, 50).labels).tolist() == [5] * 10


def evidence(made: torch.Tensor, labels: np.ndarray) -> Evidence:
    """A generated set that is given."""
    training = load("digits", split="train")
    extract = extractor("digits", training.shape)
    pixels = made.flatten(1).numpy()
    return Evidence(
        extract,
        {"features": extract(made).numpy(), "pixels": pixels},
        labels,
        np.full(len(made), -1),
        training.take(600, 1),
        training,
        training,
        None,
        {},
        (),
    )


def test_scores_per_class_find_the_class_that_is_wrong():
    """Real digits as generated ones, but the threes are zeros: only class 3 is far."""
    data = load("digits", split="train")
    rows = {k: (data.labels == k).nonzero()[:, 0] for k in range(10)}
    chosen = torch.cat([rows[0 if k == 3 else k][60:105] for k in range(10)])
    e = evidence(data.images[chosen], np.repeat(np.arange(10), 45))
    table = per_class(e).tables["classes"]
    values = [row["value"]["value"] for row in table]
    assert int(np.argmax(values)) == 3 and values[3] > 10 * max(abs(v) for i, v in enumerate(values) if i != 3)
    assert len({row["protocol"] for row in table}) == 10
    assert table[3]["real images"]["interval"][0] < 0.2


def test_a_class_that_is_too_scarce_for_a_floor_leaves_it_out_and_says_so():
    """The digits' training part holds 138 to 147 of each class: 1,400 balanced ones cannot be drawn, 1,380 can."""
    training = load("digits", split="train")
    scarcest = int(torch.bincount(training.labels).min())
    for n, possible in ((10 * scarcest, True), (10 * scarcest + 10, False), (len(training) + 1, False)):
        made = training.images[:1].expand(n, -1, -1, -1)
        found = evidence(made, np.arange(n) % 10)
        assert found.has_floor == possible
    found = evidence(training.images[:60].repeat(25, 1, 1, 1), np.arange(1500) % 10)
    score = distance("fd", found)
    assert score.floor is None and any(flag.startswith("no floor") for flag in score.flags)


def test_where_no_other_real_images_are_left_there_is_a_score_and_no_floor():
    """Judged by all training images of a dataset without a validation part, as when a width is chosen there."""
    training = load("digits", split="train")
    found = evidence(training.images[:60], np.arange(60) % 10)
    alone = replace(found, pool=training.take(0, 0))
    score = distance("fd", alone)
    assert not alone.has_floor and score.floor is None and score.value == distance("fd", found).value


def test_a_model_that_copies_is_seen():
    data = load("digits", split="train")
    copied = memory(evidence(data.images[:200], np.zeros(200, int)))
    rows = {row["measure"]: row["generated"] for row in copied.tables["memorization"]}
    assert rows["nearest distance, median (pixels)"] == 0
    assert rows["AuthPct (pixels)"]["value"] == 0


def test_one_pass_of_the_inception_network_serves_its_views():
    net = blank()
    state = {k: torch.rand(v.shape) * 0.01 if v.is_floating_point() else v for k, v in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    whole = InceptionFeatures(net.fold(), "rule", (3, 8, 8))
    images, passes = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), []
    inner = whole._pass
    whole._pass = lambda x: passes.append(1) or inner(x)
    spatial = view_of(whole, "spatial")[2]
    assert (whole(images).shape, spatial(images).shape, whole.logits(images).shape) == ((2, 2048), (2, 2023), (2, 1008))
    assert len(passes) == 1 and spatial.name == "inception-spatial"
    assert set(CHECKS) == {"per-class", "memorization"}


def test_rows_survive_what_a_kill_leaves(tmp_path: Path):
    """A torn line, a flipped byte: those blocks are made again; the others stay."""
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    store = Rows(tmp_path / "s", 10, 3)
    for start in (0, 4, 8):
        store.write(start, rows[start : start + 4], seconds=1.0)
    assert np.array_equal(store.array(), rows)
    lists = tmp_path / "s" / "blocks.jsonl"
    lists.write_text(lists.read_text()[:-20])
    torn = Rows(tmp_path / "s", 10, 3)
    assert set(torn.blocks) == {(0, 4), (4, 8)}
    with pytest.raises(ValueError, match="8 of 10 rows"):
        torn.array()
    data = bytearray((tmp_path / "s" / "rows.bin").read_bytes())
    data[20] ^= 1
    (tmp_path / "s" / "rows.bin").write_bytes(data)
    assert set(Rows(tmp_path / "s", 10, 3).blocks) == {(4, 8)}
    Rows(tmp_path / "s", 10, 3).write(8, rows[8:])  # after a torn line, on a line of its own
    assert set(Rows(tmp_path / "s", 10, 3).blocks) == {(4, 8), (8, 10)}


def test_a_damaged_cache_is_computed_again(tmp_path: Path):
    data = load("digits", split="test", first=60)
    extract = extractor("pixels", data.shape)
    fresh = np.array(cached_features(extract, data))
    (file,) = (tmp_path / "sfumato" / "features").glob("*.npy")
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 16
    file.write_bytes(raw)
    assert np.array_equal(cached_features(extract, data), fresh)


def test_saturation_of_a_run_stands_beside_that_of_its_reference(run):
    result = evaluate(run, n=80, metrics=("saturation",), extract="digits", device="cpu", quiet=True)
    (score,), real = result.scores, load("digits", split="test").images
    made = run.source(device="cpu")(range(80), balanced_labels(80, 10))
    for one, images in ((score, made), (score.floor, real)):
        assert one.value == pytest.approx(float(((images == 0) | (images == 255)).float().mean()), rel=1e-5)
        assert one.interval[0] < one.value < one.interval[1]
    assert (score.name, score.n, score.m, score.floor.n) == ("saturation", 80, len(real), len(real))
