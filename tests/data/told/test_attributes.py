"""Attributes: measured by their rule, read from a table beside the images, and refused with the rule."""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.core.find import UnknownNameError
from sfumato.data import DataError, celeba, check, load
from sfumato.data.digits import digits
from sfumato.data.loader import Loader
from sfumato.data.told import attributes
from sfumato.data.told.attributes import MEASURES, SIDED, asked, read_table, standard, summary, unseen

ROWS = [("ink", 0.25, 0.1, 0.0, 0.5), ("slant", 0.0, 1.0, -2.0, 2.0)]


@pytest.fixture
def folder(tmp_path):
    """Eight pictures in two classes, and a table of two columns whose last cell of the first row is empty."""
    top = tmp_path / "pets"
    names = [f"{'ab'[i % 2]}/{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 30 * i, dtype=np.uint8)).save(top / name)
    lines = [f"{name},{i},{'' if i == 0 else i % 3 == 0:d}" if i else f"{name},0," for i, name in enumerate(names)]
    (top / "attributes.csv").write_text("\n".join(["file,angle,smiling", *lines]) + "\n")
    return top


@pytest.mark.parametrize("name", MEASURES)
def test_a_mirror_changes_what_is_sided_and_nothing_else(name: str) -> None:
    """So data.flip, which mirrors after measuring, is refused beside those alone."""
    images = digits().images
    mine, mirrored = MEASURES[name](images), MEASURES[name](images.flip(-1))
    assert torch.allclose(mine, mirrored, rtol=1e-9) is (name not in SIDED)


def test_a_stroke_is_measured_as_its_rule_says():
    """A stroke of slope k has slant k; a full image has ink 1 and the width of a uniform distribution."""
    stroke = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    for y in range(9):
        stroke[0, 0, y, 8 - y] = 255  # one to the right for each pixel that it rises
    assert float(MEASURES["slant"](stroke)) == pytest.approx(1.0)
    assert float(MEASURES["slant"](stroke.flip(-1))) == pytest.approx(-1.0)
    assert float(MEASURES["ink"](stroke)) == pytest.approx(9 / 81)
    full = torch.full((1, 1, 12, 12), 255, dtype=torch.uint8)
    assert float(MEASURES["width"](full)) == pytest.approx(2 * math.sqrt((12**2 - 1) / 12) / 12)
    assert bool(MEASURES["slant"](torch.zeros(1, 1, 4, 4, dtype=torch.uint8)).isnan())


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_measured_does_not_depend_on_how_many_are_measured_at_once(name, monkeypatch):
    images = torch.randint(0, 256, (8, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = MEASURES[name](images)
    monkeypatch.setattr(attributes, "AT_ONCE", 3)
    assert torch.equal(MEASURES[name](images), whole) and MEASURES[name](images[:0]).shape == (0,)


def test_a_table_is_read_beside_a_folder_and_in_an_archive(folder):
    whole = load(f"folder:{folder}", split="all", attributes=("smiling", "angle"))
    order = ["a/0.png", "a/2.png", "a/4.png", "a/6.png", "b/1.png", "b/3.png", "b/5.png", "b/7.png"]
    assert whole.vector[:, 1].tolist() == [float(name[2]) for name in order]
    assert bool(whole.vector[0, 0].isnan()) and whole.vector[1:, 0].tolist() == [0, 0, 1, 0, 1, 0, 0]
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder).as_posix())
    packed = load(f"zip:{folder.with_suffix('.zip')}", split="all", attributes=("smiling", "angle"))
    assert packed.vector.nan_to_num(9).equal(whole.vector.nan_to_num(9))
    assert load(f"folder:{folder}", split="all").vector is None


def test_rows_follow_their_images_into_parts_and_batches(folder):
    data = load(f"folder:{folder}", split="all", attributes=("angle", "ink"))
    part = data.subset([3, 5]).keep_classes(["b"])
    assert part.vector[:, 0].tolist() == [3.0] and part.vector[0, 1] == pytest.approx(90 / 255)
    x0, told, _ = Loader(data, seed=1).batch(0, 8)
    assert torch.allclose(told.vector[:, 1], ((x0 + 1) / 2).mean((1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("a/0.png,0,\n", ""), r"no row for a/0.png \(1 in all\)"),
        (lambda text: text + "a/99.png,1,1\n", r"what is no image of the source: a/99.png \(1 in all\)"),
        (lambda text: text.replace("a/2.png,2", "a/2.png,nan"), "column angle must hold a finite number"),
        (lambda text: text.replace("a/2.png,2", "a/2.png,up"), "column angle must hold a finite number"),
        (lambda text: text + "a/0.png,1,1\n", "repeats a file"),
        (lambda text: text.replace("a/2.png,2,", "a/2.png,"), "has 2 cells, and line 1 has 3"),
        (lambda text: text.replace("a/2.png,2", "a/2.png,1_0"), "column angle must hold a finite number"),
        (lambda text: text.replace("a/2.png,2", "a/2.png,1e39"), "column angle must hold a finite number"),
        (lambda text: text.replace("a/2.png,2", "\n\na/2.png,up"), "Line 6 of"),
        (lambda text: text + "a" * 200_000 + ",1,1\n", "is no line of a table"),
        (lambda text: "", "begins with a line of column names"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(folder, change, said):
    table = folder / "attributes.csv"
    table.write_text(change(table.read_text()))
    with pytest.raises(DataError, match=said):
        load(f"folder:{folder}", split="all", attributes=("angle",))


def test_numbers_that_32_bits_do_not_tell_apart_are_refused_where_they_are_told(folder):
    """Dates of a day, in seconds since 1970: as they are all images would be told one of two numbers."""
    table = folder / "attributes.csv"
    head, *lines = table.read_text().splitlines()
    rows = [f"{line},{1_700_000_000 + i}" for i, line in enumerate(lines)]
    table.write_text("\n".join([f"{head},taken", *rows]) + "\n")
    assert load(f"folder:{folder}", split="all", attributes=("angle",)).vector.dtype == torch.float32
    with pytest.raises(DataError, match=r"taken holds numbers about 1.7e\+09 that 32 bits do not tell apart"):
        load(f"folder:{folder}", split="all", attributes=("taken",))


@pytest.mark.parametrize("text", ["1e39", "1_0", "1_0sd", "\u0663"])
def test_a_number_that_is_asked_for_is_finite_as_the_model_is_told_it(text):
    """Python reads 1_0 and the Arabic three as numbers; a table refuses them as well."""
    with pytest.raises(ValueError, match="ink must be a finite number"):
        asked({"ink": text}, [("ink", 0.3, 0.1, 0.0, 1.0)])
    with pytest.raises(DataError, match="must hold a finite number"):
        read_table(f"file,ink\na.png,{text}\n", "attributes.csv")


@pytest.mark.parametrize("number", [1e300, -1e39])
def test_a_number_that_32_bits_do_not_hold_is_refused_wherever_it_comes_from(number):
    digits = load("digits")
    column = torch.zeros(len(digits), 1, dtype=torch.float64)
    column[3] = number
    with pytest.raises(DataError, match="beyond 3.4e[+]38"):
        attributes.with_attributes(replace(digits, vector=column, attributes=("angle",)), ["angle"])


def test_an_unknown_attribute_offers_the_nearest(folder):
    with pytest.raises(UnknownNameError, match="Did you mean 'smiling'"):
        load(f"folder:{folder}", split="all", attributes=("smilling",))
    with pytest.raises(UnknownNameError, match="Did you mean 'slant'"):
        load("digits", attributes=("slent",))
    (folder / "attributes.csv").unlink()
    with pytest.raises(DataError, match="holds no attributes.csv"):
        load(f"folder:{folder}", split="all", attributes=("angle",))


def test_a_summary_leaves_out_what_is_not_known_and_refuses_a_constant(folder):
    data = load(f"folder:{folder}", split="all", attributes=("angle", "smiling"))
    rows = summary(data)
    assert rows[0] == ("angle", 3.5, pytest.approx(2.29129), 0.0, 7.0) and rows[1][1] == pytest.approx(2 / 7, abs=1e-6)
    told = standard(data.vector, rows)
    assert float(told[:, 0].mean()) == pytest.approx(0, abs=1e-5)
    assert float(told[:, 0].std(correction=0)) == pytest.approx(1, abs=1e-5) and bool(told[0, 1].isnan())
    with pytest.raises(DataError, match="Attribute smiling of the 2 all images is 0 for all of them"):
        summary(data.subset([1, 2]))


def test_what_is_asked_for_by_name_is_standardised_and_the_rest_left_open():
    assert asked({"ink": 0.35}, ROWS).nan_to_num(9).tolist() == pytest.approx([1.0, 9.0])
    assert asked({"slant": "-2sd", "ink": "0sd"}, ROWS).tolist() == [0.0, -2.0]
    assert unseen(asked({"ink": 0.5, "slant": 3}, ROWS), ROWS) == ["slant=3 lies outside what training saw, -2 to 2."]
    with pytest.raises(ValueError, match="ink must be a finite number"):
        asked({"ink": "dark"}, ROWS)
    with pytest.raises(UnknownNameError, match="This model is told no attributes"):
        asked({"ink": 1}, ())


def test_celeba_gives_the_official_attributes(tmp_path, monkeypatch):
    top = tmp_path / "celeba"
    (top / celeba.IMAGES).mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.full((218, 178, 3), 50 * i, dtype=np.uint8)).save(top / celeba.IMAGES / f"{i}.jpg")
    partition = "".join(f"{i}.jpg 0\n" for i in range(4))
    (top / celeba.PARTITION).write_text(partition)
    monkeypatch.setattr(celeba, "PARTITION_MD5", hashlib.md5(partition.encode()).hexdigest())
    rows = "\n".join(f"{i}.jpg {' 1' if i % 2 else '-1'}  {' 1' if i > 1 else '-1'}" for i in range(4))
    (top / celeba.ATTRIBUTES).write_text(f"4\nSmiling Male\n{rows}\n")
    data = load("celeba", root=tmp_path, size=32, attributes=("male", "smiling"))
    assert data.vector.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    (top / celeba.ATTRIBUTES).write_text(f"4\nSmiling Male\n{rows[:-2]}yes\n")
    with pytest.raises(DataError, match="1 or -1 of each for every file"):
        load("celeba", root=tmp_path, size=32, attributes=("male",))


def test_a_check_names_the_attributes_and_says_what_is_wrong_with_their_table(folder):
    """The table was counted among the files that are passed over."""
    said = str(check(folder))
    assert "; attributes angle, smiling; 0 bad" in said and "passed over" not in said
    (folder / "attributes.csv").write_text("file,angle\na/0.png,many\n")
    said = str(check(folder))
    assert "note  attributes.csv: " in said and "; attributes" not in said
