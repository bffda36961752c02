"""The eleven sections of the report page, filled with what result files hold.

A picture goes where `PICTURES` places its name, the numbers of a curve are drawn by the function that `CURVES` names.
What cannot be shown (a missing file, a curve of another version) becomes a line in its section, never an error: one bad
entry must not cost the page.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sfumato.core.reading import read_bytes
from sfumato.report import curves
from sfumato.report.plot import Series
from sfumato.report.results import Result, command_of, compared, made_by, path_of, rows_of, score_rows, size_matched
from sfumato.report.save import description, encode
from sfumato.report.table import Cell, Row, header, numeric, show
from sfumato.report.training import training_curves

# section -> names of the pictures it shows; pictures of other names are shown with the samples
PICTURES = {
    "samples": (
        "sheet",
        "classes",
        "real_against_generated",
        "diversity",
        "strip",
        "gif",
        "animation",
        "noising",
        "progress",
    ),
    "neighbours": ("neighbours",),
    "probe": ("probe", "probe-neighbours"),
    "guidance": ("cfg", "guidance"),
    "nfe": ("nfe",),
    "likelihood": ("reconstruction", "shared_latent", "interpolation", "rate_distortion", "coded"),
}
JOINED = ("nfe", "seconds", "size")  # curves that several sweeps of a run share
# table in a result -> section; tables of other names are shown with the health
TABLES = {
    "accuracy": "headline",
    "splits": "splits",
    "memorization": "neighbours",
    "classes": "classes",
    "likelihood": "likelihood",
    "likelihood along the ODE": "likelihood",
    "likelihood gap": "likelihood",
    "coding": "likelihood",
    "probe": "probe",
    "probe, best": "probe",
    "sweep of guidance": "guidance",
    "sweep of steps": "nfe",
    "sweep of sampler": "nfe",
    "sweep of evaluate.n": "size",
}
TYPES = {".png": "image/png", ".gif": "image/gif"}


def _series(values: Mapping[str, Any]) -> dict[str, Series]:
    return {name: Series.from_json(s) for name, s in values.items()}


def _lines(draw: Callable[..., Figure], **asked: Any) -> Callable[[Mapping[str, Any]], Figure]:
    """Return what draws the `series` of a curve, with other keys of its numbers, or these values where it has none."""

    def drawn(c: Mapping[str, Any]) -> Figure:
        return draw(_series(c["series"]), **{k: v if c.get(k) is None else c[k] for k, v in asked.items()})

    return drawn


def _classes(c: Mapping[str, Any]) -> Figure:
    scores = {
        model: {name: Cell(s["value"], tuple(s["interval"]) if s.get("interval") else None) for name, s in by.items()}
        for model, by in c["scores"].items()
    }
    return curves.class_bars(scores, score=c.get("score", "score"))


def _rate_distortion(c: Mapping[str, Any]) -> Figure:
    by_time = {
        name: (Series.from_json(pair["rate"]), Series.from_json(pair["distortion"]))
        for name, pair in (c.get("by_time") or {}).items()
    }
    return curves.rate_distortion(_series(c["series"]), by_time or None, caption=c.get("caption", ""))


def _distances(c: Mapping[str, Any]) -> Figure:
    return curves.distances(c["groups"], space=c.get("space", "pixel"))


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
    "accuracy": ("headline", _lines(curves.accuracy, chance=None)),  # series: split -> accuracy at ln SNR
    # series: block -> accuracy of a probe at sigma / alpha
    "probe": ("probe", _lines(curves.probes, pixels=None, pca=None, numbers=None, chance=None, noisy="", caption="")),
    "training": ("health", lambda c: training_curves({"": c["records"]})),  # records: of metrics.jsonl
}


@dataclass(frozen=True)
class Picture:
    """A picture on the page: its data URI, what it shows, what made it, and whether it is a drawn curve."""

    source: str
    alt: str
    caption: str = ""
    command: str = ""
    protocol: str = ""
    curve: bool = False


@dataclass(frozen=True)
class Table:
    """A table on the page; a cell is (text, sort key, link)."""

    title: str
    names: list[str]
    right: list[bool]
    rows: list[list[tuple[str, str, str]]]


@dataclass
class Section:
    """A section of the page; `missing` says how to get what no result has."""

    key: str
    title: str
    lead: str
    missing: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing is known."""
        return not (self.tables or self.pictures or self.notes)


def sections(results: Sequence[Result], folder: Path) -> list[Section]:
    """Return the eleven sections, filled with what the results hold."""
    made = {s.key: s for s in _outline(path_of(results[0]))}
    if headline := score_rows(results):
        made["headline"].tables.append(_table(headline))
    if matched := size_matched(results):
        made["splits"].tables.append(_table(matched))
    for group in compared(results):
        made["comparison"].tables.append(_table(group, f"{group[0]['score']}, protocol {group[0]['protocol']}"))
    several = len({r["run"] for r in results}) > 1
    for result in _joined(results):
        prefix = f"{result['run']}: " if several else ""
        for name in result.get("tables") or {}:
            if rows := rows_of(result, name):
                made[TABLES.get(name, "health")].tables.append(_table(rows, f"{prefix}{name}"))
        for name, where in (result.get("pictures") or {}).items():
            key = next((k for k, names in PICTURES.items() if name in names), "samples")
            _place_picture(made[key], result, name, where, folder, prefix)
        for name, numbers in (result.get("curves") or {}).items():
            if name not in CURVES:
                made["health"].notes.append(f"{prefix}curve {name!r} is unknown to this version and is not drawn.")
                continue
            key, function = CURVES[name]
            _place_curve(made[key], result, name, numbers, function, prefix)
        if facts := _facts(result):
            made["health"].tables.append(_table(facts, f"{result['run']}: what made these numbers"))
    return list(made.values())


