"""Hooks of the documentation site: pages of the API from the source tree, and a menu of whatever pages are there.

A page is in the menu because it lies in docs/: known ones in the order below, any other at the end of its section, so
that a new page needs no line here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sfumato"
HIDDEN = {"files", "__main__"}
FIRST = ["index.md", "quickstart.md", "design-space.md", "recipes.md", "gallery.md", "faq.md"]
SECTIONS = {"how-to": "How to", "lessons": "Lessons", "results": "Results", "api": "API reference"}
LAST = ["architecture.md", "contributing.md", "changelog.md"]
BORROWED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}  # pages that lie beside docs/


class Doctests(griffe.Extension):
    """Show the examples of a docstring as code, with or without a heading of their own."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            fenced = r"```pycon\n\g<0>\n```\n"
            obj.docstring.value = re.sub(r"^>>> (?:.+\n?)+", fenced, obj.docstring.value, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API's pages and the borrowed ones, then make the menu."""
    for name, content in {**_api(), **_borrowed()}.items():
        files.append(File.generated(config, name, content=content))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config["nav"] = _menu(pages)
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to the page that stands for the file, or leave their words without a link."""
    borrowed = {source: name for name, source in BORROWED.items()}
    here = (ROOT / "docs" / page.file.src_uri).parent

    def changed(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        outside = re.fullmatch(r"(?:\.\./)+([^#]*)(#.*)?", target)
        place = (here / target.partition("#")[0]).resolve()
        if outside is None or place.is_relative_to(ROOT / "docs"):
            return match[0]
        if outside[1] in borrowed:
            up = "../" * page.file.src_uri.count("/")
            return f"[{words}]({up}{borrowed[outside[1]]}{outside[2] or ''})"
        return f"`{outside[1]}`" if words == outside[1] else f"{words} (`{outside[1]}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", changed, markdown)


def _menu(pages: list[str]) -> list[Any]:
    top = [page for page in pages if "/" not in page and page not in LAST]
    menu: list[Any] = [page for page in FIRST if page in top] + [page for page in top if page not in FIRST]
    folders = sorted({page.split("/")[0] for page in pages if "/" in page})
    for folder in [*(f for f in SECTIONS if f in folders), *(f for f in folders if f not in SECTIONS)]:
        inside = sorted((p for p in pages if p.startswith(f"{folder}/")), key=lambda p: (not p.endswith("index.md"), p))
        menu.append({SECTIONS.get(folder, folder.replace("-", " ").capitalize()): inside})
    return menu + [{"About": [page for page in LAST if page in pages]}]


def _api() -> dict[str, str]:
    """Return a page for every room: its own docstring, then every public module."""
    found = {}
    for place in sorted(SOURCE.iterdir()):
        name = place.stem
        if name.startswith("_") or name in HIDDEN or not (place.suffix == ".py" or (place / "__init__.py").exists()):
            continue
        modules = (
            [place]
            if place.suffix == ".py"
            else [
                file
                for file in sorted(place.rglob("*.py"))
                if not any(
                    part.startswith("_") or part in HIDDEN for part in file.relative_to(place).with_suffix("").parts
                )
            ]
        )
        init = place if place.suffix == ".py" else place / "__init__.py"
        lines = [f"# {name}", ""]
        if place.is_dir():
            lines += [ast.get_docstring(ast.parse(init.read_text())) or "", ""]
        for file in modules:
            dotted = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts)
            lines += [f"::: {dotted}", ""]
        found[f"api/{name}.md"] = "\n".join(lines)
    found["api/index.md"] = _index(found)
    return found


def _index(pages: dict[str, str]) -> str:
    lines = ["# Rooms", "", "Every room of the tree, with the first line of its docstring.", ""]
    for page in pages:
        name = Path(page).stem
        init = SOURCE / f"{name}.py" if (SOURCE / f"{name}.py").exists() else SOURCE / name / "__init__.py"
        doc = ast.get_docstring(ast.parse(init.read_text())) or ""
        lines.append(f"- [{name}]({name}.md): {doc.splitlines()[0] if doc else ''}")
    return "\n".join(lines)


def _borrowed() -> dict[str, str]:
    return {name: (ROOT / source).read_text().replace("](docs/", "](") for name, source in BORROWED.items()}
