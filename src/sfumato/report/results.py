"""Result files: what an evaluation leaves behind, and the tables made of it.

A result is one JSON object. All keys but `run` and `scores` may be missing; the page says how to make what is.

    run         name of the run
    recipe      name of its recipe
    command     the command that makes this file again
    scores      list of Score.to_json()
    provenance  what made them: weights, sampler, nfe, seeds, images_per_second, machine ...
    pictures    name -> path of a PNG or GIF, relative to `folder`; see `sections.PICTURES` for the names it places
    curves      name -> numbers of a curve, see `curve_kinds.CURVES`; each may hold caption, command and protocol_id
    refused     name of a metric -> why it could not be computed
    tables      name -> rows, a row being column -> text, number, null, or {"value": v, "interval": [low, high]};
                "likelihood", "splits", "memorization", "health"
    folder      where the file lies; set by `read_results`
    path        the run as it was named to `read_results`, for commands
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato.core.reading import as_written, read_json
from sfumato.metrics.protocol import NO_REFERENCE
from sfumato.metrics.score import Score, compare, ranks
from sfumato.report.table import Cell, Row, Value
from sfumato.runs.making import Making
from sfumato.runs.records import read_records

Result = Mapping[str, Any]
COLUMNS = (
    *("run", "recipe", "score", "made", "split", "seen", "value", "floor", "above floor", "plain", "n", "m"),
    *("protocol", "NFE", "images/s", "flags"),
)
FLAGS_APART = "\n"
SEEN = {"test": "held out", "val": "held out, for choices", "train": "trained on"}  # what a split is to a model


def read_results(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Read result files; a run directory stands for all files in its results/, oldest first.

    Arguments:
        paths: Files or run directories.

    Returns:
        One result per file, with its `folder` and `path`.

    Raises:
        ValueError: If a path holds no result, or a file is not one.
    """
    results = []
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted((path / "results").glob("*.json"), key=lambda f: f.stat().st_mtime)
        if not files:
            raise ValueError(f"{path} holds no results. `sfumato evaluate {path}` makes some.")
        for file in files:
            result = _read(file)
            run = file.parent.parent if file.parent.name == "results" else Path(str(result["run"]))
            results.append({**result, "folder": str(file.parent), "path": str(run)})
    return results


def newest_scores(place: str) -> dict[str, Score]:
    """Return the scores of a result file, or the newest of each name of a run, by name.

    Arguments:
        place: Path of either.

    Raises:
        ValueError: If there is no result.
    """
    with as_written(f"A result of {place}", "Evaluate the run again."):
        scores = [Score.from_json(values) for tree in read_results([place]) for values in tree["scores"]]
    return {score.name: score for score in scores}


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Read the records of a metrics.jsonl; a last line that is not whole yet is left out."""
    return read_records(path)


def _read(file: Path) -> dict[str, Any]:
    result = read_json(file, finite=False)
    if not {"run", "scores"} <= set(result):
        raise ValueError(f"{file} is not a result: it must be an object with `run` and `scores`.")
    try:
        wrong = next((score for score in result["scores"] if not _whole(score)), None)
    except (TypeError, LookupError, AttributeError, ValueError):
        wrong = result["scores"]
    if wrong is not None:
        raise ValueError(
            f"{file} is damaged: a score is a number, in an interval from low to high, of at least 1 image; got "
            f"{str(wrong)[:80]}. Evaluate the run again."
        )
    return result


def _whole(score: Mapping[str, Any]) -> bool:
    """Return whether a score can be one; without a value it could not be computed, and its flags say why."""
    low, high = score.get("interval") or (0.0, 0.0)
    numbers = [low, high, score.get("n", 1), *([] if score.get("value") is None else [score["value"]])]
    return all(type(v) in (int, float) and v == v for v in numbers) and not low > high and numbers[2] >= 1


def path_of(result: Result) -> str:
    """Return what a command calls the run of a result."""
    return str(result.get("path") or result["run"])


def cell(value: Any) -> Value:
    """Return a value of a result's table as a value of `table`.

    >>> str(cell({"value": 1.5, "interval": [1.25, 1.75]})), cell("heun"), cell(None)
    ('1.50 [1.25, 1.75]', 'heun', None)
    """
    if isinstance(value, Mapping):
        low_high = value.get("interval")
        return Cell(value["value"], tuple(low_high) if low_high else None, value.get("mark", ""))
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def rows_of(result: Result, name: str) -> list[Row]:
    """Return one of a result's tables."""
    rows = result.get("tables", {}).get(name) or []
    return [{column: cell(value) for column, value in row.items()} for row in rows]


