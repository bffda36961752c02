"""``sfumato restore`` and ``sfumato edit``: what they write and say, and bad input as a sentence before any walk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.model import load
from sfumato.report.save import command_in, description
from sfumato.runs.conditions import usual_method


def png(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return png(tmp_path / "one.png", np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:5, 3:7] = 255
    return png(tmp_path / "mask.png", pixels)


def test_a_picture_is_restored_sample_by_sample(labelled: Path, picture: Path, mask: Path, tmp_path: Path, cli) -> None:
    """PNGs, a sheet that says what made it, JSON; seen pixels are the picture's, hidden ones differ between samples."""
    out = tmp_path / "out"
    words = ["task=inpaint", f"mask={mask}", "grid.steps=3", "iterations=2"]
    said = cli("restore", labelled, picture, *words, "--samples", 3, "--out", out)
    assert said.code == 0, said.err
    assert "1 picture, inpaint, 19% hidden, method moment, 3 samples each" in said.out
    assert "5 network calls and 10 gradients (vector-Jacobian products) an image" in said.out  # Heun's method
    original, hidden = np.asarray(Image.open(picture)), np.asarray(Image.open(mask)) > 0
    made = [np.asarray(Image.open(out / f"one-sample-{k}.png")) for k in (1, 2, 3)]
    for image in made:
        assert np.array_equal(image[~hidden], original[~hidden])
    assert not np.array_equal(made[0][hidden], made[1][hidden])
    assert {f.name for f in out.iterdir()} == {
        *(f"one-{what}.png" for what in ("sample-1", "sample-2", "sample-3", "mean", "low", "high")),
        "sheet.png",
        "restored.json",
    }
    report = json.loads((out / "restored.json").read_text())
    assert report["scores"]["PSNR, mean"][0] > 0 and report["coverage expected"] == 0.5
    assert (report["calls"], report["vector-Jacobian products"], report["options"]) == (5, 10, {"iterations": 2})
    assert command_in(out / "sheet.png").endswith("iterations=2 --samples 3")
    assert "moment" in description(out / "sheet.png")
    assert "PSNR, a sample" in said.out and " dB" in said.out and "0.50 is right" in said.out


def test_a_task_that_is_not_linear_takes_a_method_that_fits(labelled: Path, picture: Path, tmp_path: Path, cli) -> None:
    """It was a refusal that named the method."""
    words = ["restore", labelled, picture, "grid.steps=2", "--samples", 1]
    said = cli(*words, "task=quantise", "levels=4", "--out", tmp_path / "a")
    assert said.code == 0 and "1 picture, quantise" in said.out and "method dps, one sample each" in said.out
    made = load(labelled, device="cpu")
    assert [usual_method(made.run.plan, made.task(name)) for name in ("jpeg", "inpaint")] == ["dps", "moment"]


def test_held_out_images_are_scored(labelled: Path, tmp_path: Path, cli) -> None:
    said = cli(
        "restore",
        labelled,
        "task=superres",
        "grid.steps=2",
        "--score",
        5,
        "--method",
        "ddnm",
        "--classes",
        "own",
        "--out",
        tmp_path,
    )
    assert said.code == 0, said.err
    assert "5 pictures, superres, 4x4 to 8x8" in said.out and "3 network calls and 0 gradients" in said.out
    for name in ("PSNR, a sample", "PSNR, mean", "coverage"):
        value, low, high = json.loads((tmp_path / "restored.json").read_text())["scores"][name]
        assert low < value < high
    assert not list(tmp_path.glob("*sample*"))
    assert "No distance of the whole set: FD needs at least 40 images" in said.out


def test_a_restored_set_has_a_distance_with_interval_and_floor(labelled: Path, tmp_path: Path, cli) -> None:
    """Against the test images that were not restored; the floor is the originals' own distance."""
    said = cli(
        "restore",
        labelled,
        "task=inpaint",
        "grid.steps=2",
        "--score",
        60,
        "--method",
        "ddnm",
        "--samples",
        1,
        "--out",
        tmp_path,
    )
    assert said.code == 0, said.err
    score = json.loads((tmp_path / "restored.json").read_text())["distance"]
    assert score["n"] == 60 and score["m"] == 300 and "FD[" in said.out and "originals" in said.out
    assert score["interval"][0] < score["value"] < score["interval"][1] and score["floor"]["n"] == 60
    assert score["value"] > score["floor"]["value"]  # of a network that has learned nothing


def test_a_measurement_is_restored_without_its_original(labelled: Path, picture: Path, tmp_path: Path, cli) -> None:
    """A small picture has the size of a measurement; a damaged one of full size says so. There is nothing to score."""
    small = png(tmp_path / "small.png", np.full((4, 4), 90, np.uint8))
    assert cli("restore", labelled, small, "task=superres", "grid.steps=2", "--out", tmp_path / "a").code == 0
    assert Image.open(tmp_path / "a" / "small-sample-1.png").size == (8, 8)
    said = cli(
        "restore", labelled, picture, "task=denoise", "noise=0.3", "grid.steps=2", "--damaged", "--out", tmp_path
    )
    assert said.code == 0 and "PSNR" not in said.out
    assert "scores" not in json.loads((tmp_path / "restored.json").read_text())


