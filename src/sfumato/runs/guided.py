"""How a recipe's samples are guided: every form of guidance a recipe may ask for, composed in one order.

    D                     the model
    autoguidance          away from a weaker model, at the levels of `interval`
    classifier-free       towards the label, by a weight that may depend on class and level, at the levels of `interval`
    others                named in `sample.guides`, one after the other
    threshold             x0 kept in range, plainly or dynamically
    classifier            along the gradient of a noisy classifier: ADM's algorithm 1 where the sampler takes a shift,
                          else algorithm 2

Each is a denoiser around the one before it, so any subset composes. A weight of 1, no weak model, no threshold and no
classifier leave the denoiser as it is, bit for bit.

A new form is one file of `guidance/`, or a function from elsewhere. It asks for what it needs by the names of its
parameters, weak (`sample.autoguidance`), logits (`sample.classifier`), interval (`sample.interval`), outside (the
model before any guidance) and both (whether the sampler needs both estimates, as CFG++ does), and its file may hold a
function `check` that refuses models (`guidance._facts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from sfumato.core.classifier import NoisyClassifier
from sfumato.core.denoiser import Blank, Denoiser
from sfumato.core.find import find
from sfumato.runs.part import asks, constant, option
from sfumato.runs.plan import Plan, bound_sampler
from sfumato.runs.recipe import Part, RecipeError, Sample
from sfumato.sources import Diffusion


class Weak(NamedTuple):
    """Where a weak model is found: a run's folder ("" for the run itself), a checkpoint's step, an average's name."""

    folder: str
    step: int | None
    use: str | None


def weak_of(text: str, field: str = "sample.autoguidance") -> Weak:
    """Read where a weak model is found.

    Arguments:
        text: RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE; without RUN, the run that is guided.
        field: Of the recipe that says so, for the message.

    Raises:
        RecipeError: If it does not read so.

    >>> weak_of("runs/small"), weak_of("@200@raw").step, weak_of("@power-0.15").use
    (Weak(folder='runs/small', step=None, use=None), 200, 'power-0.15')
    """
    folder, *rest = text.split("@")
    numbers = [word for word in rest if word.isdecimal()]
    names = [word for word in rest if word and not word.isdecimal()]
    if len(numbers) > 1 or len(names) > 1 or len(numbers) + len(names) < len(rest) or not (folder or rest):
        raise RecipeError(
            f"{field} reads RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE, and @... for a checkpoint or "
            f"average of the run itself; got {text!r}."
        )
    return Weak(folder, int(numbers[0]) if numbers else None, names[0] if names else None)


def own_average(sample: Sample) -> str | None:
    """Return the average of the run itself, of no certain step, that is its weak model; None if that is another."""
    where = None if sample.autoguidance is None else weak_of(sample.autoguidance)
    return where.use if where is not None and not where.folder and where.step is None else None


def guidance_of(sample: Sample) -> list[Part]:
    """Return every form of guidance that a recipe asks for, in the order in which they are applied.

    The short fields (`guidance`, `autoguidance`, `threshold`, `classifier`) stand for a part each. A part named in
    `guides` takes its place there and the options of the short fields that it does not set itself.

    >>> both = Sample(guidance=2.0, threshold="static", guides=(Part("guidance", "cfg"),))
    >>> [str(form) for form in guidance_of(both)]
    ['cfg(w=2)', 'threshold']
    """
    short, own = _short(sample), list(sample.guides)
    for i, form in enumerate(own):
        if form.name in short:
            own[i] = replace(form, options={**short.pop(form.name).options, **form.options})
    if any(asks(form, "weak") for form in own):
        short.pop("autoguidance", None)
    if any(asks(form, "logits") for form in own):
        short.pop("classifier", None)
    first = [short.pop(name) for name in ("autoguidance", "cfg") if name in short]
    return [*first, *own, *short.values()]


def _short(sample: Sample) -> dict[str, Part]:
    """Return the parts that the short fields stand for, by name."""
    options: dict[str, dict[str, Any]] = {}
    if sample.autoguidance is not None:
        options["autoguidance"] = {"w": sample.autoguidance_weight}
    if sample.by_weight:
        options["cfg"] = {"w": sample.guidance}
        options["cfg"] |= {"each_class": sample.guidance_by_class} if sample.guidance_by_class else {}
        options["cfg"] |= {"over_levels": sample.guidance_ramp} if sample.guidance_ramp != "constant" else {}
    if sample.threshold != "none":
        options["threshold"] = {"quantile": sample.threshold_quantile} if sample.threshold == "dynamic" else {}
    if sample.classifier is not None:
        options["classifier"] = {"scale": sample.classifier_scale}
    return {name: Part("guidance", name, given) for name, given in options.items()}


def guide(
    plan: Plan, denoiser: Denoiser, *, weak: Denoiser | None = None, logits: NoisyClassifier | None = None
) -> tuple[Denoiser, Callable[..., Any]]:
    """Return a denoiser guided as its recipe says, and the sampler to walk with.

    A form that has a shift (`SHIFT` of its file) gives it to a sampler that takes one: ADM's algorithm 1. It adds to x0
    otherwise, which must be clipped before and not after: algorithm 2.

    Arguments:
        plan: Of the recipe, checked by `runs.check`.
        denoiser: The model.
        weak: What `sample.autoguidance` names; None for none.
        logits: What `sample.classifier` names; None for none.
    """
    sample, sampler, bound = plan.recipe.sample, plan.recipe.sample.sampler, plan.bound
    offered: dict[str, Any] = {"weak": weak, "logits": logits, "outside": denoiser}
    offered |= {"interval": sample.interval} if sample.interval else {}
    offered |= {"both": True} if option(sampler, "cfgpp") else {}
    for form in guidance_of(sample):
        options = form.checked()
        if asks(form, "logits") and not plan.recipe.data.labels:
            denoiser = _unlabelled(denoiser)
        shift = constant(form, "SHIFT")
        if shift is not None and asks(sampler, "shift"):
            bound["shift"] = shift(logits, **options)
            continue
        if shift is not None and (clip := option(sampler, "clip")):
            denoiser = find("guidance", "threshold")(denoiser, float(clip))
            sampler = sampler.with_options(clip=False)
        asked = {name: value for name, value in offered.items() if asks(form, name)}
        denoiser = form.entry()(denoiser, **asked, **options)
    return denoiser, bound_sampler(sampler, **bound)


def sampling_cost(plan: Plan) -> tuple[int, int]:
    """Return the steps of the grid and the network calls of an image, by walking the grid once on one pixel.

    Arguments:
        plan: With its shape. A model that makes an image in one pass has one step and one call.
    """
    if not plan.kind.walks:
        return 1, 1
    blank = Blank(plan.variance)
    denoiser, sampler = guide(plan, blank, weak=None if plan.recipe.sample.autoguidance is None else blank)
    source = Diffusion(denoiser, sampler, plan.grid, (plan.channels, 1, 1), classes=plan.classes)
    for _ in source.states([0], torch.zeros(1, dtype=torch.int64) if plan.classes else None):
        pass
    return len(plan.grid) - 1, len(blank.levels)


def _unlabelled(denoiser: Denoiser) -> Denoiser:
    """Return a denoiser that never hears of labels, for a classifier to tell an unlabelled model of them."""
    return lambda x, level, label=None: denoiser(x, level, None)
