"""What made a number or a picture is known by content: a name that holds something else today finds nothing old."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main
from sfumato.core import outside
from sfumato.core.find import OptionError
from sfumato.data import DataError
from sfumato.data.gathering import Shape
from sfumato.data.preparing import prepare
from sfumato.data.sources import listing_of
from sfumato.data.streaming import open_stream, streamed
from sfumato.evaluation import evaluate
from sfumato.interop.card import card
from sfumato.report.seed_folder import SettingsError, fill
from sfumato.report.signature import SignatureError, settings_of
from sfumato.runs import averages, checkpoint
from sfumato.runs.identity import identity, key_of
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.run import Run
from sfumato.training.loop import train

FIELDS = ("ema.power=0.05,0.10", "ema.half_life=()", "ema.snapshots=4", "train.rate=constant", "data.first=none")
FIELDS += ("evaluate.extractor=pixels",)


def trained(tiny: Recipe, folder: Path, *fields: str, allow: tuple[str, ...] = ()) -> Run:
    return train(override(tiny, [*FIELDS, *fields]), folder, quiet=True, device="cpu", allow=allow)


def scored(run: Path, use: str | None = None) -> tuple[float, dict]:
    result = evaluate(Run.open(run), n=40, metrics=("fd",), use=use, device="cpu", quiet=True)
    return result.scores[0].value, result.provenance


def made(run: Path, folder: Path, use: str | None = None, **sample: object) -> int:
    """Fill a folder with the images of four seeds and return how many were written."""
    opened = Run.open(run)
    opened = opened.with_recipe(replace(opened.recipe, sample=replace(opened.recipe.sample, **sample)))
    settings = settings_of(opened, use, "cpu")
    return fill(folder, opened.source(use=use), range(4), None, settings)


@pytest.fixture(scope="module")
def first(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny, tmp_path_factory.mktemp("identity") / "run").path


@pytest.fixture
def run(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


@pytest.fixture
def weak(tiny: Recipe, tmp_path: Path) -> Path:
    return trained(tiny, tmp_path / "weak", "train.seed=9", "train.images=64").path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_average_made_anew_is_another_one(
    tiny: Recipe, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages.store(run, 0.08, averages.reconstruct(run, 0.08))
    before, facts = scored(run, "post-0.080")
    assert facts["images_seen"] == 320 and made(run, tmp_path / "images", "post-0.080") == 4
    trained(tiny, run, "train.images=640", allow=("train.images",))
    stale, facts = scored(run, "post-0.080")  # the weights are those of before, and so is all that is said of them
    assert stale == before and facts["images_seen"] == 320 and facts["checkpoint"] == "step-20"
    assert Run.open(run).making("post-0.080").images_seen == 320
    assert made(run, tmp_path / "images", "post-0.080") == 0
    averages.store(run, 0.08, averages.reconstruct(run, 0.08))
    after, facts = scored(run, "post-0.080")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert after != before and after == scored(run, "post-0.080")[0] and facts["images_seen"] == 640
    with pytest.raises(SettingsError, match="weights: "):
        made(run, tmp_path / "images", "post-0.080")
    assert checkpoint.steps(run / "averages" / "post-0.080") == [40]


def test_a_weak_model_that_was_trained_on_is_another_guide(
    tiny: Recipe, run: Path, weak: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"autoguidance": f"{weak}@raw", "autoguidance_weight": 3.0}
    assert made(run, tmp_path / "images", **asked) == 4
    opened = Run.open(run)
    guided = opened.with_recipe(replace(opened.recipe, sample=replace(opened.recipe.sample, **asked)))
    key = key_of(identity(guided))
    assert identity(guided)["guides"]["autoguidance"]["weights"][:16] in card(guided)
    moved = Path(shutil.copytree(weak, tmp_path / "moved"))  # elsewhere, the same
    assert made(run, tmp_path / "images", **{**asked, "autoguidance": f"{moved}@raw"}) == 0
    trained(tiny, weak, "train.seed=9", "train.images=96", allow=("train.images",))
    assert key_of(identity(guided)) != key
    with pytest.raises(SettingsError, match=r"guides\.autoguidance\.weights: "):
        made(run, tmp_path / "images", **asked)
    assert main(["sample", str(run), "--like", str(tmp_path / "images" / "seed-000000000.png")]) == 2
    assert "guides.autoguidance.weights" in capsys.readouterr().err


def test_a_classifier_is_known_by_its_weights(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any run serves: an identity reads its weights and makes nothing."""
    one, two = (Path(shutil.copytree(run, tmp_path / name)) for name in ("one", "two"))
    opened = Run.open(run)

    def guided(by: Path) -> dict:
        return identity(
            opened.with_recipe(replace(opened.recipe, sample=replace(opened.recipe.sample, classifier=str(by))))
        )

    assert key_of(guided(one)) == key_of(guided(two)) != key_of(identity(opened))
    saved = Run.open(two).checkpoint
    tensors = {
        stem: {k: v + 1 if v.is_floating_point() else v for k, v in group.items()}
        for stem, group in saved.tensors.items()
    }
    state = {key: value for key, value in saved.state.items() if key != "belongs"}
    checkpoint.save(two / "checkpoints", saved.state["step"], tensors, state, fingerprint=saved.state["belongs"])
    assert key_of(guided(one)) != key_of(guided(two))


