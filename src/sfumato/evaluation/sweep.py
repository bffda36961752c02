"""Scores along one setting: guidance, steps, sampler, number of images.

Every value is evaluated like any run, on the same seeds, so that what differs between points is the setting. The points
are written after each, and a sweep that was killed goes on with the next. What a curve of them is called follows from
the field: `guidance` makes fidelity against variety, `grid.steps` and `sampler` a score against its cost, `evaluate.n`
the line in 1/n.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.reading import read_json
from sfumato.core.writing import replace_json
from sfumato.evaluation.judge import judged_by, other_images, other_rules
from sfumato.evaluation.scoring import evaluate
from sfumato.metrics.protocol import canonical
from sfumato.runs.identity import identity, key_of
from sfumato.runs.run import Run

Point = Mapping[str, Any]  # value, scores (JSON), provenance


def _score(point: Point, name: str) -> Mapping[str, Any]:
    return next(score for score in point["scores"] if score["name"] == name)


def _line(points: Sequence[Point], name: str, x: Callable[[Point], float], plain: bool = False) -> dict[str, Any]:
    """Return the series of one score over points; without intervals if the textbook value is asked for."""
    scores = [_score(point, name) for point in points]
    line: dict[str, Any] = {"x": [x(p) for p in points], "y": [s["plain" if plain else "value"] for s in scores]}
    if not plain:
        line |= {"low": [s["interval"][0] for s in scores], "high": [s["interval"][1] for s in scores]}
    return line


def _floor(points: Sequence[Point], name: str) -> float | None:
    floor = _score(points[0], name).get("floor")
    return None if floor is None else float(floor["value"])


def _number(point: Point) -> float:
    return float(point["value"])


def _names(points: Sequence[Point]) -> list[str]:
    """Return the scores that every point has: a metric may have been impossible at some."""
    names = [{score["name"]: None for score in point["scores"]} for point in points]
    return [name for name in names[0] if all(name in others for others in names)]


def _by_guidance(points: Sequence[Point]) -> dict[str, Any]:
    names = _names(points)
    floors = {name: floor for name in names if (floor := _floor(points, name)) is not None}
    curves: dict[str, Any] = {
        "guidance": {"series": {name: _line(points, name, _number) for name in names}, "floors": floors}
    }
    own = {name.partition("[")[0]: name for name in names}
    if {"precision", "recall"} <= set(own):
        front = _line(points, own["precision"], lambda p: float(_score(p, own["recall"])["value"]))
        curves["precision_recall"] = {
            "series": {"guidance": {"x": front["x"], "y": front["y"]}},
            "labels": {"guidance": [f"w = {p['value']}" for p in points]},
        }
    return curves


def _by_cost(points: Sequence[Point]) -> dict[str, Any]:
    """Group points by sampler: a line for each."""
    name = _names(points)[0]
    found: dict[str, Any] = {"nfe": {}, "seconds": {}}
    for sampler in dict.fromkeys(p["provenance"]["sampler"] for p in points):
        own = [p for p in points if p["provenance"]["sampler"] == sampler]
        own.sort(key=lambda p: p["provenance"]["nfe"])
        found["nfe"][sampler] = _line(own, name, lambda p: float(p["provenance"]["nfe"]))
        own.sort(key=lambda p: -p["provenance"]["images_per_second"])
        found["seconds"][sampler] = _line(own, name, lambda p: 1 / float(p["provenance"]["images_per_second"]))
    shared = {"score": name, "floor": _floor(points, name)}
    return {kind: {"series": series, **shared} for kind, series in found.items()}


def _by_size(points: Sequence[Point]) -> dict[str, Any]:
    name = _names(points)[0]
    return {"size": {"series": {"textbook value": _line(points, name, _number, plain=True)}, "score": name}}


CURVES: dict[str, Callable[[Sequence[Point]], dict[str, Any]]] = {
    "guidance": _by_guidance,
    "grid.steps": _by_cost,
    "sampler": _by_cost,
    "evaluate.n": _by_size,
}
TITLES = {"grid.steps": "steps"}


def sweep(
    runs: Mapping[str, Run],
    field: str,
    *,
    n: int | None,
    metrics: Sequence[str] = ("fd",),
    split: str = "test",
    use: str | None = None,
    root: Path | str | None = None,
    device: str | None = None,
    command: str = "",
    told: Callable[[str, Point], object] = lambda value, point: None,
) -> tuple[dict[str, Any], Path]:
    """Score a run at several values of one field.

    Arguments:
        runs: Value -> the run with the field set so.
        field: Its path, such as "guidance" or "grid.steps".
        n: Images at each value; None if the field says so itself.
        metrics: As for `evaluate`.
        split: The reference.
        use: Name of an average of the weights.
        root: Data root.
        device: Where to compute.
        command: That makes the result again.
        told: Called with every value and its point.

    Returns:
        The result, written to RUN/results/sweep-*.json, and its path.
    """
    first = next(iter(runs.values()))
    facts = [field, n, list(metrics), split, use, first.checkpoint.path.name, first.recipe.hash]
    key = hashlib.sha256(canonical(facts).encode()).hexdigest()[:8]
    path = first.path / "results" / f"sweep-{field.replace('.', '-')}-{key}.json"
    known, others = _known(path), set(path.parent.glob("*.json"))
    done: list[Point] = []
    data = judged_by(first.recipe, split, root)
    for value, run in runs.items():
        settings = run.recipe.to_json()["sample"]
        own = {"value": value, "settings": settings, "identity": key_of(identity(run, use))}
        same = [p for p in known if {key: p.get(key) for key in own} == own and not other_images(p, data)]
        same = [p for p in same if not other_rules(p, metrics, run.recipe)]
        point = next(iter(same), None)
        if point is None:
            result = evaluate(run, n=n, metrics=tuple(metrics), split=split, use=use, root=root, device=device)
            tree = result.to_json()
            kept: dict[str, Any] = {key: tree[key] for key in ("scores", "provenance", "refused") if key in tree}
            point = {**own, "data": data, **kept}
            if result.path not in others:  # somebody's evaluation stays
                result.path.unlink(missing_ok=True)  # it lives on as a point
        done.append(point)
        told(value, point)
        replace_json(path, _tree(first, field, done, command))
    return _tree(first, field, done, command), path


def _known(path: Path) -> list[Point]:
    """Return the points that an earlier sweep has kept; what is damaged is made again."""
    try:
        points = read_json(path, finite=False)["points"]
        return [
            point
            for point in points
            if isinstance(point["provenance"], dict)
            and isinstance(point["scores"], list)
            and all(isinstance(score["protocol"]["options"], dict) for score in point["scores"])
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def row(field: str, point: Point) -> dict[str, Any]:
    """Return a point as a row of a table."""
    facts = point["provenance"]
    scores = {s["name"]: {"value": s["value"], "interval": s["interval"]} for s in point["scores"]}
    n = point["scores"][0]["n"]
    return {field: point["value"], **scores, "n": n, "NFE": facts["nfe"], "images/s": facts["images_per_second"]}


def real_row(field: str, points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the row of real images, the floors of the first point; none where the size varies or there are none."""
    floors = {s["name"]: s["floor"] for s in points[0]["scores"] if s.get("floor")}
    if field == "evaluate.n" or not floors:
        return []
    cells = {name: {"value": floor["value"], "interval": floor["interval"]} for name, floor in floors.items()}
    return [{field: "real images", **cells}]


def _tree(run: Run, field: str, points: Sequence[Point], command: str) -> dict[str, Any]:
    draw = CURVES.get(field)
    facts = {k: v for k, v in points[0]["provenance"].items() if k in ("checkpoint", "weights", "machine", "seeds")}
    protocol = points[0]["scores"][0]["protocol"]["protocol_id"] if points[0]["scores"] else None
    rows = [row(field, point) for point in points] + real_row(field, points)
    curves = draw(points) if draw is not None and len(points) > 1 and _names(points) else {}
    return {
        "run": run.path.name,
        "recipe": run.recipe.name,
        "scores": [],
        "refused": {name: reason for point in points for name, reason in (point.get("refused") or {}).items()},
        "command": command,
        "provenance": facts,
        "tables": {f"sweep of {TITLES.get(field, field)}": rows},
        "curves": {name: {**curve, "protocol_id": protocol} for name, curve in curves.items()},
        "points": list(points),
    }
