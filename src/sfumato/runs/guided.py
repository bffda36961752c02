"""How a recipe's samples are guided: every form of guidance a recipe may ask for, composed in one order.

    D                     the model
    autoguidance          away from a weaker model, at the levels of `interval`
    classifier-free       towards the label, by a weight that may depend on class and level, at the levels of `interval`
    threshold             x0 kept in range, plainly or dynamically
    classifier            along the gradient of a noisy classifier: ADM's algorithm 1 where the sampler takes a shift,
                          else algorithm 2

Each is a denoiser around the one before it, so any subset composes. A weight of 1, no weak model, no threshold and no
classifier leave the denoiser as it is, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sfumato.core.classifier import NoisyClassifier
from sfumato.core.denoiser import Denoiser
from sfumato.core.find import find
from sfumato.guidance.cfg import weight_of
from sfumato.guidance.classifier import gradient
from sfumato.runs.assemble import asks, build_sampler, option
from sfumato.runs.recipe import Recipe, RecipeError, Sample

EVERYWHERE = (0.0, math.inf)


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
    numbers = [word for word in rest if word.isdigit()]
    names = [word for word in rest if word and not word.isdigit()]
    if len(numbers) > 1 or len(names) > 1 or len(numbers) + len(names) < len(rest) or not (folder or rest):
        raise RecipeError(
            f"{field} reads RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE, and @... for a checkpoint or "
            f"average of the run itself; got {text!r}."
        )
    return Weak(folder, int(numbers[0]) if numbers else None, names[0] if names else None)


def guide(
    recipe: Recipe, denoiser: Denoiser, *, weak: Denoiser | None = None, logits: NoisyClassifier | None = None
) -> tuple[Denoiser, Callable[..., Any]]:
    """Return a denoiser guided as its recipe says, and the sampler to walk with.

    Arguments:
        recipe: Resolved, and checked by `runs.check`.
        denoiser: The model.
        weak: What `sample.autoguidance` names; None for none.
        logits: What `sample.classifier` names; None for none.
    """
    sample, sampler = recipe.sample, build_sampler(recipe)
    interval = sample.interval or EVERYWHERE
    if weak is not None:
        stronger = find("guidance", "autoguidance")(denoiser, weak, sample.autoguidance_weight)
        denoiser = find("guidance", "interval")(stronger, denoiser, *interval) if sample.interval else stronger
    if sample.by_weight:
        weight = weight_of(sample.guidance, sample.guidance_by_class, sample.guidance_ramp)
        denoiser = find("guidance", "cfg")(denoiser, weight, interval)
    if sample.threshold != "none":
        quantile = sample.threshold_quantile if sample.threshold == "dynamic" else None
        denoiser = find("guidance", "threshold")(denoiser, 1.0, quantile)
    return (denoiser, sampler) if logits is None else _by_classifier(recipe, denoiser, logits)


def _by_classifier(recipe: Recipe, denoiser: Denoiser, logits: NoisyClassifier) -> tuple[Denoiser, Callable[..., Any]]:
    """Return denoiser and sampler guided by a classifier: ADM's algorithm 1 where the sampler shifts, else 2.

    Algorithm 2 adds to an x0 that is clipped already and not clipped again.
    """
    sample = recipe.sample
    if not recipe.data.labels:
        denoiser = _unlabelled(denoiser)
    if asks(sample.sampler, "shift"):
        return denoiser, build_sampler(recipe, shift=gradient(logits, sample.classifier_scale))
    if clip := option(sample.sampler, "clip"):
        denoiser = find("guidance", "threshold")(denoiser, float(clip))
        unclipped = replace(sample, sampler=sample.sampler.with_options(clip=False))
        recipe = replace(recipe, sample=unclipped)
    return find("guidance", "classifier")(denoiser, logits, sample.classifier_scale), build_sampler(recipe)


def _unlabelled(denoiser: Denoiser) -> Denoiser:
    """Return a denoiser that never hears of labels, for a classifier to tell an unlabelled model of them."""
    return lambda x, level, label=None: denoiser(x, level, None)


def words(sample: Sample) -> str:
    """Say in words how samples are guided; "" if they are not.

    >>> words(Sample(guidance=2.0, interval=(0.2, 5.0), threshold="dynamic"))
    'guidance 2 at nsr 0.2..5, dynamic threshold 0.995'
    """
    parts = []
    ramp = "" if sample.guidance_ramp == "constant" else f" on a {sample.guidance_ramp} ramp"
    if sample.guidance_by_class:
        parts.append("guidance by class " + ",".join(f"{w:g}" for w in sample.guidance_by_class) + ramp)
    elif sample.guidance != 1:
        parts.append(f"guidance {sample.guidance:g}{ramp}")
    if sample.autoguidance is not None:
        where = weak_of(sample.autoguidance)
        named = "@".join(str(v) for v in (Path(where.folder).name, where.step, where.use) if v is not None)
        parts.append(f"autoguidance {sample.autoguidance_weight:g} by {named}")
    if sample.interval is not None:
        parts[-1:] = [f"{''.join(parts[-1:])} at nsr {sample.interval[0]:g}..{sample.interval[1]:g}"]
    if sample.threshold != "none":
        parts.append(
            "static threshold" if sample.threshold == "static" else f"dynamic threshold {sample.threshold_quantile:g}"
        )
    if sample.classifier is not None:
        parts.append(f"classifier {sample.classifier_scale:g} by {Path(sample.classifier).name}")
    return ", ".join(parts)
