"""Two sides of any kind: the same images score the same however they are stored; bad input has its own message."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli import main
from sfumato.data import load
from sfumato.data.arrays import read_array
from sfumato.evaluation.calibrating import calibrate
from sfumato.evaluation.real import balanced_classes
from sfumato.evaluation.two_sets import Images, compare_sets, open_set
from sfumato.metrics.features import extractor
from sfumato.metrics.rules import SelfComparisonError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A hundred digits as a folder, a zip and arrays of three layouts; four hundred others to judge them against."""
    folder = tmp_path_factory.mktemp("sides")
    pixels = load("digits", split="all").images.numpy()
    some = pixels[:100, 0]
    (folder / "images").mkdir()
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for i, image in enumerate(some):
            Image.fromarray(image).save(folder / "images" / f"{i:03d}.png")
            archive.write(folder / "images" / f"{i:03d}.png", f"{i:03d}.png")
    np.save(folder / "plain.npy", some)
    np.save(folder / "last.npy", some[..., None])
    np.savez(folder / "first.npz", images=some[:, None], labels=np.arange(100))
    np.save(folder / "others.npy", pixels[400:800, 0])
    np.save(folder / "features.npy", np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32))
    return folder


def fd(folder, name, other="others.npy", **options):
    return compare_sets(
        open_set(str(folder / name)), open_set(str(folder / other)), extract="digits", quiet=True, **options
    )


def test_the_same_images_score_the_same_however_they_are_stored(stored):
    found = [fd(stored, name) for name in ("images", "images.zip", "plain.npy", "last.npy", "first.npz")]
    assert len({(f.scores[0].value, f.scores[0].interval, f.scores[1].value, f.n, f.m) for f in found}) == 1
    assert found[0].scores[0].protocol.codec == "png" and found[2].scores[0].protocol.codec == "none"
    assert 0 < found[0].equal_sets < 2 * found[0].plain


def test_saved_statistics_give_the_plain_value_again_and_say_what_they_lack(stored, tmp_path):
    whole = fd(stored, "plain.npy", save=tmp_path / "held.npz")
    again = compare_sets(
        open_set(str(stored / "images")), open_set(str(tmp_path / "held.npz")), extract="digits", quiet=True
    )
    assert again.plain == pytest.approx(whole.plain, rel=1e-5)
    assert again.scores == () and again.m == 400 and "no interval" in again.flags[0]
    with pytest.raises(ValueError, match="of extractor 'digits'.*Use --extract digits"):
        compare_sets(
            open_set(str(stored / "images")), open_set(str(tmp_path / "held.npz")), extract="random", quiet=True
        )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 6))
    np.savez(tmp_path / "other-tool.npz", mu=x.mean(0), sigma=np.cov(x.T))
    bare = compare_sets(open_set(str(stored / "features.npy")), open_set(str(tmp_path / "other-tool.npz")))
    assert bare.m == 0 and bare.equal_sets is None and any("unverified" in flag for flag in bare.flags)
    assert set(bare.refused) == {"kid"} and "a statistics file" in bare.refused["kid"]


def test_what_a_statistics_file_does_not_decide_is_refused(stored, tmp_path):
    fd(stored, "plain.npy", save=tmp_path / "held.npz")
    images, held = open_set(str(stored / "images")), open_set(str(tmp_path / "held.npz"))
    with pytest.raises(ValueError, match="kid needs the images or features of the reference"):
        compare_sets(images, held, extract="digits", metrics=("kid",), quiet=True)
    with pytest.raises(ValueError, match="holds statistics already"):
        compare_sets(images, held, extract="digits", save=tmp_path / "other.npz", quiet=True)
    assert not (tmp_path / "other.npz").exists()


def test_features_computed_elsewhere_are_judged_against_statistics_and_marked(stored, tmp_path):
    """They give the value of the images that they are of; what nobody can check is said."""
    whole = fd(stored, "plain.npy", save=tmp_path / "held.npz")
    judge = extractor("digits", (1, 8, 8))
    np.save(tmp_path / "features.npy", judge(torch.from_numpy(np.load(stored / "plain.npy"))[:, None]).numpy())
    features, held = open_set(str(tmp_path / "features.npy")), open_set(str(tmp_path / "held.npz"))
    found = compare_sets(features, held, quiet=True)
    assert found.plain == pytest.approx(whole.plain, rel=1e-4)
    assert "features that were computed elsewhere, taken for those of extractor 'digits'" in found.flags


