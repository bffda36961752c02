"""The report page holds every number and picture it was given, says what it was not, and works in a real browser."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.metrics.flags import flagged, meaning
from sfumato.metrics.protocol import EvalProtocol, Reference
from sfumato.metrics.score import Score
from sfumato.report.curve_kinds import CURVES
from sfumato.report.gather import read_report
from sfumato.report.page import write_report
from sfumato.report.plot import Series
from sfumato.report.results import command_of, compared, read_results, score_rows, size_matched
from sfumato.report.save import save
from sfumato.report.sections import LOGS, sections
from sfumato.report.sheet import sheet
from sfumato.report.training import training_curves


def score(name: str, value: float, half: float, n: int = 1000, split: str = "test", **facts: Any) -> Score:
    reference = Reference("digits", "c" * 64, split, "hash", "i" * 64, 360)
    metric = name.split("[")[0]
    protocol = EvalProtocol(
        metric, 1, "pixels", "w", {"resize": "none"}, reference, n, "uniform", "jackknife", provenance=facts
    )
    interval = (value - half, value + half)
    floor = Score(name, value / 10, (value / 20, value / 5), 0.1, value / 8, n, 360, protocol)
    return Score(name, value, interval, half / 2, value + 1, n, 360, protocol, floor, ("n is small",))


def result(run: str = "edm", value: float = 12.5, **extra: Any) -> dict[str, Any]:
    scores = [score("FD[pixels]", value, 0.5, sampler="heun", nfe=35), score("KID[pixels]", value / 1000, 2e-4)]
    facts = {"nfe": 35, "images_per_second": 53.2, "seeds": [0, 1000], "weights": "power-0.10", "machine": {"cpu": "x"}}
    return {"run": run, "recipe": "edm-digits", "scores": [s.to_json() for s in scores], "provenance": facts, **extra}


RECORDS = [{"images": 100 * i, "loss": 1 / i, "grad_norm": 0.5, "lr": 0.1, "skipped": 0} for i in range(1, 5)]
SCORED = [
    {"images": i, "name": "FD[pixels]", "n": 60, "protocol": "abc", "value": 3.0, "interval": [2.0, 4.0]}
    for i in (1, 2)
]
LINE = Series.of([5, 9, 35], [9, 5, 3], [8, 4, 2.5], [10, 6, 3.5]).to_json()
FULL_CURVES = {
    "distances": {"groups": {"generated": [1.0, 2.0, 3.0], "test": [1.5, 2.5, 3.5]}, "space": "pixel"},
    "size": {"score": "FD", "series": {"edm": LINE}},
    "nfe": {"score": "FD", "floor": 1.0, "series": {"heun": LINE}, "protocol_id": "abc", "command": "make nfe"},
    "seconds": {"score": "FD", "series": {"heun": LINE}},
    "guidance": {"series": {"FD": LINE, "recall": LINE}, "floors": {"FD": 1.0}},
    "precision_recall": {"series": {"cfg": LINE}, "labels": {"cfg": ["a", "b", "c"]}},
    "classes": {"score": "KID", "scores": {"edm": {"0": {"value": 0.1, "interval": [0.05, 0.2]}, "1": {"value": 0.2}}}},
    "rate_distortion": {"series": {"edm": LINE}, "by_time": {"edm": {"rate": LINE, "distortion": LINE}}},
    "bits_by_level": {"series": {"edm": LINE}},
    "coding": {"series": {"spent": LINE}},
    "accuracy": {"series": {"digits test": LINE}, "chance": 0.1},
    "probe": {"series": {"middle": LINE, "output": LINE}, "pixels": 0.8, "pca": 0.7, "numbers": 16, "chance": 0.1},
    "training": {"records": RECORDS},
    "while_training": {"records": SCORED},
}
TABLES = {
    "likelihood": [{"split": "test", "bits/dim": {"value": 3.75, "interval": [3.7, 3.8]}, "L_T": 1e-5}],
    "health": [{"skipped steps": 0, "saturated pixels": 0.01}],
    "memorization": [{"AuthPct": 50.5}],
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return save(sheet(images, 4, seeds=range(16)), tmp_path_factory.mktemp("run") / "sheet.png")


@pytest.fixture(scope="module")
def whole(picture, tmp_path_factory) -> Path:
    """A page with everything on it; drawn once."""
    return write_report(full(picture), tmp_path_factory.mktemp("page") / "out" / "report.html")


def full(picture: Path) -> list[dict[str, Any]]:
    first = result(pictures={"sheet": picture.name}, curves=FULL_CURVES, tables=TABLES, folder=str(picture.parent))
    return [first, result("ddpm", 12.9), result("flow", 20.0)]


class Parsed(HTMLParser):
    """Text, links, ids, images and external addresses of a page; complains about tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.ids, self.links, self.images, self.open = [], [], [], [], []
        self.headings: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.ids += [facts["id"]] if "id" in facts else []
        self.links += [facts["href"]] if tag == "a" else []
        self.images += [facts] if tag == "img" else []
        assert "src" not in facts or facts["src"].startswith("data:")
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"h1", "h2", "h3", "strong", "th"} & set(self.open):
            self.headings.append(data)

    @property
    def words(self) -> str:
        """All that is read, with single spaces."""
        return " ".join(" ".join(self.text).split())


