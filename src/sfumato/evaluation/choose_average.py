"""Choose the width of an average by a score, after training.

Every candidate is made from the run's snapshots and judged on the same seeds against the same real images, so that
their differences are those of the weights. The best one is kept with what chose it: the score of the best of several is
biased low on the reference that chose it, and evaluating it there marks the score. Choose on `val` where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sfumato.evaluation.judge import Judge
from sfumato.metrics.metric import find_metric
from sfumato.metrics.score import Score
from sfumato.runs import averages
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run

LADDER = (0.03, 0.05, 0.07, 0.10, 0.14, 0.20)  # widths that are compared unless others are given


@dataclass(frozen=True)
class Candidate:
    """A width that was judged.

    Attributes:
        width: sigma_rel.
        error: Relative error of its profile.
        score: Score of its images.
    """

    width: float
    error: float
    score: Score


def choose(
    run: Run,
    widths: Sequence[float] = (),
    *,
    metric: str = "fd",
    n: int | None = None,
    split: str = "test",
    root: Path | str | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[str, list[Candidate]]:
    """Judge widths and keep the best as an average of the run.

    Arguments:
        run: With snapshots; its recipe says how it is sampled.
        widths: Candidates; () for those of `LADDER` that the snapshots can make.
        metric: Name of a metric that says which way is good.
        n: Images of each candidate; None for the recipe's `evaluate.quick`.
        split: Real images that judge.
        root: Data root.
        device: Where to sample.
        progress: Told of images as they are made.

    Returns:
        The name of the chosen average, as `Run.network` takes it, and all candidates in order of width.

    Raises:
        RecipeError: If a width cannot be made.
    """
    n = run.recipe.evaluate.quick if n is None else n
    direction = find_metric(metric).better
    if direction == "neither":
        raise RecipeError(
            f"Neither more nor less of {metric} is better, so it chooses no average. Choose by fd or kid."
        )
    averages.snapshots(run.path)
    judge = Judge.of(run.recipe, split, root)
    judge.check(metric, n)
    labels, prior = run.labels(n, judge.real)
    judged: list[tuple[Candidate, averages.Fitted]] = []
    for width in sorted(set(widths or LADDER)):
        try:
            made = averages.reconstruct(run.path, width, run.mark)
        except RecipeError:
            if widths:
                raise
            continue
        network = run.trained.build_network()
        network.load_state_dict(made.tensors)
        source = run.source(device=device, network=network.eval().requires_grad_(False).to(device))
        images = source(range(n), labels, progress=progress)
        score = judge.score(metric, judge.seen(images, (metric,), labels, prior), floor=False)
        judged.append((Candidate(width, made.error, score), made))
    if not judged:
        raise RecipeError(f"The snapshots of {run.path} can make none of the widths {LADDER}. Give --width.")
    best, made = (max if direction == "higher" else min)(judged, key=lambda pair: pair[0].score.value)
    selected = {
        "what": "width of the average",
        "by": best.score.name,
        "n": n,
        "value": best.score.value,
        "candidates": len(judged),
        "reference": judge.identity,
    }
    return averages.store(run.path, best.width, made, selected), [candidate for candidate, _ in judged]
