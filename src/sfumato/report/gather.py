"""What a page shows of runs: their results, the pictures that commands left in them, and the logs of their training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.reading import read_json
from sfumato.report.results import read_metrics, read_results
from sfumato.report.save import command_in
from sfumato.report.training import of_last_protocol
from sfumato.runs.drawn import EDITED, RESTORED, SAMPLES, SHEETS, drawn

MOST_SHEETS = 4  # of those drawn while training
SHEET, STRIP, ANIMATION = "samples", "strip: from noise to images", "animation: from noise to images"
TITLES = {SHEET: -3, STRIP: -2, ANIMATION: -1}  # which of equally new pictures comes first


def read_report(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read what a page shows: the results of runs, their pictures and their logs; a run may have any of these alone.

    Arguments:
        paths: Run directories or result files.

    Returns:
        Results, those of a run together and called by the name of its folder; its pictures and logs are a result of
        their own.

    Raises:
        ValueError: If a path is no run and no result.
    """
    found: list[dict[str, Any]] = []
    for path, name in names_of(paths).items():
        is_run = (path / "recipe.json").is_file()
        if not (is_run or path.is_file() or any((path / "results").glob("*.json"))):
            raise ValueError(f"{path} is neither a run nor a result file. Name a directory that `sfumato train` made.")
        if path.is_file() or any((path / "results").glob("*.json")):
            found += [{**result, "run": result["run"] if path.is_file() else name} for result in read_results([path])]
        if is_run:
            found.append(_left_in(path, name))
    return found


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Return what runs are called: the name of the folder, or the whole path where two folders share a name.

    >>> list(names_of([Path("runs/edm"), Path("old/edm"), Path("runs/flow")]).values())
    ['runs/edm', 'old/edm', 'flow']
    """
    short = {path: path.resolve().name for path in paths}
    return {path: name if list(short.values()).count(name) == 1 else str(path) for path, name in short.items()}


def _left_in(run: Path, name: str) -> dict[str, Any]:
    """Return the pictures and logs of a run as a result without scores."""
    recipe = read_json(run / "recipe.json", finite=False).get("recipe") or {}
    curves = {}
    if records := read_metrics(run / "metrics.jsonl"):
        curves["training"] = {"records": records, "alike": alike(recipe)}
    if records := of_last_protocol(read_metrics(run / "scores.jsonl")):
        curves["while_training"] = {"records": records}
    pictures = {str(f["path"]): f for f in _pictures_of(run, str(recipe.get("name", "")))}
    about = {"run": name, "recipe": recipe.get("name"), "path": str(run), "folder": str(run)}
    return {**about, "scores": [], "pictures": pictures, "curves": curves}


def alike(recipe: Mapping[str, Any]) -> str:
    """Return what is equal for runs of one recipe that differ in their seed alone.

    Arguments:
        recipe: Its JSON.
    """
    train = {key: value for key, value in (recipe.get("train") or {}).items() if key != "seed"}
    return json.dumps({**recipe, "train": train}, sort_keys=True)


def _pictures_of(run: Path, recipe: str) -> list[dict[str, Any]]:
    """Return the pictures of a run: where each lies, its section, its title and what made it."""
    found = drawn(run)
    sheets = sorted(found.pop(SHEETS))
    evenly = {round((len(sheets) - 1) * i / (MOST_SHEETS - 1)) for i in range(MOST_SHEETS)}
    kept = [sheets[i] for i in sorted(evenly)] if sheets else []
    pictures: list[dict[str, Any]] = []
    for folder, files in found.items():
        for section, title, file in _newest_of_each(folder, files):
            own = {"section": section, "title": title, "command": command_in(file)}
            pictures.append({"path": str(file.relative_to(run)), **own})
    for file in kept:
        seen = int(file.stem) if file.stem.isdigit() else None
        after = "" if seen is None else f" after {seen:,} training images"
        caption = f"Samples of {run.resolve().name} ({recipe}){after}: the same seeds each time, uncurated."
        only = file == kept[-1] and not found[SAMPLES]  # a page begins with samples
        own = {"section": "samples" if only else "training", "title": f"drawn while training{after}"}
        pictures.append({"path": str(file.relative_to(run)), "caption": caption, "bare": True, **own})
    return pictures


def _newest_of_each(folder: str, files: Sequence[Path]) -> list[tuple[str | None, str, Path]]:
    """Return section, title and file of pictures, newest first: the newest of each title, then the next of each."""
    placed = [(*_place(folder, file), file) for file in files]
    titles = [title for _, title, _ in placed]
    rank = {file: (titles[:i].count(title), TITLES.get(title, 0)) for i, (_, title, file) in enumerate(placed)}
    return sorted(placed, key=lambda place: rank[place[2]])


def _place(folder: str, file: Path) -> tuple[str | None, str]:
    """Return the section of a picture, or None for what its kind says, and its title."""
    stem = file.stem.replace("-", " ").replace("_", " ")
    if folder in (RESTORED, EDITED):
        return "changed", f"{folder}: {file.parent.name if folder == RESTORED else file.stem}"
    if folder != SAMPLES:
        return None, stem
    if file.stem.startswith(("sweep", "again", "encoded", "coded")):
        return "samples", stem
    return "samples", ANIMATION if file.suffix == ".gif" else STRIP if file.stem.endswith("-strip") else SHEET
