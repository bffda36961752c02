"""What should not move a score does not, what does is told, and the change has the interval of a paired difference."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sfumato.cli import main
from sfumato.data import load
from sfumato.evaluation import sensitivity as module
from sfumato.evaluation.sensitivity import coded, resized, sensitivity, threads
from sfumato.metrics.features import extractor, features_of, lowered
from sfumato.recipes.gans import sngan_digits
from sfumato.runs.override import override
from sfumato.training.loop import train

LEFT_OUT = ("jpeg, quality 95", "webp, quality 80", "doubled by bicubic, halved", "doubled by lanczos, halved")


@pytest.fixture(scope="module")
def digits():
    return load("digits", split="train").images


@pytest.fixture(scope="module")
def found(digits):
    whole = module.changes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "changes", lambda *given: [one for one in whole(*given) if one.name not in LEFT_OUT])
        return sensitivity(digits[:300], digits[300:500], "digits", quiet=True)


def by(found, name, both=None, metric="FD[digits]"):
    return next(
        one
        for one in found.moved
        if one.change.name == name and one.metric == metric and both in (None, one.change.both)
    )


def test_what_changes_no_pixel_moves_nothing(found):
    for name in ("png", "webp, lossless", "doubled by nearest, halved"):
        for metric in found.base:
            assert by(found, name, metric=metric).by.value == 0 == by(found, name, metric=metric).share


def test_batches_and_threads_move_a_score_by_rounding_alone(found):
    quiet = [one for one in found.moved if one.change.what in ("threads", "batch")]
    assert len(quiet) >= 6 and all(one.share < 1e-3 for one in quiet)


def test_a_blur_of_one_side_moves_it_by_more_than_its_images_do(found):
    blurred, base = by(found, "doubled by bilinear, halved"), found.base["FD[digits]"]
    assert blurred.by.interval[0] > 0 and blurred.value == pytest.approx(base.value + blurred.by.value)
    assert blurred.share == pytest.approx(2 * blurred.by.value / (base.interval[1] - base.interval[0]))
    assert {one.change.both for one in found.moved if one.change.name == "jpeg, quality 75"} == {False, True}


def test_lower_precision_is_told_and_ends_with_its_block(digits):
    extract = extractor("digits", (1, 8, 8))
    exact = features_of(extract, digits[:50])
    with lowered("bfloat16"):
        rough = features_of(extract, digits[:50])
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()
    assert np.array_equal(features_of(extract, digits[:50]), exact) and rough.dtype == np.float32


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("channels", [1, 3])
def test_files_hold_the_pixels(channels):
    images = torch.randint(0, 256, (3, channels, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(coded(images, "PNG", {}), images)
    assert torch.equal(resized(images, "nearest"), images)
    assert not torch.equal(coded(images, *module.CODECS["jpeg, quality 75"]), images)
    with pytest.raises(ValueError, match="1 or 3 channels; these images have 2"):
        coded(images[:, :1].repeat(1, 2, 1, 1), "PNG", {})


def test_the_command_writes_the_table_and_refuses_what_it_cannot_read(tmp_path, capsys):
    words = {"--n": ["60"], "--metrics": ["kid"]}

    def command(*more: str) -> int:
        options = [text for name, values in words.items() if name not in more for text in (name, *values)]
        return main(["calibrate", "digits", "--sensitivity", "--quiet", *options, *more])

    assert command("--out", str(tmp_path)) == 0
    tree = json.loads((tmp_path / "sensitivity.json").read_text())
    assert (tree["n"], tree["m"], list(tree["scores"])) == (60, 60, ["KID[digits]"])
    assert {"dtype", "resize", "threads", "batch", "codec"} <= {one["changed"] for one in tree["moved"]}
    assert (tmp_path / "sensitivity.md").read_text().count("\n") == 2 + 2 + len(tree["moved"])
    capsys.readouterr()
    for more, said in (
        (["--n", "60,120"], "one number of images"),
        (["--n", "5000"], "Two disjoint sets of 5,000"),
        (["--metrics", "saturation"], "saturation is not of features"),
        (["--repeats", "3"], "--sensitivity draws once"),
        (["--against", "digits@test", "--split", "test"], "--split names the part"),
        (["--n", "10000000000"], "10,000,000,000"),
    ):
        assert command(*more) == 2 and said in capsys.readouterr().err
    assert main(["calibrate", "digits", "--against", "digits@test"]) == 2
    assert "Add --sensitivity" in capsys.readouterr().err


def test_any_two_sets_are_compared_and_the_numbers_keep_their_command(tmp_path):
    words = ["calibrate", "digits@train", "--sensitivity", "--against", "digits@test", "--n", "60", "--metrics", "kid"]
    assert main([*words, "--extract", "digits", "--out", str(tmp_path), "--quiet"]) == 0
    tree = json.loads((tmp_path / "sensitivity.json").read_text())
    assert (tree["n"], tree["m"], tree["extractor"]) == (60, 360, "digits")
    assert "--against digits@test" in tree["command"]


@pytest.mark.slow
def test_a_run_is_judged_by_the_images_it_makes(tmp_path):
    small = ["network.up=[8]", "network.down=[8]", "network.flat=0", "network.latent=8", "train.images=64"]
    run = train(override(sngan_digits(), small), tmp_path / "run", quiet=True, device="cpu")
    words = ["calibrate", str(run.path), "--sensitivity", "--n", "60", "--metrics", "kid", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    tree = json.loads((tmp_path / "out" / "sensitivity.json").read_text())
    assert (tree["n"], tree["m"], list(tree["scores"])) == (60, 360, ["KID[digits]"])
