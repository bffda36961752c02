"""A picture that is restored or edited over HTTP is the library's, carries what makes it again, and is bounded."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.app.conftest import Served
from torch import Tensor

from sfumato.app._models import Model
from sfumato.cli import main
from sfumato.core.images import to_float, to_uint8
from sfumato.data.decoding import decode
from sfumato.editing import edit, reencode
from sfumato.report.signature import SignatureError, picture_of, read
from sfumato.restoration import measured, method_of, restore
from sfumato.tasks.inpaint import inpaint


def png(image: Tensor) -> str:
    out = io.BytesIO()
    picture_of(image).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


def pixels(text: str) -> Tensor:
    return torch.from_numpy(decode(base64.b64decode(text)).pixels)


@pytest.fixture(scope="module")
def picture(models: list[Model]) -> Tensor:
    return models[0].held.images[3]


HIDE = torch.zeros(8, 8, dtype=torch.bool)
HIDE[2:6, 3:8] = True
MASK = png(HIDE[None] * torch.tensor(255, dtype=torch.uint8))


@pytest.fixture(scope="module")
def ask(served: Served, picture: Tensor) -> Callable[..., tuple[int, Any]]:
    """Ask for a change of the picture: (200, what was made) or (status, message)."""

    def asked(kind: str, count: int = 3, request: dict[str, Any] | None = None, **fields: Any) -> tuple[int, Any]:
        tree = {"count": count, "ways": [{}], kind: {"picture": png(picture), **fields}, **(request or {})}
        status, content, _ = served.call("POST", "/changes", json.dumps(tree).encode())
        if status != 200:
            return status, content["message"]
        events = [json.loads(line) for line in content.splitlines()]
        return status, next((each for each in events if each["event"] == "done"), events[-2])

    return asked


def test_restored_pictures_are_those_of_the_library(ask, models: list[Model], picture: Tensor) -> None:
    _, made = ask("restore", mask=MASK, method="pigdm", request={"seed": 5, "label": 2})
    task = inpaint((1, 8, 8), HIDE)
    y = measured(task, to_float(picture)[None], [5])
    source = models[0].run.diffusion(use=None, device="cpu")
    labels, sigma_data = torch.tensor([2]), models[0].run.recipe.sigma_data or 0.5
    own = restore(source, task, y, method_of("pigdm"), samples=3, seeds=[5], labels=labels, sigma_data=sigma_data)
    for k, entry in enumerate(made["images"]):
        assert entry["seed"] == 5 + k * 2**32
        assert torch.equal(pixels(entry["png"]), to_uint8(own.samples[0, k]))
        assert torch.equal(pixels(entry["png"])[:, ~HIDE], picture[:, ~HIDE])
    shown = {each["name"]: pixels(each["png"]) for each in made["beside"]}
    assert list(shown) == ["picture", "mask", "measured", "mean", "50% band"]
    assert torch.equal(shown["mean"], to_uint8(own.mean)[0]) and torch.equal(shown["picture"], picture)
    assert int(shown["50% band"][:, ~HIDE].max()) == 0 < int(shown["50% band"][:, HIDE].max())
    assert made["vjps"] > 0


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_edited_pictures_are_those_of_the_library(strength: float, ask, models: list[Model], picture: Tensor) -> None:
    _, made = ask("edit", mask=MASK, strength=strength, request={"seed": 7, "label": 4})
    source, labels = models[0].run.diffusion(use=None, device="cpu"), torch.full((3,), 4)
    images = to_float(picture).expand(3, -1, -1, -1)
    own = to_uint8(edit(source, images, strength, seeds=range(7, 10), labels=labels, mask=HIDE))
    assert [entry["seed"] for entry in made["images"]] == [7, 8, 9]
    for k, entry in enumerate(made["images"]):
        assert torch.equal(pixels(entry["png"]), own[k])
    assert bool((own != picture).any()) == (strength > 0)


def check_command(made: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the command that the page shows makes the pictures that it made."""
    for each in made["beside"][:2]:
        (folder / f"{each['name']}.png").write_bytes(base64.b64decode(each["png"]))
    monkeypatch.chdir(folder)
    assert main([*shlex.split(made["command"])[1:], "--out", "made", "--device", "cpu"]) == 0
    for k, entry in enumerate(made["images"]):
        again = torch.from_numpy(decode((folder / "made" / f"picture-sample-{k + 1}.png").read_bytes()).pixels)
        assert torch.equal(again, pixels(entry["png"]))


