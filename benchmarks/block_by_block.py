"""How far images made block by block lie from plain samples of the same run: what a method of restoration gets wrong.

    OMP_NUM_THREADS=1 python benchmarks/block_by_block.py RUN [--n 400] [--own 2000] [--rows ddnm:14 ...] [--keep DIR]

By the chain rule a method that drew from the exact posterior would make samples of the same distribution whatever the
blocks (`pictures/autoregressive.py`). A row is METHOD:BLOCK, with `plain` for the run's own samples of the same seeds.
Each is judged by FD against other samples of the run, where exact draws would score 0, and against real test images.
Images are kept in DIR as they are made, so that a killed command goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sfumato.core.images import to_uint8
from sfumato.evaluation.two_sets import compare_sets, open_set
from sfumato.pictures.autoregressive import block_by_block
from sfumato.report.table import markdown_table
from sfumato.runs.run import Run
from sfumato.sources import classes_named, in_turn

AT_ONCE = 50  # images between two files
ROWS = ("plain", "ddnm:14", "pigdm:14", "moment:14", "ddnm:7", "moment:7")


def made(run: Run, row: str, seeds: list[int]) -> tuple[Tensor, str]:
    """Return the images of a row, uint8 (B, C, H, W), and what one of them costs in network calls and products."""
    source, asked = run.counted_walk()
    labels = in_turn(seeds, classes_named(None, run.classes))
    if row == "plain":
        images = to_uint8(source.floats(seeds, labels))
        return images, f"{sum(asked()) / len(seeds):g} + 0"
    method, _, block = row.partition(":")
    steps, calls, products = block_by_block(source, seeds, labels, int(block), method, run.plan.sigma_data, asked)
    return to_uint8(steps[-1]), f"{calls:g} + {products}"


def kept(run: Run, row: str, seeds: list[int], folder: Path) -> tuple[Path, str]:
    """Return the file of a row's images, made as far as they are missing, and the cost of one."""
    parts, cost = [], ""
    for start in range(0, len(seeds), AT_ONCE):
        some = seeds[start : start + AT_ONCE]
        file = folder / f"{row.replace(':', '-')}-{some[0]}-{some[-1]}.npz"
        if not file.exists():
            images, cost = made(run, row, some)
            np.savez(file, images=images.numpy(), cost=cost)
            print(f"{row}: {start + len(some)} of {len(seeds)} images", flush=True)
        with np.load(file) as held:
            parts.append(held["images"])
            cost = str(held["cost"])
    whole = folder / f"{row.replace(':', '-')}.npy"
    np.save(whole, np.concatenate(parts))
    return whole, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=400, help="images of a row")
    parser.add_argument("--own", type=int, default=2000, help="plain samples that all are judged by, of later seeds")
    parser.add_argument("--rows", nargs="+", default=ROWS)
    parser.add_argument("--keep", type=Path, default=None, help="folder of the images; none are kept unless given")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as passing:
        folder = arguments.keep or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        own = kept(run, "plain", list(range(arguments.n, arguments.n + arguments.own)), folder)[0]
        own = own.rename(folder / "own.npy")
        for row in arguments.rows:
            file, cost = kept(run, row, list(range(arguments.n)), folder)
            scores = {"row": row, "calls + products": cost}
            for name, reference in (("run's own samples", str(own)), ("test", f"{run.recipe.data.name}@test")):
                sets = open_set(str(file)), open_set(reference)
                found = compare_sets(*sets, extract=run.recipe.evaluate.extractor, metrics=("fd",), quiet=True)
                scores[f"{found.scores[0].name} from {name} (m = {found.m:,})"] = str(found.scores[0])
            table.append(scores)
            print(*scores.values(), flush=True)
    print(markdown_table(table))


if __name__ == "__main__":
    main()
