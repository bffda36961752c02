"""Check guidance: what a model is guided by must be something it has learned, at levels that its guides know.

weights       labels, and a model that has learned to do without them; one weight a class
interval      something to confine, and a level of the grid inside it
weak model    a run of a denoiser of the same images and classes, its checkpoint and average kept
classifier    a run of a classifier of the same images and classes
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sfumato.core.level import index_in
from sfumato.core.reading import read_json
from sfumato.guidance._facts import Facts
from sfumato.runs.checkpoint import steps
from sfumato.runs.guided import guidance_of, weak_of
from sfumato.runs.kinds import CLASSIFIER, DENOISER, kind_of
from sfumato.runs.part import asks, constant, explained, needs, option
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Part, Recipe, RecipeError, Shape


def check_guidance(plan: Plan) -> None:
    """Refuse guidance that the trained network does not allow.

    Arguments:
        plan: With its shape.

    Raises:
        RecipeError: Naming the rule, what was found, and what to set instead.
    """
    sample = plan.recipe.sample
    if sample.guidance_by_class and sample.guidance != 1:
        raise RecipeError(
            f"sample.guidance_by_class gives every class its own weight, so sample.guidance={sample.guidance:g} would "
            "not be used. Set sample.guidance=1, or leave out sample.guidance_by_class."
        )
    forms = guidance_of(sample)
    for i, form in enumerate(forms):
        _check_form(plan, form, tuple(other.name for other in forms[:i]))
    _check_renoising(plan, forms)
    if sample.guidance_ramp != "constant" and "cfg" not in [form.name for form in forms]:
        raise RecipeError(
            f"sample.guidance_ramp={sample.guidance_ramp} spreads guidance over noise levels, and "
            "sample.guidance=1 is none. Set sample.guidance, or sample.guidance_ramp=constant."
        )
    if sample.interval is not None:
        _check_interval(plan, sample.interval, any(asks(form, "interval") for form in forms))
    _check_guides(plan)


def _check_form(plan: Plan, form: Part, before: tuple[str, ...]) -> None:
    """Refuse a form of guidance that its own file refuses for this model, or that lacks what it asks for."""
    form.checked()
    refuse = constant(form, "check")
    if refuse is not None:
        with explained():
            beside = {part: share for part, share in plan.dropouts.items() if part != "label" and share is not None}
            dropout = option(plan.recipe.objective, "label_dropout")
            refuse(Facts(plan.classes, dropout, before, beside), form.options)
    for name, field in {"weak": "autoguidance", "logits": "classifier"}.items():
        if needs(form, name) and getattr(plan.recipe.sample, field) is None:
            raise RecipeError(f"guidance={form.name} needs another run to guide by. Set sample.{field}=RUN.")


def _check_renoising(plan: Plan, forms: list[Part]) -> None:
    """Refuse CFG++ (`cfgpp` of a sampler) without guidance by weight, or with a weight it was not made for."""
    if not option(plan.recipe.sample.sampler, "cfgpp"):
        return
    weights = [w for form in forms if asks(form, "both") for w in (option(form, "each_class") or (option(form, "w"),))]
    if not weights or not all(0 <= w <= 1 for w in weights):
        got = f"guidance {', '.join(f'{w:g}' for w in weights)}" if weights else "no guidance"
        raise RecipeError(
            f"sample.sampler.cfgpp=true (CFG++) interpolates between the estimates without and with the label, so "
            f"guidance weights lie in [0, 1]; got {got}. Set sample.guidance=0.6, for example."
        )


def _check_interval(plan: Plan, interval: tuple[float, float], confines: bool) -> None:
    low, high = interval
    if not confines:
        raise RecipeError(
            f"sample.interval={low:g},{high:g} limits guidance, and sample.guidance=1 is none. Set sample.guidance or "
            "sample.autoguidance, or sample.interval=none."
        )
    nsr = plan.grid.nsr[:-1]
    if not 0 <= low < high or not bool(((nsr >= low) & (nsr <= high)).any()):
        raise RecipeError(
            f"sample.interval={low:g},{high:g} must hold at least one level of the grid, which has sigma/alpha "
            f"from {float(nsr.min()):.4g} to {float(nsr.max()):.4g}. Set sample.interval=LOW,HIGH inside it."
        )


def _check_guides(plan: Plan) -> None:
    """Refuse a weak model or a classifier that cannot guide this one."""
    recipe, sample = plan.recipe, plan.recipe.sample
    if sample.autoguidance is not None:
        where = weak_of(sample.autoguidance)
        if where.folder:
            other = _recipe_of(where.folder, "sample.autoguidance", "sfumato train RECIPE --out PATH makes one")
            if (kind := kind_of(other)) is not DENOISER:
                raise RecipeError(
                    f"sample.autoguidance={where.folder} is a run of {other.name}, which trained {kind.words}. "
                    "A weak model is a denoiser; a classifier guides with sample.classifier."
                )
            _check_kin(recipe, other, where.folder, "weak model", strict=True)
            _check_levels(plan, other, f"The weak model of {where.folder}")
        if where.step is not None and where.folder:
            kept = steps(Path(where.folder) / "checkpoints")
            if where.step not in kept:
                raise RecipeError(
                    f"sample.autoguidance={sample.autoguidance}: {where.folder} keeps checkpoints of steps "
                    f"{', '.join(map(str, kept)) or 'none'}; got {where.step}. train.keep says how many are kept."
                )
    if sample.classifier is not None:
        folder = sample.classifier
        other = _recipe_of(folder, "sample.classifier", "Train one with objective=classifier")
        if kind_of(other) is not CLASSIFIER:
            raise RecipeError(f"sample.classifier={folder} is a run of {other.name}, which trained no classifier.")
        _check_kin(recipe, other, folder, "classifier", strict=False)
        _check_levels(plan, other, f"The classifier of {folder}")


def _recipe_of(folder: str, field: str, remedy: str) -> Recipe:
    file = Path(folder) / "recipe.json"
    if not file.exists():
        raise RecipeError(f"{field}={folder} is not a run (no recipe.json). {remedy}.")
    return Recipe.from_json(read_json(file, finite=False, error=RecipeError).get("recipe"))


def _check_kin(recipe: Recipe, other: Recipe, folder: str, role: str, *, strict: bool) -> None:
    """Refuse a guide of other images or classes; unless strict, an unlabelled model takes any classes."""
    mine, theirs = recipe.shape, other.shape
    if recipe.latent != other.latent:
        raise RecipeError(
            f"A {role} guides a model in its own space: {folder} and this model were not trained on the same latents "
            f"(data.latent={other.data.latent} there, {recipe.data.latent} here). Train the {role} with this model's."
        )
    # an unlabelled model never hears of classes, so any classifier's will do
    fits = (
        mine is not None
        and theirs is not None
        and (mine == theirs or not strict and replace(mine, classes=mine.classes or theirs.classes) == theirs)
    )
    if not fits:
        raise RecipeError(
            f"A {role} guides a model of its own images and classes: {folder} knows {_text(theirs)}, and this "
            f"model {_text(mine)}. Train the {role} on the model's data."
        )


def _check_levels(plan: Plan, other: Recipe, who: str) -> None:
    if (known := Plan(other).known) is not None:
        with explained(f"{who} does not know the levels of sample.grid={plan.recipe.sample.grid}"):
            index_in(known, plan.visited)


def _text(shape: Shape | None) -> str:
    if shape is None:
        return "no shape"
    names = ", ".join(shape.classes[:5]) + (", ..." if len(shape.classes) > 5 else "")
    return f"{shape.channels}x{shape.height}x{shape.width}, {len(shape.classes)} classes ({names})"