def test_the_command_shown_makes_the_same_pictures(ask, tmp_path: Path, monkeypatch) -> None:
    _, made = ask("restore", mask=MASK, method="moment", method_options={"iterations": 2}, request={"seed": 1})
    check_command(made, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "fields"), [("restore", {"task": "superres", "method": "ddnm"}), ("edit", {"strength": 0.4, "mask": MASK})]
)
def test_every_picture_carries_what_makes_it_again(
    kind: str, fields: dict[str, Any], ask, served: Served, tmp_path: Path, runs: tuple[Path, Path], capfd
) -> None:
    _, made = ask(kind, **fields)
    for each in (made["images"][1]["png"], made["sheet"], made["beside"][-1]["png"]):
        status, back, _ = served.call("POST", "/settings", base64.b64decode(each))
        assert status == 200 and back["run"] == 0
        seeds = back.get("seeds") or [image["seed"] for image in made["images"]]
        _, again = ask(kind, len(seeds), {"seed": seeds[0]}, **back[kind])
        assert [image["png"] for image in again["images"]] == [image["png"] for image in made["images"]]
    (tmp_path / "it.png").write_bytes(base64.b64decode(made["sheet"]))
    assert main(["sample", str(runs[0]), "--like", str(tmp_path / "it.png")]) == 2
    assert f"`sfumato {kind}`" in capfd.readouterr().err
    with pytest.raises(SignatureError):
        read(io.BytesIO(base64.b64decode(png(pixels(made["sheet"])))), "it")


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("restore", {"picture": None}, "The picture is a PNG in base64; got NoneType"),
        ("restore", {"picture": "?"}, "The picture cannot be read"),
        ("restore", {"picture": ""}, "empty file"),
        (
            "restore",
            {"picture": png(torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8))},
            "RGB 8x8 and the model makes grey 8x8",
        ),
        ("edit", {"picture": png(torch.zeros(1, 9, 8, dtype=torch.uint8))}, "grey 8x9 and the model makes grey 8x8"),
        ("edit", {"mask": png(torch.zeros(1, 4, 4, dtype=torch.uint8))}, "the size of the image, 8x8; got (4, 4)"),
        ("restore", {"task": "unblur"}, "Unknown task 'unblur'"),
        ("restore", {"task": "superres", "mask": MASK}, "takes no mask"),
        ("restore", {"task": "superres", "task_options": {"factor": 3}}, "a factor that divides the size 8x8; got 3"),
        ("restore", {"task": "colorize"}, "colorize"),
        ("restore", {"task": "denoise", "task_options": {"noise": -1}}, "a standard deviation >= 0; got -1"),
        ("restore", {"task_options": {"mask": "quarter"}}, "got 'quarter'"),
        ("restore", {"method": "magic"}, "Unknown method 'magic'"),
        ("restore", {"method_options": {"iterations": 10**6}}, "from 0 to 50; got 1000000"),
        ("restore", {"task": "jpeg", "method": "ddnm"}, "linear"),
        ("restore", {"strength": 1}, "Unknown field 'strength'"),
        ("edit", {"strength": -0.5}, "strength is a number from 0 to 1; got -0.5"),
        ("edit", {"strength": float("nan")}, "a number that is not finite (NaN)"),
    ],
)
def test_what_cannot_be_is_refused_in_words(kind: str, fields: dict[str, Any], words: str, ask) -> None:
    status, message = ask(kind, **fields)
    assert status == 422 and words in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({"to": 3}, "not between two seeds"),
        ({"ways": [{}, {}]}, "in one way"),
        ({"label": "each"}, "have one class"),
        ({"label": 99}, "Labels lie in [0, 10)"),
        ({"seed": 2**40}, "below 4,294,967,296"),
        ({"count": 17}, "from 1 to 16; got 17"),
        ({"ways": [{"grid_options": {"steps": 10**9}}]}, "from 0 to 100"),
    ],
)
def test_the_bounds_of_sampling_hold(request_fields: dict[str, Any], words: str, ask) -> None:
    status, message = ask("edit", request=request_fields)
    assert status == 422 and words in message


