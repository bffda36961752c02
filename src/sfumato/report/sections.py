"""The sections of the report page, filled with what results, pictures and logs hold: what is seen first comes first.

A picture goes where `PICTURES` places its name, the numbers of a curve are drawn by the function that `CURVES` names.
What cannot be shown (a missing file, a curve of another version) becomes a line in its section, never an error: one bad
entry must not cost the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sfumato.core.reading import read_bytes
from sfumato.report.curve_kinds import CURVES
from sfumato.report.page_parts import Picture, Section, table_of
from sfumato.report.results import Result, command_of, compared, path_of, rows_of, score_rows, size_matched, title_of
from sfumato.report.save import description, encode, size_on_page
from sfumato.report.training import adversarial_curves, has_levels, loss_by_level, score_curves, training_curves

# section -> names of the pictures it shows; pictures of other names are shown with the samples
PICTURES = {
    "neighbours": ("neighbours",),
    "probe": ("probe", "probe-neighbours", "probe_neighbours"),
    "guidance": ("cfg", "guidance"),
    "nfe": ("nfe",),
    "likelihood": ("reconstruction", "shared_latent", "interpolation", "rate_distortion", "coded"),
}
JOINED = ("nfe", "seconds", "size")  # curves that several sweeps of a run share
# table in a result -> section; tables of other names come last
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
LOGS = ("training", "while_training")  # curves of a run's logs: several runs share a plot
OPEN = 6  # pictures of a section that are not folded
TYPES = {".png": "image/png", ".gif": "image/gif"}


def sections(results: Sequence[Result], folder: Path) -> list[Section]:
    """Return the sections of the page, filled with what the results hold."""
    made = {s.key: s for s in _outline(path_of(results[0]))}
    _place_scores(made, results)
    _place_logs(made, results)
    several = len({r["run"] for r in results}) > 1
    for result in _joined(results):
        prefix = f"{result['run']}: " if several else ""
        for name in result.get("tables") or {}:
            if rows := rows_of(result, name):
                made[TABLES.get(name, "more")].tables.append(table_of(rows, f"{prefix}{name}"))
        for name, where in (result.get("pictures") or {}).items():
            _place_picture(made, result, name, where, folder, prefix)
        for name, numbers in (result.get("curves") or {}).items():
            if name in LOGS:
                continue
            if name not in CURVES:
                made["more"].notes.append(f"{prefix}curve {name!r} is unknown to this version and is not drawn.")
                continue
            key, function = CURVES[name]
            title = _titled(name.replace("_", " "), prefix)
            command, link = numbers.get("command") or command_of(result), numbers.get("protocol_id") or ""
            _place_curve(made[key], title, partial(function, numbers), str(command), str(link))
    for section in made.values():
        _fold(section)
    return list(made.values())


def _outline(run: str) -> list[Section]:
    """Return the empty sections, each with the command that fills it."""
    evaluate = f"sfumato evaluate {run}"
    return [
        Section("samples", "Pictures", "Nobody chose among these images, unless a picture says CURATED.",
                f"sfumato sample {run} --strip --gif"),
        Section("training", "Training", "The loss falls fast and then slowly; the pictures go on improving while it "
                "hardly moves.", f"sfumato train RECIPE --out {run}", more="sheets drawn while training"),
        Section("headline", "Scores", "Each value has its bias removed and stands with its 95% interval of sampling "
                "noise. The floor is what as many real images score. Where the interval of \u201cabove floor\u201d "
                "contains 0, these images cannot be told from real ones. Plain is the textbook number, bias included.",
                evaluate),
        Section("comparison", "Comparison", "Runs of equal rank cannot be told apart with so many images. Scores made "
                "from the same seeds are compared in pairs, so the noise that they share cancels.",
                f"sfumato report {run} ANOTHER_RUN, both evaluated alike"),
        Section("splits", "Train, validation and test at equal size", "A gap between splits means something only if n "
                "and m are equal.", f"{evaluate} --split train,test"),
        Section("neighbours", "Nearest training images", "Generated images should not lie nearer to the training "
                "images than held-out real images do.", f"{evaluate} --metrics fd memorization"),
        Section("size", "Score against the number of images", "The bias falls like 1/n; the intercept is the score of "
                "infinitely many images.", f"sfumato sweep {run} evaluate.n=500,1000,2000"),
        Section("nfe", "Score against network calls", "What each sampler reaches for its cost.",
                f"sfumato sweep {run} grid.steps=4,8,16,32 --score 1000"),
        Section("guidance", "Guidance", "w = 1 is no guidance. Larger weights gain precision and lose recall.",
                f"sfumato sweep {run} guidance=1,1.5,2.5,5 --score 1000 --metrics fd pr saturation"),
        Section("classes", "Per class", "", f"{evaluate} --metrics per-class"),
        Section("likelihood", "Likelihood and rate-distortion", "Bits per dimension, every term; and the distortion "
                "that a part of the code leaves.", f"sfumato likelihood {run}"),
        Section("probe", "Representation", "What a linear classifier reads inside the network, beside pixels and their "
                "principal components.", f"sfumato probe {run}"),
        Section("changed", "Restored and edited", "", f"sfumato restore {run} PICTURE task=inpaint"),
        Section("more", "More tables", "", ""),
    ]  # fmt: skip


def _place_scores(made: Mapping[str, Section], results: Sequence[Result]) -> None:
    """Place the tables of scores: all of them, those of several runs, those of several splits."""
    if rows := score_rows(results):
        made["headline"].tables.append(table_of(rows))
    if rows := size_matched(results):
        made["splits"].tables.append(table_of(rows))
    protocols = {s["protocol"]["protocol_id"]: s for r in results for s in r["scores"] if s.get("protocol")}
    for group in compared(results):
        score = protocols[group[0]["protocol"]]
        made["comparison"].tables.append(table_of(group, title_of(score["protocol"], score["name"]), headed=True))


def _place_logs(made: Mapping[str, Section], results: Sequence[Result]) -> None:
    """Place the curves of training: all runs in one plot, then each run's loss by noise level."""
    logs: dict[str, dict[str, Any]] = {name: {} for name in LOGS}
    for result in results:
        for name, found in (result.get("curves") or {}).items():
            if name in LOGS:
                logs[name].setdefault(str(result["run"]), found)
    section, runs = made["training"], logs["training"]
    records = {run: log.get("records") for run, log in runs.items()}
    groups = {run: log["alike"] for run, log in runs.items() if log.get("alike")}
    named = records if len(runs) > 1 else dict(zip([""], records.values()))
    if runs:
        _place_curve(section, "Loss, gradient and rate", partial(training_curves, named, groups), "", "")
    if scores := {run: log.get("records") for run, log in logs["while_training"].items()}:
        _place_curve(section, "Scores while training", partial(score_curves, scores, groups), "", "")
    for run, own in records.items():
        prefix = f"{run}: " if len(runs) > 1 else ""
        if own and "loss_generator" in own[0]:
            title = _titled("generator and discriminator", prefix)
            _place_curve(section, title, partial(adversarial_curves, own), "", "")
        elif own and has_levels(own):
            _place_curve(section, _titled("loss by noise level", prefix), partial(loss_by_level, own), "", "")


