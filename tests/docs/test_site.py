"""The pages of docs/ link to what is there, every page is in the menu, and the whole site builds without a warning."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import sfumato

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT / "docs")) for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    made = {(ROOT / "docs" / name).resolve() for name in ("contributing.md", "changelog.md")}  # docs/site.py makes them
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        place = (page.parent / target).resolve()
        assert target.startswith("https://") or place in made or place.exists(), target


def test_files_that_say_who_and_how_are_there() -> None:
    for name in ("LICENSE", "CITATION.cff", "SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        assert (ROOT / name).stat().st_size > 300, name
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {sfumato.__version__}\n" in citation


def test_pages_name_every_extra_and_every_public_name() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/quickstart.md").read_text(), re.M)
    assert sorted(listed) == sorted(set(extras) - {"test"})
    first = (ROOT / "docs/how-to/use-from-python.md").read_text().partition("##")[0]
    assert sorted(set(re.findall(r"`(\w+)`", first))) == sorted(sfumato.__all__)


class Links(HTMLParser):
    """What a page loads and links to, and its anchors."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        facts = {key: value or "" for key, value in attributes}
        self.ids |= {facts[key] for key in ("id", "name") if facts.get(key)}
        if tag in ("script", "img", "iframe", "source"):
            self.loads += [facts["src"]] if facts.get("src") else []
        elif tag == "link" and facts.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.loads.append(facts["href"])
        elif tag == "a" and facts.get("href"):
            self.links.append(facts["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site needs its extra: pip install 'sfumato[docs]'")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "WARNING" in line)
    return folder


@pytest.mark.slow
def test_the_site_builds_strictly_and_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    copied = {site / page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.html")}  # reports
    made = [page for page in site.rglob("*.html") if page.name != "404.html" and page not in copied]
    pages = {page: Links(page.read_text()) for page in made}
    assert len(pages) > 30
    for page, found in pages.items():
        for target in found.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            goal = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            goal = goal / "index.html" if goal.is_dir() else goal
            assert goal.exists(), f"{page.relative_to(site)} links to {target}"
            if parts.fragment and goal in pages:
                ids = pages[goal].ids | {""}
                assert unquote(parts.fragment) in ids or parts.fragment.startswith("__"), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert [url for url in Links(page.read_text()).loads if urlsplit(url).netloc] == [], page


def test_the_menu_has_four_tiers_and_lessons_stand_in_their_order() -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site.py")
    assert spec is not None and spec.loader is not None
    pytest.importorskip("mkdocs", reason="the site needs its extra: pip install 'sfumato[docs]'")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    pages = sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES) + ["api/index.md", "new/a.md"]
    menu = {tier: found for entry in hooks._menu(pages) for tier, found in entry.items()}
    assert list(menu) == ["Start", "Guides", "Reference", "Evidence"] and menu["Start"][0] == "index.md"
    guides = {name: found for entry in menu["Guides"] for name, found in entry.items()}
    titles = [(ROOT / "docs" / page).read_text().splitlines()[0] for page in guides["Lessons"]]
    assert titles[0] == "# Lessons"
    assert [int(title.removeprefix("# ").split(".")[0]) for title in titles[1:]] == list(range(1, len(titles)))
    assert guides["New"] == ["new/a.md"]
    assert str(menu).count(".md'") == len(pages)
    studies = [page for entry in menu["Evidence"] if isinstance(entry, dict) for page in entry["Studies"]]
    names = [(ROOT / "docs" / page).read_text().splitlines()[0] for page in studies]
    assert len(set(names)) == len(names) > 20


@pytest.mark.slow
def test_every_page_and_every_room_is_in_the_menu(site: Path) -> None:
    menu = set(Links((site / "index.html").read_text()).links)
    for page in PAGES:
        name = str(page.relative_to(ROOT / "docs").with_suffix(".html")).replace("README.html", "index.html")
        assert name in menu or name == "index.html", name
    assert {"api/samplers.html", "api/core.html", "api/sources.html"} <= menu
    samplers = (site / "api" / "samplers.html").read_text()
    assert "sfumato.samplers.heun" in samplers and "References" in samplers


@pytest.mark.slow
def test_a_picture_of_the_front_page(browser, site: Path, tmp_path: Path) -> None:
    """Into $SFUMATO_PICTURES if that is set (`make pictures`)."""
    browser.open(site / "index.html")
    file = Path(os.environ.get("SFUMATO_PICTURES") or tmp_path) / "docs-front-page.png"
    browser.screenshot(file, 1280, 900)
    assert file.stat().st_size > 20_000
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
