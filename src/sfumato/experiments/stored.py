"""Answer a study's orderings anew from its stored scores, without training, sampling or judging.

NAME.json holds every score with its jackknife, so that a rule that judges better (`experiments.verdict`) reaches the
studies that were run before it. Rows, scores, cost and pictures stay as they were; the orderings, their answers and the
columns of the table follow today's code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sfumato.core.reading import as_written
from sfumato.core.writing import replace_json, replace_text
from sfumato.experiments.cost import Estimate
from sfumato.experiments.pages import lines, markdown
from sfumato.experiments.study import Ordering, Outcome, Study, StudyError, find_study, studies
from sfumato.experiments.verdict import verdicts
from sfumato.metrics.score import Score
from sfumato.report.table import csv_table


def stored(tree: Mapping[str, Any]) -> tuple[Study, list[Outcome]]:
    """Return a study and its outcomes as NAME.json holds them, with no run.

    Arguments:
        tree: What `pages.to_json` returned, once.

    Raises:
        StudyError: If the study has no such row or scale today.
    """
    today = find_study(tree["name"], tree["scale"]).only([row["row"] for row in tree["rows"]])
    orderings = tuple(Ordering(o["claim"], tuple(o["rows"]), o["metric"], o["source"]) for o in tree["orderings"])
    kept = {name: tree[name] for name in ("question", "varies", "equal", "by", "n", "split", "paper")}
    study = today.resized(**kept, seeds=tuple(tree["seeds"]), metrics=tuple(tree["metrics"]), orderings=orderings)
    return study, outcomes_of(study, tree)


def outcomes_of(study: Study, tree: Mapping[str, Any]) -> list[Outcome]:
    """Return the outcomes that a result holds of a study's rows, without their runs.

    Arguments:
        study: Study of the result, or some of its rows.
        tree: What `pages.to_json` returned.
    """
    rows = {row.name: row for row in study.rows}
    return [
        Outcome(
            rows[found["row"]],
            found["seed"],
            None,
            {metric: Score.from_json(score) for metric, score in found["scores"].items()},
            found["facts"],
            found["failed"],
        )
        for found in tree["rows"]
        if found["row"] in rows
    ]


def renew(tree: Mapping[str, Any]) -> bool:
    """Answer a study's orderings anew, and write its page, its table and its numbers where they lie.

    Arguments:
        tree: One of `summary.results_of`, which says its file; page and table lie beside it under the same name.

    Returns:
        Whether it was done; a study that is not one of today's stays as it is.

    Raises:
        FileRefusedError: If the file holds values of another kind than was written.
    """
    file, page = tree["file"], tree["file"].with_suffix(".md")
    with as_written(str(file), "Run its study again, or move it away."):
        if tree["name"] not in studies():
            return False
        try:
            study, outcomes = stored(tree)
        except StudyError:
            return False
        cost, answers = Estimate(**tree["cost"]), verdicts(study, outcomes)
        table = lines(study, outcomes, cost.parameters)
    drawn = re.findall(r"^!\[(.+)\]\((.+)\)$", page.read_text(), re.MULTILINE) if page.is_file() else []
    pictures = {name: file.with_name(picture) for name, picture in drawn}
    replace_text(page, markdown(study, outcomes, table, answers, cost, tree["command"], pictures))
    replace_text(file.with_suffix(".csv"), csv_table(table))
    whole = {**tree, "orderings": [answer.to_json() for answer in answers]}
    replace_json(file, {key: value for key, value in whole.items() if key != "file"})
    return True
