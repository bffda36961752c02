"""A score is a number that carries its protocol, its interval and its floor.

`measure` turns two sets of features and a protocol into a `Score`; `compare` sets two scores side by side or refuses.
The interval covers sampling noise of the images, never the spread over training seeds.

Two scores are ranked only if they are apart.  Made from the same seeds, they are compared in pairs: the difference has
its own jackknife, in which the noise they share cancels.  Otherwise their intervals must not overlap.

Names: the Frechet distance over the Inception network's pooled features is "FID", over its spatial features "sFID";
over any other network it is "FD[extractor]".  Every other metric is "metric[extractor]", "KID" alone over Inception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sfumato.core.find import nearest
from sfumato.metrics import prdc, rules
from sfumato.metrics.features import Extractor
from sfumato.metrics.frechet import LEAST, frechet, frechet_infinity, held
from sfumato.metrics.inception_score import inception_score
from sfumato.metrics.jackknife import GROUPS, Estimate, Members, Strata, jackknife
from sfumato.metrics.kid import kid
from sfumato.metrics.memorization import two_sample
from sfumato.metrics.protocol import JSON, EvalProtocol, Reference, check_comparable
from sfumato.metrics.statistics import Features

Estimator = Callable[[Features, Features, Strata, Members], Estimate]


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance between two sets of features.

    Arguments:
        name: Its name in a protocol.
        version: Version of its definition here.
        estimate: (generated, reference, strata, members) -> Estimate.
        estimator: How the number is estimated, in words.
        options: Its options, for the protocol.
        least: Fewest images on each side.
        view: Which numbers it compares: "features", or the "spatial" ones of sFID.
        alarm: Says what is alarming about an estimate; "" if nothing is.
        hold: (reference, strata, n) -> the reference as `estimate` takes it too, read once for several estimates.
        groups: Whether its interval is a jackknife, which strata change.
        by_covariance: Whether it needs n >= 10 d.
        higher_is_better: Which way is good.
    """

    name: str
    version: int
    estimate: Estimator
    estimator: str
    options: JSON
    least: int = 2
    view: str = "features"
    alarm: Callable[[Estimate], str] = lambda estimate: ""
    hold: Callable[[Features, np.ndarray | None, int], Any] = lambda y, labels, n: y
    groups: bool = False
    by_covariance: bool = False
    higher_is_better: bool = False


def _unstratified(estimate: Callable[[Features, Features], Estimate]) -> Estimator:
    return lambda x, y, strata, members: estimate(x, y)


def _one_nearest(x: Features, y: Features) -> Estimate:
    """Compare the first images of each side, as many of both."""
    size = min(len(x), len(y))
    return two_sample(x[:size], y[:size])


def _copying(estimate: Estimate) -> str:
    low, high = estimate.interval
    return "below 0.5: generated images lie nearer to real ones than chance allows" if high < 0.5 else ""


_FRECHET = Metric(
    "FD",
    2,
    lambda x, y, strata, members: frechet(x, y, strata, members=members),
    "unbiased covariances, 1/n bias removed by a delete-a-group jackknife that keeps the share of each stratum",
    {"groups": GROUPS},
    2 * GROUPS,
    hold=held,
    groups=True,
    by_covariance=True,
)