def score_rows(results: Sequence[Result]) -> list[Row]:
    """Return one row per score: the headline table of the page, of `sfumato evaluate` and of the demo.

    Arguments:
        results: Any number of results.

    Returns:
        Rows of `COLUMNS`. `split` names the real images, and `seen` says whether a model trains on them.
        `value` has the 1/n bias removed, `plain` is the textbook number, and `floor` is the value of real images at the
        same sizes; `above floor` is the difference with its own interval, in which the reference they share cancels.
        `made` is the sampler, its grid and what guides, of a run that was scored in several ways of sampling.
        A score with flags carries an asterisk; a metric that could not be computed has its reason for flags.
    """
    rows: list[Row] = []
    several = {run for run, ways in ways_of(results).items() if len(ways) > 1}
    for result in results:
        facts = result.get("provenance") or {}
        walk = Making.from_json(facts) if result["run"] in several else None
        for score in result["scores"]:
            protocol = score.get("protocol") or {}
            floor, flags = score.get("floor"), score.get("flags") or []
            split, seen = split_of(protocol.get("reference") or {})
            rows.append(
                {
                    "run": result["run"],
                    "recipe": result.get("recipe"),
                    "score": score["name"],
                    "made": None if walk is None else replace(walk, nfe=None).how,
                    "split": split,
                    "seen": seen,
                    "value": cell({**score, "mark": "*" if flags else ""}),
                    "floor": cell(floor) if floor else None,
                    "above floor": cell(score.get("above_floor")),
                    "plain": score.get("plain"),
                    "n": score.get("n"),
                    "m": score.get("m"),
                    "protocol": protocol.get("protocol_id"),
                    "NFE": facts.get("nfe"),
                    "images/s": facts.get("images_per_second"),
                    "flags": FLAGS_APART.join(flags) or None,
                }
            )
        for name, reason in (result.get("refused") or {}).items():
            split, seen = split_of(_reference(result))
            known = {"run": result["run"], "recipe": result.get("recipe"), "score": name, "split": split, "seen": seen}
            rows.append({**dict.fromkeys(COLUMNS), **known, "flags": f"not computed: {reason}"})
    return rows


def _reference(result: Result) -> Mapping[str, Any]:
    """Return the real images of a result, as its scores name them; {} if it has none."""
    found = ((score.get("protocol") or {}).get("reference") for score in result["scores"])
    return next(filter(None, found), {})