def test_the_page_is_whole_and_needs_nothing_else(whole) -> None:
    page = whole.read_text()
    parsed = Parsed(page)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page) and "url(" not in page and "@import" not in page
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if not link.startswith("#p-abc")} <= set(parsed.ids)
    assert all(image["alt"] for image in parsed.images)
    assert len(parsed.images) == 1 + len(FULL_CURVES)
    assert [p.name for p in whole.parent.iterdir()] == ["report.html"]


def test_every_score_stands_there_with_interval_floor_protocol_and_command(picture, whole) -> None:
    results = full(picture)
    text = Parsed(whole.read_text()).words
    for row in score_rows(results):
        for key in ("run", "recipe", "score", "split", "seen", "floor", "protocol", "flags"):
            assert str(row[key]) in text
        number, interval = row["value"].apart
        assert f"{number}* {interval}" in text
    for one in results:
        assert command_of(one) in text
    assert "n is small" in text and "3.750 [3.700, 3.800]" in text


def test_pictures_are_embedded_byte_for_byte_with_their_caption(picture, whole) -> None:
    images = Parsed(whole.read_text()).images
    embedded = next(i for i in images if "Uncurated, seeds 0..15." in i["alt"])
    assert base64.b64decode(embedded["src"].split(",")[1]) == picture.read_bytes()


def test_every_section_is_there_and_absent_ones_name_their_command(tmp_path) -> None:
    empty = {"run": "runs/edm", "scores": []}
    text = Parsed(write_report([empty], tmp_path / "report.html").read_text()).words
    *named, more = sections([empty], tmp_path)
    assert f"Not measured yet ({len(named)})" in text and len(named) == 13 and more.empty
    for section in named:
        assert section.empty and "runs/edm" in section.missing and f"{section.title} {section.missing}" in text


def test_every_known_curve_is_tried() -> None:
    assert set(FULL_CURVES) == {*CURVES, *LOGS}


def test_no_heading_holds_a_hash_and_the_comparison_is_headed_in_words(picture, whole) -> None:
    parsed = Parsed(whole.read_text())
    hashes = {row["protocol"] for row in score_rows(full(picture))}
    assert all(key in parsed.words for key in hashes)
    assert not [text for text in parsed.headings if re.search(r"[0-9a-f]{12}", text)]
    assert "FD[pixels] against digits test (held out), n = 1,000, m = 360" in parsed.headings


def test_pictures_and_training_come_before_scores(whole) -> None:
    page = whole.read_text()
    places = [page.index(f'<section id="{key}">') for key in ("samples", "training", "headline", "comparison")]
    assert places == sorted(places)


