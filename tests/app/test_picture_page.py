"""A person drops a picture, paints a mask and sees it filled in: the page in a real browser."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.app.conftest import Served
from tests.app.test_page import FREE, STATUS, generate

from sfumato.app._models import Model
from sfumato.app._request import Limits
from sfumato.data.decoding import decode
from sfumato.report.signature import picture_of, read

SHOWN = "[...document.querySelectorAll('.panel figcaption')].map(each => each.textContent)"


@pytest.fixture
def page(browser, served: Served) -> Iterator[Any]:
    browser.open(served.url)
    browser.wait(FREE)
    yield browser
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith((served.url, "data:"))] == []


def drag(page: Any, *places: tuple[float, float]) -> None:
    """Paint with the mouse along places, shares of the picture's width and height."""
    page.run("document.querySelector('#paint').scrollIntoView({block: 'center', behavior: 'instant'})")
    box = page.run("(r => [r.x, r.y, r.width, r.height])(document.querySelector('#paint').getBoundingClientRect())")
    for i, (across, down) in enumerate(places):
        where = {"x": box[0] + across * box[2], "y": box[1] + down * box[3], "button": "left", "buttons": 1}
        page.call("Input.dispatchMouseEvent", type="mouseMoved" if i else "mousePressed", clickCount=1, **where)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", clickCount=1, **where)


def made(page: Any, selector: str) -> bytes:
    """Return the file that a link or an image of the page holds."""
    place = f"document.querySelector({selector!r})"
    return base64.b64decode(page.run(f"({place}.href ?? {place}.src).split(',')[1]"))


def answer(page: Any, number: int) -> tuple[torch.Tensor, bytes]:
    page.click(f".images button:nth-child({number})")
    page.wait("document.querySelector('#large').open")
    file = made(page, "#large-save")
    page.run("document.querySelector('#large').close()")
    return torch.from_numpy(decode(file).pixels), file


def press(page: Any, key: str, text: str = "") -> None:
    page.call("Input.dispatchKeyEvent", type="keyDown", key=key, **({"text": text} if text else {}))
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def test_a_mask_painted_with_the_mouse_is_filled_in(page, models: list[Model], tmp_path: Path) -> None:
    truth = models[0].held.images[5]
    picture_of(truth).save(tmp_path / "mine.png")
    page.click("[name=mode][value=restore] + span")
    page.attach("#picture-file", tmp_path / "mine.png")
    page.wait(f"{STATUS} === 'The picture is taken.'")
    page.choose("#brush", 2)
    drag(page, (0.2, 0.45), (0.5, 0.45), (0.8, 0.8))
    generate(page, count=3)
    assert page.run(SHOWN) == ["picture", "mask", "measured", "mean", "50% band"]
    hidden = torch.from_numpy(decode(made(page, "figure:nth-child(2) a")).pixels)[0] > 127
    assert 8 <= int(hidden.sum()) <= 30 and bool(hidden[3, 1]) and not bool(hidden[0].any())
    image, file = answer(page, 1)
    assert torch.equal(image[0, ~hidden], truth[0, ~hidden])
    assert not torch.equal(image[0, hidden], truth[0, hidden])
    (tmp_path / "made.png").write_bytes(file)
    _, carried = read(tmp_path / "made.png")
    assert carried["restore"]["task"] == "inpaint" and carried["seed"] == 0
    page.click("#mask-none")
    page.attach("#file", tmp_path / "made.png")  # and gives picture, mask and settings back
    page.wait(f"{STATUS}.startsWith('Settings taken')")
    generate(page, count=3)
    assert torch.equal(answer(page, 1)[0], image)


def test_the_tabs_have_the_options_of_the_commands(page, tmp_path: Path) -> None:
    command = "document.querySelector('.command').textContent"
    page.click("[name=mode][value=edit] + span")
    page.choose("#held", 4)
    page.click("#take")
    page.wait(f"{STATUS} === 'The picture is taken.'")
    page.choose("#encode-as", "4")
    assert page.run("document.querySelector('#strength-field').hidden")
    generate(page, count=3)
    assert "--encode-as 4" in page.run(command) and page.run("document.querySelectorAll('.images button').length") == 1
    page.choose("#encode-as", "")
    page.click("[name=mode][value=restore] + span")
    page.choose("#task", "superres")
    page.choose("#method", "ddnm")
    picture_of(torch.arange(0, 256, 16, dtype=torch.uint8).reshape(1, 4, 4)).save(tmp_path / "small.png")
    page.attach("#picture-file", tmp_path / "small.png")
    page.wait(f"{STATUS}.includes('brought to 8')")
    page.click("#damaged")
    page.choose("#resample", 2)
    generate(page, count=2)
    assert "--damaged --resample 2" in page.run(command)
    shown = torch.from_numpy(decode(made(page, "figure:nth-child(1) a")).pixels)
    assert shown[:1].equal(torch.arange(0, 256, 16, dtype=torch.uint8).reshape(1, 4, 4))