def split_of(reference: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the real images of a score in words, and what they are to a model.

    >>> split_of({"dataset": "digits", "split": "test"}), split_of({"dataset": "folder", "split": "all"})
    (('digits test', 'held out'), ('folder all', None))
    """
    if reference.get("dataset") == NO_REFERENCE.dataset:
        return "no real images", None
    named = " ".join(filter(None, (reference.get("dataset"), reference.get("split"))))
    return named or None, SEEN.get(str(reference.get("split")))


def compared(results: Sequence[Result]) -> list[list[Row]]:
    """Group scores by protocol and rank them by `metrics.score.compare`.

    Arguments:
        results: Of two or more runs.

    Returns:
        One list of rows per protocol that scored two runs at least, best first. A rank counts the scores that are
        better beyond the noise, of equal seeds in pairs; those that cannot be told apart share it. Every row says how
        it differs from the first one.
    """
    by_protocol: dict[str, list[tuple[Result, Score]]] = {}
    for result in results:
        for values in result["scores"]:
            if (values.get("protocol") or {}).get("protocol_id") and values.get("interval"):
                score = Score.from_json(values)
                by_protocol.setdefault(score.protocol.protocol_id, []).append((result, score))
    return [
        _ranked(members)
        for members in by_protocol.values()
        if len({result["run"] for result, _ in members}) > 1 and members[0][1].better != "neither"
    ]


def _ranked(members: Sequence[tuple[Result, Score]]) -> list[Row]:
    placed = list(zip(ranks([score for _, score in members]), members))
    placed.sort(key=lambda place: place[1][1].value * (-1 if place[1][1].better == "higher" else 1))
    best = placed[0][1][1]
    rows: list[Row] = []
    for rank, (result, score) in placed:
        found = compare(best, score)
        row: dict[str, Value] = {
            "rank": rank,
            "run": result["run"],
            "recipe": result.get("recipe"),
            "score": score.name,
            "value": Cell(score.value, score.interval, "*" if score.flags else ""),
            "difference": None if score is best else Cell(found.difference, found.interval),
            "verdict": "lowest" if best.better == "lower" else "highest",
        }
        if score is not best:
            paired = ", paired by seed" if found.interval else ""
            row["verdict"] = f"{'worse' if found.winner == 1 else found.verdict}{paired}"
        facts = score.protocol.provenance
        rows.append({**row, "NFE": facts.get("nfe"), "made by": made_by(facts), "protocol": score.protocol.protocol_id})
    return rows


def title_of(protocol: Mapping[str, Any], score: str) -> str:
    """Return a protocol in words: what is measured, against which images, of how many.

    Arguments:
        protocol: Its JSON.
        score: The name of the score.
    """
    reference = protocol.get("reference") or {}
    split, seen = split_of(reference)
    against = f" against {split}{f' ({seen})' if seen else ''}" if split else ""
    counts = ", ".join(f"{k} = {v:,}" for k, v in (("n", protocol.get("n")), ("m", reference.get("n"))) if v)
    return f"{score}{against}, {counts}".removesuffix(", ")


def made_by(facts: Mapping[str, Any]) -> str | None:
    """Return the sentence that says how the images of a result were made; None if its provenance does not."""
    made = Making.from_json(facts)
    return None if made is None else made.sentence


def ways_of(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return the ways in which the images of each run were made, a sentence each, in the order of its results."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        made = made_by(result.get("provenance") or {})
        found.setdefault(str(result["run"]), {}).update({made: None} if made else {})
    return {run: list(made) for run, made in found.items()}


def size_matched(results: Sequence[Result]) -> list[Row]:
    """Return the scores of one run on several splits at equal n and m: the honest train-test comparison."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in score_rows(results):
        groups.setdefault((row["run"], row["score"], row["n"], row["m"], row["NFE"]), []).append(row)
    keep = ("run", "recipe", "score", "split", "seen", "value", "floor", "n", "m", "protocol")
    matched = [rows for rows in groups.values() if len({row["split"] for row in rows}) > 1]
    return [{key: row[key] for key in keep} for rows in matched for row in rows]


def command_of(result: Result) -> str:
    """Return the command that makes a result again, from its own record or from its provenance."""
    if result.get("command"):
        return str(result["command"])
    facts, score = result.get("provenance") or {}, (result["scores"] or [{}])[0]
    protocol = score.get("protocol") or {}
    told = {
        "n": score.get("n"),
        "extract": protocol.get("extractor"),
        "split": (protocol.get("reference") or {}).get("split"),
        "first-seed": (facts.get("seeds") or [None])[0],
        "use": facts.get("weights"),
    }
    options = [f"--{name} {value}" for name, value in told.items() if value is not None]
    return " ".join([f"sfumato evaluate {path_of(result)}", *options])


def curve_of(run: Path, name: str, command: str) -> dict[str, Any]:
    """Return the newest curve of a name among a run's results, series of several results joined.

    Arguments:
        run: Directory of a run.
        name: Name of the curve.
        command: What makes one, for the message.

    Raises:
        ValueError: If no result has it.
    """
    files = sorted((run / "results").glob("*.json"), key=lambda f: f.stat().st_mtime)
    found = [curve for file in files if (curve := (_read(file).get("curves") or {}).get(name))]
    if not found:
        raise ValueError(f"{run} has no {name.replace('_', ' ')} curve yet. Make one with: {command}")
    merged = dict(found[-1])
    merged["series"] = {k: v for curve in found for k, v in (curve.get("series") or {}).items()}
    return merged