def test_a_flag_is_explained_at_its_row_once_in_a_table(tmp_path) -> None:
    one, flags = result(), [flagged("few", sizes="min(n, m)", count=360), flagged("tried", count=3)]
    for score_of_it in one["scores"]:
        score_of_it["flags"] = flags
    page = Parsed(write_report([one], tmp_path / "report.html").read_text()).words
    for flag in flags:
        assert page.count(f"* {flag}.") == len(one["scores"]) == 2
        assert f"* {flag}. {meaning(flag)}" in page and page.count(meaning(flag)) == 1


def test_runs_are_called_as_their_folders(tmp_path) -> None:
    for place in ("mine", "old/mine", "flow"):
        folder = tmp_path / place / "results"
        folder.mkdir(parents=True)
        (folder / "a.json").write_text(json.dumps(result("a name of last year")))
    found = read_report([tmp_path / "mine", tmp_path / "flow"])
    assert [r["run"] for r in found] == ["mine", "flow"]
    both = [tmp_path / "mine", tmp_path / "old/mine"]
    assert [r["run"] for r in read_report(both)] == [str(path) for path in both]


def test_every_folder_that_commands_draw_into_is_shown(picture, tmp_path) -> None:
    run = tmp_path / "mine"
    places = ("samples/sheet.png", "pictures/strip.png", "restored/inpaint-moment/sheet.png", "edited/coat.png")
    for place in (*places, *(f"sheets/{n:09d}.png" for n in range(10)), "restored/inpaint-moment/00000-mean.png"):
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).write_bytes(picture.read_bytes())
    (run / "recipe.json").write_text('{"recipe": {"name": "edm-digits"}}')
    shown = [place for found in read_report([run]) for place in found["pictures"]]
    assert {*places} < {*shown} and "restored/inpaint-moment/00000-mean.png" not in shown
    assert [place for place in shown if place.startswith("sheets/")] == [
        f"sheets/{n:09d}.png"
        for n in (0, 3, 6, 9)  # evenly, first and last among them
    ]
    page = write_report(read_report([run]), tmp_path / "report.html").read_text()
    assert len(Parsed(page).images) == len(shown)


def test_runs_that_differ_in_their_seed_alone_share_a_colour() -> None:
    runs = dict.fromkeys(("a", "b", "other"), RECORDS)
    figure = training_curves(runs, {"a": "one", "b": "one", "other": "two"})
    lines = figure.axes[0].get_lines()
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[1] != colours[2] and lines[0].get_linewidth() < lines[2].get_linewidth()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a, b (2 seeds)", "other"]


def test_a_bad_curve_or_picture_only_costs_a_line(tmp_path) -> None:
    broken: dict[str, Any] = {name: {} for name in (*CURVES, *LOGS)} | {"nonsense": {}}
    broken["size"] = {"series": {"a": {"x": [1], "y": [1, 2]}}}
    pictures = {"sheet": "gone.png", "strip": "x.svg"}
    made = sections([result(curves=broken, pictures=pictures)], tmp_path)
    notes = "\n".join(note for s in made for note in s.notes)
    assert notes.count("cannot be drawn") == len(CURVES) + len(LOGS) and "'nonsense' is unknown" in notes
    assert "gone.png) is missing" in notes and "x.svg) is not a PNG or GIF" in notes
    assert not any(s.pictures for s in made)


