"""safetensors: an ordinary run that holds one average of the weights and the scores, and nothing else.

Optimiser state, other averages and sample sheets stay behind. What is written is opened, sampled and evaluated as any
run, and is what `sfumato export --push` puts on the Hub.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from sfumato.core.writing import replace_json
from sfumato.interop.card import card
from sfumato.runs import checkpoint
from sfumato.runs.labelled import keep
from sfumato.runs.recipe import Ema
from sfumato.runs.run import Run


def safetensors(run: Run, folder: Path, use: str | None = None) -> list[str]:
    """A run directory with one average of the weights, its recipe and its scores.

    Arguments:
        run: The run to write.
        folder: An empty folder to write into.
        use: Average of the weights to write; None for the recipe's choice.

    Returns:
        What was written, in lines to print.
    """
    weights = dict(run.network(use).state_dict())
    recipe = replace(run.recipe, ema=Ema(power=(), half_life=(), use="raw"))
    saved = {**run.checkpoint.state, **run.taken(use)[0].state}
    facts = {k: saved[k] for k in ("seen", "step", "elapsed", "skipped")}
    about = {**run.about, "exported": {"average": use or run.recipe.ema.use}}
    checkpoint.save(
        folder / "checkpoints",
        facts["step"],
        {"network": weights},
        {**facts, "recipe": recipe.to_json()},
        fingerprint=saved.get("belongs"),
    )
    keep(recipe, folder)
    replace_json(folder / "recipe.json", {**about, "recipe": recipe.to_json()})
    for file in sorted((run.path / "results").glob("*.json")):
        (folder / "results").mkdir(exist_ok=True)
        shutil.copyfile(file, folder / "results" / file.name)
    (folder / "README.md").write_text(card(run, use))
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return [f"{size / 2**20:.1f} MiB, a run: sfumato sample {folder}, or sfumato.load({json.dumps(str(folder))})"]
