"""``sfumato train``: from a recipe to a run."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, Number, Overrides, device_named, find_recipe, given


def train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE")],
    overrides: Overrides = (),
    *,
    out: Folder = None,
    minutes: Number = None,
    device: Name = None,
    data_root: Folder = None,
    allow: Annotated[tuple[str, ...], arg(metavar="FIELD ...")] = (),
    quiet: bool = False,
) -> int:
    """Train a recipe into a run directory, or go on with what is there.

    Any field of the recipe can be set by its dotted path, as field=value or --field value:

        sfumato train edm-digits train.batch=128 --sample.sampler heun --sample.sampler.churn 40

    Ctrl-C or SIGTERM saves and leaves; the same command goes on where it was.

    Arguments:
        recipe: Name of a recipe; see `sfumato list recipes`.
        overrides: Fields to set; see `sfumato explain RECIPE` for all of them with their types.
        out: The run's directory; runs/RECIPE unless given.
        minutes: Train for this long instead of a number of images; short for train.minutes.
        device: cpu, cuda, cuda:1, mps, ...; the best at hand unless given.
        data_root: One folder a dataset; the variable SFUMATO_DATA or the cache unless given.
        allow: Fields that may differ from the interrupted run's, e.g. train.images.
        quiet: Print nothing but errors.
    """
    folder = out or f"runs/{recipe}"
    if not quiet:
        print(f"sfumato train {recipe} -> {folder}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.core.find import find
    from sfumato.training import loop

    chosen = find_recipe(recipe, [*overrides, *given(train__minutes=minutes)])
    find("extractor", chosen.evaluate.extractor)  # named wrongly, better now than after training
    where = device_named(device)
    run = loop.train(chosen, folder, root=data_root, device=where, allow=allow, quiet=quiet)
    if not quiet:
        print(f"{run.path}: done. Next: sfumato sample {run.path}, sfumato evaluate {run.path}")
    return 0
