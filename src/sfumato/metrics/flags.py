"""Every flag that a score may carry: what is printed, and what it means for the reader.

A flag is a short line of a result. `flagged` writes one; `meaning` finds the sentence that explains it, also in a
result of an earlier version. Flags are made here and nowhere else, so the page that explains them knows them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        words: What is printed; the names in braces are filled in.
        meaning: What it says about the score, and what to do, in full sentences.
    """

    words: str
    meaning: str


FLAGS = {
    "seen": Flag(
        "* the model was trained on {count} of the reference images",
        "This is not a held-out score: the model may have learned these images by heart. Score the test split as well.",
    ),
    "unpinned": Flag(
        "too few images: {sizes} = {count} < 10 d = {needed}",
        "The distance needs a covariance of d features, and so few images do not determine it. Compare such scores "
        "only at equal n and m, and generate more images where you can.",
    ),
    "few": Flag(
        "few images: {sizes} = {count} < 5000",
        "The interval is wide, and no published table uses so few images. Do not set the score beside published ones.",
    ),
    "unverified": Flag(
        "unverified reference: its number of images or content is unknown",
        "Nobody can check which real images this score is against. Compute the statistics of the reference again.",
    ),
    "no-floor": Flag(
        "no floor: too few real training images outside the reference, in all or of one class",
        "There are not enough other real images to measure what real images would score. Ask for fewer images (--n).",
    ),
    "other-data": Flag(
        "the training images are not the ones at hand: leakage could not be checked",
        "The data on this machine differs from the data of the training, so the reference may hold training images. "
        "Use the data that the run was trained on.",
    ),
    "imported": Flag(
        "imported weights, whose training images are not known: leakage could not be checked",
        "The weights come from another project, so the reference may hold training images. Read its documentation for "
        "what it was trained on.",
    ),
    "selected": Flag(
        "selected on this reference: the {weights}, best of {count} by {metric} (n = {n})",
        "These weights were chosen because they score well against these real images, so the score is too good. Choose "
        "on the validation split and score the test split once.",
    ),
    "tried": Flag(
        "{count} settings of this run were scored on this reference: the best of them is selected on it",
        "Whoever tries several settings and reports the best one reports luck as well. Choose on the validation split, "
        "or report all of them.",
    ),
    "copies": Flag(
        "below 0.5: generated images lie nearer to real ones than chance allows",
        "The model may copy real images. Look at the nearest neighbours (--metrics memorization).",
    ),
    "never-without": Flag(
        "the model was never shown an image without its class, and is asked without it here",
        "What the network holds inside may be worse than it could be. Train with objective.label_dropout=0.1 to let it "
        "see images without their class.",
    ),
    "statistics-file": Flag(
        "plain value, biased upwards by finite n and m; no interval: a statistics file holds no images",
        "The bias and the interval need the images themselves. Give a folder of images in place of the file.",
    ),
    "given": Flag(
        "features that were computed elsewhere, taken for those of extractor '{extractor}'",
        "Nothing says that the features are of the extractor of the statistics, with the same weights and resize. "
        "Give the images themselves, and the extractor computes both sides alike.",
    ),
}


NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def flagged(name: str, **facts: object) -> str:
    """Return a flag as it is printed.

    Arguments:
        name: Key of `FLAGS`.
        facts: What its braces name.

    >>> flagged("few", sizes="n", count=300)
    'few images: n = 300 < 5000'
    """
    return FLAGS[name].words.format(**facts)


def gathered(flags: Iterable[str]) -> list[str]:
    """Return flags without repetition; those that differ in one number alone are one, from the least to the greatest.

    >>> gathered(["3 settings of this run", "12 settings of this run", "few images"])
    ['3 to 12 settings of this run', 'few images']
    """
    alike: dict[str, list[list[str]]] = {}
    for flag in sorted(set(flags)):
        alike.setdefault(NUMBER.sub("0", flag), []).append(NUMBER.findall(flag))
    found = []
    for words, rows in alike.items():
        columns = [sorted({*column}, key=lambda text: float(text.replace(",", ""))) for column in zip(*rows)]
        if sum(len(column) > 1 for column in columns) == 1:
            rows = [[column[0] if len(column) == 1 else f"{column[0]} to {column[-1]}" for column in columns]]
        found += ["".join(map("".join, zip(NUMBER.split(words), [*row, ""]))) for row in rows]
    return found


def meaning(flag: str) -> str:
    """Return the sentences that explain a printed flag; "" for one that this version does not know.

    >>> meaning("few images: min(n, m) = 64 < 5000")[:21]
    'The interval is wide,'
    """
    for known in FLAGS.values():
        if re.fullmatch(re.sub(r"\\{\w+\\}", ".+", re.escape(known.words)), flag):
            return known.meaning
    return ""
