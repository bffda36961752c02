"""``sfumato search``: the best settings of some fields of a recipe, among many that are tried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Number, Overrides, again, allowed, device_named, refusal

if TYPE_CHECKING:
    from sfumato.experiments.search import Search, Trial
    from sfumato.report.table import Row


def search(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE")],
    overrides: Overrides = (),
    *,
    trials: Annotated[int, arg(metavar="N")] = 30,
    minutes: Number = None,
    metric: str = "fd",
    n: Count = None,
    split: Literal["train", "val"] = "train",
    seed: Annotated[int, arg(metavar="N")] = 0,
    out: Folder = None,
    device: Name = None,
    data_root: Folder = None,
) -> int:
    """Search fields of a recipe: many short trainings, of which those that look bad stop early.

    A range is LOW..HIGH, a list A,B,C, and one value is the same for all trials:

        sfumato search edm-digits train.optimizer.lr=1e-3..1e-1 train.rate=constant,linear train.images=5000

    Trials are judged by training images, never by test images. Killed and started again, it goes on where it was. The
    best recipe is written as a file (sfumato train FILE.json); every score of its runs says among how many it was
    chosen.

    Arguments:
        recipe: Name of a recipe; its budget (train.images or train.minutes) is that of a trial.
        overrides: Fields with ranges, lists or one value; `log:1..5` for a logarithmic range that is short.
        trials: Trials in all, those of before counted.
        minutes: After which no trial begins.
        metric: The score: fd, kid, ...
        n: Generated images of a score; the recipe's evaluate.quick unless given.
        split: Real images that judge: train, or val of a recipe with data.val.
        seed: Seed of the proposals.
        out: Directory of the search; runs/search/RECIPE unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: One folder a dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    command = again(search, locals())
    print(f"sfumato search {recipe} {' '.join(overrides)}", flush=True)  # before torch is imported, which takes seconds

    from sfumato import api
    from sfumato.report.table import text_table

    if n is not None:
        allowed(n)
    if trials < 1 or (minutes is not None and not minutes > 0):
        raise refusal(f"A search is of at least 1 trial and more than 0 minutes; got {trials} and {minutes}.")
    told = _Progress(trials, minutes)
    folder = out or f"runs/search/{Path(recipe).stem}"
    found = api.search(
        recipe,
        overrides,
        folder,
        trials=trials,
        minutes=minutes,
        metric=metric,
        n=n,
        split=split,
        seed=seed,
        device=device_named(device),
        root=data_root,
        told=told,
    )
    print(text_table(rows(found.search, found.trials)))
    for field, share in found.importances.items():
        print(f"  {share:.0%} of the importance: {field}")
    print(f"Written: {found.file}, {found.draw(command)}")
    print(f"Next: sfumato train {found.file}")
    return 0


class _Progress:
    """Print a line for every trial that ends, with the time that is left.

    Arguments:
        trials: Number of trials in all.
        minutes: Budget in minutes; None for none.
    """

    def __init__(self, trials: int, minutes: float | None) -> None:
        self.trials, self.minutes, self.took = trials, minutes, list[float]()

    def __call__(self, number: int, trial: Trial) -> None:
        self.took.append(trial.seconds)
        left = sum(self.took) / len(self.took) * (self.trials - number) / 60
        if self.minutes is not None:
            left = min(left, max(0.0, self.minutes - sum(self.took) / 60))
        told = " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.values.items())
        print(f"[{number}/{self.trials}] {trial.last:.4g} {trial.end}; {told}; about {left:.1f} min left", flush=True)


def rows(search: Search, trials: list[Trial]) -> list[Row]:
    """Return a row per trial, the best first; those that were stopped follow.

    Arguments:
        search: What was searched.
        trials: Its trials.
    """
    from sfumato.report.table import Cell

    sign = -1 if search.direction == "maximize" else 1
    order = sorted(trials, key=lambda t: (t.end != "done", -max(t.scores, default=0), sign * t.last))
    return [
        {
            **trial.values,
            search.metric: Cell(trial.last, trial.interval) if trial.scores else None,
            "budget": f"{max(trial.scores, default=0)}/9",
            "end": trial.end,
            "seconds": round(trial.seconds, 1),
        }
        for trial in order
    ]
