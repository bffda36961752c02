"""Orderings in words: does a score rise along these rows, beyond the noise of the images it was measured with?

Rows i < j are `apart` if the interval of their difference does not hold 0: made from the same seeds, two scores are
compared in pairs, and noise they share cancels (`metrics.score.compare`). With k neighbouring pairs,

    yes                      every neighbouring pair is apart, and rises
    yes between the ends     the ends are apart and rise; no pair is apart and falls
    no                       some pair is apart and falls: the claim does not hold here
    not distinguishable      none of these: more images are needed, or there is nothing to see

A pair's interval covers the images' noise at 95%, not the spread over trainings: where rows are different runs, each
training seed is a verdict of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.experiments.study import Ordering, Outcome, Study
from sfumato.metrics.score import Score, compare


@dataclass(frozen=True)
class Verdict:
    """The answer to an ordering.

    Attributes:
        ordering: The claim that was asked about.
        words: The answer in words.
        holds: True for a yes, False for a no, None where nothing can be told.
    """

    ordering: Ordering
    words: str
    holds: bool | None


def rises(scores: Sequence[Score], names: Sequence[str]) -> tuple[str, bool | None]:
    """Say in words whether scores rise in their order.

    Arguments:
        scores: Two or more, of one protocol.
        names: One per score.

    Returns:
        The words, and True, False or None for yes, no and not distinguishable.
    """
    n, last = scores[0].n, len(scores) - 1
    found = {(i, j): compare(scores[i], scores[j]) for i, j in itertools.combinations(range(len(scores)), 2)}
    apart = {pair: c.difference for pair, c in found.items() if c.distinguishable}
    falling = [pair for pair, difference in apart.items() if difference < 0]
    if falling:
        i, j = max(falling, key=lambda pair: -apart[pair])
        return f"no: {names[j]} scores {-apart[i, j]:.3g} below {names[i]}, intervals apart (n = {n})", False
    neighbours = sum((i, i + 1) in apart for i in range(last))
    if neighbours == last:
        return f"yes, {'every neighbouring pair' if last > 1 else 'the intervals are'} apart (n = {n})", True
    if (0, last) in apart:
        return f"yes between the ends; {neighbours} of {last} neighbouring pairs apart (n = {n})", True
    return f"not distinguishable at n = {n}", None


def verdicts(study: Study, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Answer every ordering of a study.

    Arguments:
        study: Study with the orderings.
        outcomes: Outcomes of all its rows and training seeds.
    """
    return [_verdict(ordering, study.seeds, outcomes) for ordering in study.orderings]


def _verdict(ordering: Ordering, seeds: Sequence[int], outcomes: Sequence[Outcome]) -> Verdict:
    told: dict[int, tuple[str, bool | None]] = {}
    for seed in seeds:
        by_name = {o.row.name: o.scores.get(ordering.metric) for o in outcomes if o.seed == seed}
        scores = [by_name.get(name) for name in ordering.rows]
        missing = [name for name, score in zip(ordering.rows, scores) if score is None]
        if missing:
            told[seed] = f"not measured: {', '.join(missing)} made no score", None
        else:
            told[seed] = rises([score for score in scores if score is not None], ordering.rows)
    answers = {holds for _, holds in told.values()}
    holds = answers.pop() if len(answers) == 1 else None
    if len(told) == 1:
        return Verdict(ordering, next(iter(told.values()))[0], holds)
    words = "; ".join(f"seed {seed}: {text}" for seed, (text, _) in told.items())
    return Verdict(ordering, words, holds)