@pytest.mark.parametrize(
    "fields",
    ["train.precision=bf16", "sample.guidance=2", "sample.grid.steps=4", "c_in=unit-circle",
     "data.pad=16 shape.height=16 shape.width=16"],
)  # fmt: skip
def test_every_field_that_matters_is_part_of_the_identity(run: Path, fields: str) -> None:
    opened = Run.open(run)
    other = opened.with_recipe(override(opened.recipe, fields.split()))
    assert identity(other)["weights"] == identity(opened)["weights"]
    assert key_of(identity(other)) != key_of(identity(opened))


def test_precision_makes_other_features(run: Path) -> None:
    """Scores of fp32 and bf16 differ by rounding, so neither is the other's from the cache."""
    plain = scored(run)
    opened = Run.open(run)
    low = opened.with_recipe(override(opened.recipe, ["train.precision=bf16"]))
    other = evaluate(low, n=40, metrics=("fd",), device="cpu", quiet=True)
    assert other.provenance["precision"] == "bf16" and other.scores[0].value != plain[0]


def test_names_alone_change_nothing(run: Path) -> None:
    opened = Run.open(run)
    other = opened.with_recipe(override(replace(opened.recipe, name="another"), ["train.images=77", "evaluate.n=9"]))
    assert key_of(identity(other)) == key_of(identity(opened)) == key_of(identity(opened, "power-0.10"))
    assert key_of(identity(opened, "raw")) != key_of(identity(opened))


def test_an_old_folder_of_images_is_taken_and_says_more_from_then_on(run: Path, tmp_path: Path) -> None:
    folder, opened = tmp_path / "images", Run.open(run)
    now = settings_of(opened, None, "cpu")
    old = {
        key: now[key] for key in ("recipe", "checkpoint", "use", "sample", "device", "torch")
    }  # all that was recorded
    assert fill(folder, opened.source(), range(4), None, old) == 4
    assert fill(folder, opened.source(), range(4), None, now) == 0
    assert json.loads((folder / "settings.json").read_text()) == json.loads(json.dumps(now))
    with pytest.raises(SettingsError, match="weights: "):
        made(run, folder, "raw")


def labelled(folder: Path, labels: list[int]) -> str:
    """Write twelve pictures of two classes with their labels in dataset.json; return the name of the dataset."""
    folder.mkdir(exist_ok=True)
    g = np.random.Generator(np.random.Philox(3))
    for i in range(len(labels)):
        Image.fromarray(g.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    stored = {"labels": [[f"{i:02d}.png", label] for i, label in enumerate(labels)]}
    (folder / "dataset.json").write_text(json.dumps(stored))
    return f"folder:{folder}"


@pytest.mark.parametrize("stream", ["true", "false"])
def test_labels_and_order_belong_to_the_data_of_a_run(tiny: Recipe, tmp_path: Path, stream: str) -> None:
    labels = [0, 1] * 6
    name = labelled(tmp_path / "lab", labels)
    fields = (
        f"data.name={name}",
        "data.test=0.0",
        "shape=none",
        "ema.snapshots=0",
        f"data.stream={stream}",
        "data.flip=false",
    )
    told, untold = ((*fields, f"data.labels={flag}", "train.images=32") for flag in ("true", "false"))
    trained(tiny, tmp_path / "told", *told)
    trained(tiny, tmp_path / "untold", *untold)
    other = "false" if stream == "true" else "true"
    trained(tiny, tmp_path / "told", *told, f"data.stream={other}")  # the same images, however they are read
    labelled(tmp_path / "lab", labels[::-1])
    with pytest.raises(RecipeError, match=r"data\.labelling: "):
        trained(tiny, tmp_path / "told", *told)
    trained(tiny, tmp_path / "untold", *untold)  # nobody is told of labels
    labelled(tmp_path / "lab", labels)
    one, two = tmp_path / "lab" / "00.png", tmp_path / "lab" / "02.png"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes()), two.write_bytes(content)  # of one class
    for folder, words in (("told", told), ("untold", untold)):
        with pytest.raises(RecipeError, match=r"data\.order: "):
            trained(tiny, tmp_path / folder, *words)


