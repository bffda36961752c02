"""Sources with splits of their own: folders, archives, the Hub, LMDB; and what is left out is told."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main
from sfumato.data import DataError, check, load
from sfumato.data.gathering import Shape
from sfumato.data.splits import pieces
from sfumato.data.streaming import streamed
from sfumato.recipes.digits import edm_digits
from sfumato.runs.override import override
from sfumato.runs.resolve import load_data


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def codes(data) -> list[int]:
    return sorted(data.images[:, 0, 0, 0].tolist())


def write(top: Path, names: dict[str, int]) -> None:
    for name, number in names.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(png(number))


NAMES = {"train/cat/a.png": 1, "train/dog/b.png": 2, "train/dog/c.png": 3, "val/cat/d.png": 4, "test/dog/e.png": 5}


@pytest.mark.parametrize("base", ["", "images/"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev"])
def test_folders_called_as_splits_are_splits(base: str, val: str, tmp_path: Path) -> None:
    top = tmp_path / "pets"
    write(top, {base + name.replace("val/", f"{val}/"): number for name, number in NAMES.items()})
    parts = {split: load(str(top), split=split) for split in ("train", "val", "test", "all")}
    assert {split: codes(data) for split, data in parts.items()} == {
        "train": [1, 2, 3],
        "val": [4],
        "test": [5],
        "all": [1, 2, 3, 4, 5],
    }
    assert all(data.classes == ("cat", "dog") for data in parts.values())
    assert (parts["val"].labels.tolist(), parts["test"].labels.tolist()) == ([0], [1])
    assert parts["val"].rule == f"official {val} split" and parts["val"].split == "val"
    stream = streamed(str(top), Shape(8), split="train", always=True)
    assert stream.content_hash == parts["train"].content_hash and stream.split == "train"
    archive = tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(top.rglob("*.png")):
            file.write(path, path.relative_to(top))
    assert codes(load(str(archive), split="test")) == [5]


def test_without_a_test_folder_validation_is_the_test_set_and_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    write(tmp_path / "two", {"train/a.png": 1, "train/b.png": 2, "val/c.png": 3})
    assert codes(load(str(tmp_path / "two"), split="test")) == [3] == codes(load(str(tmp_path / "two"), split="val"))
    assert load(str(tmp_path / "two")).labels is None
    write(tmp_path / "vehicles", {"train/a.png": 1, "car/b.png": 2})
    assert load(str(tmp_path / "vehicles"), split="all").classes == ("car", "train")
    write(tmp_path / "mixed", {"train/a.png": 1, "test/b.png": 2, "extra/c.png": 3})
    with pytest.raises(DataError, match="holds the splits test, train beside extra"):
        load(str(tmp_path / "mixed"))


def test_pieces_never_train_on_what_is_not_for_training() -> None:
    named = ("unsupervised", "test", "train")
    assert pieces(named, "train", val=0, test=0.2)[0].part == "train"
    assert [p.part for p in pieces(named, "all", val=0, test=0.2)] == ["train", "test"]
    with pytest.raises(ValueError, match="Of the splits a, b, one must be called train"):
        pieces(("a", "b"), "train", val=0, test=0.2)
    with pytest.raises(ValueError, match="at most one val"):
        pieces(("train", "val", "validation"), "val", val=0, test=0.2)


def rows(labels: list, first: int = 0, kind=None):
    datasets = pytest.importorskip("datasets")
    made = {"image": [{"bytes": png(first + i), "path": None} for i in range(len(labels))], "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": kind or datasets.Value("string")})
    return datasets.Dataset.from_dict(made, features=features)


def test_the_layout_of_imagenet_on_the_hub(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kind = datasets.ClassLabel(names=["cat", "dog"])
    datasets.DatasetDict(
        unsupervised=rows([-1, -1], 50, kind),
        test=rows([-1, -1], 30, kind),
        train=rows([0, 1, 1], 10, kind),
        validation=rows([1, 0], 20, kind),
    ).save_to_disk(str(tmp_path / "net"))
    name = f"hub:{tmp_path}/net"
    assert codes(load(name)) == [10, 11, 12] and codes(load(name, split="val")) == [20, 21]
    assert load(name, split="val").labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"The test split of .* has no labels.* Use split val"):
        load(name, split="test")
    assert codes(load(name, split="test", options={"labels": False})) == [30, 31]
    recipe = override(edm_digits(), [f"data.name={name}", "data.labels=false"])
    assert codes(load_data(recipe, "test")) == [30, 31], "the remedy helps"
    whole = load(name, split="all")
    assert codes(whole) == [10, 11, 12, 20, 21]
    assert {"split unsupervised, which is neither train, val nor test", "split test, which has no labels"} <= set(
        whole.left_out
    )


def test_texts_are_labels_and_one_list_of_classes_for_all_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict(train=rows(["dog", "ant", "dog"]), test=rows(["cat"], 9))
    both.save_to_disk(str(tmp_path / "texts"))
    train, test = (load(f"hub:{tmp_path}/texts", split=split) for split in ("train", "test"))
    assert train.classes == test.classes == ("ant", "cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 2], [1])


def database(path: Path, values: dict[bytes, bytes], subdir: bool = True) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as opened, opened.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)


def numbered(*numbers: int) -> dict[bytes, bytes]:
    return {f"{n:08d}".encode(): png(n) for n in numbers}


def test_a_database_in_one_file_and_the_count_of_its_images(tmp_path: Path) -> None:
    database(tmp_path / "one.lmdb", {**numbered(1, 2, 3), b"length": b"3", b"num-samples": b"3"}, subdir=False)
    for name in (f"lmdb:{tmp_path}/one.lmdb", str(tmp_path / "one.lmdb")):
        data = load(name, split="all")
        assert codes(data) == [1, 2, 3] and data.name == "one" and data.left_out == ("2 other files (2 no suffix)",)
    stream = streamed(f"lmdb:{tmp_path}/one.lmdb", Shape(8), split="train", test=0.0, always=True)
    assert len(stream.take(3, 0)) == 3 and len(load(f"lmdb:{tmp_path}/one.lmdb", split="all")) == 3, "both at once"


def test_a_truncated_database_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    database(tmp_path / "db", numbered(*range(200)))
    file = tmp_path / "db" / "data.mdb"
    whole = file.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 8192, 5000, 100, 0):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a whole database|is not a database"):
            load(f"lmdb:{tmp_path}/db", split="all")
    file.write_bytes(whole)
    assert len(load(f"lmdb:{tmp_path}/db", split="all")) == 200
    file.write_bytes(b"no database" * 4000)
    with pytest.raises(DataError, match="not a whole database"):
        load(f"lmdb:{tmp_path}/db", split="all")


def test_databases_of_lsun_have_splits_and_their_errors_name_what_there_is(tmp_path: Path, capsys) -> None:
    for name, numbers in (("bed_train", (1, 2)), ("sky_train", (3,)), ("bed_val", (4,)), ("sky_val", (5,))):
        database(tmp_path / "lsun" / f"{name}_lmdb", numbered(*numbers)) if (tmp_path / "lsun").mkdir(
            exist_ok=True
        ) is None else None
    train, val = (load(f"lmdb:{tmp_path}/lsun", split=split) for split in ("train", "val"))
    assert codes(train) == [1, 2, 3] and codes(val) == [4, 5] and train.classes == val.classes == ("bed", "sky")
    (tmp_path / "same").mkdir()
    database(tmp_path / "same" / "cat_lmdb", numbered(1))
    database(tmp_path / "same" / "cat.lmdb", numbered(2), subdir=False)
    with pytest.raises(DataError, match="several databases that would be class cat") as caught:
        load(f"lmdb:{tmp_path}/same")
    assert "dataset.json" not in str(caught.value)
    database(tmp_path / "a", numbered(*range(60)))
    database(tmp_path / "b", numbered(*range(100, 170)))
    words = ["fd", f"lmdb:{tmp_path}/a", str(tmp_path / "b"), "--extract", "pixels", "--quiet"]
    assert main(words) == 0 and "FD" in capsys.readouterr().out


def test_a_class_folder_of_unsupported_files_does_not_vanish(tmp_path: Path, capsys) -> None:
    write(tmp_path, {"cat/a.png": 1, "cat/b.png": 2})
    (tmp_path / "frog").mkdir()
    for name in ("frog/x.heic", "frog/y.heic", "cat/notes.txt"):
        (tmp_path / name).write_bytes(b"something")
    with pytest.raises(DataError, match=r"Folder frog .* class would vanish. It holds 2 other files \(2 .heic\)"):
        load(str(tmp_path), split="all")
    assert main(["data", "check", str(tmp_path)]) == 2
    (tmp_path / "frog" / "z.png").write_bytes(png(3))
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "passed over: 3 other files (2 .heic, 1 .txt)" in capsys.readouterr().out
    data = load(str(tmp_path), split="all")
    assert data.classes == ("cat", "frog") and data.left_out == ("3 other files (2 .heic, 1 .txt)",)
    assert main(["data", "show", str(tmp_path)]) == 0
    assert "3 other files (2 .heic, 1 .txt)" in capsys.readouterr().out
    (tmp_path / "frog" / "z.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match="All images of class frog"), pytest.warns(UserWarning):
        load(str(tmp_path), split="all", options={"skip_bad": True})


def test_many_sizes_are_counted_and_not_listed(tmp_path: Path, capsys) -> None:
    for i in range(12):
        image = Image.new("RGB", (8 + i % 4, 8), (i, 0, 0))
        image.save(tmp_path / f"{i:02d}.png")
    assert main(["data", "check", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert "9 images have other sizes than most: " in said and said.partition("Next:")[0].count(".png") == 0
    assert all(f"{8 + i}x8 (3)" in said for i in range(3)) and "9 bad" in said
    assert main(["data", "check", str(tmp_path), "--size", "8"]) == 0
    assert len(check(tmp_path, size=8).faults) == 0


def test_preparing_a_source_with_splits_names_the_split_and_what_is_left_out(tmp_path: Path, capsys) -> None:
    write(tmp_path / "pets", NAMES)
    (tmp_path / "pets" / "train" / "dog" / "bad.png").write_bytes(b"")
    words = ["data", "prepare", str(tmp_path / "pets"), str(tmp_path / "train.zip"), "--skip-bad"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "the train split: 3 images, 1 bad ones left out" in said and "left out: 1 (empty file)" in said
    assert load(str(tmp_path / "train.zip"), split="all").classes == ("cat", "dog")
    assert main(["data", "prepare", str(tmp_path / "pets"), str(tmp_path / "v.zip"), "--split", "val"]) == 0
    assert codes(load(str(tmp_path / "v.zip"), split="all")) == [4]
    assert main(["data", "check", str(tmp_path / "pets")]) == 2
    assert "splits test 1, train 4, val 1" in capsys.readouterr().out
