"""What to do next: commands that work as they are printed, one a line, and what each is for."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sfumato.runs.run import Run

ANY = "random"  # the extractor that needs no weights and takes all images
WIDE = 60  # columns of commands before the words beside them
Step = tuple["Sequence[str]", str]  # words of a command, and what it is for


def show_next(*steps: Step) -> None:
    """Print commands under the word "Next:".

    Arguments:
        steps: Each as the words of a command, without the program's name, and what it is for.
    """
    lines = [(shlex.join(["sfumato", *words]), purpose) for words, purpose in steps]
    width = min(WIDE, max(len(command) for command, _ in lines))
    print("Next:\n" + "\n".join(f"  {command:<{width}}   {purpose}" for command, purpose in lines))


def sampling(run: Run, *more: str) -> list[Step]:
    """Return the step that draws images of a run; none for a run that makes no images.

    Arguments:
        run: A trained run.
        more: Further words, such as an average of the weights.
    """
    from sfumato.runs.kinds import kind_of

    return [(["sample", str(run.path), *more], "draw images")] if kind_of(run.recipe).draws else []


def scoring(run: Run, root: str | None = None, *more: str) -> Step:
    """Return the step that scores a run, with an extractor whose weights are at hand.

    Arguments:
        run: A trained run.
        root: Data root that was named; None for the default.
        more: Further words, such as an average of the weights.
    """
    from sfumato.core.find import find
    from sfumato.runs.kinds import kind_of

    recipe = run.recipe
    words = ["evaluate", str(run.path), *more, *(["--data-root", root] if root else [])]
    if not kind_of(recipe).draws or recipe.shape is None:
        return words, "score it against held-out images"
    named, shape, most = recipe.evaluate.extractor, recipe.shape, run.about.get("floor_of", recipe.evaluate.n)
    purpose = "score it against real images that it has not seen"
    if recipe.data.test == 0:
        words, purpose = [*words, "--split", "train"], "score it against training images, since none are held out"
    elif most < recipe.evaluate.n:
        words, purpose = [*words, "--n", str(most)], "score as many images as there are real ones for the floor"
    try:
        find("extractor", named)((shape.channels, shape.height, shape.width))
    except ValueError:
        purpose = f"score it; `{named}`, which the recipe names, needs --weights FILE"
        return [*words, "--extract", ANY], purpose
    return words, purpose


def playing(*runs: Run) -> list[Step]:
    """Return the step that opens runs in the browser; none if the playground can show none of them."""
    from sfumato.runs.kinds import DENOISER, kind_of

    shown = [str(run.path) for run in runs if kind_of(run.recipe) is DENOISER]
    return [(["app", *shown[:2]], "play with it in the browser (Ctrl-C ends it)")] if shown else []


def reporting(*runs: str) -> Step:
    """Return the step that puts what is known of runs on one page."""
    return ["report", *runs], "pictures and scores on one page"


def comparing(result: Path) -> list[Step]:
    """Return the step that compares a result with the newest other one of the same protocol, of this run or beside it.

    Arguments:
        result: File of the result, in RUN/results.
    """
    own, run = _protocols(result), result.parent.parent
    others = [*run.glob("results/*.json"), *run.parent.glob("*/results/*.json")]
    for other in sorted({*others} - {result}, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            found = _protocols(other)
        except (ValueError, OSError):  # a file of another kind, or damaged
            continue
        common = own.keys() & found.keys()
        if common and all(own[name] == found[name] for name in common):
            return [(["compare", str(other), str(result)], "compare it with the newest score of the same protocol")]
    return []


def _protocols(result: Path) -> dict[str, str]:
    from sfumato.report.results import newest_scores

    return {name: score.protocol.protocol_id for name, score in newest_scores(str(result)).items()}
