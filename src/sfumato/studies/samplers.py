"""Study: one trained EDM run, sampled by every sampler at 5 to 50 network calls.

A sampler's grid is the longest that keeps within the budget of calls: methods that call twice a step take half the
steps. All walk Karras' levels. `adaptive` is left out, since it chooses its own steps and so meets no budget; the table
of errors on an exact mixture has it. Images of one seed start from the same noise with every sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sfumato.core.find import entries
from sfumato.experiments.pages import floor_of, score_name, series, words
from sfumato.experiments.study import Ordering, Outcome, Picture, Row, Study, StudyError, at
from sfumato.report.curves import against_nfe
from sfumato.runs.guided import sampling_cost
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, Shape
from sfumato.studies._bases import edm

SIZES = {"tiny": ((5, 12), 100), "cpu": ((5, 8, 12, 20, 50), 1000)}  # scale -> budgets of calls, images judged
LEFT_OUT = ("adaptive",)
MORE = {"heun, churn 20": ("heun", "sample.sampler.churn=20"), "ddim, eta 1": ("ddim", "sample.sampler.eta=1")}

GROUPS = {  # of a figure each, beside DDIM (which is Euler here); the rest remember earlier steps
    "one-step": ("ddim", "euler", "heun", "singlestep"),
    "stochastic": ("ddim", "ancestral", "dpmpp-sde", "predictor-corrector", *MORE),
}


def entrants() -> dict[str, tuple[str, ...]]:
    """Return the settings of every sampler with its defaults, and of a few with other options, by name."""
    plain = {name: (f"sample.sampler={name}",) for name in entries("sampler") if name not in LEFT_OUT}
    return plain | {name: (f"sample.sampler={sampler}", *options) for name, (sampler, *options) in MORE.items()}


def longest(recipe: Recipe, settings: Sequence[str], budget: int) -> tuple[str, ...]:
    """Return the settings with the longest grid that keeps within a budget of calls.

    Arguments:
        recipe: Recipe of the run.
        settings: Overrides that choose the sampler.
        budget: Network calls per image.

    Raises:
        StudyError: If even one step takes more.
    """
    known = replace(recipe, shape=recipe.shape or Shape(1, 8, 8, ("any",)))

    def with_steps(steps: int) -> tuple[str, ...]:
        return ("sample.grid=karras", f"sample.grid.steps={steps}", *settings)

    def calls(steps: int) -> int:
        return sampling_cost(plan(override(known, with_steps(steps))))[1]

    two, three = (calls(steps) for steps in (2, 3))
    most = 2 + (budget - two) // max(1, three - two)  # if every further step takes as many calls as the third
    for steps in range(most, 1, -1):
        if calls(steps) <= budget:
            return with_steps(steps)
    raise StudyError(f"{' '.join(settings)} has no grid of two steps within {budget} calls.")


def _rows(recipe: Recipe, budgets: Sequence[int]) -> Iterator[Row]:
    for name, settings in entrants().items():
        for budget in budgets:
            chosen = longest(recipe, settings, budget)
            yield Row(f"{name}, {budget} calls", recipe, chosen, run="edm", line=name)


def _lower(budget: int, low: str, high: str, source: str) -> Ordering:
    named = {"dpmpp": "DPM-Solver++", "heun": "Heun", "euler": "Euler"}
    claim = f"at {budget} calls, {named[low]} scores lower than {named[high]}"
    return Ordering(claim, (f"{low}, {budget} calls", f"{high}, {budget} calls"), source=source)


def samplers(scale: str) -> Study:
    """Sample one trained EDM run by every sampler at 5 to 50 calls: a curve and a table.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    budgets, n = at(scale, SIZES)
    few, many = budgets[0], budgets[-1]
    return Study(
        name="samplers",
        scale=scale,
        question="How few network calls does each sampler need?",
        varies="sampler, and the steps that its budget of calls allows",
        equal="one trained run, Karras' levels, starting noise of every image, n",
        by="NFE",
        rows=tuple(_rows(edm(scale), budgets)),
        n=n,
        orderings=(
            _lower(few, "dpmpp", "euler", "Lu et al. 2022"),
            _lower(few, "dpmpp", "heun", "Lu et al. 2022"),
            _lower(many, "heun", "euler", "Karras et al. 2022"),
            Ordering(
                f"DDIM improves with calls, {many} to {few}",
                tuple(f"ddim, {b} calls" for b in budgets[::-1]),
                source="Song et al. 2021",
            ),
        ),
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    lines = series(outcomes, "fd")
    known = [n for group in GROUPS.values() for n in group]
    groups = GROUPS | {"multistep": ("ddim", *(n for n in lines if n not in known))}
    name = score_name(outcomes, "fd")
    caption = words(study, outcomes)
    return {
        group: against_nfe(
            {n: lines[n] for n in members},
            score=name,
            floor=floor_of(outcomes, "fd"),
            title=f"{group.capitalize()} samplers",
            caption=caption,
        )
        for group, names in groups.items()
        if (members := [n for n in names if n in lines])
    }