METRICS: dict[str, Metric] = {
    "fd": _FRECHET,
    "sfid": replace(_FRECHET, view="spatial"),
    "fd-infinity": Metric(
        "FD_infinity",
        1,
        _unstratified(frechet_infinity),
        "plain values at 15 sizes from 5000 to n on a line in 1/n, n infinite and m not",
        {"sizes": 15, "smallest": LEAST},
        LEAST + 1,
        by_covariance=True,
    ),
    "kid": Metric(
        "KID",
        2,
        lambda x, y, strata, members: kid(x, y, strata, members=members),
        "unbiased over all images, error by a delete-a-group jackknife that keeps the share of each stratum",
        {"groups": GROUPS},
        2 * GROUPS,
        groups=True,
    ),
    "precision": Metric(
        "precision", 1, _unstratified(prdc.precision), "closed balls", {"k": 3}, 4, higher_is_better=True
    ),
    "recall": Metric("recall", 1, _unstratified(prdc.recall), "closed balls", {"k": 3}, 4, higher_is_better=True),
    "density": Metric("density", 1, _unstratified(prdc.density), "open balls", {"k": 5}, 6, higher_is_better=True),
    "coverage": Metric("coverage", 1, _unstratified(prdc.coverage), "open balls", {"k": 5}, 6, higher_is_better=True),
    "1nn": Metric(
        "1-NN",
        1,
        _unstratified(_one_nearest),
        "leave-one-out accuracy of telling generated from real by the nearest neighbour, as many of each; 0.5 if alike",
        {},
        alarm=_copying,
    ),
}
"""The metrics of two sets of features, by the name a command line takes."""

HINTS = {
    "fid": "Unknown metric 'fid'. FID is the Frechet distance over Inception features: --metrics fd --extract "
    "inception. Over any other features it is called FD."
}
"""What to say to names that belong to one choice of features."""

SETS = {"prdc": ("precision", "recall", "density", "coverage"), "pr": ("precision", "recall")}
"""Names that stand for several metrics."""


NEUTRAL = ("saturation",)
"""Metrics of which neither more nor less is better: the value of real images is where they should be."""


@dataclass(frozen=True, slots=True)
class Score:
    """A number with everything that makes it comparable.

    Arguments:
        name: What a table calls it.
        value: The estimate to quote.
        interval: 95% interval of sampling noise.
        se: Standard error.
        plain: The textbook value without bias correction, for comparison with published tables.
        n: Number of generated images.
        m: Number of reference images.
        protocol: How it was made.
        floor: The same score of real images at the same n and m.
        flags: What a reader must know.
        left_out: The jackknife's values, with which two scores are compared in pairs; empty if it has none.
    """

    name: str
    value: float
    interval: tuple[float, float]
    se: float
    plain: float
    n: int
    m: int
    protocol: EvalProtocol
    floor: Score | None = None
    flags: tuple[str, ...] = field(default=())
    left_out: tuple[float, ...] = ()

    def to_json(self) -> JSON:
        """Return the score as JSON values."""
        above = excess(self)
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("protocol", "floor")},
            "above_floor": {"value": above.value, "interval": list(above.interval)} if above else None,
            "interval": list(self.interval),
            "flags": list(self.flags),
            "left_out": list(self.left_out),
            "protocol": self.protocol.to_json(),
            "floor": self.floor.to_json() if self.floor else None,
        }

    @classmethod
    def from_json(cls, values: JSON) -> Score:
        """Read a score that `to_json` wrote."""
        floor = values.get("floor")
        values = {key: value for key, value in values.items() if key != "above_floor"}  # follows from the others
        return cls(
            **{
                **values,
                "interval": tuple(values["interval"]),
                "flags": tuple(values["flags"]),
                "left_out": tuple(values.get("left_out", ())),
                "protocol": EvalProtocol.from_json(values["protocol"]),
                "floor": cls.from_json(floor) if floor else None,
            }
        )

    def __str__(self) -> str:
        low, high = self.interval
        floor = f", floor {self.floor.value:.4g} (plain {self.floor.plain:.4g})" if self.floor else ""
        return (
            f"{self.name} {self.value:.4g} [{low:.4g}, {high:.4g}] (plain {self.plain:.4g}{floor}; n = {self.n}, "
            f"m = {self.m}, protocol {self.protocol.protocol_id})"
        )


def name_of(metric: str, extractor: str) -> str:
    """Name a score; only Inception results are called FID, sFID, KID and IS.

    >>> [name_of("FD", e) for e in ("inception", "inception-spatial", "digits")]
    ['FID', 'sFID', 'FD[digits]']
    """
    own = {
        ("FD", "inception"): "FID",
        ("FD", "inception-spatial"): "sFID",
        ("KID", "inception"): "KID",
        ("IS", "inception"): "IS",
        ("FD_infinity", "inception"): "FID_infinity",
    }
    return own.get((metric, extractor), f"{metric}[{extractor}]")


