"""A model card: what a run is, how it scored under which protocol, and how to use it.

A score travels with everything that makes it comparable: its interval, its floor, n, the reference and the protocol's
hash. A card never states a score without them, and says so where there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato.report.results import read_results, score_rows
from sfumato.report.table import markdown_table
from sfumato.runs.run import Run

FIELDS = (
    "schedule", "target", "network", "c_in", "c_noise", "variance", "draw", "weighting", "objective", "sigma_data"
)  # fmt: skip


def card(run: Run, use: str | None = None, repo: str = "THIS_REPOSITORY") -> str:
    """Return the README.md of a run in the Hub's format.

    Arguments:
        run: The run to describe.
        use: Average of the weights that goes with the run; None for the recipe's choice.
        repo: OWNER/NAME of the repository, for the example of use.
    """
    recipe, shape = run.recipe, run.recipe.shape
    assert shape is not None
    kinds = f"{len(shape.classes)} classes" if shape.classes else "unlabelled"
    tag = "class-conditional" if shape.classes else "unconditional-image-generation"
    lines = [
        "---",
        "library_name: sfumato",
        f"tags: [diffusion, {tag}]",
        *([f"datasets: [{recipe.data.name}]"] if ":" not in recipe.data.name else []),
        "---",
        f"# {recipe.name}",
        "",
        f"Images of {shape.channels}x{shape.height}x{shape.width}, {kinds}. Weights: `{use or recipe.ema.use}`, after "
        f"{run.checkpoint.state['seen']:,} training images of `{recipe.data.name}`.",
        "",
    ]
    origin = run.about.get("imported")
    if origin:
        lines += [f"Imported from `{origin['file']}` ({origin['family']}, sha256 {origin['sha256'][:16]}).", ""]
    lines += ["## Use", "```python", "import sfumato", f'model = sfumato.load("{repo}")', "model.sample(8)", "```", ""]
    lines += ["## Place in the design space", markdown_table(_parts(recipe)), ""]
    lines += ["## Scores", *_scores(run.path), ""]
    return "\n".join(lines)


def _parts(recipe: Any) -> list[dict[str, Any]]:
    rows = [{"axis": name, "choice": str(getattr(recipe, name))} for name in FIELDS]
    rows += [{"axis": name, "choice": str(getattr(recipe.sample, name))} for name in ("sampler", "grid", "guidance")]
    return rows


def _scores(path: Path) -> list[str]:
    if not any((path / "results").glob("*.json")):
        return ["None was measured. `sfumato evaluate` measures one with its floor, interval and protocol."]
    rows = score_rows(read_results([path]))
    shown = [{k: v for k, v in row.items() if v not in (None, "")} for row in rows]
    return [
        markdown_table(shown),
        "",
        "The interval is the sampling noise of the images; the floor is what as many real images score. Compare only "
        "scores of one protocol.",
    ]
