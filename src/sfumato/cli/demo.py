"""``sfumato demo``: the whole way in about two minutes, from real digits to generated ones and their score."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.cli._arguments import Folder, Name, Number, device_named, find_recipe, given
from sfumato.cli.evaluate import score_table
from sfumato.cli.sample import Drawn, draw_sheet, draw_walk
from sfumato.runs.drawn import SAMPLES

if TYPE_CHECKING:
    from sfumato.evaluation import Result
    from sfumato.runs.run import Run

RECIPE = "edm-digits"
PER_CLASS, WALKS = 10, 4  # images a class on the sheet; rows of the strip


def demo(*, out: Folder = "runs/demo", minutes: Number = None, device: Name = None) -> int:
    """Train a small model on handwritten digits, score it honestly and draw what it makes, offline.

    It takes one or two minutes on two CPU cores. Run again, it goes on where it was.

    Arguments:
        out: The run's directory.
        minutes: Minutes of training, with its preparation and its sheets, in place of the recipe's number of images.
            Scoring and drawing come on top of it and take about half a minute.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    began = time.monotonic()
    print("sfumato demo: a network learns to draw digits out of noise. Loading PyTorch ...", flush=True)

    from sfumato import evaluation
    from sfumato.cli._next import playing, reporting, show_next
    from sfumato.processes.machine import peak_memory
    from sfumato.training import loop

    where = device_named(device)
    folder = out or "runs/demo"
    recipe = find_recipe(RECIPE, given(train__minutes=minutes))
    _say(1, "Learning", "The network sees real 8x8 digits under noise of every strength and learns to remove it.")
    run = loop.train(recipe, folder, device=where)
    _say(2, "Judging", f"{recipe.evaluate.n:,} new digits against real ones that it has never seen.")
    result = evaluation.evaluate(run, device=where)
    print(score_table([result.to_json()]))
    print(reading(result))
    _say(3, "Looking", "Nobody chose among these images: they come from the first seeds.")
    paths = draw(run, where)
    for name, path in paths.items():
        print(f"  {name:<10} {path}")
    print(f"  {'numbers':<10} {result.path}")
    print(f"\nDone in {time.monotonic() - began:.0f} s, peak memory {peak_memory() / 2**30:.1f} GiB.")
    show_next(
        reporting(folder),
        (["sample", folder, "--classes", "3,8", "--strip"], "other digits, step by step"),
        (["sample", folder, "--sampler", "ddim", "--steps", "5"], "another sampler, nothing is retrained"),
        (["evaluate", folder, "--sampler", "ddim", "--steps", "5"], "the score of that sampler"),
        *playing(run),
        (["explain", RECIPE], "every part of the recipe, each one a choice"),
        (["list"], "what else there is to choose"),
    )
    return 0


def _say(number: int, title: str, text: str) -> None:
    print(f"\n{number}. {title}\n   {text}", flush=True)


def reading(result: Result) -> str:
    """Return a few sentences on how to read the interval and the floor, with the numbers just measured.

    Arguments:
        result: Of the evaluation.
    """
    from sfumato.metrics.score import excess

    score = result.scores[0]
    low, high = score.interval
    text = (
        f"The interval says how much {score.name} would change with other seeds and other test digits: the limit of "
        f"many images lies within [{low:.3g}, {high:.3g}] with 95% confidence."
    )
    above = excess(score)
    if score.floor is not None and above is not None:
        verdict = "so few images cannot tell the model from real digits"
        if above.interval[0] > 0:
            verdict = "so the model can be told from real digits"
        least, most = score.floor.interval
        text += (
            f"\nThe floor, {score.floor.value:.3g}, is what as many real digits score against the same {score.m} test "
            f"digits. It should be 0; its interval [{least:.3g}, {most:.3g}] "
            f"{'contains' if least <= 0 <= most else 'does not contain'} 0. (It may be negative, since the bias of "
            "small samples is subtracted.) The model lies "
            f"{above.value:.3g} [{above.interval[0]:.3g}, {above.interval[1]:.3g}] above it, {verdict}."
        )
    return text


def draw(run: Run, device: str) -> dict[str, Path]:
    """Draw the sheet, strip and animation of a run; return their paths by name.

    Arguments:
        run: Trained.
        device: Where to compute.
    """
    source = run.diffusion(device=device)
    picked, target = list(range(len(run.classes))), run.path / SAMPLES / "sheet.png"
    sheet = draw_sheet(Drawn(run, list(range(PER_CLASS * len(picked))), picked), source, target)
    strip, gif = draw_walk(Drawn(run, list(range(WALKS)), picked), source, target, strip=True, gif=True)
    return {"sheet": sheet, "strip": strip, "animation": gif}
