"""What makes a number dishonest, as rules that are checked and not remembered.

    leakage            reference images among the training images: the reference may not be called "test" or "val"
    self-comparison    more than 1% of the generated images are, pixel for pixel, reference images
    too few images     n < 10 d: the covariance has more numbers than the images can pin down;  n < 5000
    unverified         the reference's number of images or content is not known

The first two are refusals when they make the label of a number false; the others are flags that travel with the score.
Images are recognised by a hash of their decoded pixels, so neither file names nor codecs matter.
"""

from __future__ import annotations

import numpy as np

from sfumato.metrics.flags import flagged
from sfumato.metrics.protocol import NO_REFERENCE, Reference

SELF_SHARE = 0.01


class LeakageError(ValueError):
    """Training images lie in a reference that is called held out."""


class SelfComparisonError(ValueError):
    """The generated images are the reference images."""


def shared(a: np.ndarray, b: np.ndarray) -> int:
    """Count the rows of `a` that occur in `b`.

    Arguments:
        a: uint8 (n, 32), hashes of images.
        b: uint8 (m, 32).

    Returns:
        How many of the n images are among the m, duplicates counted each time.
    """
    known = {row.tobytes() for row in np.ascontiguousarray(b)}
    return sum(row.tobytes() in known for row in np.ascontiguousarray(a))


def check_leakage(reference: Reference, reference_hashes: np.ndarray, training_hashes: np.ndarray) -> tuple[str, ...]:
    """Refuse to call a reference held out when the model was trained on some of it.

    Arguments:
        reference: Its label.
        reference_hashes: uint8 (m, 32).
        training_hashes: uint8 (t, 32), hashes of the training images.

    Returns:
        Flags for the score: the asterisk of a reference the model has seen.

    Raises:
        LeakageError: If the split is "test" or "val" and an image of it was trained on.
    """
    count = shared(reference_hashes, training_hashes)
    if count and reference.split in ("test", "val"):
        raise LeakageError(
            f"{count} of the {len(reference_hashes)} images of the {reference.split!r} split of {reference.dataset} "
            "were in the training set, so a score against them is not a held-out score. Score against split 'train' "
            "and say so, or train on a split by image hash."
        )
    return (flagged("seen", count=count),) if count else ()


def check_self_comparison(generated_hashes: np.ndarray, reference_hashes: np.ndarray) -> int:
    """Refuse a generated set that is the reference, or holds more than 1% of its images.

    Returns:
        The number of exact copies, which may be a few.

    Raises:
        SelfComparisonError: If more than 1% of the generated images are reference images.
    """
    count = shared(generated_hashes, reference_hashes)
    if count > SELF_SHARE * len(generated_hashes):
        raise SelfComparisonError(
            f"{count} of {len(generated_hashes)} generated images are pixel for pixel in the reference: this compares "
            "a set with itself. Choose a disjoint reference; a floor is two disjoint halves of real images."
        )
    return count


def flags(n: int, dimension: int, reference: Reference, *, by_covariance: bool) -> tuple[str, ...]:
    """Return what a reader of the score must know.

    Arguments:
        n: Number of generated images.
        dimension: Number of features d.
        reference: The reference; `reference.n` counts too where it is known.
        by_covariance: Whether the metric estimates a covariance, so that n < 10 d matters.

    Returns:
        Short sentences; none if all is well.
    """
    found, few = [], min(n, reference.n or n)
    what = "n" if reference == NO_REFERENCE else "min(n, m)"
    if by_covariance and few < 10 * dimension:
        found.append(flagged("unpinned", sizes=what, count=few, needed=10 * dimension))
    if few < 5000:
        found.append(flagged("few", sizes=what, count=few))
    if reference != NO_REFERENCE and not reference.verified:
        found.append(flagged("unverified"))
    return tuple(found)