def test_keys_paint_a_mask_and_a_picture_of_the_test_split_is_edited(page, models: list[Model]) -> None:
    page.click("[name=mode][value=edit] + span")
    page.choose("#held", 4)
    page.click("#take")
    page.wait(f"{STATUS} === 'The picture is taken.'")
    page.choose("#brush", 4)
    page.run("document.querySelector('#paint').focus()")
    press(page, " ", " ")
    press(page, "ArrowRight")
    press(page, " ", " ")
    assert page.run("document.querySelector('#mask-share').textContent") == "31% may change"  # 4 x 5 of 64
    page.choose("#strength", 0.5)
    generate(page, count=2)
    changed = torch.zeros(8, 8, dtype=torch.bool)
    changed[2:6, 2:7] = True
    image, truth = answer(page, 2)[0], models[0].held.images[4]
    assert torch.equal(image[0, ~changed], truth[0, ~changed]) and not torch.equal(image, truth)
    assert "--strength 0.5" in page.run("document.querySelector('.command').textContent")


def test_a_picture_is_inverted(page, models: list[Model], tmp_path: Path) -> None:
    truth = models[0].held.images[5]
    picture_of(255 - truth).save(tmp_path / "ink.png")  # dark strokes on white paper
    page.click("[name=mode][value=restore] + span")
    page.click("#invert")
    page.wait(f"{STATUS}.startsWith('There is no picture yet')")
    page.attach("#picture-file", tmp_path / "ink.png")
    page.wait(f"{STATUS} === 'The picture is taken.'")
    page.click("#invert")
    page.wait(f"{STATUS} === 'Black and white are swapped.'")
    generate(page, count=2)
    shown = torch.from_numpy(decode(made(page, "figure:nth-child(1) a")).pixels)
    assert shown[:1].equal(truth)


def test_a_task_brings_a_method_that_takes_it_until_one_is_chosen(page) -> None:
    method = "document.querySelector('#method').value"
    page.click("[name=mode][value=restore] + span")
    found = []
    for task in ("jpeg", "inpaint"):
        page.choose("#task", task)
        found.append(page.run(method))
    page.choose("#method", "ddnm")
    page.choose("#task", "jpeg")
    assert [*found, page.run(method)] == ["dps", "moment", "ddnm"]


def test_no_picture_is_said(page) -> None:
    page.click("[name=mode][value=restore] + span")
    page.click("#go")
    page.wait(f"{STATUS}.startsWith('There is no picture yet')")


@pytest.mark.parametrize("kind", ["restore", "edit"])
def test_the_tabs_fit_a_phone_and_can_be_read(page, kind: str) -> None:
    page.click(f"[name=mode][value={kind}] + span")
    page.click("#take")
    page.wait(f"{STATUS} === 'The picture is taken.'")
    page.click("#mask-half")
    generate(page, count=2)
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.call("Emulation.clearDeviceMetricsOverride")
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert page.contrast() >= 4.5
    page.call("Emulation.setEmulatedMedia", features=[])
    unnamed = "[...document.querySelectorAll('input, select, button')].filter(n => n.checkVisibility() && !n.title && "
    unnamed += "!n.ariaLabel && !n.labels?.length && !n.textContent.trim()).map(n => n.outerHTML)"
    assert page.run(unnamed) == []


def test_a_picture_of_restoring(browser, models: list[Model], tmp_path: Path) -> None:
    """Half a held-out image filled in, of $SFUMATO_RUN and into $SFUMATO_PICTURES if these are set."""
    run = os.environ.get("SFUMATO_RUN")
    one = Served([Model(run, "cpu")] if run else models[:1], Limits())
    try:
        browser.open(one.url)
        browser.wait(FREE)
        browser.click("[name=mode][value=restore] + span")
        browser.choose("#held", 3)
        browser.click("#take")
        browser.wait(f"{STATUS} === 'The picture is taken.'")
        drag(browser, (0.1, 0.62), (0.9, 0.62), (0.9, 0.8), (0.1, 0.8), (0.1, 0.9), (0.9, 0.9))
        generate(browser, count=8)
        browser.run("document.activeElement.blur()")
        browser.run("document.querySelectorAll('#form, main').forEach(node => node.scrollTo(0, 0))")
        file = Path(os.environ.get("SFUMATO_PICTURES") or tmp_path) / "playground-restore.png"
        browser.screenshot(file, 1440, 900)
        assert file.stat().st_size > 20_000
    finally:
        one.close()
