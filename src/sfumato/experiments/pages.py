"""What a study leaves behind: NAME.md for people, NAME.csv for other programs, NAME.json with everything, pictures.

A score of one training seed is shown with its own 95% interval. Over several seeds the table shows the mean, the mean
of the interval's ends (trainings share the reference images, so it is not narrowed), the interval over seeds and images
(`metrics.spread`), and the range over the seeds. No number stands without n, floor and the command that made it. A rank
counts the rows that are better beyond that noise, so rows that cannot be told apart share one.

`experiments.stored` writes the page anew from the stored numbers, without training or judging.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfumato.core.writing import replace_json, replace_text
from sfumato.experiments.cost import Estimate
from sfumato.experiments.study import Outcome, Study, titled
from sfumato.experiments.verdict import Verdict, verdicts
from sfumato.metrics.flags import gathered
from sfumato.metrics.metric import find_metric
from sfumato.metrics.score import Score
from sfumato.metrics.spread import compare_over_seeds, over_seeds
from sfumato.report.plot import Series
from sfumato.report.save import save
from sfumato.report.table import Cell, Value, csv_table, markdown_table
from sfumato.report.table import Row as Line

NAMED = 4  # protocols that a caption names; more are counted
ANSWERS = {True: "holds", False: "does not hold", None: "undecided"}
SEVERAL = (
    "; the interval over seeds and images, by Student's t with one degree of freedom less than seeds, and the range "
    "over the seeds stand beside them"
)
ONE = "; each row is one training, and another seed may turn an order round"
LOSSY = (
    "The images are CIFAR-10's as JPEG files of quality 75, shrunk to 16x16. These scores stand beside one another and "
    "beside no other number."
)


def of_row(outcomes: Sequence[Outcome], name: str) -> list[Outcome]:
    """Return a row's outcomes, one per training seed."""
    return [outcome for outcome in outcomes if outcome.row.name == name]


def mean_cell(scores: Sequence[Score]) -> Cell | None:
    """Return the mean of a row's scores over training seeds with the mean of their intervals; None for none.

    Arguments:
        scores: Scores of one metric and protocol.
    """
    return mean_of([(s.value, *s.interval) for s in scores], "*" if any(s.flags for s in scores) else "")


def mean_of(found: Sequence[Sequence[float]], mark: str = "") -> Cell | None:
    """Return the mean of numbers (value, low, high) as a cell; None for none."""
    if not found:
        return None
    value, low, high = (sum(parts) / len(found) for parts in zip(*found))
    return Cell(value, (low, high), mark)


