"""Study: every method family on the same data, with the same network, images seen and evaluation.

A family is a choice of schedule, target, draw, weight, variance and sampler. The rows are found, not listed: every
recipe on the digits that trains a denoiser with the network of `edm-digits` is one, so a new family joins by standing
among the recipes. Each is sampled as its own recipe says, which is part of the family; the calls that takes are in
the table. Data, network, optimiser and budget are those of `edm` at the study's scale, for every row: what is measured
is how families compare when everything else is equal and small.
"""

from __future__ import annotations

import json
from dataclasses import replace

from sfumato.core.find import entries
from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Row, Study, at
from sfumato.recipes.digits import edm_digits
from sfumato.runs.kinds import kind_of
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import small_edm

SIZES = {"tiny": (200, (0,)), "cpu": (1200, (0,))}  # images judged, training seeds
IMAGES = 60_000  # seen in training at cpu scale


def rivals() -> dict[str, Recipe]:
    """Return the recipes that share data and network with `edm-digits`, by name."""
    ours = edm_digits()
    made = {name: entry() for name, entry in entries("recipe").items() if name.endswith("-digits")}
    return {
        name: recipe
        for name, recipe in made.items()
        if kind_of(recipe).walks
        and recipe.train.start is None  # what was trained before would count as well
        and (recipe.data, recipe.network) == (ours.data, ours.network)
    }


def equal(recipe: Recipe, shared: Recipe) -> Recipe:
    """Return a family's recipe with the data, network, training and evaluation of another recipe.

    Arguments:
        recipe: Recipe of the family.
        shared: Recipe of what is held equal.
    """
    made = {"data": shared.data, "network": shared.network, "train": shared.train, "ema": shared.ema}
    name = recipe.name.replace("digits", shared.name.split("-", 1)[1])
    return replace(recipe, **made, evaluate=shared.evaluate, name=name)  # type: ignore[arg-type]


def resampled(first: Row, other: Row) -> Row | None:
    """Return the other row as a second way to sample the run of the first; None if it trains something else.

    Arguments:
        first: Row with a run of its own.
        other: Row whose recipe may differ from the first's in name and sampler only.
    """
    sampler = other.recipe.sample.sampler
    options = (f"sample.sampler.{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in sampler.options.items())
    settings = (f"sample.sampler={sampler.name}", *options)
    if replace(override(first.recipe, settings), name=other.recipe.name) != other.recipe:
        return None
    return replace(first, name=other.name, settings=settings, run=first.trained)


def families(scale: str) -> Study:
    """Compare all method families on equal data, network, images seen and evaluation, best first.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    n, seeds = at(scale, SIZES)
    shared = small_edm(scale) if scale == "tiny" else override(small_edm(scale), [f"train.images={IMAGES}"])
    rows: list[Row] = []
    for name, recipe in rivals().items():
        own = Row(name.removesuffix("-digits"), equal(recipe, shared))
        rows.append(next((again for row in rows if (again := resampled(row, own))), own))
    return Study(
        name="families",
        scale=scale,
        question="Which family learns best when data, network, images seen and evaluation are equal?",
        varies="schedule, target, draw of levels, weight, learned variance, sampler and grid: what makes a family",
        equal="data, the network (a learned variance has a second head), optimiser, rate, batch, "
        f"{rows[0].recipe.train.images:,} images seen, the average of the weights, extractor and n",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        ranked=True,
        pictures=sheets,
    )
