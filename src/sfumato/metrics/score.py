"""A score is a number that carries its protocol, its interval and its floor.

`measure` turns two sets of features and a protocol into a `Score`; `compare` sets two scores beside each other or
refuses.  The interval covers sampling noise of the images, never the spread over training seeds: that is
`metrics.spread`'s.

Two scores are ranked only if they are apart.  Made from the same seeds, they are compared in pairs: the difference has
its own jackknife, in which the noise they share cancels.  Otherwise their intervals must not overlap.

Names: the Frechet distance over the Inception network's pooled features is "FID", over its spatial features "sFID";
over any other network it is "FD[extractor]".  Every other metric is "metric[extractor]", "KID" alone over Inception.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sfumato.metrics import rules
from sfumato.metrics.features import Extractor
from sfumato.metrics.jackknife import Estimate, Strata, jackknife
from sfumato.metrics.metric import Metric, better_of, find_metric
from sfumato.metrics.protocol import JSON, NO_REFERENCE, EvalProtocol, Reference, check_comparable
from sfumato.metrics.statistics import Features


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
        better: "lower", "higher" or "neither": the way that is good; what the metric says unless given.
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
    better: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "better", self.better or better_of(self.protocol.metric))

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
    >>> name_of("saturation", "saturation")
    'saturation'
    """
    if metric == extractor:  # it reads pixels in its own way
        return metric
    own = {
        ("FD", "inception"): "FID",
        ("FD", "inception-spatial"): "sFID",
        ("KID", "inception"): "KID",
        ("IS", "inception"): "IS",
        ("FD_infinity", "inception"): "FID_infinity",
    }
    return own.get((metric, extractor), f"{metric}[{extractor}]")


def measure(
    metric: str | Metric,
    generated: Features,
    reference_features: Features | None,
    extract: Extractor,
    reference: Reference,
    *,
    strata: Strata = (None, None),
    class_prior: str = "unconditional",
    quantisation: str = "round",
    codec: str = "none",
    provenance: JSON | None = None,
    notes: tuple[str, ...] = (),
) -> Score:
    """Score generated images, by the numbers that a metric reads of them.

    Arguments:
        metric: A metric, or its name.
        generated: Numbers (n, d) of the generated images.
        reference_features: Numbers (m, d) of the real images, by the same extractor; None for a metric that knows no
            reference.
        extract: The extractor that made both.
        reference: The real images; its n is m, or 0 if unknown.
        strata: Labels of the generated and of the reference images, each where the number of each class was chosen and
            is not random: labels asked of a conditional model, a split balanced by its makers.
        class_prior: The labels that the images were asked for, in words.
        quantisation: How floats became uint8.
        codec: File format the images went through.
        provenance: What else made the number.
        notes: Flags found elsewhere, such as by `rules.check_leakage`.

    Returns:
        The score with its flags; m = 0 without a reference.

    Raises:
        ValueError: If the features are unusable, or the reference says it has another number of images.
    """
    chosen, facts = find_metric(metric), provenance or {}
    real = generated[:0] if reference_features is None or not chosen.against_reference else reference_features
    reference = reference if chosen.against_reference else NO_REFERENCE
    n, m = len(generated), len(real)
    if reference.n not in (0, m):
        raise ValueError(f"The reference says it has {reference.n} images, but {m} rows of features were given.")
    estimate = chosen.estimate(generated, real, strata, (None, None))
    protocol = protocol_of(
        chosen, extract, reference, n, class_prior, chosen.options_with(strata), facts, quantisation, codec
    )
    found = rules.flags(n, extract.dimension, reference, by_covariance=chosen.by_covariance)
    found += (alarm,) if (alarm := chosen.alarm(estimate)) else ()
    return score_of(chosen, estimate, protocol, m, found + notes)


def protocol_of(
    metric: Metric,
    extract: Extractor,
    reference: Reference,
    n: int,
    class_prior: str,
    options: JSON,
    provenance: JSON,
    quantisation: str = "round",
    codec: str = "none",
) -> EvalProtocol:
    """Return the protocol of a metric over an extractor's numbers; arguments as in `EvalProtocol`."""
    about = (metric.name, metric.version, extract.name, extract.weights_hash, extract.describe())
    return EvalProtocol(*about, reference, n, class_prior, metric.estimator, quantisation, codec, options, provenance)


def score_of(metric: Metric, estimate: Estimate, protocol: EvalProtocol, m: int, flags: tuple[str, ...] = ()) -> Score:
    """Return an estimate as a score; arguments as in `Score`."""
    numbers = (estimate.value, estimate.interval, estimate.se, estimate.plain, protocol.n, m)
    name, known = name_of(metric.name, protocol.extractor), (None, flags, estimate.left_out, metric.better)
    return Score(name, *numbers, protocol, *known)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two comparable scores beside each other.

    Arguments:
        difference: Second value minus the first.
        interval: 95% interval of the difference if the scores pair up, else None.
        distinguishable: False where the interval of the difference holds 0, or the scores' intervals overlap.
        better: "lower", "higher" or "neither": the way that is good.
        provenance: (field, first, second) of everything recorded that differs.
    """

    difference: float
    interval: tuple[float, float] | None
    distinguishable: bool
    better: str
    provenance: list[tuple[str, Any, Any]]

    @property
    def winner(self) -> int:
        """Which is better beyond the noise, 1 or 2; 0 if neither."""
        if not self.distinguishable or self.better == "neither":
            return 0
        return 2 if (self.difference > 0) == (self.better == "higher") else 1

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if not self.distinguishable:
            return "not distinguishable"
        if not self.winner:
            return f"the {'second' if self.difference > 0 else 'first'} is higher"
        return f"the {'first' if self.winner == 1 else 'second'} is better"


def compare(a: Score, b: Score, varied: Collection[str] = ()) -> Comparison:
    """Compare two scores that were made by one protocol.

    Arguments:
        a: First score.
        b: Second.
        varied: Fields in which their protocols may differ, since what they say is what is compared.

    Raises:
        IncomparableError: If the identities of their protocols differ; there is no difference to print.
    """
    provenance, found = check_comparable(a.protocol, b.protocol, varied), paired(a, b)
    if found is not None:
        apart = not found.interval[0] <= 0 <= found.interval[1]
    else:
        apart = a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
    return Comparison(b.value - a.value, None if found is None else found.interval, apart, a.better, provenance)


def paired(a: Score, b: Score) -> Estimate | None:
    """Return the second score minus the first with its own jackknife; None without the same seeds and protocol.

    Arguments:
        a: First score.
        b: Second.
    """
    seeds = a.protocol.provenance.get("seeds")
    if seeds is None or seeds != b.protocol.provenance.get("seeds") or not a.left_out or not b.left_out:
        return None
    if a.protocol.identity != b.protocol.identity:  # other images are left out together
        return None
    return jackknife(b.plain - a.plain, np.subtract(b.left_out, a.left_out), unbiased=a.plain == a.value)


def ranks(scores: Sequence[Score]) -> list[int]:
    """Return the rank of each score: 1 and the number of scores that are better beyond the noise (`compare`).

    Arguments:
        scores: Of one protocol. Scores that cannot be told apart share a rank.
    """
    return [1 + sum(compare(score, other).winner == 2 for other in scores if other is not score) for score in scores]


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