@pytest.mark.parametrize("given", [{"extract": "digits"}, {"options": {"resize": "clean"}}])
def test_an_extractor_is_refused_where_nothing_is_extracted(stored, given):
    features = open_set(str(stored / "features.npy"))
    with pytest.raises(ValueError, match="neither set is images"):
        compare_sets(features, features + 1, **given, quiet=True)


def test_a_set_under_another_name_is_still_itself(stored):
    with pytest.raises(SelfComparisonError, match="100 of 100"):
        fd(stored, "images", "first.npz")
    with pytest.raises(SelfComparisonError, match="300 of 300"):
        features = open_set(str(stored / "features.npy"))
        compare_sets(features, np.array(features))


def test_sides_that_do_not_fit_each_other_are_refused(stored, tmp_path):
    np.save(tmp_path / "larger.npy", np.random.default_rng(0).integers(0, 255, (60, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="does not resize"):
        compare_sets(open_set(str(stored / "plain.npy")), open_set(str(tmp_path / "larger.npy")), extract="pixels")
    with pytest.raises(ValueError, match="features for both"):
        compare_sets(open_set(str(stored / "plain.npy")), open_set(str(stored / "features.npy")), quiet=True)
    with pytest.raises(ValueError, match="can only\n?.* be the reference|only be the reference"):
        compare_sets(tmp_path / "any.npz", open_set(str(stored / "plain.npy")))


def write(path: Path, kind: str) -> None:
    """Write a file that is not what it should be."""
    rng, good = np.random.default_rng(0), np.zeros((50, 8, 8), np.uint8)
    {
        "objects": lambda: np.save(path, np.array([{"a": 1}] * 4, dtype=object), allow_pickle=True),
        "short": lambda: (np.save(path, good), path.write_bytes(path.read_bytes()[:-500])),
        "text": lambda: path.write_text("not an array"),
        "nan": lambda: np.save(path, np.full((50, 4), np.nan, np.float32)),
        "integers": lambda: np.save(path, np.zeros((50, 4), np.int64)),
        "one": lambda: np.save(path, good[:1]),
        "shape": lambda: np.save(path, np.zeros((50, 8, 9, 5), np.uint8)),
        "bomb": lambda: np.savez_compressed(path, images=np.zeros((9000, 128, 128), np.uint8)),
        "several": lambda: np.savez(path, a=good, b=good),
        "few": lambda: np.save(path, rng.integers(0, 255, (30, 8, 8), np.uint8)),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "suffix", "words"),
    [
        ("objects", ".npy", "objects of Python are not read"),
        ("short", ".npy", "where the file has"),
        ("text", ".npy", "is not a readable array"),
        ("text", ".npz", "is not a readable array"),
        ("nan", ".npy", "50 of 50 rows"),
        ("integers", ".npy", "Images are uint8"),
        ("one", ".npy", "holds 1 image; a comparison needs"),
        ("shape", ".npy", "cannot be read as images. Images are uint8 (N, H, W), (N, H, W, C) or"),
        ("bomb", ".npz", "more than 100 times"),
        ("several", ".npz", "must hold one array"),
        ("few", ".npy", "at least 40 images on each side, got n = 30"),
    ],
)
def test_bad_arrays_have_each_their_message_and_nothing_is_written(kind, suffix, words, stored, tmp_path, capsys):
    path, out = tmp_path / f"bad{suffix}", tmp_path / "scores.json"
    write(path, kind)
    code = main(["fd", str(path), str(stored / "others.npy"), "--extract", "digits", "--out", str(out), "--quiet"])
    said = capsys.readouterr()
    assert code == 2 and words in said.err and "Traceback" not in said.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [({}, "holds no images"), ({"a.png": b""}, "bad"), ({"a.png": b"text", "b.png": b"text"}, "bad")],
)
def test_folders_without_images_are_refused(files, words, stored, tmp_path, capsys):
    """P18 on folders: empty, nothing whole in it."""
    (tmp_path / "images").mkdir()
    for name, content in files.items():
        (tmp_path / "images" / name).write_bytes(content)
    assert main(["fd", str(tmp_path / "images"), str(stored / "others.npy"), "--extract", "digits", "--quiet"]) == 2
    said = capsys.readouterr()
    assert words in said.err and "Traceback" not in said.err