def test_a_checkpoint_of_another_run_is_not_taken(tiny: Recipe, run: Path, tmp_path: Path) -> None:
    own = Run.open(run).checkpoint.path.name
    other = trained(tiny, tmp_path / "other", "train.seed=5", "train.images=640").path
    assert Run.open(run).mark != Run.open(other).mark
    shutil.copytree(other / "checkpoints" / "step-40", run / "checkpoints" / "step-40")
    with pytest.warns(UserWarning, match="step-40 belongs to another run"):
        assert Run.open(run).checkpoint.path.name == own
    with pytest.raises(checkpoint.CheckpointError, match="step-40 belongs to another run"):
        _ = replace(Run.open(run), step=40).checkpoint
    with pytest.raises(checkpoint.CheckpointError, match="step-40 belongs to another run"):
        trained(tiny, run, "train.images=960", allow=("train.images",))
    assert own in {p.name for p in (run / "checkpoints").iterdir()}
    shutil.rmtree(run / "checkpoints" / "step-40")
    assert trained(tiny, run, "train.images=640", allow=("train.images",)).checkpoint.state["seen"] == 640
    assert Run.open(run).mark == Run.open(run).checkpoint.state["belongs"]["run"]
    shutil.copytree(other / "snapshots" / "step-30", run / "snapshots" / "step-31")
    with pytest.raises(checkpoint.CheckpointError, match="belongs to another run"):
        averages.reconstruct(run, 0.08, Run.open(run).mark)


def test_a_checkpoint_without_a_mark_is_taken(tiny: Recipe, run: Path) -> None:
    """As earlier versions wrote it, with a fingerprint of three entries in recipe.json."""
    tree = json.loads((run / "recipe.json").read_text())
    tree["fingerprint"] = {key: tree["fingerprint"][key] for key in ("data", "indices", "rule")}
    (run / "recipe.json").write_text(json.dumps(tree))
    for file in run.glob("checkpoints/*/MANIFEST.json"):
        manifest = json.loads(file.read_text())
        file.write_text(json.dumps(manifest | {"belongs": tree["fingerprint"]}))
    assert trained(tiny, run, "train.images=336", allow=("train.images",)).checkpoint.state["seen"] == 336
    assert Run.open(run).mark


def test_the_best_is_the_best_by_one_protocol(tiny: Recipe, tmp_path: Path) -> None:
    fields = ("train.evaluate_every=160", "evaluate.quick=60", "ema.snapshots=0")
    folder = tmp_path / "run"
    trained(tiny, folder, *fields)
    first = Run.open(folder / "best").about["selected"]
    trained(tiny, folder, *fields, "train.images=640", "evaluate.extractor=digits", allow=("train.images",))
    records = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    mine = [record for record in records if record["name"] == "FD[digits]"]
    chosen = Run.open(folder / "best").about["selected"]
    least = min(mine, key=lambda record: record["value"])
    assert (chosen["by"], chosen["value"], chosen["protocol"]) == ("FD[digits]", least["value"], least["protocol"])
    assert mine[0]["best"] and chosen["candidates"] <= len(mine) < len(records)
    (kept,) = folder.glob("best-*")
    assert kept.name == f"best-{first['protocol']}-{first['settings']}"
    assert Run.open(kept).about["selected"] == first
    trained(tiny, folder, *fields, "train.images=800", allow=("train.images",))  # back to the first
    again = Run.open(folder / "best").about["selected"]
    assert again["by"] == "FD[pixels]" and again["value"] <= first["value"]
    assert [p.name for p in folder.glob("best-*")] == [f"best-{least['protocol']}-{least['settings']}"]


