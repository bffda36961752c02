"""What the recipes at paper scale cost: arithmetic and memory, counted without a GPU.

    python benchmarks/scale.py [--out docs/results/scale.md] [--speed 100]

A multiply-add counts as two operations, an image in training as three passes. Memory is that of `runs.memory`: weights,
averages, what the optimiser remembers, and the activations of a rank's share of the batch, in the recipe's precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfumato.cli.explain import operations
from sfumato.core.find import entries
from sfumato.report.table import markdown_table
from sfumato.runs.guided import sampling_cost
from sfumato.runs.memory import held_bytes, peaks
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe

LEAST = 1e9  # GFLOP of training below which a recipe is not of paper scale
RANKS = 8
MADE = 50_000  # images of a FID


def row(recipe: Recipe, speed: float) -> dict[str, Any]:
    """Return what a recipe costs.

    Arguments:
        recipe: With its shape.
        speed: TFLOP a second that one GPU delivers.
    """
    planned = plan(recipe)
    train, cost = recipe.train, planned.cost
    calls = sampling_cost(planned)[1] if planned.kind.draws else 0
    sampled = calls * cost.network.gflop * MADE
    share = max(1, train.batch // RANKS)
    held = held_bytes(planned)
    alone, shared = (
        peaks(planned, "cuda", images=count).step for count in (min(train.batch, train.micro or train.batch), share)
    )
    hours = train.images * cost.training / (1000 * speed * 3600)
    return {
        "recipe": recipe.name,
        "image": "x".join(map(str, planned.image)),
        "M weights": f"{cost.parameters / 1e6:.1f}",
        "batch": train.batch,
        "a step": operations(train.batch * cost.training),
        "a million images": operations(1e6 * cost.training),
        "training": operations(train.images * cost.training),
        "GPU hours": f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}",
        "50,000 samples": operations(sampled) if calls else "-",
        "GiB, 1 GPU": gib(alone),
        f"GiB, {RANKS} copies": gib(shared),
        f"GiB, {RANKS} shards": gib(shared - held + held // RANKS),
    }


def gib(count: int) -> str:
    """Write bytes in GiB."""
    return f"{count / 2**30:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="page to write")
    parser.add_argument("--speed", type=float, default=100.0, help="TFLOP a second that one GPU delivers")
    arguments = parser.parse_args()
    rows = []
    for make in entries("recipe").values():
        recipe = make()
        if recipe.shape is None or recipe.train.minutes is not None:
            continue
        if plan(recipe).cost.training * recipe.train.images >= LEAST:
            rows.append(row(recipe, arguments.speed))
            print(rows[-1]["recipe"], rows[-1]["training"], rows[-1]["GiB, 1 GPU"], flush=True)
    text = (
        "# What paper scale costs\n\n"
        f"Written by `python benchmarks/scale.py --speed {arguments.speed:g}`; everything here is counted, nothing was "
        "run. A multiply-add is two operations, a training image three passes. *GPU hours* are for one that delivers "
        f"{arguments.speed:g} TFLOP/s: multiply them by {arguments.speed:g} and divide by what yours delivers, "
        "which `make gpu-check` measures as a share of its peak. Papers trained on other "
        "machines, in other hours.\n\n"
        "Memory is the peak of a training step in the recipe's precision: weights, averages and what the optimiser "
        "remembers, with the activations of the batch on one GPU, or of an eighth of it on each of eight GPUs, as "
        "copies or with `train.shard=true` (the weights of the block at work, which a rank gathers, are not counted). "
        "A batch that does not fit on a GPU is cut into rounds by itself, at the same result.\n\n"
        f"{markdown_table(rows)}\n"
    )
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
