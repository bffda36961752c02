"""Combinations that cannot work are refused when the recipe is built, each by its rule and with a remedy."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sfumato.recipes.ddpm import ddpm_cifar10
from sfumato.recipes.digits import edm_digits
from sfumato.recipes.digits_families import (
    adm_digits,
    adm_digits_classifier,
    ddpm_digits,
    distill_digits,
    ect_digits,
    flow_digits,
    iddpm_digits,
    otcfm_digits,
)
from sfumato.recipes.edm import edm_cifar10
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, RecipeError, Shape
from sfumato.runs.resolve import load_data, resolve
from sfumato.runs.run import Run
from sfumato.training.loop import train

GREY = Shape(1, 8, 8, tuple("0123456789"))


def built(recipe: Recipe, *changes: str) -> Recipe:
    return override(replace(recipe, shape=GREY, sigma_data=0.5), changes)


REFUSED = {
    # what is wrong: (recipe, changes, what the message says of the rule, and of the remedy)
    "learned variance sampled without a head": (
        ddpm_digits, ["sample.sampler.variance=learned"], "variance=none", "set variance=range",
    ),
    "another kind of head": (
        iddpm_digits, ["sample.sampler.variance=diagonal"], "has variance=range", "set variance=diagonal",
    ),
    "a head that nothing trains": (
        ddpm_digits, ["variance=range"], "objective=denoising does not train", "set objective=hybrid",
    ),
    "hybrid without a head": (
        iddpm_digits, ["variance=none"], "trains a learned variance", "set variance=range",
    ),
    "hybrid without a table": (
        edm_digits, ["objective=hybrid", "variance=range"], "needs 'table'", "schedule=linear",
    ),
    "a discrete network sampled off its table": (
        ddpm_digits, ["sample.grid=karras"], "discrete levels", "full, respaced, trailing",
    ),
    "a discrete network asked between its levels": (
        ddpm_digits, ["sample.sampler=heun", "sample.sampler.midpoint=0.5"], "discrete levels", "its own levels",
    ),
    "a discrete network trained off its table": (
        ddpm_digits, ["draw=lognormal"], "knows the levels of schedule=linear only", "draw=uniform",
    ),
    "a table under a continuous schedule": (
        edm_digits, ["c_noise=index"], "needs 'table'", "schedule=linear",
    ),
    "levels at another scale than in training": (
        flow_digits, ["sample.grid=karras"], "alpha + sigma = 1 only", "c_in=unit-circle, unit-line",
    ),
    "a gauge that cannot hold pure noise": (
        flow_digits, ["sample.sampler.gauge=ve"], "needs alpha > 0", "use gauge 'flow'",
    ),
    "more steps than the table has": (
        ddpm_digits, ["sample.grid.steps=2000"], "cannot give 2000 steps", "at most 1000",
    ),
    "noise of eta 1 without eta": (
        ddpm_digits, ["sample.sampler=ddim", "sample.sampler.sigma_hat=true"], "replaces the noise", "eta = 1",
    ),
    "an importance draw without a table": (
        edm_digits, ["draw=importance"], "needs 'table'", "schedule=linear",
    ),
    "the bound's weight without a table": (
        edm_digits, ["weighting=vlb"], "needs 'table'", "schedule=linear",
    ),
    "attention at a side the network has not": (
        adm_digits, ["network.attention=16"], "sides of feature maps", "8, 4",
    ),
    "distillation without a teacher": (
        distill_digits, ["train.start=none"], "names none", "train.start=run",
    ),
    "steps that cannot be halved": (
        distill_digits, ["objective.steps=12"], "multiple of 2^halvings", "steps=16",
    ),
    "stages of an open budget": (
        ect_digits, ["train.minutes=1"], "stages", "train.minutes=none",
    ),
    "weights by class on an unconditional model": (
        edm_digits, ["data.labels=false", "sample.guidance_by_class=1,2"], "class-conditional", "use guidance=1",
    ),
    "a ramp of no guidance": (
        edm_digits, ["sample.guidance_ramp=cosine"], "reads sample.guidance_ramp", "set sample.guidance=2",
    ),
    "a weak model that is not there": (
        edm_digits, ["sample.autoguidance=nowhere"], "is not a run", "sfumato train",
    ),
    "a size the network cannot halve": (
        edm_digits, ["sample.size=9"], "multiples of 2", "nearest valid heights: 8, 10",
    ),
    "guidance on an unconditional model": (
        edm_digits, ["data.labels=false", "sample.guidance=2"], "class-conditional", "use guidance=1",
    ),
    "guidance on a model that never lacked a label": (
        edm_digits, ["objective.label_dropout=0.0", "sample.guidance=2"], "never learned", "label_dropout=0.1",
    ),
    "an interval outside the grid": (
        edm_digits, ["sample.guidance=2", "sample.interval=100,200"], "from 0.002 to 80", "sample.interval=low,high",
    ),
    "an interval upside down": (
        edm_digits, ["sample.guidance=2", "sample.interval=3,1"], "at least one level", "sample.interval=low,high",
    ),
    "an interval without guidance": (
        edm_digits, ["sample.interval=0.1,1"], "guidance=1 is none", "set sample.guidance",
    ),
    "augmentation the network is not told of": (
        edm_digits, ["data.augment=0.1"], "network=unet cannot be told", "network=songunet",
    ),
    "augmentation beyond certainty": (
        edm_cifar10, ["data.augment=1.5"], "data.augment", "[0, 1]",
    ),
    "a batch in pieces under optimal transport": (
        otcfm_digits, ["train.micro=16"], "over the whole batch", "train.micro=none",
    ),
    "a classifier of unlabelled images": (
        adm_digits_classifier, ["data.labels=false"], "at least 2 classes", "labelled data",
    ),
    "a classifier made of an image network": (
        adm_digits_classifier, ["network=unet"], "returns images", "network=adm-classifier",
    ),
    "a denoiser made of a classifier": (
        edm_digits, ["network=adm-classifier"], "returns logits", "network=unet",
    ),
    "a classifier that is not there": (
        edm_digits, ["sample.classifier=nowhere"], "is not a run", "objective=classifier",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_rule_and_remedy(case: str) -> None:
    recipe, changes, rule, remedy = REFUSED[case]
    stated = recipe() if recipe is edm_cifar10 else replace(recipe(), shape=GREY)
    with pytest.raises(ValueError) as caught:
        changed = override(stated, changes)
        if "data.labels=false" in changes:
            changed = replace(changed, shape=Shape(1, 8, 8))
        check(plan(changed))
    assert rule in str(caught.value)
    assert remedy.lower() in str(caught.value).lower()


@pytest.mark.parametrize("recipe", sorted({row[0] for row in REFUSED.values()}, key=lambda f: f.__name__))
def test_unchanged_they_pass(recipe) -> None:
    """What is refused above is refused for its change alone."""
    stated = recipe()
    check(plan(stated if stated.shape else replace(stated, shape=GREY)))


def test_training_refuses_before_any_work(tmp_path) -> None:
    with pytest.raises(RecipeError, match="objective=hybrid"):
        train(override(ddpm_digits(), ["variance=range"]), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_data_of_another_shape_is_refused() -> None:
    stated = override(ddpm_cifar10(), ["data.name=digits"])
    digits = load_data(stated, "train")
    with pytest.raises(RecipeError, match="3x32x32.*1x8x8.*shape=none"):
        resolve(stated, digits)
    freed = override(stated, ["shape=none"])
    assert freed.shape is None and resolve(freed, digits).shape == Shape(1, 8, 8)
    labelled = replace(edm_digits(), shape=Shape(1, 8, 8, ("a", "b")))
    with pytest.raises(RecipeError, match="2 classes.*10"):
        resolve(labelled, digits)
    ten = replace(edm_digits(), shape=Shape(1, 8, 8, tuple("abcdefghij")))
    assert resolve(ten, digits).shape == GREY  # names come from the data


@pytest.fixture(scope="module")
def guide(tmp_path_factory) -> Run:
    """A classifier of three digits, untrained but for two steps."""
    changes = ("data.classes=0,1,2", "train.images=128", "train.precision=fp32", "train.sheet_every=1000000")
    sizes = ("network.width=16", "network.head_width=16")
    folder = tmp_path_factory.mktemp("guide")
    return train(override(adm_digits_classifier(), [*changes, *sizes]), folder, quiet=True, device="cpu")


def test_a_classifier_of_other_classes_or_levels_is_refused(guide: Run) -> None:
    named = f"sample.classifier={guide.path}"
    with pytest.raises(RecipeError, match=r"3 classes \(0, 1, 2\).*10 classes.*Train the classifier"):
        check(plan(built(iddpm_digits(), named)))
    same = replace(built(iddpm_digits(), named), shape=guide.recipe.shape)
    check(plan(same))
    with pytest.raises(RecipeError, match="does not know the levels of sample.grid=karras"):
        check(plan(override(replace(built(edm_digits(), named), shape=guide.recipe.shape), [])))
    with pytest.raises(RecipeError, match="trained no classifier"):
        run = guide.with_recipe(same)
        folder = guide.path.parent / "model"
        folder.mkdir(exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps({"recipe": run.recipe.to_json()}))
        check(plan(built(iddpm_digits(), f"sample.classifier={folder}")))


def test_a_sampler_chosen_anew_is_checked_too(guide: Run, tmp_path) -> None:
    """Another grid for a trained model passes the same check as before training."""
    recipe = built(ddpm_digits(), "sample.grid=karras")
    with pytest.raises(RecipeError, match="discrete levels"):
        Run(tmp_path, recipe, {}).source(denoiser=lambda x, level, label=None: None)


def test_none_is_a_name_where_a_field_says_so() -> None:
    """variance=none chooses the variance called none; train.clip=none leaves a number out."""
    changed = override(iddpm_digits(), ["variance=none", "train.clip=none"])
    assert changed.variance == "none" and changed.train.clip is None