def test_averages_are_named_by_their_exact_widths(tiny: Recipe, tmp_path: Path) -> None:
    fields = ("ema.power=0.075,0.101,0.104", "ema.half_life=0.0012345678,0.0012345679", "ema.use=power-0.075")
    run = trained(tiny, tmp_path / "run", *fields)
    kept = {"power-0.075", "power-0.101", "power-0.104", "half-0.0012345678", "half-0.0012345679"}
    assert {stem[4:] for stem in run.checkpoint.tensors if stem.startswith("ema-")} == kept
    made = averages.reconstruct(run.path, 0.075)
    assert made.error < 1e-6
    for name, value in run.checkpoint.tensors["ema-power-0.075"].items():
        np.testing.assert_allclose(made.tensors[name], value, atol=1e-5)
    assert averages.store(run.path, 0.0755, made) == "post-0.0755" and averages.name_of(0.08) == "post-0.080"


def test_averages_of_rounded_names_are_found_by_their_true_widths(tiny: Recipe, tmp_path: Path) -> None:
    """As earlier versions wrote them: 0.075 as 0.07."""
    run = trained(tiny, tmp_path / "run", "ema.power=0.075,0.125", "ema.use=power-0.075", "train.images=320").path
    exact = averages.reconstruct(run, 0.09)
    weights = Run.open(run).network().state_dict()
    renamed = {"0.075": "0.07", "0.125": "0.12"}
    for folder in ("checkpoints", "snapshots"):
        for step in checkpoint.steps(run / folder):
            saved = checkpoint.load(run / folder / f"step-{step}")
            names = {stem: stem[:10] + renamed[stem[10:]] for stem in saved.tensors if stem.startswith("ema-power-")}
            tensors = {names.get(stem, stem): group for stem, group in saved.tensors.items()}
            state = {key: value for key, value in saved.state.items() if key != "belongs"}
            if "averages" in state:
                state["averages"] = ["0.07", "0.12"]
            checkpoint.save(run / folder, step, tensors, state, keep=99, fingerprint=saved.state["belongs"])
    for use in ("power-0.075", "power-0.07"):
        found = Run.open(run).network(use).state_dict()
        assert all(value.equal(weights[name]) for name, value in found.items())
    again = averages.reconstruct(run, 0.09)
    assert again.error == exact.error and all(again.tensors[name].equal(exact.tensors[name]) for name in again.tensors)
    fields = ("ema.power=0.075,0.125", "ema.use=power-0.07", "train.images=336")
    resumed = trained(tiny, run, *fields, allow=("train.images", "ema.use"))
    assert "ema-power-0.075" in resumed.checkpoint.tensors


def png(folder: Path, name: str, seed: int) -> bytes:
    g = np.random.Generator(np.random.Philox(seed))
    folder.mkdir(exist_ok=True, parents=True)
    Image.fromarray(g.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name, compress_level=0)
    return (folder / name).read_bytes()


def test_replaced_files_of_equal_size_and_time_are_hashed_anew(tmp_path: Path) -> None:
    top = tmp_path / "photos"
    for i in range(6):
        png(top, f"{i}.png", i)
    stream = streamed(str(top), Shape(), split="all", always=True)
    file = top / "3.png"
    state, size = file.stat(), file.stat().st_size
    png(top, "3.png", 99)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (size, state.st_mtime_ns)
    assert stream is not None
    with pytest.raises(DataError, match=r"3\.png of .* is another image than when training began"):
        stream.read([3])
    again = streamed(str(top), Shape(), split="all", always=True)
    assert again is not None and again.content_hash != stream.content_hash
    assert again.read([3]).shape == (1, 3, 8, 8)


