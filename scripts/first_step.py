"""Follow a training from its call to its first step through the files of `runs/` and `training/`.

    python scripts/first_step.py [--recipe NAME] [--show] [--most STAYS RETURNS]

Every function is noted when it is first called. A stay is a row of such calls in one file; a return is a stay in a file
that was left before. With --most the exit status is 1 when there are more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

import sfumato
from sfumato.runs.override import override, recipe_named
from sfumato.training.loop import train

ROOT = Path(sfumato.__file__).parent
FOLLOWED = ("runs", "training")
LITTLE = ("data.first=64", "train.images=32", "train.batch=16")


class FirstCalls:
    """The functions of the followed packages in the order of their first calls, up to the first optimiser step."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self._seen: set[CodeType] = set()
        self._files: dict[str, str] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call; stop at the step of an optimiser."""
        code = frame.f_code
        if event != "call" or code in self._seen:
            return
        self._seen.add(code)
        if code.co_name == "step" and isinstance(frame.f_locals.get("self"), torch.optim.Optimizer):
            sys.setprofile(None)
        file = self._files.setdefault(code.co_filename, _followed(code.co_filename))
        if file and not code.co_name.startswith("<"):
            self.found.append((file, code.co_qualname))


def _followed(name: str) -> str:
    path = Path(name)
    if not path.is_relative_to(ROOT):
        return ""
    inside = path.relative_to(ROOT)
    return str(inside) if inside.parts[0] in FOLLOWED else ""


def stays(calls: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Return the rows of calls in one file."""
    return [(file, [name for _, name in row]) for file, row in groupby(calls, key=lambda call: call[0])]


def road(name: str) -> list[tuple[str, list[str]]]:
    """Train a little with a recipe and return the stays on the way to its first step."""
    recipe, calls = override(recipe_named(name), LITTLE), FirstCalls()
    with tempfile.TemporaryDirectory() as folder:
        sys.setprofile(calls)
        train(recipe, Path(folder) / "run", quiet=True, device="cpu")
        sys.setprofile(None)
    return stays(calls.found)


def main() -> int:
    """Print how the first step of a training is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="edm-digits")
    parser.add_argument("--show", action="store_true", help="print every stay")
    parser.add_argument("--most", nargs=2, type=int, metavar=("STAYS", "RETURNS"))
    asked = parser.parse_args()
    rows = road(asked.recipe)
    if asked.show:
        for file, names in rows:
            print(f"{file:34}{', '.join(names)}")
    files = {file for file, _ in rows}
    returns = len(rows) - len(files)
    calls = sum(len(names) for _, names in rows)
    print(f"{len(rows)} stays in {len(files)} files, {returns} returns to a file that was left, {calls} calls")
    return int(asked.most is not None and (len(rows) > asked.most[0] or returns > asked.most[1]))


if __name__ == "__main__":
    raise SystemExit(main())
