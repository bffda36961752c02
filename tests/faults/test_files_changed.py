"""Files that a person changed, moved or lost in part, and what a command must not do to those it did not make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.faults.hostile_files import STUDY

from sfumato.cli import main
from sfumato.data import DataError, load
from sfumato.data.gathering import Shape, gather
from sfumato.data.sources import listings_of
from sfumato.data.streaming import open_stream
from sfumato.recipes.digits_families import adm_digits_classifier
from sfumato.report.results import read_results
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.records import read_records
from sfumato.runs.run import Run
from sfumato.training.loop import train
from sfumato.training.trackers import csv

FIELDS = ("train.evaluate_every=160", "evaluate.quick=40", "evaluate.extractor=pixels", "train.rate=constant")
FIELDS += ("data.first=none",)
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def kept(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(override(tiny, FIELDS), tmp_path_factory.mktemp("kept") / "run", quiet=True, device="cpu").path


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "run")


def again(tiny: Recipe, run: Path, *fields: str, allow: tuple[str, ...] = ("train.images",)) -> Run:
    return train(override(tiny, [*FIELDS, *fields]), run, quiet=True, device="cpu", allow=allow)


def pictures(folder: Path, *sizes: tuple[int, int]) -> Path:
    folder.mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.new("L", size, 10 * i).save(folder / f"{i}.png")
    return folder


# what a person has, a command does not replace


def test_a_sweep_leaves_a_persons_evaluation(run: Path) -> None:
    assert main(["evaluate", str(run), "--metrics", "fd", "--n", "48", *CPU, "--quiet"]) == 0
    (mine,) = (run / "results").glob("*.json")
    words = ["sweep", str(run), "grid.steps=3,2", "--classes", "0", "--score", "48", *CPU]
    assert main([*words, "-o", str(run / "s.png")]) == 0
    assert mine.exists() and len(list((run / "results").glob("*.json"))) == 2


def test_a_decoded_picture_does_not_take_the_place_of_the_original(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("constriction")
    original = pictures(tmp_path / "p", (8, 8)) / "0.png"
    before = original.read_bytes()
    short = ["--steps", "3", "--search", "8", *CPU]
    assert main(["compress", str(run), str(original), *short]) == 0
    assert main(["decompress", str(run), str(original.with_suffix(".sfm")), *CPU]) == 0
    assert original.read_bytes() == before and (original.parent / "0-decoded.png").exists()
    content = original.with_suffix(".sfm").read_bytes()
    for damage in ("[1]", '{"%s": 3}', '{"%s": {"x0_mse": [1.0]}}'):  # what a calibration kept is measured again
        key = next(iter(json.loads((run / "coding.json").read_text())))
        (run / "coding.json").write_text(damage.replace("%s", key))
        assert main(["compress", str(run), str(original), *short]) == 0
        assert original.with_suffix(".sfm").read_bytes() == content


def test_rates_of_two_averages_are_two_results(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("constriction")
    for use in ("raw", "power-0.10"):
        words = ["compress", str(run), "--n", "1", "--use", use, "--steps", "2", "--search", "6", *CPU]
        assert main([*words, "-o", str(tmp_path / "c.sfm")]) == 0
    found = [json.loads(file.read_text()) for file in (run / "results").glob("coding-*.json")]
    assert len(found) == len({tree["provenance"]["weights_hash"] for tree in found}) == 2
    assert all("--use" in tree["command"] for tree in found)


def test_pictures_of_one_name_are_restored_each(run: Path, tmp_path: Path) -> None:
    both = [str(pictures(tmp_path / name, (8, 8)) / "0.png") for name in "ab"]
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(both[1])
    words = ["restore", str(run), *both, "task=inpaint", "mask=half", "--samples", "1"]
    assert main([*words, "-o", str(tmp_path / "out"), *CPU]) == 0
    means = sorted(file.name for file in (tmp_path / "out").glob("*-mean.png"))
    assert means == ["000-0-mean.png", "001-0-mean.png"]


# scores while training


def test_the_best_is_the_best_of_images_made_alike(tiny: Recipe, run: Path) -> None:
    first = Run.open(run / "best").about["selected"]
    more = ("sample.grid=uniform", "sample.grid.steps=1")  # far worse images of the same weights
    other = again(tiny, run, "train.images=480", *more, allow=("train.images", "sample"))
    chosen = Run.open(other.path / "best").about["selected"]
    records = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    mine = [record["value"] for record in records if record["settings"] == chosen["settings"]]
    assert chosen["settings"] != first["settings"] and chosen["protocol"] == first["protocol"]
    assert chosen["value"] == min(mine) and chosen["candidates"] <= len(mine) < len(records)
    (beside,) = run.glob("best-*")
    assert Run.open(beside).about["selected"] == first
    again(tiny, run, "train.images=640", allow=("train.images", "sample"))
    assert Run.open(run / "best").about["selected"]["settings"] == first["settings"]
    assert Run.open(run / "best").about["selected"]["value"] <= first["value"]


@pytest.mark.parametrize("line", ['{"step": 1, "images": 16, "value": 0.1}', '{"step": 1, "images": 1, "value": NaN}'])
def test_a_damaged_score_costs_that_line(line: str, tiny: Recipe, run: Path) -> None:
    with open(run / "scores.jsonl", "a") as file:
        file.write(line + "\n")
    again(tiny, run, "train.images=480")
    records = [json.loads(text) for text in (run / "scores.jsonl").read_text().splitlines()]
    assert records[-1]["images"] == 480
    best = min((r for r in records if "protocol" in r), key=lambda r: r["value"])
    assert Run.open(run / "best").about["selected"]["value"] == best["value"]


@pytest.mark.parametrize("name", ["loss", "grad_norm", "lr", "skipped"])
def test_a_record_with_text_for_a_number_costs_that_record(name: str, tmp_path: Path) -> None:
    good = {"step": 1, "images": 16, "loss": 0.5, "grad_norm": None, "lr": 1e-3}
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in (good, {**good, name: "much"})))
    with pytest.warns(UserWarning, match="damaged in line 2"):
        assert read_records(file) == [good]


@pytest.mark.parametrize("key", ["fingerprint", "imported", "selected"])
def test_what_stands_beside_a_recipe_is_of_its_kind(key: str, run: Path) -> None:
    tree = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(tree | {key: [3.5]}))
    with pytest.raises(RecipeError, match=f"damaged .*{key}"):
        Run.open(run)


@pytest.mark.parametrize("row", ["3,4,5,6,7,8,9,1,2,3,4,5,6,7,8", "x", "\0", "²,1", '"' + "9" * 200_000])
def test_a_damaged_row_of_the_table_costs_that_row(row: str, tiny: Recipe, tmp_path: Path) -> None:
    tracker = csv(tmp_path, tiny)
    tracker.record({"step": 1, "images": 16, "loss": 0.5})
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write(row + "\n")
    tracker.record({"step": 2, "images": 32, "loss": 0.25, "more": 1})
    rows = (tmp_path / "metrics.csv").read_text().split()
    assert rows == ["step,images,loss,more", "1,16,0.5,", "2,32,0.25,1.0"]


# studies, data, fields


@pytest.mark.parametrize("key", ["name", "n", "metrics", "orderings", "rows", "seeds"])
@pytest.mark.parametrize("value", [3, "x", [3], None])
def test_a_damaged_result_of_a_study_is_named(key: str, value: object, tmp_path: Path, capsys) -> None:
    (tmp_path / "good.json").write_text(json.dumps(STUDY))
    (tmp_path / "bad.json").write_text(json.dumps(STUDY | {key: value}))
    code = main(["studies", str(tmp_path), "--out", str(tmp_path / "page.md")])
    said = capsys.readouterr().err
    assert code in (0, 2) and "Traceback" not in said
    assert code == 0 or "bad.json" in said and not (tmp_path / "page.md").exists()


SCORES: list[object] = [
    *({"value": value} for value in (True, "3", [3], float("nan"))),
    *({"interval": ends} for ends in ([5], [30, 1], ["1", "2"], 7, [2, float("nan")])),
    *({"n": n} for n in (-50, 0, "50")),
    3,
]


@pytest.mark.parametrize("change", SCORES, ids=str)
def test_a_score_that_cannot_be_one_is_named(change: object, tmp_path: Path) -> None:
    score = {"name": "FD", "value": 3.0, "interval": [2, 4], "n": 50}
    file = tmp_path / "result.json"
    for scores in ([score, {**score, "value": None, "interval": None}], []):
        file.write_text(json.dumps({"run": "r", "scores": scores}))
        assert read_results([file])[0]["scores"] == scores
    file.write_text(json.dumps({"run": "r", "scores": [{**score, **change} if isinstance(change, dict) else change]}))
    with pytest.raises(ValueError, match="result.json is damaged: a score is a number.*Evaluate the run again"):
        read_results([file])


def test_images_of_many_sizes_are_summed_up(tmp_path: Path, capsys) -> None:
    folder = pictures(tmp_path / "mixed", (8, 8), (8, 8), (9, 8))
    assert main(["data", "show", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "9x8 (1)" in said and "--size N" in said


def test_a_stream_says_why_files_are_bad_and_takes_the_shape_that_is_loaded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = pictures(tmp_path / "some", (8, 8), (9, 9), (8, 8), (9, 9))  # two of each: the larger is usual
    (folder / "4.png").write_bytes(b"no image")
    fields = {"split": "train", "val": 0.0, "test": 0.0, "labels": False, "skip_bad": True}
    with pytest.warns(UserWarning, match="Skipped"):
        loaded = gather(listings_of(str(folder)), "some", Shape(), **fields)
    for _ in range(2):  # at the first pass, and from what it kept
        stream = open_stream(listings_of(str(folder)), "some", Shape(), **fields)
        assert stream.shape == loaded.shape == (1, 9, 9)
        assert torch.equal(stream.read(range(len(stream))), loaded.images)
        assert sorted(stream.left_out) == sorted(loaded.left_out) and len(loaded.left_out) == 2


def test_a_run_that_names_itself_as_its_classifier_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    fields = ("data.labels=false", "train.images=32")
    run = train(override(tiny, fields), tmp_path / "run", quiet=True, device="cpu").path
    tree = json.loads((run / "recipe.json").read_text())
    tree["recipe"]["sample"]["classifier"] = str(run)
    (run / "recipe.json").write_text(json.dumps(tree))
    assert Run.open(run).classes == ()
    with pytest.raises(RecipeError, match="trained no classifier"):
        Run.open(run).source()


def test_guidance_of_a_model_that_makes_no_images_is_refused() -> None:
    for form in ("classifier", "cfg", "2"):
        with pytest.raises(RecipeError, match="nothing in this recipe reads sample.guidance"):
            override(adm_digits_classifier(), [f"sample.guidance={form}"])
    with pytest.raises(RecipeError, match="network.head_width must be at most 65,536"):
        override(adm_digits_classifier(), ["network.head_width=1000000000000"])


@pytest.mark.parametrize("epochs", ["1e30", "nan", "-1", "0", "x"])
def test_epochs_have_bounds_that_are_said(epochs: str, capsys) -> None:
    assert main(["train", "edm-digits", f"train.epochs={epochs}", "--out", "nowhere"]) == 2
    assert f"at most 1,000,000,000; got {epochs}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "2", "train.epochs=3"], "train.epochs is set twice (train.epochs=3, train.epochs=2.0)"),
        (["--epochs", "2", "train.images=64"], "Epochs and images are two budgets"),
        (["--minutes", "2", "train.images=64"], "train.images would change nothing: the budget is train.minutes=2"),
    ],
)
def test_one_budget_of_two_is_not_lost_in_silence(words: list[str], message: str, capsys) -> None:
    assert main(["train", "edm-digits", *words, "--out", "nowhere"]) == 2
    assert message in capsys.readouterr().err


def test_a_file_does_not_say_how_many_classes_are_made(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "few", (8, 8), (8, 8))
    (folder / "dataset.json").write_text(json.dumps({"labels": [["0.png", 0], ["1.png", 10**12]]}))
    np.savez(tmp_path / "few.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.array([0, 2**63], np.uint64))
    for name in (f"folder:{folder}", f"npz:{tmp_path / 'few.npz'}"):
        with pytest.raises(DataError, match="at most 65,536 classes"):
            load(name, split="all")


def test_one_class_may_be_named_alone(tmp_path: Path) -> None:
    images, labels = np.arange(128, dtype=np.uint8).reshape(2, 8, 8), np.zeros(2, np.int64)
    np.savez(tmp_path / "one.npz", images=images, labels=labels, classes=np.array("coat"))
    assert load(f"npz:{tmp_path / 'one.npz'}", split="all").classes == ("coat",)


def test_one_restored_picture_has_no_interval(run: Path, tmp_path: Path, capsys) -> None:
    picture = pictures(tmp_path / "p", (8, 8)) / "0.png"
    words = ["restore", str(run), str(picture), "task=inpaint", "mask=half", "--samples", "2", *CPU]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    assert "so no interval)" in capsys.readouterr().out

    def refuse(text: str) -> None:
        raise AssertionError(text)

    tree = json.loads((tmp_path / "out" / "restored.json").read_text(), parse_constant=refuse)
    assert all(low is None and high is None for _, low, high in tree["scores"].values())


def test_a_run_may_be_named_by_a_dot(run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(run)
    assert main(["sample", ".", "--n", "2", *CPU]) == 0
    assert main(["curves", "."]) == 0
    assert main(["studies", "."]) == 0 and (tmp_path / "run.md").exists()
    assert main(["export", ".", "--out", "."]) == 2
    assert f"{run.resolve()} exists" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["export", str(run), "--out", "."]) == 0
    assert Run.open(tmp_path / "empty").checkpoint.state["seen"] == Run.open(run).checkpoint.state["seen"]


def test_a_folder_whose_name_is_no_text_is_taken(tmp_path: Path) -> None:
    folder = pictures(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), (8, 8), (8, 8))
    words = [sys.executable, "-m", "sfumato", "data", "check", str(folder)]
    done = subprocess.run(words, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9" in done.stdout and b"2 images" in done.stdout


def test_images_of_one_grey_are_refused(tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "one.npy", np.full((60, 8, 8), 90, np.uint8))
    assert main(["train", "edm-digits", f"data.name=npz:{tmp_path / 'one.npy'}", "--out", str(tmp_path / "run")]) == 2
    assert "All pixels of one are equal" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--seed", "-1"], ["--seed", str(2**64)], ["--near", "nan"], ["--near", "-1"]])
def test_a_codec_is_told_what_it_takes(words: list[str], run: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("constriction")
    picture = str(pictures(tmp_path / "p", (8, 8)) / "0.png")
    assert main(["compress", str(run), picture, "--steps", "3", "--search", "6", *words, *CPU]) == 2
    said = capsys.readouterr().err
    assert "lies in [0, 2^64)" in said or "above 0 and below" in said


@pytest.mark.parametrize("command", ["evaluate", "edit", "restore"])
def test_the_first_seed_has_bounds(command: str, run: Path, tmp_path: Path, capsys) -> None:
    picture = str(pictures(tmp_path / "p", (8, 8)) / "0.png")
    more = {"evaluate": [], "edit": [picture], "restore": [picture, "task=inpaint", "mask=half"]}[command]
    assert main([command, str(run), *more, "--first-seed", str(2**63), *CPU]) == 2
    assert f"at most 2^62; got {2**63}" in capsys.readouterr().err