def test_the_ends_are_said(labelled: Path, picture: Path, tmp_path: Path, cli) -> None:
    """A mask that hides nothing gives the picture, one that hides all the plain samples of the seeds."""
    nothing = png(tmp_path / "nothing.png", np.zeros((8, 8), np.uint8))
    said = cli("restore", labelled, picture, "task=inpaint", f"mask={nothing}", "grid.steps=2", "--out", tmp_path / "a")
    assert "Nothing is hidden: the picture comes back." in said.out
    assert np.array_equal(Image.open(tmp_path / "a" / "one-sample-1.png"), Image.open(picture))
    said = cli(
        "restore",
        labelled,
        picture,
        "task=inpaint",
        "mask=random 100%",
        "grid.steps=3",
        "--samples",
        1,
        "--out",
        tmp_path / "b",
    )
    assert "All is hidden: plain sampling." in said.out
    run = load(labelled).sampled("heun", steps=3).run
    plain = run.source()([0], None)[0, 0].numpy()
    assert np.array_equal(Image.open(tmp_path / "b" / "one-sample-1.png"), plain)


def test_pictures_and_masks_are_fitted_if_asked(labelled: Path, tmp_path: Path, cli) -> None:
    large = png(tmp_path / "large.png", np.full((30, 20, 3), 200, np.uint8))
    mask = png(tmp_path / "wide.png", np.full((16, 16), 255, np.uint8))
    words = ["restore", labelled, large, "task=inpaint", f"mask={mask}", "grid.steps=2", "--out", tmp_path]
    said = cli(*words)
    assert said.code == 2 and "wide.png is 16x16 and the image 8x8. --fit resizes it" in said.err
    assert cli(*words, "--fit").code == 0
    said = cli("restore", labelled, large, "task=inpaint", "grid.steps=2")
    assert said.code == 2 and "is RGB 20x30; this needs grey 8x8. --fit converts and resizes it." in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=inpaint"], "Name pictures to restore, or --score N"),
        (["PICTURE"], "Say what to undo: task=NAME, one of colorize, deblur"),
        (["PICTURE", "task=inpant"], "Unknown task 'inpant'. Did you mean 'inpaint'?"),
        (["PICTURE", "task=inpaint", "--method", "pigmd"], "Unknown method 'pigmd'. Did you mean 'pigdm'?"),
        (["PICTURE", "task=inpaint", "maks=half"], "Unknown field 'maks'"),
        (["PICTURE", "task=inpaint", "mask=left"], 'A mask is "half"'),
        (["PICTURE", "task=inpaint", "mask=gone.png"], "No such file or directory: gone.png"),
        (["PICTURE", "task=inpaint", "noise=-0.5"], "standard deviation >= 0; got -0.5"),
        (["PICTURE", "task=colorize"], "colorize needs pictures of three channels; these have 1"),
        (["PICTURE", "task=superres", "factor=3"], "divides the size 8x8; got 3"),
        (["PICTURE", "task=quantise", "--method", "ddnm"], "method ddnm needs a linear task, and quantise is not one"),
        (["PICTURE", "task=jpeg", "--method", "moment"], "needs a linear task, and jpeg is not one. Use method dps."),
        (["PICTURE", "task=inpaint", "--samples", "0"], "--samples, --resample and --score are at least 1"),
        (["PICTURE", "task=inpaint", "--resample", "1000000000000"], "--resample at most 1,000"),
        (["PICTURE", "task=inpaint", "--samples", "1000000000000"], "at most 10,000,000 images"),
        (["PICTURE", "task=inpaint", "--classes", "eleven"], "Unknown class 'eleven'"),
        (["PICTURE", "task=inpaint", "task=superres"], "task is set twice (task=inpaint, task=superres)"),
        (["PICTURE", "task=inpaint", "grid.steps=2", "grid.steps=3"], "grid.steps is set twice"),
        (["missing.png", "task=inpaint"], "There is no such picture or folder: missing.png"),
        (["task=inpaint", "--score", "100000"], "test has 360 images; got --score 100000"),
    ],
)
def test_bad_input_is_a_sentence_before_any_walk(
    words: list[str], message: str, labelled: Path, picture: Path, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.sources.Diffusion.walk", lambda *_: pytest.fail("it walked"))
    said = cli("restore", labelled, *(str(picture) if word == "PICTURE" else word for word in words))
    assert said.code == 2 and message in said.err, said.err


def test_a_text_file_is_no_picture(labelled: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "note.png").write_text("not a picture")
    said = cli("restore", labelled, tmp_path / "note.png", "task=inpaint")
    assert said.code == 2 and "note.png: not a PNG" in said.err
    (tmp_path / "empty").mkdir()
    said = cli("restore", labelled, tmp_path / "empty", "task=inpaint")
    assert said.code == 2 and "There is no picture" in said.err


def test_an_edit_is_drawn_beside_its_picture(labelled: Path, picture: Path, mask: Path, tmp_path: Path, cli) -> None:
    out = tmp_path / "edit.png"
    words = ["edit", labelled, picture, "grid.steps=3", "--out", out]
    said = cli(*words, "--to", 3, "--strength", 0.6, "--mask", mask, "--n", 2)
    assert said.code == 0 and "strength 0.6, noised to sigma / alpha" in said.out and "as 3" in said.out
    assert command_in(out).endswith(f"--to 3 --mask {mask} --n 2")
    assert "strength 0.6" in description(out)
    assert "0.0 grey levels (RMSE) from the picture" in cli(*words, "--strength", 0).out
    assert "encoded as 2 and decoded as 3" in cli(*words, "--to", 3, "--encode-as", 2).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name one picture to edit"),
        (["PICTURE", "--strength", "1.5"], "strength of an edit lies in [0, 1] (0 the picture, 1 a new one); got 1.5"),
        (["PICTURE", "--to", "eleven"], "Unknown class 'eleven'"),
        (["PICTURE", "--to", "3,5"], "Give one class; got 2: 3, 5"),
        (["PICTURE", "--encode-as", "3,5"], "Give one class; got 2: 3, 5"),
        (["PICTURE", "--mask", "WRONG"], "the image 8x8. --fit resizes it"),
        (["PICTURE", "--mask", "DARK"], "dark.png: This mask marks no pixel: its largest value is 1"),
        (["WRONG"], "this needs grey 8x8"),
        (["gone.png"], "No such file or directory: gone.png"),
    ],
)
def test_a_bad_edit_is_a_sentence(
    words: list[str], message: str, labelled: Path, picture: Path, tmp_path: Path, cli
) -> None:
    wrong = png(tmp_path / "wrong.png", np.zeros((9, 9), np.uint8))
    dark = png(tmp_path / "dark.png", np.eye(8, dtype=np.uint8))
    names = {"PICTURE": picture, "WRONG": wrong, "DARK": dark}
    said = cli("edit", labelled, *(names.get(word, word) for word in words))
    assert said.code == 2 and message in said.err, said.err