def test_a_database_whose_content_is_replaced_is_hashed_anew(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")

    def written(first: int) -> str:
        shutil.rmtree(tmp_path / "photos_lmdb", ignore_errors=True)
        with lmdb.open(str(tmp_path / "photos_lmdb"), map_size=1 << 20) as base, base.begin(write=True) as transaction:
            for i in range(6):
                transaction.put(f"{i}".encode(), png(tmp_path / "png", "x.png", first + i))
        part, listing = listing_of(f"lmdb:{tmp_path}/photos_lmdb")
        found = open_stream({part: listing}, "x", Shape(), split="all", val=0.0, test=0.0, labels=False, skip_bad=False)
        return found.content_hash

    assert written(0) == written(0) != written(100)


def test_a_preparation_does_not_mix_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.data import preparing

    for i in range(6):
        png(tmp_path / "photos", f"{i}.png", i)
    monkeypatch.setattr(preparing, "CHUNK", 2)
    write = preparing._write_chunk

    def stops(chunk: Path, *args: object) -> object:
        if chunk.name.startswith("00000002"):
            raise KeyboardInterrupt
        return write(chunk, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "_write_chunk", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "photos", tmp_path / "made.zip", Shape())
    png(tmp_path / "photos", "0.png", 50)
    monkeypatch.setattr(preparing, "_write_chunk", write)
    with pytest.raises(DataError, match="the files have changed since"):
        prepare(tmp_path / "photos", tmp_path / "made.zip", Shape())
    assert not (tmp_path / "made.zip").exists()


CODE = '''
"""Data, features and a tracker of somebody's own."""
import torch
from sfumato.data.dataset import Dataset

def noise(*, split: str = "train"):
    """Random pixels."""
    g = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2, "all": 3}[split])
    part = Dataset.whole("noise", torch.randint(0, 256, (60, 1, 8, 8), generator=g, dtype=torch.uint8), None, ())
    return part.subset(range(60), split=split)

class Means:
    name, dimension, weights_hash = "means", 4, "none"

    def __call__(self, images):
        return SCALE * images.float().unflatten(2, (2, -1)).mean((1, 3))[:, :, :2].flatten(1)

    def describe(self):
        return {"resize": "none"}

def means(shape):
    """Mean of a few pixels."""
    return Means()

class Silent:
    def record(self, record): ...
    def score(self, record): ...
    def picture(self, name, seen, path): ...
    def close(self): ...

def silent(folder, recipe):
    """Tell nobody."""
    return Silent()

SCALE = 1
'''


def test_code_named_from_outside_is_recorded(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(code: str) -> None:
        (tmp_path / "identity_mine.py").write_text(code)
        sys.modules.pop("identity_mine", None)

    write(CODE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setenv(outside.WITH, "identity_mine")
    fields = ("data.name=identity_mine:noise", "evaluate.extractor=identity_mine:means", "shape=none")
    run = trained(tiny, tmp_path / "run", *fields, "train.track=identity_mine:silent", "ema.snapshots=0").path
    names = [name for name, _ in Run.open(run).recipe.code]
    assert names == ["identity_mine:noise", "identity_mine:means", "identity_mine:silent"]
    before = evaluate(Run.open(run), n=40, metrics=("fd",), device="cpu", quiet=True).scores[0]
    write(CODE.replace("SCALE = 1", "SCALE = 2"))
    with pytest.raises(OptionError, match="identity_mine:noise has changed"):
        evaluate(Run.open(run), n=40, metrics=("fd",), device="cpu", quiet=True)
    fields += ("train.track=identity_mine:silent", "train.images=336")
    resumed = trained(tiny, run, *fields, "ema.snapshots=0", allow=("train.images",))  # the data is the same
    after = evaluate(resumed, n=40, metrics=("fd",), device="cpu", quiet=True).scores[0]
    assert after.protocol.protocol_id != before.protocol.protocol_id
    assert after.protocol.features["code"] != before.protocol.features["code"]
    sys.modules.pop("identity_mine", None)


def test_a_recipe_without_such_names_is_hashed_as_before(tiny: Recipe) -> None:
    assert "code" not in tiny.to_json() and Recipe.from_json(tiny.to_json()) == tiny
    named = replace(tiny, code=(("a:b", "0"),))
    assert Recipe.from_json(json.loads(json.dumps(named.to_json()))) == named


def test_a_signed_picture_of_an_earlier_version_is_made_again(run: Path, tmp_path: Path) -> None:
    from sfumato.cli._like import again

    opened = Run.open(run)
    now = settings_of(opened, None, "cpu")
    old = {key: now[key] for key in ("recipe", "checkpoint", "use", "sample", "device", "torch")}
    fill(tmp_path / "images", opened.source(), [5], None, old)
    picture = tmp_path / "images" / "seed-000000005.png"
    assert Image.open(again(opened, picture, tmp_path / "a.png", "cpu")).tobytes() == Image.open(picture).tobytes()
    other = replace(opened, step=10)
    with pytest.raises(SignatureError, match="is not what made it"):
        again(other, picture, tmp_path / "b.png", "cpu")
