"""What is measured: names, floors that hold no reference image, classes, memory, and what is refused beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data import load
from sfumato.data.dataset import Dataset
from sfumato.evaluation import cached_features, evaluate, judge
from sfumato.evaluation.findings import expand, find_asked, tables
from sfumato.evaluation.judge import Generated, Judge, judged_by, other_images, some, without
from sfumato.evaluation.rows import Rows
from sfumato.evaluation.sweep import sweep
from sfumato.evaluation.tables.memorization import memorization
from sfumato.evaluation.tables.per_class import per_class
from sfumato.experiments.judges import RealImages
from sfumato.experiments.pages import lines
from sfumato.experiments.study import Asked, Row, Study
from sfumato.experiments.work import Outcome
from sfumato.metrics import scores
from sfumato.metrics.extractors.inception import InceptionFeatures
from sfumato.metrics.features import extractor
from sfumato.metrics.inception_net import blank
from sfumato.metrics.metric import available, better_of, find_metric
from sfumato.metrics.protocol import NO_REFERENCE, Reference
from sfumato.metrics.score import Score, protocol_of
from sfumato.metrics.views import view_key, view_of
from sfumato.recipes.digits import edm_digits
from sfumato.report.results import compared, score_rows
from sfumato.runs.override import override
from sfumato.runs.run import Run
from sfumato.sources import in_turn
from sfumato.training.loop import train


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    recipe = override(tiny, ["train.images=64", "sample.grid.steps=2", "evaluate.n=80"])
    return train(recipe, tmp_path_factory.mktemp("measured") / "run", quiet=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_what_training_images_are_told_is_part_of_what_judges(monkeypatch) -> None:
    """A held-out split that stays the same says nothing of other labels in training."""
    recipe = override(edm_digits(), ["data.val=0.1"])
    before, real = judged_by(recipe, "val"), judge.training_data

    def relabelled(*asked: object) -> Dataset:
        data = real(*asked)
        return replace(data, labels=data.labels.roll(1))

    assert not other_images({"data": before}, judged_by(recipe, "val"))
    monkeypatch.setattr(judge, "training_data", relabelled)
    after = judged_by(recipe, "val")
    assert {key for key in after if after[key] != before[key]} == {"taught"} and other_images({"data": before}, after)
    earlier = {key: value for key, value in before.items() if key != "taught"}
    assert not other_images({"data": earlier}, after)  # what an earlier version did not record is not compared


def test_names_are_spelt_out_and_unknown_ones_offer_the_nearest():
    assert expand(["prdc", "fd", "recall"]) == ["precision", "recall", "density", "coverage", "fd"]
    assert [view_key(find_metric(name)) for name in ("fd", "is", "sfid", "saturation")] == [
        *("features", "logits", "spatial", "saturation")
    ]
    assert tables() == ["memorization", "obedience", "per-class"] and find_asked("memorization").pixels
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
    find_metric("fd-infinity").check(6000, 100)  # the reference may be small: its part of the bias stays


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


def judged(made: torch.Tensor, labels: np.ndarray) -> tuple[Judge, Generated]:
    """A judge with 600 training images as the reference, and a generated set that is given."""
    training = load("digits", split="train")
    extract = extractor("digits", training.shape)
    judge = Judge.against(training.take(600, 1), extract, training=training, pool=training)
    rows = {"features": extract(made).numpy(), "pixels": made.flatten(1).numpy()}
    return judge, Generated(rows, labels, "uniform", copies=np.full(len(made), -1))


def test_scores_per_class_find_the_class_that_is_wrong():
    """Real digits as generated ones, but the threes are zeros: only class 3 is far."""
    data = load("digits", split="train")
    rows = {k: (data.labels == k).nonzero()[:, 0] for k in range(10)}
    chosen = torch.cat([rows[0 if k == 3 else k][60:105] for k in range(10)])
    table = per_class().measure(*judged(data.images[chosen], np.repeat(np.arange(10), 45))).tables["classes"]
    values = [row["value"]["value"] for row in table]
    assert int(np.argmax(values)) == 3 and values[3] > 10 * max(abs(v) for i, v in enumerate(values) if i != 3)
    assert len({row["protocol"] for row in table}) == 10
    assert table[3]["real images"]["interval"][0] < 0.2
    spreads = [(row["spread"]["interval"], row["spread of real images"]["interval"]) for row in table]
    assert sum(low[1] > high[0] and high[1] > low[0] for low, high in spreads) >= 8


def test_a_class_that_is_too_scarce_for_a_floor_leaves_it_out_and_says_so():
    """The digits' training part holds 138 to 147 of each class: 1,400 balanced ones cannot be drawn, 1,380 can."""
    training = load("digits", split="train")
    scarcest = int(torch.bincount(training.labels).min())
    judge, made = judged(training.images[:60].repeat(25, 1, 1, 1), np.arange(1500) % 10)
    for n, possible in ((10 * scarcest, True), (10 * scarcest + 10, False), (len(training) + 1, False)):
        assert judge.has_floor(n, True) == possible
    score = judge.score("fd", made)
    assert score.floor is None and any(flag.startswith("no floor") for flag in score.flags)


