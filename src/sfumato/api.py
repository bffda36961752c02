"""What the commands do, as functions: `train`, `evaluate`, `fd` and `list_parts`, handed on by `import sfumato as sf`.

    model = sf.train("edm-digits", "runs/digits", ["train.images=60_000"])
    sf.evaluate(model, n=1000)
    sf.fd("generated/", "digits@test")

They call the same engine as the commands, so a run trained here can be sampled there, and a score is the same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.find import entries, find
from sfumato.evaluation import Result
from sfumato.evaluation.two_sets import Found, compare_sets, open_set
from sfumato.model import Model, load, on_device
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.training import loop


def train(
    recipe: Recipe | str,
    out: Path | str | None = None,
    fields: Sequence[str] = (),
    *,
    device: str | None = None,
    root: Path | str | None = None,
    allow: Sequence[str] = (),
    quiet: bool = False,
) -> Model:
    """Train a recipe, or go on with what its directory holds, and return the trained model.

    Arguments:
        recipe: A recipe, or the name of one (`sfumato list recipes`).
        out: Directory of the run; runs/NAME unless given.
        fields: Fields of the recipe to set, as on the command line: "train.images=60_000".
        device: "cpu", "cuda", "mps", ...; the best available one unless given.
        root: Folder of the datasets; $SFUMATO_DATA or the cache unless given.
        allow: Fields that may differ from those of an interrupted run, e.g. "train.images".
        quiet: Show neither progress nor messages.

    Raises:
        UnknownNameError: If there is no recipe of that name.
        RecipeError: If a field does not exist, or parts of the recipe cannot work together.
        Diverged: If training is not finite and going back did not help.
        Interrupted: After a signal, with everything saved.
    """
    chosen: Recipe = override(find("recipe", recipe)() if isinstance(recipe, str) else recipe, fields)
    folder = Path("runs") / chosen.name if out is None else Path(out)
    run = loop.train(chosen, folder, root=root, device=device, allow=tuple(allow), quiet=quiet)
    return Model(run, device=on_device(device))


def evaluate(
    model: Model | Path | str,
    *,
    n: int | None = None,
    m: int | None = None,
    metrics: Sequence[str] = ("fd", "kid"),
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
        metrics: Names of metrics.
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
    metrics: Sequence[str] = ("fd", "kid"),
    extract: str | None = None,
    options: Mapping[str, Any] | None = None,
    root: Path | str | None = None,
    quiet: bool = True,
) -> Found:
    """Judge images A (generated) against images B (reference): the Frechet distance and others.

    Arguments:
        a: A folder or .zip of images, an .npy or .npz file of images or features, or a dataset: "digits@test".
        b: The same, or a statistics file.
        metrics: Names of distances between two sets.
        extract: Feature extractor of images; "random" unless given, "inception" for FID.
        options: The extractor's own, such as weights of "inception".
        root: Folder of the datasets; $SFUMATO_DATA or the cache unless given.
        quiet: Show no progress.

    Raises:
        DataError: If a set does not exist, is damaged, or holds too few images.
        SelfComparisonError: If more than 1% of A's images are in B.
    """
    sets = open_set(str(a), root), open_set(str(b), root)
    return compare_sets(*sets, extract=extract, options=options, metrics=metrics, quiet=quiet)


def list_parts(axis: str) -> list[str]:
    """Return the names of the parts of an axis, such as "samplers", "recipes" or "core.target"."""
    return list(entries(axis))
