"""Hooks of the documentation site: pages of the API from the source tree, and a menu of whatever pages are there.

The menu has four tiers: where to start, guides, reference and evidence. A page is in it because it lies in docs/: known
ones in the order below, any other at the end of its tier, so that a new page needs no line here. The pages of a folder
stand in the order in which its README.md links to them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sfumato"
HIDDEN = {"files", "__main__"}
START = ["index.md", "quickstart.md", "gallery.md", "faq.md"]
REFERENCE = ["design-space.md", "recipes.md", "architecture.md", "contributing.md", "changelog.md"]
FOLDERS = {  # folder: (tier, name of its section; "" for none)
    "how-to": ("Guides", "How to"),
    "lessons": ("Guides", "Lessons"),
    "api": ("Reference", "API"),
    "results": ("Evidence", ""),
    "results/studies": ("Evidence", "Studies"),
}
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
    """Return the four tiers, each with its own pages and then its folders."""
    top = [page for page in pages if "/" not in page]
    tiers: dict[str, list[Any]] = {"Start": [page for page in START if page in top], "Guides": []}
    tiers["Reference"] = [page for page in REFERENCE if page in top]
    tiers["Evidence"] = []
    tiers["Guides"] += [page for page in top if page not in START + REFERENCE]
    inside: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
    for page in pages:
        if "/" in page:  # belongs to the deepest folder that is known
            folder = max((f for f in FOLDERS if page.startswith(f"{f}/")), key=len, default=page.split("/")[0])
            inside.setdefault(folder, []).append(page)
    for folder, found in inside.items():
        tier, name = FOLDERS.get(folder, ("Guides", folder.replace("-", " ").capitalize()))
        ordered = sorted(found, key=_order(folder))
        tiers[tier] += [{name: ordered}] if name else ordered
    return [{tier: found} for tier, found in tiers.items()]


def _order(folder: str) -> Callable[[str], tuple[bool, int, str]]:
    """Return the key that puts a folder's index first, then the pages in the order of its links, then the others."""
    readme = ROOT / "docs" / folder / "README.md"
    linked = re.findall(r"\]\(([^)#]+\.md)", readme.read_text()) if readme.exists() else []
    place = {f"{folder}/{name}": i for i, name in enumerate(linked)}
    return lambda page: (Path(page).stem not in ("index", "README"), place.get(page, len(place)), page)


def _api() -> dict[str, str]:
    """Return a page for every package: its own docstring, then every public module."""
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
    lines = ["# Packages", "", "Every package and module of the tree, with the first line of its docstring.", ""]
    for page in pages:
        name = Path(page).stem
        init = SOURCE / f"{name}.py" if (SOURCE / f"{name}.py").exists() else SOURCE / name / "__init__.py"
        doc = ast.get_docstring(ast.parse(init.read_text())) or ""
        lines.append(f"- [{name}]({name}.md): {doc.splitlines()[0] if doc else ''}")
    return "\n".join(lines)


def _borrowed() -> dict[str, str]:
    return {name: (ROOT / source).read_text().replace("](docs/", "](") for name, source in BORROWED.items()}