def test_where_no_other_real_images_are_left_there_is_a_score_and_no_floor():
    """Judged by all training images of a dataset without a validation part, as when a width is chosen there."""
    training = load("digits", split="train")
    judge, made = judged(training.images[:60], np.arange(60) % 10)
    alone = replace(judge, pool=training.take(0, 0), _drawn={})
    score = alone.score("fd", made)
    assert not alone.has_floor(60, True) and score.floor is None and score.value == judge.score("fd", made).value


def test_a_model_that_copies_is_seen():
    data = load("digits", split="train")
    copied = memorization().measure(*judged(data.images[:200], np.zeros(200, int)))
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
    spatial, logits = (view_of(whole, find_metric(name), whole.shape) for name in ("sfid", "is"))
    assert (whole(images).shape, spatial(images).shape, logits(images).shape) == ((2, 2048), (2, 2023), (2, 1008))
    assert len(passes) == 1 and spatial.name == "inception-spatial"


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
    made = run.source(device="cpu")(range(80), in_turn(range(80), range(10)))
    for one, images in ((score, made), (score.floor, real)):
        assert one.value == pytest.approx(float(((images == 0) | (images == 255)).float().mean()), rel=1e-5)
        assert one.interval[0] < one.value < one.interval[1]
    assert (score.name, score.n, score.m, score.floor.n) == ("saturation", 80, len(real), len(real))


STORED = Path(__file__).parents[2] / "docs" / "results" / "studies"
SAVED = Path(__file__).parents[1] / "runs" / "saved" / "run" / "results"
IDS = {
    "fd": "9dc47875dbeeef49",
    "sfid": "9dc47875dbeeef49",
    "fd-infinity": "86315951e1279742",
    "kid": "77845b7ecc30d8c9",
    "precision": "045be587a27ab884",
    "recall": "e2f52236d64864f8",
    "density": "534be7109a95d14b",
    "coverage": "a5f1f4cad27a6286",
    "one-nn": "00085b9fd4301687",
    "inception-score": "181d1394529d9d37",
    "saturation": "2bb7857388baae69",
}


@pytest.mark.parametrize("name", IDS)
def test_the_protocol_ids_of_every_metric_are_those_of_earlier_versions(name):
    metric, shape = find_metric(name), (1, 2, 3)
    extract = extractor("pixels", shape) if metric.own is None else metric.own(shape)
    reference = Reference("toy", "ab", "test", "drawn", "cd", 6000) if metric.against_reference else NO_REFERENCE
    n = 6000 if metric.least > 100 else 60
    options = metric.options_with((np.zeros(1), None))
    assert set(IDS) <= set(available())
    assert protocol_of(metric, extract, reference, n, "uniform", options, {}).protocol_id == IDS[name]


def test_stored_scores_have_the_protocols_that_metrics_declare_today():
    files = [*STORED.glob("*/*.json"), *SAVED.glob("*.json")]
    trees = [json.loads(file.read_text()) for file in files]
    rows = [row["scores"].values() for tree in trees for row in tree.get("rows", [])]
    stored_scores = [
        *(s for row in rows for s in row),
        *(s for tree in trees if "rows" not in tree for s in tree["scores"]),
    ]
    by_name = {find_metric(name).name: find_metric(name) for name in available()}
    assert len(stored_scores) > 300
    for stored in stored_scores:
        score = Score.from_json(stored)
        metric, protocol = by_name[score.protocol.metric], score.protocol
        assert protocol.protocol_id == stored["protocol"]["protocol_id"] and score.better == metric.better
        assert (protocol.version, protocol.estimator) == (metric.version, metric.estimator)
        assert {key: v for key, v in protocol.options.items() if key not in ("strata", "m")} == metric.options
        assert ("strata" in protocol.options) == metric.groups


