"""``sfumato picture``: every kind is one command and one call, says what it shows, and is the same twice."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sfumato.core.find import entries, options_of
from sfumato.core.images import tile
from sfumato.data import load
from sfumato.data.hashing import hash_images
from sfumato.interop.card import card
from sfumato.pictures import diversity as module
from sfumato.pictures.interpolation import mask_of
from sfumato.pictures.strip import strip
from sfumato.report.save import command_in, description
from sfumato.runs.run import Run

KINDS = entries("picture")
SMALL = {
    "sheet": ["each=2"],
    "strip": ["n=2"],
    "animation": ["n=2"],
    "noising": ["n=1", "columns=3"],
    "guidance": ["each=1", "weights=1,3", "classes=0,1"],
    "real-against-generated": ["each=1"],
    "shared-latent": ["n=2", "levels=2"],
    "interpolation": ["levels=2", "points=3"],
    "diversity": ["each=4", "label=3", "across=2"],
    "reconstruction": ["n=3", "levels=3"],
    "neighbours": ["n=2", "k=2"],
    "progress": ["n=40", "points=3"],
    "edit-strength": ["n=4", "points=3"],
    "autoregressive": ["n=2", "block=4"],
    "training": ["zoom=1"],
}
MEASURED = {"rate-distortion": "sfumato likelihood", "nfe": "sfumato sweep"}  # drawn from results
ELSEWHERE = {"probe", "attributes"}  # of other runs: tests/evaluation/test_probe.py, tests/cli/test_told.py
WRITTEN = "training"  # drawn from the sheets that training wrote


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def test_every_kind_is_tested() -> None:
    assert set(KINDS) == {*SMALL, *MEASURED, *ELSEWHERE, WRITTEN}
    for name, entry in KINDS.items():
        documented = inspect.getdoc(entry) or ""
        for option in options_of(entry):
            assert f"    {option}: " in documented, (name, option)


@pytest.mark.parametrize("kind", SMALL)
def test_each_kind_is_drawn_signed_and_the_same_twice(kind: str, labelled: Path, tmp_path: Path, cli) -> None:
    moving = {"animation": 4, "training": len(list((labelled / "sheets").glob("*.png")))}  # frames of a GIF
    suffix = ".gif" if kind in moving else ".png"
    found = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}{suffix}"
        said = cli("picture", kind, labelled, *SMALL[kind], "grid.steps=3", "-o", out, "--device", "cpu")
        assert said.code == 0, said.err
        with Image.open(out) as picture:
            assert min(picture.size) > 60
            found.append(picture.convert("RGB").tobytes())
        assert command_in(out) == f"sfumato picture {kind} {labelled} {' '.join(SMALL[kind])} grid.steps=3"
        assert kind in moving or len(description(out)) > 20
    assert found[0] == found[1]
    if kind in moving:
        assert Image.open(out).n_frames == moving[kind]


def test_a_call_in_python_is_the_command(labelled: Path, tmp_path: Path, cli) -> None:
    out = tmp_path / "s.png"
    assert cli("picture", "strip", labelled, "n=1", "what=x0", "-o", out, "--device", "cpu").code == 0
    drawn = strip(Run.open(labelled), n=1, what="x0")
    assert isinstance(drawn, Image.Image) and drawn.tobytes() == Image.open(out).tobytes()
    assert isinstance(KINDS["reconstruction"](Run.open(labelled), n=2, levels=2), Figure)


@pytest.mark.parametrize("kind", MEASURED)
def test_curves_of_results_need_them(kind: str, labelled: Path, tmp_path: Path, cli) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_bytes((labelled / "recipe.json").read_bytes())
    said = cli("picture", kind, run, "--device", "cpu")
    assert said.code == 2 and MEASURED[kind] in said.err
    line = {"x": [1, 2], "y": [3, 2]}
    (run / "results").mkdir()
    curves = {kind.replace("-", "_"): {"series": {"a": line}}}
    (run / "results" / "r.json").write_text(json.dumps({"run": "r", "scores": [], "curves": curves}))
    said = cli("picture", kind, run, "--device", "cpu")
    assert said.code == 0 and (run / "pictures" / f"{kind}.png").exists()


def test_training_is_animated_from_the_sheets_it_wrote(labelled: Path, tmp_path: Path, cli) -> None:
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    shutil.rmtree(run / "sheets", ignore_errors=True)
    said = cli("picture", "training", run, "--device", "cpu")
    assert said.code == 2 and "train.sheet_every=" in said.err
    (run / "sheets").mkdir()
    for i in range(3):
        images = torch.full((20, 1, 8, 8), 80 * i, dtype=torch.uint8)
        Image.fromarray(tile(images, 2)).save(run / "sheets" / f"{i:03d}.png")
    assert cli("picture", "training", run, "zoom=2", "--device", "cpu").code == 0
    with Image.open(run / "pictures" / "training.gif") as drawn:
        assert drawn.n_frames == 3
        last = drawn.seek(2) or drawn.convert("RGB")
    greys = last.convert("L").histogram()
    assert greys[160] >= 20 * 16 * 16  # the images, each pixel twice as wide and high; words around them
    assert command_in(run / "pictures" / "training.gif") == f"sfumato picture training {run} zoom=2"


def test_masks_are_where_they_say() -> None:
    assert mask_of("none", 4, 6) is None
    for name in ("left", "right", "top", "bottom"):
        assert float(mask_of(name, 4, 6).sum()) == 12
    assert mask_of("centre", 4, 8)[1:3, 2:6].all() and float(mask_of("centre", 4, 8).sum()) == 8
    assert float(mask_of("left", 4, 6)[:, 3:].sum()) == float(mask_of("top", 4, 6)[2:].sum()) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strp"], "Did you mean 'strip'"),
        (["strip", "n=0"], "n = 1 to"),
        (["strip", "what=y"], "what"),
        (["strip", "nn=3"], "Unknown field 'nn'"),
        (["interpolation", "mask=lft"], "mask"),
        (["interpolation", "a=1"], "two different images"),
        (["neighbours", "k=0"], "got k = 0"),
        (["strip", "classes=cat"], "Unknown class 'cat'"),
        (["strip", "train.batch=3"], "belongs to training"),
        (["noising", "schedules=liner"], "Did you mean 'linear'"),
        (["strip", "-o", "x.jpg"], "written as PNG"),
    ],
)
def test_bad_input_is_one_clear_message(words: list[str], message: str, labelled: Path, cli) -> None:
    said = cli("picture", words[0], labelled, *words[1:], "--device", "cpu")
    assert said.code == 2, said
    assert message in said.err and "Traceback" not in said.err


def test_a_model_without_classes_is_not_guided(unlabelled: Path, cli) -> None:
    said = cli("picture", "guidance", unlabelled, "--device", "cpu")
    assert said.code == 2 and "without classes" in said.err
    assert cli("picture", "sheet", unlabelled, "each=1", "--device", "cpu").code == 0


def test_a_diversity_sheet_holds_one_class_of_each_maker_as_it_came(labelled, unlabelled, tmp_path, cli, monkeypatch):
    seen = {}
    drawn = module.blocks

    def spy(sides, across, **words):
        seen.update(sides=sides, **words)
        return drawn(sides, across, **words)

    monkeypatch.setattr(module, "blocks", spy)
    gan = tmp_path / "gan"
    words = ["dcgan-digits", "train.images=128", "train.batch=64", "--out", gan, "--device", "cpu", "--quiet"]
    assert cli("train", *words).code == 0
    out = tmp_path / "d.png"
    said = cli(
        "picture",
        "diversity",
        labelled,
        f"against={gan},{labelled}",
        "label=7",
        "each=6",
        "across=3",
        "first=5",
        "-o",
        out,
        "--device",
        "cpu",
    )
    assert said.code == 0, said.err
    assert list(seen["sides"]) == ["labelled", "gan", "labelled (3)", "training images"]
    sevens, seeds = torch.full((6,), 7), list(range(5, 11))
    for name, run in (("labelled", labelled), ("gan", gan), ("labelled (3)", labelled)):
        assert torch.equal(seen["sides"][name], Run.open(run).source(device="cpu")(seeds, sevens))
    train = load("digits", split="train")
    known = {bytes(row) for row in train.image_hashes[(train.labels == 7).numpy()]}
    assert all(bytes(row) in known for row in hash_images(seen["sides"]["training images"]))
    words = description(out)
    assert "Uncurated, seeds 5..10." in words and "gan: one pass of the generator, 128 training images, " in words
    assert "labelled: heun on karras(steps=3), 128 training images, weights power-0.10." in words
    said = cli("sample", gan, "--n", "8", "--device", "cpu")
    sheet = Path(said.out.partition("\nNext:")[0].splitlines()[-1].strip())
    assert sheet.name == "000000128-generator.png", said.err
    for text in (description(sheet), card(Run.open(gan))):
        assert "one pass of the generator" in text and "heun" not in text and "karras" not in text
    said = cli("picture", "diversity", labelled, f"against={unlabelled}", "each=4", "--device", "cpu")
    assert said.code == 2 and "one set of data" in said.err
    said = cli("picture", "diversity", labelled, "each=5", "--device", "cpu")
    assert said.code == 2 and "rows of `across`" in said.err