def find_metric(name: str) -> Metric:
    """Return a metric of `METRICS` by name."""
    if name not in METRICS:
        raise ValueError(HINTS.get(name) or nearest("metric", name, METRICS))
    return METRICS[name]


def named(metric: str) -> Metric | None:
    """Return a metric by its name in a protocol; None for what is no distance."""
    return {known.name: known for known in METRICS.values()}.get(metric)


def check_sizes(names: Sequence[str], n: int, m: int) -> None:
    """Refuse metrics that need more images, before any image is made.

    Raises:
        ValueError: If a name is unknown, or n or m is too small for its metric.
    """
    for name in names:
        metric = find_metric(name)
        made, real = (n, metric.least if metric.name == "FD_infinity" else m)
        if min(made, real) < metric.least:
            raise ValueError(
                f"{metric.name} needs at least {metric.least} images on each side, got n = {n} generated "
                f"and m = {m} real ones. Make more images, or leave out --metrics {name}."
            )


def options_of(metric: Metric, strata: Strata) -> JSON:
    """Return the options of a metric for a protocol, strata included."""
    return {**metric.options, "strata": [labels is not None for labels in strata]} if metric.groups else metric.options


def measure(
    metric: str,
    generated: Features,
    reference_features: Features,
    extract: Extractor,
    reference: Reference,
    *,
    strata: Strata = (None, None),
    class_prior: str = "unconditional",
    quantisation: str = "round",
    codec: str = "none",
    provenance: JSON | None = None,
    floor: Score | None = None,
    notes: tuple[str, ...] = (),
) -> Score:
    """Score generated images against real ones.

    Arguments:
        metric: A name of `METRICS`.
        generated: Features (n, d) of the generated images.
        reference_features: Features (m, d) of the real images, by the same extractor.
        extract: The extractor that made both.
        reference: Which real images; its n must be m.
        strata: Labels of the generated and of the reference images, each where the number of each class was chosen and
            is not random: labels asked of a conditional model, a split balanced by its makers.
        class_prior: Which labels the images were asked for.
        quantisation: How floats became uint8.
        codec: File format the images went through.
        provenance: What else made the number.
        floor: The score of real images at the same n and m (`calibration.floor`).
        notes: Flags found elsewhere, such as by `rules.check_leakage`.

    Returns:
        The score with its flags.

    Raises:
        ValueError: If the features are unusable, or the reference says it has another number of images.
    """
    chosen, facts = find_metric(metric), provenance or {}
    n, m = len(generated), len(reference_features)
    if reference.n not in (0, m):
        raise ValueError(f"The reference says it has {reference.n} images, but {m} rows of features were given.")
    estimate = chosen.estimate(generated, reference_features, strata, (None, None))
    protocol = EvalProtocol(
        metric=chosen.name,
        version=chosen.version,
        extractor=extract.name,
        weights_hash=extract.weights_hash,
        features=extract.describe(),
        reference=reference,
        n=n,
        class_prior=class_prior,
        estimator=chosen.estimator,
        quantisation=quantisation,
        codec=codec,
        options=options_of(chosen, strata),
        provenance=facts,
    )
    found = rules.flags(n, extract.dimension, reference, facts, by_covariance=chosen.by_covariance)
    found += (alarm,) if (alarm := chosen.alarm(estimate)) else ()
    return Score(
        name_of(chosen.name, extract.name),
        estimate.value,
        estimate.interval,
        estimate.se,
        estimate.plain,
        n,
        m,
        protocol,
        floor,
        found + notes,
        estimate.left_out,
    )


