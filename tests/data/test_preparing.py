"""Preparing: same images and labels, resumable, all or nothing."""

import json
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data import DataError, load, preparing
from sfumato.data.gathering import Shape
from sfumato.data.preparing import prepare


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "CHUNK", 10)
    g = np.random.Generator(np.random.Philox(0))
    for i in range(35):
        file = tmp_path / "photos" / "ab"[i % 2] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(g.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


SHAPE = Shape(size=8, channels=1, filter="box")


def test_the_prepared_set_is_the_set(tree, tmp_path):
    made = prepare(tree, tmp_path / "small.zip", SHAPE)
    assert (made.count, made.skipped, made.resumed) == (35, {}, 0)
    direct = load(str(tree), split="all", size=8, channels=1, options={"filter": "box"})
    again = load(str(made.path), split="all")
    assert again.images.equal(direct.images)
    assert again.labels.equal(direct.labels)
    assert again.classes == direct.classes == ("a", "b")
    with zipfile.ZipFile(made.path) as archive:
        assert archive.namelist()[0] == "00000/img00000000.png"
        assert len(json.loads(archive.read("dataset.json"))["labels"]) == 35
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "small.zip"]


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(tree, tmp_path, monkeypatch):
    whole = prepare(tree, tmp_path / "whole.zip", SHAPE).path.read_bytes()
    write, calls = preparing._write_chunk, []

    def stops_after_two(*args):
        if len(calls) == 2:
            args[0].with_suffix(".part").write_bytes(b"half a chunk")
            raise KeyboardInterrupt
        calls.append(args[0])
        return write(*args)

    monkeypatch.setattr(preparing, "_write_chunk", stops_after_two)
    with pytest.raises(KeyboardInterrupt):
        prepare(tree, tmp_path / "cut.zip", SHAPE)
    assert not (tmp_path / "cut.zip").exists()
    monkeypatch.setattr(preparing, "_write_chunk", write)
    with pytest.raises(DataError, match="unfinished work on other files or settings"):
        prepare(tree, tmp_path / "cut.zip", Shape(size=4))
    made = prepare(tree, tmp_path / "cut.zip", SHAPE)
    assert made.resumed == 20
    assert made.path.read_bytes() == whole
    assert not list(tmp_path.glob("*.work"))


def test_a_bad_file_fails_by_default_and_is_counted_when_skipped(tree, tmp_path):
    (tree / "a" / "08.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a/08\.png: empty file"):
        prepare(tree, tmp_path / "out.zip", SHAPE)
    assert not (tmp_path / "out.zip").exists()
    made = prepare(tree, tmp_path / "other.zip", SHAPE, skip_bad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = load(str(tree), split="all", size=8, channels=1, options={"filter": "box", "skip_bad": True})
    assert (made.count, made.skipped) == (34, {"empty file": 1})
    assert load(str(made.path), split="all").content_hash == direct.content_hash


def test_a_source_with_nothing_good_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="None of the images"):
        prepare(tmp_path / "x", tmp_path / "out.zip", SHAPE, skip_bad=True)
    assert not (tmp_path / "out.zip").exists()


def test_unlabelled_and_nonuniform_sources(tree, tmp_path):
    made = prepare(tree, tmp_path / "bare.zip", SHAPE, labels=False)
    assert load(str(made.path)).labels is None
    with pytest.raises(DataError, match="a size resizes all of them"):
        prepare(tree, tmp_path / "mixed.zip", Shape())
    with pytest.raises(DataError, match=r"new \.zip file.*exists"):
        prepare(tree, made.path, SHAPE)
    with pytest.raises(DataError, match=r"new \.zip file"):
        prepare(tree, tmp_path / "folder", SHAPE)


def test_numbers_of_the_images_go_with_them(tree, tmp_path):
    names = sorted(file.relative_to(tree).as_posix() for file in tree.glob("*/*.png"))
    rows = [f"{name},{i / 3!r},{'' if i == 2 else -i}" for i, name in enumerate(names)]
    (tree / "attributes.csv").write_text("\n".join(["file,third,down", *reversed(rows)]))
    (tree / names[5]).write_bytes(b"no image")
    made = prepare(tree, tmp_path / "small.zip", SHAPE, skip_bad=True)
    options = {"filter": "box", "skip_bad": True}
    asked = {"split": "all", "attributes": ("down", "third")}
    direct = load(str(tree), size=8, channels=1, options=options, **asked)
    again = load(str(made.path), **asked)
    assert len(direct) == 34 and direct.vector.isnan().sum() == 1
    assert again.images.equal(direct.images)
    torch.testing.assert_close(again.vector, direct.vector, rtol=0, atol=0, equal_nan=True)


def test_a_table_of_numbers_that_does_not_fit_ends_it_before_any_work(tree, tmp_path):
    (tree / "attributes.csv").write_text("file,down\na/00.png,1\n")
    with pytest.raises(DataError, match="no row for .* --no-numbers"):
        prepare(tree, tmp_path / "small.zip", SHAPE)
    names = [file.relative_to(tree).as_posix() for file in tree.glob("*/*.png")]
    (tree / "attributes.csv").write_text("\n".join(["file,down", *(f"{name},1" for name in [*names, "a/none.png"])]))
    with pytest.raises(DataError, match="a row for what is no image of the source: a/none.png"):
        prepare(tree, tmp_path / "small.zip", SHAPE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_numbers_of_a_split_are_those_of_its_images(tree, tmp_path):
    for name in ("train", "test"):
        (tree / name).mkdir()
        (tree / {"train": "a", "test": "b"}[name]).rename(tree / name / "a")
    names = sorted(file.relative_to(tree).as_posix() for file in tree.glob("*/*/*.png"))
    (tree / "attributes.csv").write_text("\n".join(["file,i", *(f"{name},{i}" for i, name in enumerate(names))]))
    made = prepare(tree, tmp_path / "small.zip", SHAPE)
    assert load(str(made.path), split="all", attributes=("i",)).vector[:, 0].tolist() == [*range(17, 35)]