def test_a_mask_that_hides_all_is_plain_sampling(ask, served: Served) -> None:
    everything = png(torch.full((1, 8, 8), 255, dtype=torch.uint8))
    _, made = ask("edit", 2, {"seed": 3}, strength=1, mask=everything)
    _, events = served.images(seed=3, label="none")
    plain = next(event for event in events if event["event"] == "done")
    for a, b in zip(made["images"], plain["images"]):
        assert torch.equal(pixels(a["png"]), pixels(b["png"]))


def test_pictures_of_the_test_split(served: Served, picture: Tensor) -> None:
    status, content, headers = served.call("GET", "/picture?run=0&number=3")
    assert status == 200 and headers["content-type"] == "image/png"
    assert torch.equal(torch.from_numpy(decode(content).pixels), picture)
    for query, words in (("number=360", "from 0 to 359"), ("number=x", "whole number"), ("path=/etc", "Unknown field")):
        status, answer, _ = served.call("GET", f"/picture?{query}")
        assert status == 422 and words in answer["message"]


def test_a_huge_picture_is_refused(served: Served, ask) -> None:
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    status, message = ask("edit", picture=base64.b64encode(bomb.getvalue()).decode())
    assert status == 422 and "12000x12000" in message
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server stops reading first
        assert served.call("POST", "/changes", b"x" * 5_000_000)[0] == 413


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"damaged": True, "mask": MASK}, 8),
        ({"damaged": True, "task": "superres"}, 4),
        ({"resample": 3, "mask": MASK}, 8),
    ],
)
def test_what_is_damaged_or_walked_again_is_restored_as_by_the_command_line(
    fields: dict[str, Any], size: int, ask, picture: Tensor, tmp_path: Path, monkeypatch
) -> None:
    small = picture if size == 8 else picture.float().unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4)).byte()
    _, made = ask("restore", method="ddnm", **{"picture": png(small), **fields})
    check_command(made, tmp_path, monkeypatch)


def test_a_picture_is_encoded_under_its_class_and_decoded_under_another(
    ask, models: list[Model], picture: Tensor
) -> None:
    _, made = ask("edit", 1, {"label": 4}, encode_as="3")
    source = models[0].run.diffusion(use=None, device="cpu")
    own = to_uint8(reencode(source, to_float(picture)[None], torch.tensor([3]), torch.tensor([4])))
    assert torch.equal(pixels(made["images"][0]["png"]), own[0])
    assert "--encode-as 3 --to 4" in made["command"] and "--strength" not in made["command"]
    for fields, count, words in (
        ({"encode_as": "zebra"}, 1, "Unknown class 'zebra'"),
        ({"encode_as": 3}, 1, "encode_as is the name of a class"),
        ({"encode_as": "3"}, 2, "has one answer: count is 1; got 2"),
    ):
        status, message = ask("edit", count, **fields)
        assert status == 422 and words in message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"damaged": 1}, "damaged is true or false"),
        ({"resample": 0}, "resample is a whole number from 1 to 50"),
        ({"damaged": True, "task": "superres"}, "has the shape of a measurement, (1, 4, 4)"),
    ],
)
def test_what_is_no_damage_is_refused(fields: dict[str, Any], words: str, ask) -> None:
    status, found = ask("restore", **fields)
    assert words in (found if status == 422 else found["message"])