def measure_logits(
    logits: Features,
    extract: Extractor,
    *,
    splits: int = 10,
    class_prior: str = "unconditional",
    quantisation: str = "round",
    codec: str = "none",
    provenance: JSON | None = None,
) -> Score:
    """Score generated images by their class predictions alone: the Inception Score, which knows no reference.

    Arguments:
        logits: (n, K) of the generated images, by `extract.logits`.
        extract: The network that made them.
        splits: Parts the score is averaged over.
        class_prior: Which labels the images were asked for.
        quantisation: How floats became uint8.
        codec: File format the images went through.
        provenance: What else made the number.

    Returns:
        The score; m = 0.
    """
    n, estimate = len(logits), inception_score(logits, splits).estimate
    nothing = Reference("none", "", "", "", "", 0)
    protocol = EvalProtocol(
        metric="IS",
        version=1,
        extractor=extract.name,
        weights_hash=extract.weights_hash,
        features=extract.describe(),
        reference=nothing,
        n=n,
        class_prior=class_prior,
        estimator="mean over parts after a seeded shuffle",
        quantisation=quantisation,
        codec=codec,
        options={"splits": splits},
        provenance=provenance or {},
    )
    few = (f"few images: n = {n} < 5000",) if n < 5000 else ()
    return Score(
        name_of("IS", extract.name),
        estimate.value,
        estimate.interval,
        estimate.se,
        estimate.plain,
        n,
        0,
        protocol,
        None,
        few,
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two comparable scores side by side.

    Arguments:
        difference: Second value minus the first.
        interval: 95% interval of the difference if the scores pair up, else None.
        distinguishable: False where the interval of the difference holds 0, or the scores' intervals overlap.
        higher_is_better: Which way is good.
        provenance: (field, first, second) of everything recorded that differs.
        ranked: False where neither way is good.
    """

    difference: float
    interval: tuple[float, float] | None
    distinguishable: bool
    higher_is_better: bool
    provenance: list[tuple[str, Any, Any]]
    ranked: bool = True

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if not self.distinguishable:
            return "not distinguishable"
        if not self.ranked:
            return f"the {'second' if self.difference > 0 else 'first'} is higher"
        return "the second is better" if (self.difference > 0) == self.higher_is_better else "the first is better"


def compare(a: Score, b: Score) -> Comparison:
    """Compare two scores that were made by one protocol.

    Raises:
        IncomparableError: If the identities of their protocols differ; there is no difference to print.
    """
    provenance, ranked = check_comparable(a.protocol, b.protocol), a.protocol.metric not in NEUTRAL
    metric = named(a.protocol.metric)  # none for what is no distance, such as bits/dim
    upwards = a.protocol.metric == "IS" or (metric is not None and metric.higher_is_better)
    seeds = a.protocol.provenance.get("seeds")
    if seeds is not None and seeds == b.protocol.provenance.get("seeds") and a.left_out and b.left_out:
        left_out = np.subtract(b.left_out, a.left_out)
        paired = jackknife(b.plain - a.plain, left_out, unbiased=a.plain == a.value)
        apart = not paired.interval[0] <= 0 <= paired.interval[1]
        return Comparison(b.value - a.value, paired.interval, apart, upwards, provenance, ranked)
    apart = a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
    return Comparison(b.value - a.value, None, apart, upwards, provenance, ranked)


def excess(score: Score) -> Estimate | None:
    """Return how far a score lies above its floor: an interval that holds 0 cannot tell the images from real ones.

    Both leave the same groups of the reference out, so the noise of the reference they share cancels.

    Returns:
        The difference with its 95% interval; None without a floor or a jackknife.
    """
    floor = score.floor
    if floor is None or len(floor.left_out) != len(score.left_out) or not score.left_out:
        return None
    left_out = np.subtract(score.left_out, floor.left_out)
    return jackknife(score.plain - floor.plain, left_out, unbiased=score.plain == score.value)


def with_floor(score: Score, floor: Score) -> Score:
    """Return the score beside a floor.

    Raises:
        ValueError: If the floor is of another metric, extractor or size.
    """
    if (floor.name, floor.n, floor.m) != (score.name, score.n, score.m):
        raise ValueError(
            f"A floor must be of the same metric at the same sizes: score {score.name} at n = {score.n}, "
            f"m = {score.m}; floor {floor.name} at n = {floor.n}, m = {floor.m}."
        )
    return replace(score, floor=floor)
