"""Orderings in words: does a score rise along these rows, beyond the noise it was measured with?

Rows i < j are `apart` if the interval of their difference does not hold 0.  With one training seed it is that of
images: made from the same seeds, two scores are compared in pairs, and noise they share cancels
(`metrics.score.compare`).  With several it is that of the differences over training seeds and images
(`metrics.spread`): how many seeds agree stands beside it and decides nothing.  With k neighbouring pairs,

    yes                      every neighbouring pair is apart, and rises
    yes between the ends     the ends are apart and rise; no pair is apart and falls
    no                       some pair is apart and falls: the claim does not hold here
    not distinguishable      none of these: more seeds or images are needed, or there is nothing to see

Where nothing can be told, the verdict says which budget would tell a difference of the ends as large as measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sfumato.experiments.study import Ordering, Outcome, Study
from sfumato.metrics.score import Score
from sfumato.metrics.spread import Spread, compare_over_seeds, differences

Measured = Mapping[str, Sequence[Score | None]]
"""Row -> its score of each training seed, None where it made none."""
MOST_TIMES = 1000  # as many times more images are no budget


@dataclass(frozen=True)
class Verdict:
    """The answer to an ordering.

    Attributes:
        ordering: The claim that was asked about.
        words: The answer in words.
        holds: True for a yes, False for a no, None where nothing can be told.
        spread: Differences of the last row from the first; None if one of them was not measured.
        budget: What would tell, where nothing can be told; else "".
    """

    ordering: Ordering
    words: str
    holds: bool | None
    spread: Spread | None = None
    budget: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        found = self.spread
        measured = {"difference": found and found.mean, "interval": found and list(found.interval)}
        said = {"holds": self.holds, "words": self.words, "budget": self.budget}
        return {**asdict(self.ordering), **said, **measured, "tau": found and found.tau}


def rises(
    scores: Sequence[Sequence[Score]], names: Sequence[str], varied: Collection[str] = ()
) -> tuple[str, bool | None]:
    """Say in words whether scores rise in their order.

    Arguments:
        scores: Two or more rows of one protocol, each with a score for each training seed.
        names: One per row.
        varied: Fields in which their protocols may differ (`Study.varied`).

    Returns:
        The words, and True, False or None for yes, no and not distinguishable.
    """
    last, seeds = len(scores) - 1, len(scores[0])
    judged = f"n = {scores[0][0].n}" + (f", over {seeds} training seeds" if seeds > 1 else "")
    pairs = itertools.combinations(range(len(scores)), 2)
    found = {(i, j): compare_over_seeds(scores[i], scores[j], varied) for i, j in pairs}
    apart = {pair: c.difference for pair, c in found.items() if c.distinguishable}
    falling = [pair for pair, difference in apart.items() if difference < 0]
    if falling:
        i, j = max(falling, key=lambda pair: -apart[pair])
        return f"no: {names[j]} scores {-apart[i, j]:.3g} below {names[i]}, intervals apart ({judged})", False
    neighbours = sum((i, i + 1) in apart for i in range(last))
    if neighbours == last:
        return f"yes, {'every neighbouring pair' if last > 1 else 'the intervals are'} apart ({judged})", True
    if (0, last) in apart:
        return f"yes between the ends; {neighbours} of {last} neighbouring pairs apart ({judged})", True
    return f"not distinguishable at {judged}", None


def verdicts(study: Study, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Answer every ordering of a study.

    Arguments:
        study: Study with the orderings.
        outcomes: Outcomes of all its rows and training seeds.
    """
    by_seed = {(o.row.name, o.seed): o.scores for o in outcomes}

    def measured(ordering: Ordering) -> Measured:
        return {
            name: [by_seed.get((name, seed), {}).get(ordering.metric) for seed in study.seeds] for name in ordering.rows
        }

    return [verdict(ordering, measured(ordering), study.varied) for ordering in study.orderings]


def verdict(ordering: Ordering, measured: Measured, varied: Collection[str] = ()) -> Verdict:
    """Answer an ordering.

    Arguments:
        ordering: Rows along which a score is said to rise.
        measured: Scores of at least its rows, each with as many training seeds.
        varied: Fields in which their protocols may differ (`Study.varied`).
    """
    rows = [[score for score in measured[name] if score is not None] for name in ordering.rows]
    missing = [name for name, row in zip(ordering.rows, rows) if len(row) < len(measured[name])]
    if missing:
        return Verdict(ordering, f"not measured: {', '.join(missing)} made no score", None)
    words, holds = rises(rows, ordering.rows, varied)
    if len(rows[0]) > 1:
        alone = [rises([[score] for score in seed], ordering.rows, varied)[1] for seed in zip(*rows)]
        words += f"; by its images alone, it holds in {alone.count(True)} of {len(alone)} seeds"
        words += f" and does not in {alone.count(False)}" if False in alone else ""
    found = differences(rows[0], rows[-1])
    return Verdict(ordering, words, holds, found, budget(found, rows[0][0].n) if holds is None else "")


def budget(found: Spread, n: int) -> str:
    """Say in words what would tell a difference as large as the one measured, with power 80%.

    Arguments:
        found: Differences over training seeds.
        n: Number of images of each row.
    """
    seeds, times = found.seeds_to_tell(), found.images_to_tell()
    ways = [] if seeds is None else [f"about {seeds:,} training seeds"]
    if times is not None and 1 < times <= MOST_TIMES:
        ways.append(f"about {float(f'{times * n:.1e}'):,.0f} images")  # two digits
    return " or ".join(ways) or "none: the difference is too near 0"
