"""``sfumato train``: from a recipe to a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, Number, Overrides, device_named, find_recipe, given, refusal

if TYPE_CHECKING:
    from sfumato.runs.recipe import Recipe

MOST_EPOCHS = 1_000_000_000


def train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE")],
    overrides: Overrides = (),
    *,
    out: Folder = None,
    minutes: Number = None,
    epochs: Number = None,
    device: Name = None,
    data_root: Folder = None,
    allow: Annotated[tuple[str, ...], arg(metavar="FIELD ...", help_behavior_hint="")] = (),
    quiet: bool = False,
) -> int:
    """Train a recipe into a run directory, or go on with what is there.

    Any field of the recipe can be set by its dotted path, as field=value or --field value:

        sfumato train edm-digits train.batch=128 --sample.sampler heun --sample.sampler.churn 40

    Ctrl-C or SIGTERM saves and leaves; the same command goes on where it was.

    Arguments:
        recipe: Name of a recipe (`sfumato list recipes`), or a .json file of `sfumato search`.
        overrides: Fields to set; see `sfumato explain RECIPE` for all of them with their types.
        out: The run's directory; runs/RECIPE unless given, of a file its name.
        minutes: Train for this long instead of a number of images, sheets and scores included; short for
            train.minutes.
        epochs: Train for so many passes through the training images; sets train.images. train.epochs=3 says the same.
        device: cpu, cuda, cuda:1, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        allow: Fields that may differ from the interrupted run's, e.g. train.images.
        quiet: Print nothing but errors.
    """
    from sfumato.cli._next import sampling, scoring, show_next

    began = time.monotonic()
    folder = out or f"runs/{Path(recipe).stem if recipe.endswith('.json') else recipe}"
    if not quiet:
        print(f"sfumato train {recipe} -> {folder}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.core.find import assigned, find
    from sfumato.training import loop

    passes = [text for text in overrides if text.startswith("train.epochs=")]
    fields = [text for text in overrides if text not in passes]
    chosen = find_recipe(recipe, [*fields, *given(train__minutes=minutes)])
    if budget := assigned([*passes, *given(train__epochs=epochs)]):
        if sized := [text for text in fields if text.startswith("train.images=")]:
            raise refusal(f"Epochs and images are two budgets, and {sized[0]} stands beside epochs. Give one of them.")
        chosen = _for_epochs(chosen, budget["train.epochs"], data_root)
    find("extractor", chosen.evaluate.extractor)  # named wrongly, better now than after training
    where = device_named(device)
    run = loop.train(chosen, folder, root=data_root, device=where, allow=allow, quiet=quiet, began=began)
    if not quiet:
        print(f"{run.path}: done.")
        show_next(*sampling(run), scoring(run, data_root))
    return 0


def _for_epochs(recipe: Recipe, epochs: str, data_root: str | None) -> Recipe:
    """Return the recipe with a budget of so many passes through its training images.

    Raises:
        OptionError: If it is no positive number, or the budget is in minutes.
    """
    from sfumato.runs.override import override
    from sfumato.runs.resolve import training_data

    try:
        count = float(epochs)
    except ValueError:
        count = -1.0
    if not 0 < count <= MOST_EPOCHS:  # NaN neither
        raise refusal(
            f"train.epochs is a number of passes through the training images, above 0 and at most {MOST_EPOCHS:,}; "
            f"got {epochs:.40}."
        )
    if recipe.train.minutes is not None:
        raise refusal("Epochs and minutes are two budgets. Give one of them.")
    images = max(1, round(count * len(training_data(recipe, data_root))))
    return override(recipe, [f"train.images={images}"])