def _joined(results: Sequence[Result]) -> list[Result]:
    """Return the results with the series of a run's curves of one name and score on the first result that has one."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    joined: list[Result] = []
    for result in results:
        kept = {}
        for name, curve in (result.get("curves") or {}).items():
            key = (result["run"], name, curve.get("score"), curve.get("protocol_id"))
            if name in JOINED and key in first and isinstance(curve.get("series"), Mapping):
                first[key]["series"] = {**first[key]["series"], **curve["series"]}
                continue
            kept[name] = first[key] = dict(curve)
        joined.append({**result, "curves": kept})
    return joined


def _outline(run: str) -> list[Section]:
    """Return the empty sections, each with the command that fills it."""
    evaluate = f"sfumato evaluate {run}"
    return [
        Section("headline", "Scores", "Value with the 1/n bias removed and its 95% interval of sampling noise; plain "
                "is the textbook number; the floor is what real images score at the same n and m. An asterisk "
                "points to the flags.", evaluate),
        Section("splits", "Train, validation and test at equal size", "Only equal n and m make a gap between splits "
                "evidence.", f"{evaluate} --split train,test"),
        Section("comparison", "Comparison", "Only scores of one protocol are ranked. Equal ranks are not "
                "distinguishable at this n; scores of the same seeds are compared in pairs.",
                f"sfumato report {run} ANOTHER_RUN, both evaluated alike"),
        Section("samples", "Samples", "Uncurated unless marked, from the seeds named below each sheet.",
                f"sfumato picture sheet {run}"),
        Section("neighbours", "Nearest training images", "Has the model remembered? Generated images should not lie "
                "nearer to the training set than held-out real ones do.", f"{evaluate} --metrics fd memorization"),
        Section("size", "Score against the number of images", "The bias falls like 1/n; the intercept is the score of "
                "infinitely many images.", f"sfumato sweep {run} evaluate.n=500,1000,2000"),
        Section("nfe", "Score against function evaluations", "What each sampler reaches for its cost.",
                f"sfumato sweep {run} grid.steps=4,8,16,32 --score 1000"),
        Section("guidance", "Guidance", "w = 1 is no guidance; larger weights buy precision with recall.",
                f"sfumato sweep {run} guidance=1,1.5,2.5,5 --score 1000 --metrics fd pr saturation"),
        Section("classes", "Per class", "", f"{evaluate} --metrics per-class"),
        Section("likelihood", "Likelihood and rate-distortion", "Bits per dimension, every term; the distortion that a "
                "prefix of the code leaves.", f"sfumato likelihood {run}"),
        Section("probe", "Representation", "What a linear classifier reads inside the network, beside pixels and their "
                "principal components.", f"sfumato probe {run}"),
        Section("health", "Health and provenance", "What made these numbers, and what to know about them.", evaluate),
    ]  # fmt: skip


def _table(rows: Sequence[Row], title: str = "") -> Table:
    names = header(rows)
    right = [numeric(rows, name) for name in names]
    cells = []
    for row in rows:
        line = []
        for name in names:
            value = row.get(name)
            plain = value.value if isinstance(value, Cell) else value
            key = "" if plain is None or (isinstance(plain, float) and math.isnan(plain)) else str(plain)
            line.append((show(value), key, f"#p-{value}" if name == "protocol" and value else ""))
        cells.append(line)
    return Table(title, names, right, cells)


def _place_picture(section: Section, result: Result, name: str, where: Any, folder: Path, prefix: str) -> None:
    facts = where if isinstance(where, Mapping) else {"path": where}
    file = Path(result.get("folder") or folder, str(facts["path"]))
    kind = TYPES.get(file.suffix.lower())
    own = file.resolve().is_relative_to(Path(result.get("folder") or folder).resolve().parent)
    if kind is None or not own or not file.is_file():
        why = "is not a PNG or GIF" if kind is None else "is missing" if own else "lies outside its run"
        section.notes.append(f"{prefix}picture {name!r} ({facts['path']}) {why}.")
        return
    words = facts.get("caption") or (description(file) if kind == "image/png" else "") or name.replace("_", " ")
    uri = f"data:{kind};base64,{base64.b64encode(read_bytes(file)).decode()}"
    section.pictures.append(
        Picture(uri, f"{prefix}{words}", f"{prefix}{name.replace('_', ' ')}", str(facts.get("command", "")))
    )


def _place_curve(
    section: Section,
    result: Result,
    name: str,
    numbers: Mapping[str, Any],
    function: Callable[[Mapping[str, Any]], Figure],
    prefix: str,
) -> None:
    try:
        figure = function(numbers)
    except (KeyError, TypeError, ValueError) as error:
        section.notes.append(f"{prefix}curve {name!r} cannot be drawn: {type(error).__name__}: {error}")
        return
    uri = f"data:image/png;base64,{base64.b64encode(encode(figure)).decode()}"
    words = f"{prefix}{numbers.get('caption') or name.replace('_', ' ')}"
    command, protocol = str(numbers.get("command") or command_of(result)), str(numbers.get("protocol_id") or "")
    section.pictures.append(Picture(uri, words, words, command, protocol, True))


def _facts(result: Result) -> list[Row]:
    rows: list[Row] = []
    for score in result["scores"]:
        rows += [{"fact": f"flag of {score['name']}", "value": str(flag)} for flag in score.get("flags") or []]
    facts = result.get("provenance") or {}
    rows += [{"fact": "made by", "value": words}] if (words := made_by(facts)) else []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            rows += [{"fact": f"{key} · {inner}", "value": _plain(v)} for inner, v in value.items()]
        else:
            rows.append({"fact": key.replace("_", " "), "value": _plain(value)})
    return rows


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