def test_images_of_two_sizes_in_one_folder_are_refused(tmp_path, stored):
    (tmp_path / "images").mkdir()
    for i in range(300):
        Image.new("L", (8, 8) if i < 280 else (9, 8), i % 256).save(tmp_path / "images" / f"{i:03d}.png")
    with pytest.raises(ValueError, match="differ in shape|where most have"):
        fd(tmp_path, "images", str(stored / "others.npy"))


def test_a_command_writes_scores_that_compare_reads(stored, tmp_path, capsys):
    words = ["--extract", "digits", "--quiet", "--metrics", "kid,pr"]
    for name in ("one", "two"):
        assert (
            main(
                [
                    "fd",
                    str(stored / "plain.npy"),
                    str(stored / "others.npy"),
                    *words,
                    "--out",
                    str(tmp_path / f"{name}.json"),
                ]
            )
            == 0
        )
    assert [s["name"] for s in json.loads((tmp_path / "one.json").read_text())["scores"]] == [
        "KID[digits]",
        "precision[digits]",
        "recall[digits]",
    ]
    assert main(["compare", str(tmp_path / "one.json"), str(tmp_path / "two.json")]) == 0
    assert "not distinguishable" in capsys.readouterr().out
    assert main(["fd", "nothing.npy", str(stored / "others.npy")]) == 2
    assert "There is no file nothing.npy" in capsys.readouterr().err


def test_real_against_real_is_bias_in_plain_and_nothing_when_corrected():
    found = calibrate(load("digits", split="train"), (60, 120, 240, 480), extract="pixels", repeats=4)
    plain = [s.plain for s in found.scores["fd"]]
    assert all(a > 1.5 * b for a, b in zip(plain, plain[1:]))  # twice the images, half the distance
    assert found.slope == pytest.approx(found.expected[-1] * 480 / 2, rel=0.25)  # the Gaussian prediction
    for scores in found.scores.values():
        assert sum(s.interval[0] <= 0 <= s.interval[1] for s in scores) >= 3
    with pytest.raises(ValueError, match="The largest possible size is 718"):
        calibrate(load("digits", split="train"), (1000,), extract="pixels")


def test_calibration_is_one_command_with_a_picture(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["calibrate", "digits", "--n", "60,120", "--repeats", "2", "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "FD[digits]" in said and "(1/n + 1/m)" in said
    assert (out / "against-size.png").stat().st_size > 10_000
    assert json.loads((out / "calibration.json").read_text())["sizes"] == [60, 120]
    assert main(["calibrate", "digits", "--n", "60,x"]) == 2
    assert "separated by commas" in capsys.readouterr().err


def test_an_array_is_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((10, 8, 8), np.uint8))
    assert isinstance(read_array(tmp_path / "a.npy"), np.memmap)


def test_a_balanced_reference_keeps_the_shares_of_its_classes(stored):
    """As beside a run: the number of each class was chosen, so groups are dealt within classes."""
    data = load("digits", split="train")
    rows = torch.cat([(data.labels == k).nonzero()[:20, 0] for k in range(10)])
    even = data.subset(rows.tolist())
    b = Images("even", 200, even.shape, lambda: iter(even.images.split(50)), labels=balanced_classes(even))
    a = open_set(str(stored / "others.npy"))
    for reference, strata in ((b, [False, True]), (replace(b, labels=None), [False, False])):
        score = compare_sets(a, reference, extract="digits", metrics=("kid",), quiet=True).scores[0]
        assert score.protocol.options["strata"] == strata
    assert balanced_classes(data) is None


def test_a_metric_that_cannot_be_computed_is_told_and_the_others_are_computed(stored):
    found = fd(stored, "plain.npy", metrics=("fd-infinity", "kid"))
    assert [score.name for score in found.scores] == ["KID[digits]"]
    assert "at least 5001" in found.refused["fd-infinity"]
    with pytest.raises(ValueError, match="at least 5001"):
        fd(stored, "plain.npy", metrics=("fd-infinity",))
