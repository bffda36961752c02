"""The playground tells models attributes and images as `sfumato sample` does, and walks grids computed for a run."""

from __future__ import annotations

import base64
import io
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.app.conftest import Served
from tests.app.test_changes import png
from tests.app.test_server import done, picture

from sfumato.app._controls import attribute_control
from sfumato.app._models import Model
from sfumato.cli import main
from sfumato.core.level import Level
from sfumato.data import load
from sfumato.data.told.attributes import summary
from sfumato.report.signature import read
from sfumato.runs.computed import store

LOW = load("digits", split="test", condition="low:2").beside


def same_by_command(made: dict[str, Any], folder: Path) -> bool:
    """Whether the command that is shown makes the images that were made, pixel for pixel."""
    words = shlex.split(made["command"])[1:]
    assert main([*words, "--images", str(folder), "--device", "cpu"]) == 0
    pairs = [(read(folder / f"seed-{e['seed']:09d}.png")[0], picture(e["png"])[0]) for e in made["images"]]
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize("where", [{"ink": 0.3, "slant": 0}, {"slant": 0.25}, {}])
def test_attributes_are_those_of_the_command_line(where: dict[str, float], told: Served, tmp_path: Path) -> None:
    made = done(told.images(where=where, label=3)[1])
    assert ("--where" in made["command"]) == bool(where) and same_by_command(made, tmp_path / "a")
    if where:
        assert made["images"] != done(told.images(label=3)[1])["images"]


def test_what_training_did_not_see_is_said(told: Served) -> None:
    assert "ink=0.9 lies outside what training saw" in done(told.images(where={"ink": 0.9})[1])["unseen"][0]
    assert done(told.images(where={"ink": "1sd"})[1])["unseen"] == []


def test_an_image_is_told_as_by_the_command_line(told: Served, tmp_path: Path, monkeypatch) -> None:
    way = {"ways": [{"run": 1}]}
    made = done(told.images(like_image=png(LOW[5]), label=2, **way)[1])
    assert [each["name"] for each in made["beside"]] == ["told"]
    (tmp_path / "told.png").write_bytes(base64.b64decode(made["beside"][0]["png"]))
    monkeypatch.chdir(tmp_path)
    assert same_by_command(made, tmp_path / "a")
    lent = done(told.images(label=2, **way)[1])
    assert same_by_command(lent, tmp_path / "b") and lent["images"] != made["images"]
    status, content, _ = told.call("GET", "/picture?run=1&number=5&what=told")
    assert status == 200 and Image.open(io.BytesIO(content)).tobytes() == LOW[5].numpy().tobytes()


@pytest.mark.parametrize("fields", [{"where": {"ink": 0.3}}, {"like_image": png(LOW[5]), "ways": [{"run": 1}]}])
@pytest.mark.parametrize("to", [None, 9])
def test_a_picture_carries_what_was_told(
    fields: dict[str, Any], to: int | None, told: Served, tmp_path: Path, capfd
) -> None:
    made = done(told.images(seed=4, label=1, to=to, **fields)[1])
    status, back, _ = told.call("POST", "/settings", base64.b64decode(made["sheet"]))
    assert status == 200 and back["where"] == {k: str(v) for k, v in fields.get("where", {}).items()}
    assert ("like_image" in back) == ("like_image" in fields)
    (tmp_path / "sheet.png").write_bytes(base64.b64decode(made["sheet"]))
    run = shlex.split(made["command"])[2]
    words = ["sample", run, "--like", str(tmp_path / "sheet.png"), "--out", str(tmp_path / "b.png"), "--device", "cpu"]
    assert main(words) == 0
    assert "the same, pixel for pixel" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"where": {"inc": 1}}, "Unknown attribute 'inc'. Did you mean 'ink'?"),
        ({"where": {"ink": None}}, "ink must be a finite number; got None"),
        ({"where": {"ink": "dark"}}, "ink must be a finite number"),
        ({"where": {"ink": True}}, "ink must be a finite number; got True"),
        ({"where": [1]}, "where is a JSON object"),
        ({"where": {"ink": 1}, "ways": [{"run": 1}]}, "This model is told no attributes"),
        ({"like_image": png(LOW[0])}, "told no image (data.condition=none)"),
        ({"like_image": png(torch.zeros(1, 5, 5, dtype=torch.uint8)), "ways": [{"run": 1}]}, "got an image of 1x5x5"),
        ({"like_image": "?", "ways": [{"run": 1}]}, "The image that a model is told cannot be read"),
        ({"where": {"ink": 1}, "edit": {"picture": png(LOW[0])}}, "under a class alone"),
    ],
)
def test_what_cannot_be_told_is_refused_in_words(fields: dict[str, Any], words: str, told: Served) -> None:
    status, message = told.images(**fields)
    assert status == 422 and words in message


def test_controls_follow_what_training_saw(told: Served) -> None:
    attributes, low = told.call("GET", "/about")[1]["runs"]
    rows = summary(load("digits", first=96, attributes=("ink", "slant")))
    for shown, (name, mean, _, least, greatest) in zip(attributes["attributes"], rows):
        assert (shown["name"], shown["kind"]) == (name, "number")
        assert (shown["mean"], shown["least"], shown["greatest"]) == pytest.approx((mean, least, greatest), rel=1e-4)
    assert (attributes["beside"], low["beside"], low["condition"], low["attributes"]) == ([], [1, 4, 4], "low:2", [])
    assert (attributes["always"], low["always"]) == ([], ["image"])
    assert attribute_control(("smiling", 0.25, 0.433013, 0.0, 1.0))["kind"] == "switch"
    assert attribute_control(("share", 0.25, 0.2, 0.0, 1.0))["kind"] == "number"


def test_a_grid_computed_for_the_run_is_walked_by_its_name(served: Served, models: list[Model], tmp_path: Path) -> None:
    file = store(models[0].run, "computed-3", Level.of([1.0, 1.0, 1.0, 1.0], [80.0, 3.0, 0.4, 0.0]), {})
    try:
        assert models[0].described()["computed"] == ["computed-3"]
        made = done(served.images(ways=[{"grid": "computed-3", "sampler": "euler"}])[1])
        assert made["nfe"] == 3 and "grid=computed-3" in made["command"] and "computed-3" in made["made"]
        assert same_by_command(made, tmp_path / "a")
        status, message = served.images(ways=[{"grid": "computed-4"}])
        assert status == 422 and "Unknown grid 'computed-4'" in message
    finally:
        file.unlink()
