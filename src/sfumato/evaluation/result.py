"""What an evaluation found, and its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sfumato.core.writing import replace_json
from sfumato.data.dataset import Dataset
from sfumato.evaluation.real import reference_of
from sfumato.metrics.protocol import canonical
from sfumato.metrics.score import Score
from sfumato.processes.machine import describe
from sfumato.runs.identity import identity, summary
from sfumato.runs.run import Run


def facts_of_run(run: Run, use: str | None, device: torch.device | str) -> dict[str, Any]:
    """Return the provenance of what is measured of a run: its weights, and the machine.

    Arguments:
        run: The run.
        use: Name of an average of the weights; None for the recipe's choice.
        device: Where it was computed.
    """
    saved = run.taken(use)[0]
    return {
        "checkpoint": saved.path.name,
        "images_seen": saved.state["seen"],
        **summary(identity(run, use)),
        "weights": use or run.recipe.ema.use,
        "recipe": run.recipe.hash,
        "machine": describe(torch.device(device)),
    }


def facts_of_split(
    run: Run, use: str | None, data: Dataset, notes: Sequence[str], device: torch.device | str
) -> dict[str, Any]:
    """Return the provenance of what a run's model says of real images, none being made.

    Arguments:
        run: The run.
        use: Name of an average of the weights; None for the recipe's choice.
        data: The images.
        notes: Flags of what is measured.
        device: Where it was computed.
    """
    return facts_of_run(run, use, device) | {"reference": reference_of(data).content_hash, "flags": list(notes)}


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        run: Directory of the run.
        recipe: Name of its recipe.
        scores: One per metric, each with its floor.
        provenance: What made them: weights, sampler, NFE, seeds, machine, seconds.
        path: The JSON file that holds all this.
        tables: Rows of each table, by its name.
        curves: Numbers of curves by name.
        panels: What the pictures show, by name; the command line draws them.
        refused: Why a metric could not be computed, by its name; the others stand.
    """

    run: Path
    recipe: str
    scores: tuple[Score, ...]
    provenance: dict[str, Any]
    path: Path
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    panels: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; panels are pictures and stay out."""
        return {
            "run": self.run.name,
            "recipe": self.recipe,
            "scores": [score.to_json() for score in self.scores],
            "provenance": self.provenance,
            **{key: value for key in ("tables", "curves", "refused") if (value := getattr(self, key))},
        }

    @classmethod
    def written(
        cls, run: Run, scores: tuple[Score, ...], provenance: dict[str, Any], name: str, **found: Any
    ) -> Result:
        """Return a result after writing it to RUN/results/.

        Arguments:
            run: The run.
            scores: One per metric.
            provenance: What made them.
            name: How the file's name begins.
            found: Further fields.
        """
        decides = [[score.protocol.to_json() for score in scores], provenance, sorted(found.get("tables", {}))]
        key = hashlib.sha256(canonical(decides).encode()).hexdigest()[:8]
        file = run.path / "results" / f"{name}-{key}.json"
        result = cls(run.path, run.recipe.name, scores, provenance, file, **found)
        tree = result.to_json()
        replace_json(result.path, tree, else_say=partial(in_lines, tree))
        return result


def in_lines(tree: Mapping[str, Any]) -> str:
    """Return a result's numbers as lines, for an error of writing it: every score, and every table row by row.

    Arguments:
        tree: The result as JSON values.
    """
    rows = [f"{name}: {json.dumps(row)}" for name, table in tree.get("tables", {}).items() for row in table]
    return "\n".join(
        ["What was found and not written:", *(str(Score.from_json(each)) for each in tree["scores"]), *rows]
    )
