"""How the numbers of a result's curve are drawn, by the name of the curve, and in which section of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from sfumato.report import curves
from sfumato.report.plot import Series
from sfumato.report.table import Cell


def _series(values: Mapping[str, Any]) -> dict[str, Series]:
    return {name: Series.from_json(s) for name, s in values.items()}


def _lines(draw: Callable[..., Figure], **asked: Any) -> Callable[[Mapping[str, Any]], Figure]:
    """Return what draws the `series` of a curve, with other keys of its numbers, or these values where it has none."""
    asked["title"] = ""

    def drawn(c: Mapping[str, Any]) -> Figure:
        return draw(_series(c["series"]), **{k: v if c.get(k) is None else c[k] for k, v in asked.items()})

    return drawn


def _classes(c: Mapping[str, Any]) -> Figure:
    scores = {
        model: {name: Cell(s["value"], tuple(s["interval"]) if s.get("interval") else None) for name, s in by.items()}
        for model, by in c["scores"].items()
    }
    return curves.class_bars(scores, score=c.get("score", "score"), title=c.get("title", ""))


def _rate_distortion(c: Mapping[str, Any]) -> Figure:
    by_time = {
        name: (Series.from_json(pair["rate"]), Series.from_json(pair["distortion"]))
        for name, pair in (c.get("by_time") or {}).items()
    }
    words = {key: c.get(key, "") for key in ("title", "caption")}
    return curves.rate_distortion(_series(c["series"]), by_time or None, **words)


def _distances(c: Mapping[str, Any]) -> Figure:
    return curves.distances(c["groups"], space=c.get("space", "pixel"), title=c.get("title", ""))


# name in a result's `curves` -> (section, how to draw its numbers)
CURVES: dict[str, tuple[str, Callable[[Mapping[str, Any]], Figure]]] = {
    "distances": ("neighbours", _distances),  # groups: name -> distances; space
    "size": ("size", _lines(curves.against_size, score="score")),  # series: name -> score against n
    "nfe": ("nfe", _lines(curves.against_nfe, score="score", floor=None)),  # series: sampler -> score against NFE
    "seconds": ("nfe", _lines(curves.against_nfe, score="score", floor=None, xlabel="seconds per image")),
    "guidance": ("guidance", _lines(curves.against_guidance, floors=None)),  # series: score -> against w
    "precision_recall": ("guidance", _lines(curves.precision_recall, labels={})),  # series: sweep -> against recall
    "classes": ("classes", _classes),  # scores: model -> class -> {value, interval}; score
    "rate_distortion": ("likelihood", _rate_distortion),  # series: name -> RMSE at rate; by_time: {rate, distortion}
    "bits_by_level": ("likelihood", _lines(curves.bits_by_level, caption="")),  # bits/dim per unit of ln SNR
    "coding": ("likelihood", _lines(curves.rate_distortion, caption="")),  # series: kind of rate -> RMSE at rate
    # series: block -> accuracy of a probe at sigma / alpha
    "probe": ("probe", _lines(curves.probes, pixels=None, pca=None, numbers=None, chance=None, noisy="", caption="")),
    "accuracy": ("headline", _lines(curves.accuracy, chance=None)),  # series: split -> accuracy at ln SNR
}
