"""What the commands do, as functions: `train`, `search`, `evaluate`, `fd`, `list_parts`, for `import sfumato as sf`.

    model = sf.train("edm-digits", "runs/digits", ["train.images=60_000"])
    sf.evaluate(model, n=1000)
    sf.fd("generated/", "digits@test")

They call the same engine as the commands, so a run trained here can be sampled there, and a score is the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.find import entries, several
from sfumato.core.writing import replace_json
from sfumato.evaluation import Result
from sfumato.evaluation.two_sets import Found, compare_sets, open_set
from sfumato.experiments.search import Search, Trial, carry_out, importances, recipe_of
from sfumato.experiments.search_space import space_of
from sfumato.model import Model, load
from sfumato.processes.machine import device_named
from sfumato.report.save import save
from sfumato.report.search import search_figure
from sfumato.runs.override import override, recipe_named, with_warnings
from sfumato.runs.recipe import Recipe
from sfumato.training import loop


def train(
    recipe: Recipe | str,
    out: Path | str | None = None,
    fields: str | Sequence[str] = (),
    *,
    device: str | None = None,
    root: Path | str | None = None,
    allow: str | Sequence[str] = (),
    quiet: bool = False,
) -> Model:
    """Train a recipe, or go on with what its directory holds, and return the trained model.

    Arguments:
        recipe: A recipe, the name of one (`sfumato list recipes`), or a .json file that `search` wrote.
        out: Directory of the run; runs/NAME unless given.
        fields: Field of the recipe to set, or several, as on the command line: "train.images=60_000".
        device: "cpu", "cuda", "mps", ...; the best available one unless given.
        root: Folder of the datasets; $SFUMATO_DATA or the cache unless given.
        allow: Field that may differ from that of an interrupted run, or several, e.g. "train.images".
        quiet: Show neither progress nor messages.

    Raises:
        UnknownNameError: If there is no recipe of that name.
        RecipeError: If a field does not exist, or parts of the recipe cannot work together.
        Diverged: If training is not finite and going back did not help.
        Interrupted: After a signal, with everything saved.
    """
    chosen: Recipe = override(
        recipe_named(recipe) if isinstance(recipe, str) else recipe, with_warnings(several(fields))
    )
    folder = Path("runs") / chosen.name if out is None else Path(out)
    where = device_named(device)
    run = loop.train(chosen, folder, root=root, device=where, allow=several(allow), quiet=quiet)
    return Model(run, device=where)


def evaluate(
    model: Model | Path | str,
    *,
    n: int | None = None,
    m: int | None = None,
    metrics: str | Sequence[str] = ("fd", "kid"),
    split: str = "test",
    extract: str | None = None,
    root: Path | str | None = None,
    quiet: bool = False,
) -> Result:
    """Score a model against real images, each score with its interval, floor and protocol.

    Arguments:
        model: A model, the directory of a run, or OWNER/NAME on the Hugging Face Hub.
        n: Number of generated images; the recipe's choice unless given.
        m: Number of real images; all of the split unless given.
        metrics: Name of a metric, or several.
        split: The real images: "test", "val" or "train".
        extract: Feature extractor; the recipe's choice unless given.
        root: Folder of the datasets; $SFUMATO_DATA or the cache unless given.
        quiet: Show no progress.

    Raises:
        LeakageError: If the split is called held out and the model was trained on some of it.
        ValueError: If n or m is too small for a metric.
    """
    opened = model if isinstance(model, Model) else load(model)
    return opened.evaluate(n, metrics, m=m, split=split, extract=extract, root=root, quiet=quiet)


def fd(
    a: Path | str,
    b: Path | str,
    *,
    metrics: str | Sequence[str] = ("fd", "kid"),
    extract: str | None = None,
    options: Mapping[str, Any] | None = None,
    root: Path | str | None = None,
    quiet: bool = True,
) -> Found:
    """Judge images A (generated) against images B (reference): the Frechet distance and others.

    Arguments:
        a: A folder or .zip of images, an .npy or .npz file of images or features, or a dataset: "digits@test".
        b: The same, or a statistics file.
        metrics: Name of a distance between two sets, or several.
        extract: Feature extractor of images; "random" unless given, "inception" for FID.
        options: The extractor's own, such as weights of "inception".
        root: Folder of the datasets; $SFUMATO_DATA or the cache unless given.
        quiet: Show no progress.

    Raises:
        DataError: If a set does not exist, is damaged, or holds too few images.
        SelfComparisonError: If more than 1% of A's images are in B.
    """
    sets = open_set(str(a), root), open_set(str(b), root)
    return compare_sets(*sets, extract=extract, options=options, metrics=several(metrics), quiet=quiet)


def list_parts(axis: str) -> list[str]:
    """Return the names of the parts of an axis, such as "samplers", "recipes" or "core.target"."""
    return list(entries(axis))


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        search: What was searched.
        trials: All trials, in order.
        recipe: The best recipe, which says that it was chosen.
        importances: Share of each field in what tells good trials from all.
        file: The recipe's file, as `train` takes it.
    """

    search: Search
    trials: list[Trial]
    recipe: Recipe
    importances: dict[str, float]
    file: Path

    def draw(self, command: str = "") -> Path:
        """Draw every trial's score against each field beside the recipe's file; return the figure's path."""
        shown = [trial for trial in self.trials if trial.scores]
        points = {
            d.field: [(trial.values[d.field], trial.last, trial.end == "done") for trial in shown]
            for d in self.search.space
        }
        assert self.recipe.chosen is not None
        log, by = [d.field for d in self.search.space if d.log], self.recipe.chosen.by
        caption = (
            f"{len(self.trials)} trials of {self.search.recipe.name}, {by} against {self.search.split} images, "
            f"n = {self.search.n}; hollow: stopped before the end; in brackets: a field's share in what tells the best."
        )
        figure = search_figure(points, self.importances, log, by, caption)
        return save(figure, self.file.with_name("search.png"), command=command)