def test_one_metric_that_cannot_be_computed_is_told_and_the_others_are_computed(run):
    result = evaluate(run, n=80, metrics=("fd-infinity", "kid", "sfid"), extract="digits", device="cpu", quiet=True)
    assert [score.name for score in result.scores] == ["KID[digits]"]
    assert "at least 5001" in result.refused["fd-infinity"] and "sFID needs 'inception'" in result.refused["sfid"]
    tree = json.loads(result.path.read_text())
    assert tree["refused"] == result.refused
    rows = {row["score"]: row for row in score_rows([tree])}
    assert rows["sfid"]["value"] is None and "sFID needs" in rows["sfid"]["flags"]
    assert rows["KID[digits]"]["value"] is not None


METRIC = '''
from sfumato.metrics.jackknife import Estimate
from sfumato.metrics.metric import Metric


def brightness() -> Metric:
    """Mean of the features, of which more is better."""
    return Metric("brightness", 1, _mean, "mean over images", {}, "higher")


def _mean(x, y, strata, members):
    value = float(x.mean())
    return Estimate(value, (value - 0.01, value + 0.01), 0.005, value, groups=0)
'''


def test_a_metric_of_another_module_is_allowed_by_its_name(run, tmp_path, monkeypatch):
    (tmp_path / "own_metric.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("SFUMATO_WITH", raising=False)
    with pytest.raises(ValueError, match="--with own_metric"):
        evaluate(run, n=80, metrics=("own_metric:brightness",), extract="digits", device="cpu", quiet=True)
    monkeypatch.setenv("SFUMATO_WITH", "own_metric")
    result = evaluate(run, n=80, metrics=("own_metric:brightness",), extract="digits", device="cpu", quiet=True)
    assert result.scores[0].name == "brightness[digits]" and result.scores[0].better == "higher"


def test_a_metric_is_one_file(run, tmp_path, monkeypatch):
    """A file in the package is evaluated, floored, ranked and drawn by its direction without another edit."""
    (tmp_path / "brightness.py").write_text(METRIC)
    monkeypatch.setattr(scores, "__path__", [*scores.__path__, str(tmp_path)])
    result = evaluate(run, n=80, metrics=("brightness", "kid"), extract="digits", device="cpu", quiet=True)
    score = result.scores[0]
    assert (score.name, score.better, score.n) == ("brightness[digits]", "higher", 80)
    assert score.floor is not None and score.floor.n == 80
    (row, _) = score_rows([result.to_json()])
    assert row["value"].value == score.value and row["floor"].value == score.floor.value
    other = json.loads(json.dumps(result.to_json()))
    other["run"] = "brighter"
    other["scores"][0] |= {"value": score.value + 1, "interval": [score.value + 0.9, score.value + 1.1]}
    ranked = {rows[0]["score"]: [(r["rank"], r["run"]) for r in rows] for rows in compared([result.to_json(), other])}
    assert ranked["brightness[digits]"] == [(1, "brighter"), (2, run.path.name)]
    tree, _ = sweep(
        {w: run.with_recipe(override(run.recipe, [f"sample.guidance={w}"])) for w in ("1", "2")},
        "guidance",
        n=80,
        metrics=("brightness",),
        device="cpu",
    )
    assert len(tree["curves"]["guidance"]["series"][tree["points"][0]["scores"][0]["name"]]["y"]) == 2
    assert better_of("brightness[digits]") == "higher"
    line = Row("real", run.recipe, judge=RealImages(60, 2), untrained=True)
    study = Study("mine", "tiny", "?", "-", "-", "", (line,), metrics=("brightness",), n=60, ranked=True)
    found, _ = line.judge(Asked(study, run.recipe, None, None, "cpu", True))
    assert lines(study, [Outcome(line, 0, None, found, {}, "")], {})[0]["brightness[digits]"] is not None
