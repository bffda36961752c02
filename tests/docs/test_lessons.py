"""The lessons: pictures and links exist, code runs, commands parse; slow: every command of every page runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sfumato.cli import main
from sfumato.cli._main import commands

LESSONS = Path(__file__).parents[2] / "docs" / "lessons"
PAGES = sorted(page for page in LESSONS.glob("*.md") if page.name != "README.md")


def lines_of(page: Path) -> list[list[str]]:
    """The words of every command of a page."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_tour_visits_every_page() -> None:
    assert {page.name for page in PAGES} == set(re.findall(r"\]\(([a-z-]+\.md)\)", (LESSONS / "README.md").read_text()))


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_a_shell_takes_every_command_of_the_documents_as_it_is_printed() -> None:
    """Brackets without quotes, as in network.attention=(), are an error of the shell."""
    root = LESSONS.parents[1]
    blocks = [
        block
        for page in (root / "README.md", *root.glob("docs/**/*.md"))
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    said = subprocess.run(["bash", "-n"], input="".join(blocks), capture_output=True, text=True)
    assert len(blocks) > 20 and said.returncode == 0, said.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_a_command_and_says_what_to_look_for(page: Path) -> None:
    words = lines_of(page)
    assert words and all(line[0] == "sfumato" and line[1] in commands() for line in words)
    assert "**Look for**" in page.read_text()


@pytest.mark.parametrize("page", [LESSONS / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_python_runs(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in lines_of(page):
        assert main(words[1:]) == 0, words
