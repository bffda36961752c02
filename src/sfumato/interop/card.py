"""A model card: what a run is, how it scored under which protocol, and how to use it.

A score travels with everything that makes it comparable: its interval, its floor, n, the reference and the protocol's
hash. A card never states a score without them, and says so where there is none.
"""

from __future__ import annotations

from pathlib import Path

from sfumato.report.results import FLAGS_APART, read_results, score_rows
from sfumato.report.table import markdown_table
from sfumato.runs.identity import identity
from sfumato.runs.making import Making
from sfumato.runs.recipe import Recipe
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
    recipe, shape = run.recipe, run.plan.shape
    made = run.making(use)
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
        f"Images of {shape.channels}x{shape.height}x{shape.width}, {kinds}, like those of `{recipe.data.name}`.",
        f"{'Made by' if made.sampler else 'Learned from'} {made.sentence}",
        "",
    ]
    known = identity(run, use)
    helped = "".join(f"; {name} {guide['weights'][:16]}" for name, guide in known["guides"].items())
    lines += [f"Weights: sha256 of the tensors {known['weights'][:16]}{helped}.", ""]
    origin = run.about.get("imported")
    if origin:
        lines += [f"Imported from `{origin['file']}` ({origin['family']}, sha256 {origin['sha256'][:16]}).", ""]
    lines += ["## Use", "```python", "import sfumato", f'model = sfumato.load("{repo}")', "model.sample(8)", "```", ""]
    lines += ["## Place in the design space", markdown_table(_parts(recipe, made)), ""]
    lines += ["## Scores", *_scores(run.path), ""]
    return "\n".join(lines)


def _parts(recipe: Recipe, made: Making) -> list[dict[str, str]]:
    choices = {name: str(getattr(recipe, name)) for name in FIELDS} | made.pairs()
    return [{"axis": name, "choice": choice} for name, choice in choices.items()]


def _scores(path: Path) -> list[str]:
    if not any((path / "results").glob("*.json")):
        return ["None was measured. `sfumato evaluate` measures one with its floor, interval and protocol."]
    rows = score_rows(read_results([path]))
    rows = [{**row, "flags": str(row["flags"] or "").replace(FLAGS_APART, "; ")} for row in rows]
    shown = [{k: v for k, v in row.items() if v not in (None, "")} for row in rows]
    return [
        markdown_table(shown),
        "",
        "The interval is the sampling noise of the images; the floor is what as many real images score. Compare only "
        "scores of one protocol.",
    ]