def _titled(title: str, prefix: str) -> str:
    """Return a title behind the name of its run, or with a capital where one run needs no name."""
    return f"{prefix}{title}" if prefix else f"{title[:1].upper()}{title[1:]}"


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


def _place_picture(
    made: Mapping[str, Section], result: Result, name: str, where: Any, folder: Path, prefix: str
) -> None:
    facts = where if isinstance(where, Mapping) else {"path": where}
    file = Path(result.get("folder") or folder, str(facts["path"]))
    kind, key = TYPES.get(file.suffix.lower()), name
    title = _titled(str(facts.get("title") or name.replace("_", " ")), prefix)
    if facts.get("title"):
        key = file.stem.replace("-", "_")
    placed = facts.get("section") or next((s for s, names in PICTURES.items() if key in names), "samples")
    section = made[placed]
    own = file.resolve().is_relative_to(Path(result.get("folder") or folder).resolve().parent)
    if kind is None or not own or not file.is_file():
        why = "is not a PNG or GIF" if kind is None else "is missing" if own else "lies outside its run"
        section.notes.append(f"{prefix}picture {name!r} ({facts['path']}) {why}.")
        return
    words = str(facts.get("caption") or description(file) or title)
    content = read_bytes(file)
    drawn = Picture(
        f"data:{kind};base64,{base64.b64encode(content).decode()}",
        f"{title}. {words}",
        title,
        words if words != title else "",
        str(facts.get("command", "")),
        size=size_on_page(content),
        kind="bare" if facts.get("bare") else "",
        run=str(result["run"]),
    )
    (section.folded if placed == "training" else section.pictures).append(drawn)


def _fold(section: Section) -> None:
    """Put the pictures of several runs in turn, after the curves, and fold all but the first of them."""
    curves = [one for one in section.pictures if one.kind == "curve"]
    others = [one for one in section.pictures if one.kind != "curve"]
    runs = [one.run for one in others]
    turn = {id(one): runs[:i].count(one.run) for i, one in enumerate(others)}
    others.sort(key=lambda one: turn[id(one)])
    section.pictures, section.folded = curves + others[:OPEN], others[OPEN:] + section.folded


def _place_curve(section: Section, title: str, draw: Callable[[], Figure], command: str, link: str) -> None:
    try:
        content = encode(draw())
    except (KeyError, TypeError, ValueError) as error:
        section.notes.append(f"curve {title!r} cannot be drawn: {type(error).__name__}: {error}")
        return
    words = description(io.BytesIO(content))
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    size = size_on_page(content)
    section.pictures.append(Picture(uri, f"{title}. {words}", title, words, command, link, size, "curve"))
