"""A person's clicks make images: the page in a real browser, with every request it makes watched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.app.conftest import LIMITS, Served

from sfumato.app._models import Model
from sfumato.app._request import Limits
from sfumato.report.signature import read

STATUS = "document.querySelector('#status').textContent"
FREE = "!document.querySelector('#go').disabled"
SPREADS = """[...document.querySelectorAll('.images canvas')].map(c => {
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, v = d.filter((_, i) => i % 4 === 0);
  return Math.max(...v) - Math.min(...v); })"""
DRAWN = "[...document.querySelectorAll('.images canvas')].map(c => c.toDataURL())"


@pytest.fixture
def page(browser, served: Served) -> Iterator[Any]:
    browser.open(served.url)
    browser.wait(FREE)
    yield browser
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith((served.url, "data:"))] == []


def generate(page: Any, **fields: object) -> None:
    for name, value in fields.items():
        page.choose(f"#{name}", value)
    page.click("#go")
    page.wait(f"{FREE} && /^(Done|Stopped)/.test({STATUS})")


def test_a_click_makes_images_step_by_step(page) -> None:
    page.choose("[name=steps]", 30)
    page.choose("#count", 6)
    page.run(
        "window.seen = []; new MutationObserver(() => seen.push(document.querySelector('.step').textContent))"
        ".observe(document.querySelector('#panels'), {subtree: true, childList: true})"
    )
    page.click("#go")
    page.wait(f"{FREE} && {STATUS}.startsWith('Done')")
    steps = page.run("[...new Set(seen)]")
    assert len(steps) > 10 and steps[-1] == "30 of 30 · clean"
    assert len(page.run(DRAWN)) == 6 and min(page.run(SPREADS)) > 10
    result = page.run("document.querySelector('.result').textContent")
    assert "59 network calls per image" in result and "images/s" in result  # Heun: 2 N - 1


def test_the_walk_can_be_played_back(page) -> None:
    page.choose("[name=steps]", 6)
    generate(page, count=4)
    final = page.run(DRAWN)
    page.choose(".scrub", 1)
    early = page.run(DRAWN)
    page.click(".time [value=x] + span")
    noisy = page.run(DRAWN)
    assert len({*final, *early, *noisy}) == 12
    page.choose(".scrub", 5)
    assert page.run(DRAWN) == final  # at the clean level x and D(x) are the sample


def test_an_image_is_kept_with_what_made_it(page, tmp_path: Path) -> None:
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#classes label:nth-child(5) span")  # the fourth class
    page.choose("[name=sampler]", "ddim")
    generate(page, seed=41, count=2)
    page.click(".images button:nth-child(2)")
    page.wait("document.querySelector('#large').open")
    assert page.run("document.querySelector('#large-name').textContent").startswith("seed 42, ")
    page.click("#large-save")
    file = tmp_path / "seed-000000042.png"
    page.wait("new Promise(done => setTimeout(() => done(true), 300))")
    for _ in range(300):
        if file.exists():
            break
        page.wait("new Promise(done => setTimeout(() => done(true), 100))")
    _, made = read(file)
    assert (made["seed"], made["label"]) == (42, 3) and '"name": "ddim"' in made["settings"]
    page.run("document.querySelector('#large').close()")
    page.choose("#seed", 0)
    page.click("#classes label:nth-child(1) span")
    page.choose("[name=sampler]", "heun")
    page.attach("#file", file)  # and gives its settings back
    page.wait(f"{STATUS}.startsWith('Settings taken')")
    values = "['#seed', '#count', '[name=sampler]', '[name=label]:checked'].map(s => document.querySelector(s).value)"
    assert page.run(values) == ["42", "1", "ddim", "3"]


def test_two_samplers_stand_side_by_side_on_the_same_seeds(page) -> None:
    page.click("[name=mode][value=compare] + span")
    page.choose(".way[data-way='1'] [name=sampler]", "ddim")
    page.choose(".way[data-way='1'] [name=guidance]", 3)
    generate(page, count=4)
    titles = page.run("[...document.querySelectorAll('.panel h2')].map(h => h.textContent)")
    assert len(titles) == 2 and titles[0].startswith("A · ") and "ddim" in titles[1] and "guidance 3" in titles[1]
    names = page.run("[...document.querySelectorAll('.images button')].map(b => b.title)")
    assert names[:4] == names[4:] and len(set(names)) == 4
    assert "levels on average" in page.run("document.querySelector('#difference').textContent")


def test_a_slider_goes_from_one_seed_to_another(page) -> None:
    page.click("[name=mode][value=interpolate] + span")
    generate(page, seed=3, to=8, count=5)
    large = "document.querySelector('.mixed canvas').toDataURL()"
    seen = []
    for place in range(5):
        page.choose(".mixed input", place)
        seen.append(page.run(large))
    assert len(set(seen)) == 5
    assert page.run("document.querySelector('.mixed .weight').textContent") == "λ = 1.00"


def test_stop_stops_and_the_next_click_works(page) -> None:
    page.click("[name=mode][value=compare] + span")
    for way in (0, 1):
        page.choose(f".way[data-way='{way}'] [name=steps]", 100)
    page.choose("#count", 16)
    page.click("#go")
    page.wait("document.querySelectorAll('.panel').length === 2")
    page.click("#stop")
    page.wait(f"{FREE} && {STATUS} === 'Stopped.'")
    page.click("[name=mode][value=sample] + span")
    page.choose("[name=steps]", 2)
    generate(page, count=1)
    assert len(page.run(DRAWN)) == 1


def test_what_the_server_refuses_is_said_on_the_page(page) -> None:
    page.run("document.querySelector('#form').noValidate = true")
    page.choose("[name=steps]", 10**9)
    page.click("#go")
    page.wait(f"{FREE} && {STATUS}.includes('from 0 to {LIMITS.steps}')")
    assert page.run("document.querySelector('#status').className") == "error"
    page.choose("[name=steps]", 3)
    generate(page, count=1)
    page.complaints[:] = [c for c in page.complaints if "422" not in c]  # the browser's own note of the refusal


def test_the_form_knows_its_limits(page) -> None:
    page.choose("[name=steps]", 10**9)
    page.click("#go")
    assert page.run("document.querySelector('[name=steps]').validity.rangeOverflow")
    assert page.run("document.querySelectorAll('.panel').length") == 0


def test_options_of_a_sampler_follow_its_signature(page) -> None:
    page.choose("[name=sampler]", "heun")
    page.run("document.querySelector('.way details').open = true")
    names = page.run("[...document.querySelectorAll('[data-axis=sampler] [data-option]')].map(n => n.dataset.option)")
    assert {"gauge", "churn", "s_min", "s_max"} <= set(names)
    page.choose("[data-option=churn]", 30)
    generate(page, count=1)
    assert "sampler.churn=30" in page.run("document.querySelector('.command').textContent")


def test_keys_alone_suffice(page) -> None:
    page.run("document.querySelector('#seed').focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    page.wait(f"{STATUS}.startsWith('Done')")
    unnamed = "[...document.querySelectorAll('input, select, button')].filter(n => n.checkVisibility() && !n.title && "
    unnamed += "!n.ariaLabel && !n.labels?.length && !n.textContent.trim()).map(n => n.outerHTML)"
    assert page.run(unnamed) == []


@pytest.fixture
def telling(browser, told: Served) -> Iterator[Any]:
    """The page of a run that is told attributes, and one that is told an image."""
    browser.open(told.url)
    browser.wait(FREE)
    browser.click("[name=mode][value=sample] + span")  # two models are first of all compared
    yield browser
    assert browser.complaints == []


COMMAND = "document.querySelector('.command').textContent"


def test_attributes_are_told_by_their_sliders_and_left_open_without(telling) -> None:
    page = telling
    sliders = "[...document.querySelectorAll('#attributes input[type=range]')].map(n => n.dataset.attribute)"
    assert page.run(sliders) == ["ink", "slant"] and not page.run("document.querySelector('#told').hidden")
    generate(page, count=2)
    assert "--where" not in page.run(COMMAND)
    page.choose("[type=range][data-attribute=ink]", 0.3)  # which ticks it
    generate(page, count=2)
    assert "--where ink=0.3" in page.run(COMMAND) and "slant" not in page.run(COMMAND)
    page.choose("[type=number][data-attribute=ink]", 0.9)
    generate(page, count=2)
    assert "ink=0.9 lies outside what training saw" in page.run("document.querySelector('.result').textContent")
    page.click("[type=checkbox][data-attribute=ink]")
    generate(page, count=2)
    assert "--where" not in page.run(COMMAND)


def test_an_image_is_put_into_the_well_of_a_run_that_is_told_one(telling) -> None:
    page = telling
    page.choose("[name=run]", 1)
    assert page.run("document.querySelector('#told-name').textContent") == "Image beside (low:2)"
    assert page.run("document.querySelectorAll('#attributes .field').length") == 0
    page.choose("#told-held", 5)
    page.click("#told-take")
    page.wait("!document.querySelector('#told-canvas').hidden")
    assert page.run("[document.querySelector('#told-canvas').width, told.image.height]") == [4, 4]
    generate(page, count=2)
    assert "--like-image told.png" in page.run(COMMAND)
    assert page.run("[...document.querySelectorAll('.beside-images figcaption')].map(n => n.textContent)") == ["told"]
    page.click("#told-none")
    generate(page, count=2)
    assert "--like-image" not in page.run(COMMAND)
    page.choose("[name=run]", 0)
    assert page.run("document.querySelector('#told-image').hidden")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_what_is_told_fits_the_screen_and_can_be_read(telling, width: int, scheme: str, tmp_path: Path) -> None:
    page = telling
    generate(page, count=4)
    for run in (0, 1):
        page.choose("[name=run]", run)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        assert page.run("document.documentElement.scrollWidth") <= width and page.contrast() >= 4.5
        page.run("scrollTo(0, 0)")
        folder = Path(os.environ.get("SFUMATO_PICTURES") or tmp_path)
        page.screenshot(folder / f"told-{width}-{run}.png", width, 1100, scheme)
    page.call("Emulation.clearDeviceMetricsOverride")
    page.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_page_is_wider_than_its_screen(page, width: int) -> None:
    generate(page, count=8)
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.call("Emulation.clearDeviceMetricsOverride")


def test_text_is_readable_in_light_and_dark(page) -> None:
    generate(page, count=4)
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert page.contrast() >= 4.5  # WCAG AA
    page.call("Emulation.setEmulatedMedia", features=[])


def test_a_picture_of_the_page(browser, models: list[Model], tmp_path: Path) -> None:
    """Two guidance weights side by side, of $SFUMATO_RUN and into $SFUMATO_PICTURES if these are set."""
    run = os.environ.get("SFUMATO_RUN")
    one = Served([Model(run, "cpu")] if run else models[:1], Limits())
    try:
        browser.open(one.url)
        browser.wait(FREE)
        browser.click("[name=mode][value=compare] + span")
        browser.choose(".way[data-way='1'] [name=guidance]", 4)
        generate(browser, count=16)
        browser.run("document.querySelectorAll('#form, main').forEach(node => node.scrollTo(0, 0))")
        file = Path(os.environ.get("SFUMATO_PICTURES") or tmp_path) / "playground.png"
        browser.screenshot(file, 1440, 900)
        assert file.stat().st_size > 20_000
    finally:
        one.close()
