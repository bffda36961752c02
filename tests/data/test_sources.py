"""Hugging Face datasets, LMDB, arrays: the same images from every source, and prepared or checked alike."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli import main
from sfumato.core.errors import UnknownNameError
from sfumato.data import DataError, load
from sfumato.evaluation.two_sets import open_set

COUNT = 30


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.Generator(np.random.Philox(11)).integers(0, 256, (COUNT, 9, 9, 3), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def rows(pixels: np.ndarray):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = {"image": [{"bytes": png(p), "path": None} for p in pixels], "label": [i % 2 for i in range(COUNT)]}
    return datasets.Dataset.from_dict(made, features=features)


def test_parquet_arrow_and_saved_datasets_hold_the_same_images(rows, pixels: np.ndarray, tmp_path: Path) -> None:
    rows.to_parquet(str(tmp_path / "photos.parquet"))
    rows.save_to_disk(str(tmp_path / "saved"))
    for source in (f"hub:{tmp_path}/photos.parquet", f"hub:{tmp_path}/saved"):
        data = load(source, split="all")
        assert data.images.equal(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
        assert data.classes == ("cat", "dog") and data.labels.tolist() == [i % 2 for i in range(COUNT)]
    whole, parts = load(source, split="all"), [load(source, split=s, val=0.2) for s in ("train", "val", "test")]
    assert sum(map(len, parts)) == COUNT and len(parts[1]) > 0
    assert sorted(map(bytes, whole.image_hashes)) == sorted(b for p in parts for b in map(bytes, p.image_hashes))
    assert load(source, split="all", options={"labels": False}).labels is None


def test_official_splits_are_kept(rows, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict(train=rows.select(range(20)), test=rows.select(range(20, COUNT)))
    both.save_to_disk(str(tmp_path / "both"))
    source = f"hub:{tmp_path}/both"
    train, test = load(source), load(source, split="test")
    assert (len(train), len(test)) == (20, 10) and test.rule == "official test split" and test.split == "test"
    assert len(load(source, split="all")) == COUNT
    held, rest = load(source, split="val", val=0.3), load(source, val=0.3)
    assert len(held) + len(rest) == 20 and len(held) > 0


def test_the_other_columns_of_numbers_are_attributes(rows, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    angles = [None if i == 3 else i / 8 for i in range(COUNT)]
    told = rows.add_column("angle", angles).add_column("Smiling", [i % 3 == 0 for i in range(COUNT)])
    told = told.add_column("name", ["x"] * COUNT)
    told.to_parquet(str(tmp_path / "told.parquet"))
    both = datasets.DatasetDict(train=told.select(range(20)), test=told.select(range(20, COUNT)))
    both.save_to_disk(str(tmp_path / "both"))
    whole = load(f"hub:{tmp_path}/told.parquet", split="all", attributes=("Smiling", "angle"))
    assert whole.vector[:, 0].tolist() == [float(i % 3 == 0) for i in range(COUNT)]
    assert bool(whole.vector[3, 1].isnan()) and whole.vector[4:, 1].tolist() == angles[4:]
    assert load(f"hub:{tmp_path}/both", split="test", attributes=("angle",)).vector[:, 0].tolist() == angles[20:]
    assert load(f"hub:{tmp_path}/told.parquet").vector is None
    with pytest.raises(UnknownNameError, match="Did you mean 'angle'"):
        load(f"hub:{tmp_path}/told.parquet", attributes=("angel",))
    rows.to_parquet(str(tmp_path / "plain.parquet"))
    with pytest.raises(DataError, match="needs columns of numbers, the same in every split"):
        load(f"hub:{tmp_path}/plain.parquet", attributes=("angle",))
    rows.add_column("angle", [math.nan, *angles[4:], *angles[4:7]][:COUNT]).to_parquet(str(tmp_path / "nan.parquet"))
    with pytest.raises(
        DataError, match="column angle, must hold a finite number, or null where it is not known; got nan"
    ):
        load(f"hub:{tmp_path}/nan.parquet", attributes=("angle",))


def test_sources_without_images_are_refused(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(str(tmp_path / "text.parquet"))
    with pytest.raises(DataError, match="one column of images; it has 0 among text"):
        load(f"hub:{tmp_path}/text.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="could not be loaded"):
        load(f"hub:{tmp_path}/broken.parquet")


def write_database(folder: Path, values: list[bytes]) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for i, value in enumerate(values):
            transaction.put(f"{i:040x}".encode(), value)


def test_databases_load_and_several_are_a_class_each(pixels: np.ndarray, tmp_path: Path) -> None:
    values = [png(p) for p in pixels]
    (tmp_path / "lsun").mkdir()
    write_database(tmp_path / "lsun" / "bedroom_train_lmdb", values[:18])
    write_database(tmp_path / "lsun" / "church_outdoor_train_lmdb", values[18:])
    one = load(f"lmdb:{tmp_path}/lsun/bedroom_train_lmdb", split="all")
    assert one.images.equal(torch.from_numpy(pixels[:18].transpose(0, 3, 1, 2).copy())) and one.name == "bedroom"
    both = load(f"lmdb:{tmp_path}/lsun", split="all", size=4)
    assert both.classes == ("bedroom", "church_outdoor") and both.labels.tolist() == [0] * 18 + [1] * 12
    assert both.shape == (3, 4, 4)
    with pytest.raises(DataError, match="holds no database"):
        load(f"lmdb:{tmp_path}")
    write_database(tmp_path / "bad", [values[0], b"", b"text"])
    with pytest.raises(DataError, match="2 of 3 images"):
        load(f"lmdb:{tmp_path}/bad", split="all")


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_arrays_of_any_number_of_channels(channels: int, tmp_path: Path) -> None:
    images = np.random.Generator(np.random.Philox(1)).integers(0, 256, (12, 6, 6, channels), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(12) % 3, classes=np.array(["x", "y", "z"]))
    data = load(f"npz:{tmp_path}/a.npz", split="all")
    assert data.shape == (channels, 6, 6) and data.classes == ("x", "y", "z")
    assert data.images.equal(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    np.savez(tmp_path / "adm.npz", images[..., 0])
    assert load(f"npz:{tmp_path}/adm.npz", split="all").shape == (1, 6, 6)
    np.savez(tmp_path / "bad.npz", images=images.astype(np.float32))
    with pytest.raises(
        DataError, match=r"holds float32 \(12, 6, 6, .\), which cannot be read as images. Images are uint8"
    ):
        load(f"npz:{tmp_path}/bad.npz")
    np.savez(tmp_path / "two.npz", images=images, label=np.zeros(12, int), labels=np.arange(12) % 3)
    with pytest.raises(DataError, match="holds label and labels, and only one array can be its labels"):
        load(f"npz:{tmp_path}/two.npz")
    assert load(f"npz:{tmp_path}/two.npz", labels=False, split="all").labels is None
    np.savez(tmp_path / "code.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="objects of Python, which are not read"):
        load(f"npz:{tmp_path}/code.npz")


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ((5, 9, 9), (1, 9, 9)),
        ((5, 3, 9, 9), (3, 9, 9)),
        ((5, 9, 9, 3), (3, 9, 9)),
        ((5, 1, 9, 8), (1, 9, 8)),
        ((5, 8, 9, 1), (1, 8, 9)),
        ((5, 4, 9, 9), (4, 9, 9)),
        ((5, 3, 4, 4), (3, 4, 4)),
        ((5, 4, 4, 3), (3, 4, 4)),
        ((5, 6, 9, 9), (6, 9, 9)),
        ((5, 3, 3, 3), None),
        ((5, 3, 9, 4), None),
        ((5, 9, 3), None),
        ((5, 7, 8, 9), None),
        ((5, 9), None),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_one_rule_says_which_axis_holds_the_channels(shape, read, suffix: str, tmp_path: Path) -> None:
    array = np.random.Generator(np.random.Philox(2)).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    if read is None:
        for reader in (lambda: load(f"npz:{path}"), lambda: open_set(str(path))):
            with pytest.raises(DataError, match="which cannot be read as images. Images are uint8"):
                reader()
        return
    data, images = load(f"npz:{path}", split="all"), open_set(str(path))
    assert data.shape == images.shape == read
    assert data.images.equal(torch.cat(list(images.chunks())))
    first = array.reshape(5, -1)[:, 0]
    assert data.images[:, 0, 0, 0].tolist() == first.tolist()


def test_a_damaged_compressed_file_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.random.default_rng(0).integers(0, 256, (20, 9, 9, 3), dtype=np.uint8))
    whole = path.read_bytes()
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            images = load(f"npz:{path}", split="all").images
        except DataError:
            continue
        path.write_bytes(whole)
        assert images.equal(load(f"npz:{path}", split="all").images), f"byte {at} changed pixels untold"


def test_the_commands_check_prepare_and_show(
    pixels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    for i, array in enumerate(pixels):
        (photos / f"kind{i % 2}").mkdir(parents=True, exist_ok=True)
        (photos / f"kind{i % 2}" / f"{i:02d}.png").write_bytes(png(array))
    assert main(["data", "check", str(photos)]) == 0
    (photos / "kind0" / "bad.png").write_bytes(b"no picture")
    assert main(["data", "check", str(photos)]) == 2
    assert "BAD   kind0/bad.png: not a PNG" in capsys.readouterr().out
    target = tmp_path / "small.zip"
    words = ["data", "prepare", str(photos), str(target), "--size", "4", "--filter", "box", "--channels", "1"]
    assert main(words) == 2 and not target.exists()
    assert main([*words, "--skip-bad"]) == 0
    out = capsys.readouterr().out
    assert "30 images, 1 bad ones left out" in out
    data = load(f"zip:{target}", split="all")
    assert data.shape == (1, 4, 4) and data.classes == ("kind0", "kind1") and len(data) == COUNT
    assert main(["data", "prepare", str(photos), str(target)]) == 2, "an existing target is kept"
    assert main(["data", "show", str(target), str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "1x4x4" in out and "kind0, kind1" in out and (tmp_path / "sheet.png").exists()
    assert main(["data", "prepare", str(photos)]) == 2
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2


def test_a_database_is_prepared_as_a_zip(pixels: np.ndarray, tmp_path: Path) -> None:
    write_database(tmp_path / "cats_lmdb", [png(p) for p in pixels])
    assert main(["data", "prepare", f"lmdb:{tmp_path}/cats_lmdb", str(tmp_path / "cats.zip"), "--size", "8"]) == 0
    assert load(f"zip:{tmp_path}/cats.zip", split="all").shape == (3, 8, 8)