def test_hostile_words_stay_words(tmp_path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    page = write_report([result(evil, recipe=evil)], tmp_path / "report.html", title=evil).read_text()
    assert "<script>alert" not in page
    assert evil in Parsed(page).words


def test_only_one_protocol_is_ranked_and_overlaps_share_a_rank() -> None:
    results = [result("flow", 20.0), result("ddpm", 12.9), result("edm", 12.5)]
    other = result("odd", 1.0)
    other["scores"] = [score("FD[pixels]", 1.0, 0.5, n=2000).to_json()]
    groups = {rows[0]["score"]: rows for rows in compared([*results, other])}
    assert set(groups) == {"FD[pixels]", "KID[pixels]"}
    assert [(r["rank"], r["run"]) for r in groups["FD[pixels]"]] == [(1, "edm"), (1, "ddpm"), (3, "flow")]
    assert compared(results[:1]) == []


def test_scores_of_equal_seeds_are_ranked_in_pairs_as_compare_does() -> None:
    """Their intervals overlap, and the noise they share cancels: the report and `compare` agree that one is better."""
    noise, runs = [0.5 * (-1) ** k for k in range(20)], []
    for name, value in (("a", 12.5), ("b", 12.9)):
        own = replace(
            score("FD[pixels]", value, 0.5, seeds=[0, 1000]),
            plain=value,
            left_out=tuple(value + part for part in noise),
        )
        runs.append({"run": name, "scores": [own.to_json()]})
    (rows,) = compared(runs)
    assert [(r["rank"], r["run"]) for r in rows] == [(1, "a"), (2, "b")]
    for one, first in zip(runs, (0, 1000)):
        one["scores"][0] = replace(
            Score.from_json(one["scores"][0]),
            protocol=EvalProtocol.from_json(
                {**Score.from_json(one["scores"][0]).protocol.to_json(), "provenance": {"seeds": [first, first + 1000]}}
            ),
        ).to_json()
    assert [r["rank"] for r in compared(runs)[0]] == [1, 1]


def test_higher_is_better_for_recall() -> None:
    runs = []
    for name, value in (("a", 0.2), ("b", 0.8)):
        runs.append({"run": name, "scores": [score("recall[pixels]", value, 0.1).to_json()]})
    (rows,) = compared(runs)
    assert [(r["rank"], r["run"]) for r in rows] == [(1, "b"), (2, "a")]


def test_splits_are_matched_at_equal_sizes_only() -> None:
    def on(split: str, n: int) -> dict[str, Any]:
        return {"run": "edm", "scores": [score("FD[pixels]", 5.0, 0.5, n=n, split=split).to_json()]}

    rows = size_matched([on("train", 1000), on("test", 1000), on("val", 500)])
    assert [r["split"] for r in rows] == ["digits train", "digits test"]


def test_results_are_read_from_runs_and_files(tmp_path) -> None:
    folder = tmp_path / "edm" / "results"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(result()))
    (tmp_path / "edm" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    whole, alone = read_results([tmp_path / "edm", folder / "a.json"])
    assert whole["folder"] == alone["folder"] == str(folder)
    assert "curves" not in whole and "curves" not in alone
    (tmp_path / "edm" / "recipe.json").write_text('{"recipe": {"name": "edm-digits"}}')
    assert read_report([tmp_path / "edm"])[-1]["curves"]["training"]["records"] == RECORDS
    assert command_of(whole) == (
        f"sfumato evaluate {tmp_path / 'edm'} --n 1000 --extract pixels --split test --first-seed 0 --use power-0.10"
    )
    with pytest.raises(ValueError, match="sfumato evaluate"):
        read_results([tmp_path])
    (folder / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json is not JSON"):
        read_results([folder / "b.json"])
    (folder / "b.json").write_text("[]")
    with pytest.raises(ValueError, match=r"b\.json must hold a JSON object"):
        read_results([folder / "b.json"])
    with pytest.raises(ValueError, match="at least one result"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


# in a real browser


@pytest.fixture
def opened(browser, whole):
    browser.open(whole)
    yield browser
    browser.call("Emulation.clearDeviceMetricsOverride")
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_the_browser_has_no_complaint_and_asks_nobody(opened) -> None:
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


def test_every_image_loads(opened) -> None:
    sizes = opened.run("[...document.images].map(i => i.complete ? [i.naturalWidth, i.naturalHeight] : null)")
    assert len(sizes) == 1 + len(FULL_CURVES)
    assert all(size and min(size) > 100 for size in sizes)


def column(browser, name: str) -> list[str]:
    return browser.run(
        f"(t => [...t.tBodies].map(b => b.rows[0].cells[[...t.tHead.rows[0].cells].findIndex(c => "
        f"c.innerText.trim().startsWith({name!r}))].innerText.trim()))(document.querySelector('#headline table'))"
    )


def test_a_click_on_a_header_sorts_and_another_reverses(opened) -> None:
    before = column(opened, "value")
    values = [float(v.split("*")[0]) for v in before]
    assert values != sorted(values)
    header = "#headline th:nth-child(4) button"
    opened.click(header)
    assert [float(v.split("*")[0]) for v in column(opened, "value")] == sorted(values)
    assert opened.run(f"document.querySelector({header!r}).parentElement.ariaSort") == "ascending"
    opened.click(header)
    assert [float(v.split("*")[0]) for v in column(opened, "value")] == sorted(values, reverse=True)
    opened.click("#headline th:nth-child(1) button")
    assert column(opened, "run") == sorted(column(opened, "run"))
    assert sorted(column(opened, "value")) == sorted(before)  # rows moved whole, none was lost
    notes = "[...document.querySelectorAll('#headline tbody')].map(b => b.rows[1].innerText)"
    assert all("n is small" in note for note in opened.run(notes))  # and each took its flags along
    assert opened.complaints == []


def test_what_was_not_measured_stays_last(browser, tmp_path) -> None:
    rows = [{"name": "a", "x": None}, {"name": "b", "x": 10.0}, {"name": "c", "x": 9.0}]
    browser.open(write_report([{"run": "r", "scores": [], "tables": {"list": rows}}], tmp_path / "report.html"))
    for expected in (["c", "b", "a"], ["b", "c", "a"]):  # 9 < 10 as numbers, not as texts
        browser.click("#more th:nth-child(2) button")
        script = "[...document.querySelector('#more table').tBodies].map(b => b.rows[0].cells[0].innerText)"
        assert browser.run(script) == expected


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1600])
def test_no_page_is_wider_than_its_screen(opened, width) -> None:
    opened.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    opened.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert opened.run("document.documentElement.scrollWidth <= innerWidth") and opened.run("innerWidth") == width


def test_text_is_readable_in_light_and_dark(opened) -> None:
    opened.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    papers = []
    for scheme in ("light", "dark"):
        opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        papers.append(opened.run("getComputedStyle(document.body).backgroundColor"))
        assert opened.contrast() >= 4.5  # WCAG AA
    assert papers[0] != papers[1]


def test_a_link_to_a_protocol_opens_it(opened) -> None:
    assert opened.run("[...document.querySelectorAll('details')].every(d => !d.open)")
    opened.click("#headline td a")
    goal = "document.getElementById(location.hash.slice(1))"
    assert opened.run(f"new Promise(done => setTimeout(() => done({goal}.open), 100))")
    assert '"metric": "FD"' in opened.run(f"{goal}.innerText")


def test_scores_of_several_ways_of_sampling_say_each_its_own(tmp_path: Path) -> None:
    """The head of the page named the way of whatever was scored first, and the rows none."""
    ways = [
        {"sampler": sampler, "grid": "karras(steps=9)", "nfe": calls} for sampler, calls in (("heun", 17), ("ddim", 9))
    ]
    both = [result(provenance=way) for way in ways]
    assert [row["made"] for row in score_rows(both)] == ["heun on karras(steps=9)"] * 2 + [
        "ddim on karras(steps=9)"
    ] * 2
    assert {row["made"] for row in score_rows(both[:1])} == {None}
    page = write_report(both, tmp_path / "both.html").read_text()
    assert "sampled in 2 ways" in page and page.count("ddim on karras(steps=9)") >= 2
    assert "heun on karras(steps=9), 17 network calls" in write_report(both[:1], tmp_path / "one.html").read_text()