def search(
    recipe: Recipe | str,
    fields: str | Sequence[str],
    out: Path | str | None = None,
    *,
    trials: int = 30,
    minutes: float | None = None,
    metric: str = "fd",
    n: int | None = None,
    split: str = "train",
    seed: int = 0,
    device: str | None = None,
    root: Path | str | None = None,
    told: Callable[[int, Trial], None] = lambda number, trial: None,
) -> Searched:
    """Search fields of a recipe by many short trainings, or go on with a search, and return what was found.

    Arguments:
        recipe: A recipe or the name of one; its budget is that of a trial.
        fields: Field with a range, a list or one value, or several: "train.optimizer.lr=1e-3..1e-1",
            "train.images=5000".
        out: Directory of the search; runs/search/NAME unless given.
        trials: Number of trials in all, those of before counted.
        minutes: Minutes after which no trial begins; None for no limit.
        metric: Name of the score.
        n: Generated images of a score; the recipe's `evaluate.quick` unless given.
        split: Real images that judge: "train", or "val" of a recipe with data.val.
        seed: Seed of the proposals.
        device: "cpu", "cuda", "mps", ...; the best available one unless given.
        root: Folder of the datasets; $SFUMATO_DATA or the cache unless given.
        told: Called with the number of every trial that ends, and the trial.

    Raises:
        OptionError, RecipeError: If a field cannot be searched, the directory holds another search, or no trial was
            trained to the end.
    """
    begun = recipe_named(recipe) if isinstance(recipe, str) else recipe
    shared, space = space_of(begun, several(fields))
    asked = Search(
        shared, tuple(space), metric, shared.evaluate.quick if n is None else n, split, seed, root, device_named(device)
    )
    folder = Path("runs/search") / begun.name if out is None else Path(out)
    done = carry_out(asked, folder, trials, minutes, told)
    best = recipe_of(asked, done)
    file = folder / f"{best.name}.json"
    replace_json(file, best.to_json())
    return Searched(asked, done, best, importances(asked, done), file)
