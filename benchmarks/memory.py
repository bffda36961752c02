"""What every recipe for a CPU holds at its peak: `sfumato train`, two steps and a sample sheet, a process for each.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--only NAME ...] [--out docs/results/memory.md]

A recipe is for a CPU if it learns digits, Fashion-MNIST or CIFAR-10 (here the JPEG copy) and is not a paper's own. One
that begins from another run is given that run, of two steps. Measured is the largest resident memory of the command,
Python, torch and the data included; expected is what `sfumato explain` says, and the bytes of the images.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sfumato.core.find import entries
from sfumato.report.table import markdown_table
from sfumato.runs.memory import peaks
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import load_data, resolve

DATA = {"digits": "digits", "fashion-mnist": "fashion-mnist", "cifar10": "cifar10-jpeg75", "cifar10-jpeg75": None}
OURS = (
    "-digits",
    "-cpu",
    "-cpu-hour",
    "-digits-classifier",
    "-digits-attributes",
)  # how the names of small recipes end
OTHER = {"digits-0-4": ("edm-digits", "data.classes=0,1,2,3,4")}  # runs that recipes begin from, and are no recipe's
STEPS = 2
GIB = 2**30


def for_a_cpu(recipe: Recipe) -> bool:
    """Say whether a recipe is meant for a CPU, and its data or its stand-in is of the kinds at hand."""
    return recipe.data.name in DATA and (recipe.name.startswith("course-") or recipe.name.endswith(OURS))


def few(recipe: Recipe) -> list[str]:
    """Return the settings that end a training after two steps, with a sheet."""
    other = DATA[recipe.data.name]
    settings = [f"train.images={STEPS * recipe.train.batch}", "train.minutes=none", "evaluate.extractor=random"]
    return settings + ([f"data.name={other}"] if other not in (None, recipe.data.name) else [])


def train(name: str, settings: list[str], runs: Path, made: dict[str, int]) -> int:
    """Train two steps of a recipe by the command, and of what it begins from; return its peak in bytes.

    Arguments:
        name: The recipe, and the run.
        settings: Overrides.
        runs: Folder of the runs.
        made: Peaks of the runs that are there, completed.
    """
    if name not in made:
        known, *more = OTHER.get(name, (name,))
        recipe = entries("recipe")[known]()
        settings = [*few(recipe), *more, *settings]
        for field, before in (("train.start", recipe.train.start), ("data.latent", recipe.data.latent)):
            if before:
                train(Path(before).name, [], runs, made)
                settings.append(f"{field}={runs / Path(before).name}")
        words = [sys.executable, "-m", "sfumato", "train", known, *settings, "--out", str(runs / name), "--quiet"]
        child, peak = subprocess.Popen(words, stdin=subprocess.DEVNULL), 0
        while child.poll() is None:
            peak = max(peak, held_most(child.pid))
            time.sleep(0.02)
        if child.returncode:
            raise SystemExit(f"{' '.join(words[2:])} ended with {child.returncode}")
        made[name] = peak
    return made[name]


def held_most(process: int) -> int:
    """Return the most bytes of memory that a running process has held so far (Linux); 0 if it has gone.

    `getrusage` would count what its parent held when it started it, too.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def row(recipe: Recipe, runs: Path, made: dict[str, int]) -> dict[str, Any]:
    """Return what a recipe holds at its peak.

    Arguments:
        recipe: Of the package.
        runs: Folder of the runs.
        made: Peaks measured so far.
    """
    measured = train(recipe.name, [], runs, made)
    settled = override(recipe, few(recipe))
    data = load_data(settled, "train")
    expected = peaks(plan(resolve(settled, data)), "cpu", data=data.images.numel()) if not recipe.data.latent else None
    return {
        "recipe": recipe.name,
        "batch": recipe.train.batch,
        "image": "x".join(map(str, data.images.shape[1:])),
        "expected GiB": f"{max(expected.step, expected.sheet) / GIB:.2f}" if expected else "-",
        "measured GiB": f"{measured / GIB:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=(), help="recipes by name; all unless given")
    parser.add_argument("--out", type=Path, default=None, help="page to write")
    arguments = parser.parse_args()
    made: dict[str, int] = {}
    rows = []
    with tempfile.TemporaryDirectory() as runs:
        for make in entries("recipe").values():
            recipe = make()
            if recipe.name in arguments.only if arguments.only else for_a_cpu(recipe):
                rows.append(row(recipe, Path(runs), made))
                print(*rows[-1].values(), flush=True)
    print(markdown_table(rows))
    if arguments.out is not None:
        arguments.out.write_text(PAGE + markdown_table(rows) + "\n")


PAGE = """# What recipes for a CPU hold in memory

Written by `OMP_NUM_THREADS=1 python benchmarks/memory.py --out docs/results/memory.md`: each recipe trains two steps of
its own batch and draws a sample sheet by `sfumato train`, in a process of its own. *Measured* is the largest resident
memory of that process, Python, torch and the images included. *Expected* is the larger of the two peaks that
`sfumato explain` prints, with the bytes of the images. A recipe that begins from another run was given one of two
steps; CIFAR-10 is the JPEG copy, whose images are as large.

"""

if __name__ == "__main__":
    main()
