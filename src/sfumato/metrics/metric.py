"""What a metric is: a file of `metrics/scores/` says what it needs, how it is computed and which way is good.

Every public function of that package returns a `Metric`, and its name is the one a person uses. Nothing else lists
metrics: `sfumato evaluate`, `sweep`, studies and the report take a new one as it stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from sfumato.core.find import entries, find, nearest
from sfumato.core.outside import code_of
from sfumato.metrics.features import Extractor, ImageShape
from sfumato.metrics.jackknife import Estimate, Members, Strata
from sfumato.metrics.protocol import JSON
from sfumato.metrics.statistics import Features

AXIS = "metric"
Better = Literal["lower", "higher", "neither"]
Estimator = Callable[[Features, Any, Strata, Members], Estimate]

SHORT = {
    "prdc": ("precision", "recall", "density", "coverage"),
    "pr": ("precision", "recall"),
    "is": ("inception-score",),
    "1nn": ("one-nn",),
}
"""Names that stand for one or several metrics."""

HINTS = {
    "fid": "Unknown metric 'fid'. FID is the Frechet distance over Inception features: --metrics fd --extract "
    "inception. Over any other features it is called FD.",
    "accuracy": "The accuracy is that of a run with objective=classifier; images have fd, kid and others.",
}
"""What to say to names that belong to one choice of features, or to another kind of run."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that is computed from two sets of images, or from the generated ones alone.

    Attributes:
        name: Name in a protocol, such as "FD".
        version: Version of its definition here; part of the protocol.
        estimate: (generated (n, d), reference (m, d), strata, members) -> estimate.
        estimator: How the number is estimated, in words; part of the protocol.
        options: Its options; part of the protocol.
        better: "lower" or "higher" if that is good; "neither" if the value of real images is.
        least: Fewest generated images.
        least_real: Fewest reference images; None for as many as `least`.
        view: Numbers it reads of an image: the extractor's "features", its "logits", or the "spatial" ones of sFID.
        own: Makes an extractor of its own for images of a shape, read in place of the chosen one.
        against_reference: Whether it compares with real images.
        floor: The real images that its floor is of: others than the reference ("pool"), or the "reference" itself.
        groups: Whether its interval is a jackknife, which strata change.
        by_covariance: Whether it needs n >= 10 d.
        alarm: Says what is alarming about an estimate; "" if nothing is.
        code: Hash of the source of a metric from outside this package; part of the protocol.
        hold: (reference, strata, n) -> the reference as `estimate` takes it too, read once for several estimates.
    """

    name: str
    version: int
    estimate: Estimator
    estimator: str
    options: JSON
    better: Better = "lower"
    least: int = 2
    least_real: int | None = None
    view: str = "features"
    own: Callable[[ImageShape], Extractor] | None = None
    against_reference: bool = True
    floor: Literal["pool", "reference"] = "pool"
    groups: bool = False
    by_covariance: bool = False
    alarm: Callable[[Estimate], str] = lambda estimate: ""
    code: str = ""
    hold: Callable[[Features, np.ndarray | None, int], Any] = lambda y, labels, n: y

    def options_with(self, strata: Strata) -> JSON:
        """Return the options for a protocol: where groups are dealt, whether within classes is one of them."""
        found = self.options | ({"strata": [labels is not None for labels in strata]} if self.groups else {})
        return found | ({"code": self.code} if self.code else {})

    def check(self, n: int, m: int) -> None:
        """Refuse too few images.

        Raises:
            ValueError: If n generated or m real images are too few.
        """
        real = self.least if self.least_real is None else self.least_real
        if n < self.least or (self.against_reference and m < real):
            raise ValueError(
                f"{self.name} needs at least {self.least} images on each side, got n = {n} generated and m = {m} real "
                "ones. Make more images, or leave it out of --metrics."
            )


def available() -> dict[str, Callable[[], Metric]]:
    """Return the makers of all metrics by name."""
    return entries(AXIS)


def find_metric(name: str | Metric) -> Metric:
    """Return a metric by name.

    Raises:
        ValueError: For an unknown name; the nearest is offered.
    """
    if isinstance(name, Metric):
        return name
    (one,) = expand([name]) if name in SHORT and len(SHORT[name]) == 1 else (name,)
    check_name(one)
    maker = find(AXIS, one)
    made = maker()
    if not isinstance(made, Metric):
        raise TypeError(f"A metric is a function that returns a Metric; {name} returned {type(made).__name__}.")
    return replace(made, code=code_of(maker)) if ":" in one else made


def check_name(name: str, others: Sequence[str] = ()) -> None:
    """Refuse a name that is no metric's and none of `others`.

    Raises:
        ValueError: With the nearest name.
    """
    known = [*available(), *others]
    if ":" not in name and name.replace("_", "-") not in known:
        raise ValueError(HINTS.get(name) or nearest("metric", name, [*known, *SHORT]))


def expand(names: Sequence[str], others: Sequence[str] = ()) -> list[str]:
    """Spell out the names that stand for several metrics, each metric once.

    Arguments:
        names: As a person writes them.
        others: Further names that are right.

    Raises:
        ValueError: For an unknown name; the nearest is offered.

    >>> expand(["fd", "pr", "recall"])
    ['fd', 'precision', 'recall']
    """
    found = dict.fromkeys(one for name in names for one in SHORT.get(name, (name,)))
    for one in found:
        check_name(one, others)
    return list(found)


def better_of(protocol_name: str) -> Better:
    """Return which way is good for a metric by its name in a protocol or a table; "lower" for what is no metric here.

    >>> [better_of(name) for name in ("FID", "recall[digits]", "saturation", "bits/dim")]
    ['lower', 'higher', 'neither', 'lower']
    """
    name = protocol_name.split("[")[0]
    return next((metric.better for make in available().values() if (metric := make()).name == name), "lower")