def ranks(study: Study, outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return each measured row's rank by the study's first metric.

    Arguments:
        study: Study, which says the metric.
        outcomes: Outcomes of all rows and seeds.
    """
    metric = study.metrics[0]
    scores = {row.name: [o.scores.get(metric) for o in of_row(outcomes, row.name)] for row in study.rows}
    measured = {name: [s for s in found if s is not None] for name, found in scores.items() if None not in found}
    return {
        name: 1
        + sum(
            compare_over_seeds(other, mine, study.varied).winner == 1
            for rival, other in measured.items()
            if rival != name
        )
        for name, mine in measured.items()
    }


def lines(study: Study, outcomes: Sequence[Outcome], parameters: Mapping[str, int]) -> list[Line]:
    """Return the study's table.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds.
        parameters: Number of weights of each run's network.
    """
    rank = ranks(study, outcomes) if study.ranked else {}
    several, many = len(study.runs) > 1, len(study.seeds) > 1
    table: list[Line] = []
    for row in study.rows:
        mine = of_row(outcomes, row.name)
        facts = next((o.facts for o in mine if o.facts), {})
        line: dict[str, Value] = {"rank": rank.get(row.name)} if study.ranked else {}
        line["row"] = row.name
        if study.by:
            line[study.by] = next((o.x for o in mine if o.x is not None), None)
        if study.by != "NFE":
            line["NFE"] = facts.get("nfe")
        for metric in study.metrics:
            scores = [o.scores[metric] for o in mine if metric in o.scores]
            name = score_name(outcomes, metric)
            line[name] = mean_cell(scores)
            if many:
                values, over = [score.value for score in scores], over_seeds(scores) if len(scores) > 1 else None
                line[f"{name}, seeds and images"] = Cell(over.mean, over.interval) if over else None
                line[f"{name}, range over seeds"] = f"{min(values):.4g} to {max(values):.4g}" if values else None
            if study.plain and metric == study.metrics[0]:
                plain = [score.plain for score in scores if score.plain is not None]
                line[f"{name}, textbook"] = sum(plain) / len(plain) if plain else None
            floors = [score.floor for score in scores if score.floor is not None]
            line[f"{name}, floor"] = Cell(floors[0].value, floors[0].interval) if floors else None
        for name in dict.fromkeys(name for o in outcomes for name in o.facts.get("figures", {})):
            line[name] = mean_of([o.facts["figures"][name] for o in mine if name in o.facts.get("figures", {})])
        if study.paper:
            line["paper"] = row.paper
        if several:
            line["parameters"] = parameters.get(row.trained)
            line["images seen"] = facts.get("images_seen")
        if study.timed:
            seconds = [o.facts["training_seconds"] for o in mine if "training_seconds" in o.facts]
            line["minutes of training"] = round(sum(seconds) / len(seconds) / 60, 2) if seconds else None
            line["images/s sampled"] = facts.get("images_per_second")
        if any(o.failed for o in outcomes):
            line["note"] = "; ".join(dict.fromkeys(o.failed for o in mine if o.failed)) or None
        table.append(line)
    if study.ranked:
        table.sort(key=lambda line: _sorting(line, score_name(outcomes, study.metrics[0]), study))
    return table


def score_name(outcomes: Sequence[Outcome], metric: str) -> str:
    """Return what a metric's scores are called, "FD[digits]"; the metric's own name if there is none."""
    return next((o.scores[metric].name for o in outcomes if metric in o.scores), metric)


def _sorting(line: Line, heading: str, study: Study) -> float:
    cell = line[heading]
    if not isinstance(cell, Cell):
        return float("inf")
    return -cell.value if find_metric(study.metrics[0]).better == "higher" else cell.value


def series(outcomes: Sequence[Outcome], metric: str) -> dict[str, Series]:
    """Return a metric's lines for a figure: the rows with one `line`, by x, means over training seeds.

    Arguments:
        outcomes: Outcomes of all rows and seeds.
        metric: Name of the score.
    """
    points: dict[str, list[tuple[float, Cell]]] = {}
    for name in dict.fromkeys(o.row.name for o in outcomes):
        mine = of_row(outcomes, name)
        cell, x = mean_cell([o.scores[metric] for o in mine if metric in o.scores]), mine[0].x
        if cell is not None and x is not None:
            points.setdefault(mine[0].row.line, []).append((float(x), cell))
    found = {}
    for name, line in points.items():
        line.sort(key=lambda point: point[0])
        intervals = [cell.interval or (cell.value, cell.value) for _, cell in line]
        found[name] = Series.of([x for x, _ in line], [cell.value for _, cell in line], *zip(*intervals))
    return found


def floor_of(outcomes: Sequence[Outcome], metric: str) -> float | None:
    """Return the floor of a metric if all rows that have one share its protocol; None else."""
    scores = [o.scores[metric] for o in outcomes if metric in o.scores]
    floors = {s.protocol.protocol_id: s.floor.value for s in scores if s.floor is not None}
    return next(iter(floors.values())) if len(floors) == 1 else None


def words(study: Study, outcomes: Sequence[Outcome]) -> str:
    """Return the caption's facts that every picture of a study carries.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds.
    """
    ids = sorted({s.protocol.protocol_id for o in outcomes for s in o.scores.values()})
    many = f", mean over {len(study.seeds)} trainings" if len(study.seeds) > 1 else ""
    which = f"protocol{'s' * (len(ids) > 1)} {', '.join(ids)}"
    if len(ids) > NAMED:
        which = f"{len(ids)} protocols, named in {study.name}.json"
    return f"Study {study.name}, {study.scale} scale; n = {study.n:,}{many}; 95% intervals; {which}."


def write(study: Study, outcomes: Sequence[Outcome], cost: Estimate, out: Path, command: str) -> list[Path]:
    """Write the page, the table, the numbers and the pictures of a study.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds.
        cost: Cost counted before.
        out: Directory to write to.
        command: Command that made them.

    Returns:
        The files, the page first.
    """
    answers, table = verdicts(study, outcomes), lines(study, outcomes, cost.parameters)
    pictures = {
        name: save(picture, out / f"{study.name}-{name}.png")
        for name, picture in study.pictures(study, outcomes).items()
    }
    page, numbers, tree = (out / f"{study.name}.{ending}" for ending in ("md", "csv", "json"))
    replace_text(page, markdown(study, outcomes, table, answers, cost, command, pictures))
    replace_text(numbers, csv_table(table))
    replace_json(tree, to_json(study, outcomes, answers, cost, command))
    return [page, numbers, tree, *pictures.values()]


def judged_on(outcomes: Sequence[Outcome]) -> str:
    """Return the lines that say which real images scores are against, and on which machine they were made."""
    protocols = [score.protocol for outcome in outcomes for score in outcome.scores.values()]
    real = sorted({f"{p.reference.dataset} {p.reference.split} (m = {p.reference.n:,})" for p in protocols})
    machines = [p.provenance["machine"] for p in protocols if "machine" in p.provenance]
    devices = [(m["device"].replace(" 1 threads", " 1 thread"), m["torch"]) for m in machines]  # as once written
    where = sorted({f"{device}, torch {torch}" for device, torch in devices})
    named = (("Judged against", real), ("Machine", where))
    return "".join(f"- **{name}:** {'; '.join(values)}\n" for name, values in named if values)


def answer_lines(answers: Sequence[Verdict]) -> list[Line]:
    """Return the orderings as a table."""
    return [
        {
            "ordering": answer.ordering.claim,
            "said by": answer.ordering.source or None,
            "here": ANSWERS[answer.holds],
            "difference": Cell(answer.spread.mean, answer.spread.interval) if answer.spread else None,
            "in words": answer.words,
            "would tell": answer.budget or None,
        }
        for answer in answers
    ]


def markdown(
    study: Study,
    outcomes: Sequence[Outcome],
    table: Sequence[Line],
    answers: Sequence[Verdict],
    cost: Estimate,
    command: str,
    pictures: Mapping[str, Path],
) -> str:
    """Write the page.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds.
        table: Lines of the table.
        answers: Verdicts on its orderings.
        cost: Cost counted before.
        command: Command that made it.
        pictures: Name -> file.
    """
    flags = gathered(flag.removeprefix("* ") for o in outcomes for s in o.scores.values() for flag in s.flags)
    seeds = ", ".join(map(str, study.seeds))
    published = f" The paper's numbers: {study.paper}" if study.paper else ""
    if published and study.scale != "paper":
        published += "; of them only the order can be compared with ours"
    parts = [
        f"# Study: {titled(study.name.replace('-', ' '), study.scale)}",
        study.question,
        *([f"**Lossy data.** {LOSSY}"] if study.scale == "lossy" else []),
        f"- **Varies:** {study.varies}\n- **Held equal:** {study.equal}\n- **Training seeds:** {seeds}; "
        f"**images judged:** n = {study.n:,} a row\n- **Cost:** {cost.training}, {cost.calls:,} "
        f"network calls to sample, {cost.gflop / 1e3:.3g} TFLOP\n{judged_on(outcomes)}- **Command:** `{command}`",
        markdown_table(table),
        "Intervals are 95% intervals of the noise of a finite set of images, not of training"
        + (SEVERAL if len(study.seeds) > 1 else ONE if len(study.runs) > 1 else "")
        + ". The floor is the same score of real training images in as large a number, "
        f"which no model can be expected to pass.{published and published + '.'}",
    ]
    if flags:
        parts.append(f"\\* {'; '.join(flags)}.")
    if answers:
        noise = "over training seeds and images" if len(study.seeds) > 1 else "of images"
        paired = " (unpaired where rows are told different things)" if study.varied else ""
        differences = (
            f"The difference is the last row's score less the first's, in pairs of the same seeds{paired}, with the "
            f"95% interval {noise}. A budget that would tell is that of power 80% for a difference as large."
        )
        parts += ["## Orderings", markdown_table(answer_lines(answers)), differences]
    parts += [f"![{name}]({file.name})" for name, file in pictures.items()]
    return "\n\n".join([*parts, words(study, outcomes)]) + "\n"


def to_json(
    study: Study, outcomes: Sequence[Outcome], answers: Sequence[Verdict], cost: Estimate, command: str
) -> dict[str, Any]:
    """Return everything as JSON values.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds.
        answers: Verdicts on its orderings.
        cost: Cost counted before.
        command: Command that made it.
    """
    said = {key: getattr(study, key) for key in ("name", "scale", "question", "varies", "equal", "by", "n", "split")}
    return json.loads(json.dumps({
        **said,
        "seeds": study.seeds,
        "metrics": study.metrics,
        "paper": study.paper,
        "command": command,
        "cost": asdict(cost),
        "rows": [
            {
                "row": o.row.name, "run": o.row.trained, "recipe": o.row.recipe.name, "settings": o.row.settings,
                "line": o.row.line, "x": o.x, "paper": o.row.paper, "seed": o.seed, "failed": o.failed,
                "facts": o.facts, "scores": {name: score.to_json() for name, score in o.scores.items()},
            }
            for o in outcomes
        ],
        "orderings": [a.to_json() for a in answers],
    }))  # fmt: skip