def test_in_python(labelled: Path) -> None:
    """The same three calls: a task, restoring, editing; seeds are positions."""
    model = load(labelled).sampled("heun", steps=3)
    images = torch.arange(128, dtype=torch.uint8).reshape(2, 1, 8, 8) * 2
    task = model.task("inpaint", mask="random 40%")
    found = model.restore(images, task, "pigdm", samples=3, classes=[4])
    assert found.samples.shape == (2, 3, 1, 8, 8) and (found.nfe, found.vjps) == (5, 5)
    guided = model.guided(2.0).restore(images, task, "pigdm", samples=3, classes=[4])
    assert (guided.nfe, guided.vjps) == (10, 5)  # the network is asked with and without the class
    assert torch.allclose(task.apply(found.mean), task.apply(images / 127.5 - 1), atol=1e-6)
    damaged = images.masked_fill(task.open(), 0)  # what a mask hides is not looked at, and a measurement is one
    for given in (damaged, images / 127.5 - 1, task.apply(images / 127.5 - 1)):
        again = model.restore(given, task, "pigdm", samples=3, classes=[4], damaged=True)
        assert torch.equal(again.samples, found.samples)
    edited = model.edit(images, to=5, strength=1.0)
    assert torch.equal(edited.images, model.sample(2, classes=[5], progress=False).images)
    assert torch.equal(model.edit(images, strength=0.0).images, images)


def test_a_gan_has_no_denoiser_to_restore_with(tmp_path: Path, picture: Path, cli) -> None:
    gan = tmp_path / "gan"
    words = ["dcgan-digits", "train.images=128", "train.batch=64", "--out", gan, "--device", "cpu", "--quiet"]
    assert cli("train", *words).code == 0
    for said in (cli("restore", gan, picture, "task=inpaint"), cli("edit", gan, picture)):
        assert said.code == 2 and "generator" in said.err, said.err


def test_walking_every_step_again_costs_as_many_calls(labelled: Path, picture: Path, tmp_path: Path, cli) -> None:
    """RePaint's resampling from the command line: three walks of every step, with one-step Euler."""
    words = ["task=inpaint", "sampler=euler", "grid.steps=4", "--method", "replacement", "--resample", 3]
    said = cli("restore", labelled, picture, *words, "--out", tmp_path / "out")
    assert said.code == 0 and "12 network calls and 0 gradients" in said.out, said.err


def test_what_comes_next_names_a_class_where_there_are_classes(
    labelled: Path, unlabelled: Path, picture: Path, tmp_path: Path, cli
) -> None:
    for run, more in ((labelled, "--to 9 "), (unlabelled, "")):
        out = tmp_path / run.name
        said = cli("restore", run, picture, "task=inpaint", "mask=half", "--samples", 1, "-o", out, "--device", "cpu")
        assert said.code == 0 and f"{out / 'one-sample-1.png'} {more}" in said.out, said.err
