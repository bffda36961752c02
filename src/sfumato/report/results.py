"""Result files: what an evaluation leaves behind, and the tables made of it.

A result is one JSON object. All keys but `run` and `scores` may be missing; the page says how to make what is.

    run         name of the run
    recipe      name of its recipe
    command     the command that makes this file again
    scores      list of Score.to_json()
    provenance  what made them: weights, sampler, nfe, seeds, images_per_second, machine ...
    pictures    name -> path of a PNG or GIF, relative to `folder`; see `_sections.PICTURES` for the names it places
    curves      name -> numbers of a curve, see `_sections.CURVES`; each may hold caption, command and protocol_id
    refused     name of a metric -> why it could not be computed
    tables      name -> rows, a row being column -> text, number, null, or {"value": v, "interval": [low, high]};
                "likelihood", "splits", "memorization", "health"
    folder      where the file lies; set by `read_results`
    path        the run as it was named to `read_results`, for commands
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.reading import read_json
from sfumato.metrics.score import Score, ranks
from sfumato.report.save import command_in
from sfumato.report.table import Cell, Row, Value
from sfumato.runs.making import Making
from sfumato.runs.records import read_records

Result = Mapping[str, Any]
COLUMNS = (
    *("run", "score", "value", "floor", "above floor", "plain", "n", "m"),
    *("protocol", "reference", "NFE", "images/s", "flags"),
)


def read_results(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Read result files; a run directory stands for all files in its results/, oldest first.

    Arguments:
        paths: Files or run directories.

    Returns:
        One result per file, with its `folder` and `path`; the training curves of a run directory go with its last one.

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
        metrics = path / "metrics.jsonl"
        if metrics.is_file() and (records := read_metrics(metrics)):
            results[-1]["curves"] = {"training": {"records": records}, **(results[-1].get("curves") or {})}
    return results


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Read the records of a metrics.jsonl; a last line that is not whole yet is left out."""
    return read_records(path)


def _read(file: Path) -> dict[str, Any]:
    result = read_json(file, finite=False)
    if not {"run", "scores"} <= set(result):
        raise ValueError(f"{file} is not a result: it must be an object with `run` and `scores`.")
    return result


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
        Rows of run, score, value, floor, above floor, plain, n, m, protocol, reference, NFE, images/s and flags.
        `value` has the 1/n bias removed, `plain` is the textbook number, and `floor` is the value of real images at the
        same sizes; `above floor` is the difference with its own interval, in which the reference they share cancels.
        A score with flags carries an asterisk; a metric that could not be computed has its reason for flags.
    """
    rows: list[Row] = []
    for result in results:
        facts = result.get("provenance") or {}
        for score in result["scores"]:
            protocol = score.get("protocol") or {}
            reference, floor, flags = protocol.get("reference") or {}, score.get("floor"), score.get("flags") or []
            rows.append(
                {
                    "run": result["run"],
                    "score": score["name"],
                    "value": cell({**score, "mark": "*" if flags else ""}),
                    "floor": cell(floor) if floor else None,
                    "above floor": cell(score.get("above_floor")),
                    "plain": score.get("plain"),
                    "n": score.get("n"),
                    "m": score.get("m"),
                    "protocol": protocol.get("protocol_id"),
                    "reference": " ".join(filter(None, (reference.get("dataset"), reference.get("split")))) or None,
                    "NFE": facts.get("nfe"),
                    "images/s": facts.get("images_per_second"),
                    "flags": "; ".join(flags) or None,
                }
            )
        for name, reason in (result.get("refused") or {}).items():
            rows.append(
                {**dict.fromkeys(COLUMNS), "run": result["run"], "score": name, "flags": f"not computed: {reason}"}
            )
    return rows


def compared(results: Sequence[Result]) -> list[list[Row]]:
    """Group scores by protocol and rank them by `metrics.score.compare`.

    Arguments:
        results: Of two or more runs.

    Returns:
        One list of rows per protocol that scored two runs at least, best first. A rank counts the scores that are
        better beyond the noise, of equal seeds in pairs; those that cannot be told apart share it.
    """
    by_protocol: dict[str, list[tuple[str, Score]]] = {}
    for result in results:
        for values in result["scores"]:
            if (values.get("protocol") or {}).get("protocol_id") and values.get("interval"):
                score = Score.from_json(values)
                by_protocol.setdefault(score.protocol.protocol_id, []).append((result["run"], score))
    return [
        _ranked(members)
        for members in by_protocol.values()
        if len({run for run, _ in members}) > 1 and members[0][1].better != "neither"
    ]


def _ranked(members: Sequence[tuple[str, Score]]) -> list[Row]:
    rows: list[Row] = []
    for rank, (run, score) in zip(ranks([score for _, score in members]), members):
        facts = score.protocol.provenance
        rows.append(
            {
                "rank": rank,
                "run": run,
                "score": score.name,
                "value": Cell(score.value, score.interval, "*" if score.flags else ""),
                "n": score.n,
                "m": score.m,
                "NFE": facts.get("nfe"),
                "made by": made_by(facts),
                "protocol": score.protocol.protocol_id,
            }
        )
    values = [score.value * (-1 if score.better == "higher" else 1) for _, score in members]
    return [rows[i] for i in sorted(range(len(rows)), key=values.__getitem__)]


def made_by(facts: Mapping[str, Any]) -> str | None:
    """Return the sentence that says how the images of a result were made; None if its provenance does not."""
    made = Making.from_json(facts)
    return None if made is None else made.sentence


def size_matched(results: Sequence[Result]) -> list[Row]:
    """Return the scores of one run on several splits at equal n and m: the honest train-test comparison."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in score_rows(results):
        groups.setdefault((row["run"], row["score"], row["n"], row["m"], row["NFE"]), []).append(row)
    keep = ("run", "score", "reference", "value", "floor", "n", "m", "protocol")
    matched = [rows for rows in groups.values() if len({row["reference"] for row in rows}) > 1]
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


def read_report(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read what a page shows: the results of runs and the pictures in RUN/pictures; a run may have either alone.

    Arguments:
        paths: Run directories or result files.

    Returns:
        Results, those of a run together; its pictures are a result of their own.

    Raises:
        ValueError: If a path is no run and no result.
    """
    results: list[dict[str, Any]] = []
    for path in paths:
        is_run = (path / "recipe.json").is_file()
        if path.is_file() or any((path / "results").glob("*.json")):
            results += read_results([path])
        elif not is_run:
            raise ValueError(f"{path} is neither a run nor a result file. Name a directory that `sfumato train` made.")
        if is_run and (found := _pictures_of(path)):
            results.append(found)
        elif is_run and not any(r["path"] == str(path) for r in results):
            results.append({"run": path.name, "scores": [], "path": str(path), "folder": str(path)})
    return results


def _pictures_of(run: Path) -> dict[str, Any]:
    """Return the pictures of a run as a result; empty if it has none."""
    files = [f for f in sorted((run / "pictures").glob("*")) if f.suffix in (".png", ".gif")]
    if not files:
        return {}
    return {
        "run": run.name,
        "scores": [],
        "command": f"sfumato picture KIND {run}",
        "pictures": {f.stem.replace("-", "_"): {"path": f.name, "command": command_in(f)} for f in files},
        "folder": str(run / "pictures"),
        "path": str(run),
    }


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
