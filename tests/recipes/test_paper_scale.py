"""Recipes of papers: each is documented, can be built without its data, and has the published number of parameters."""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace

import pytest

from sfumato.core.find import entries
from sfumato.networks._count import parameter_count
from sfumato.runs.check import check
from sfumato.runs.plan import Plan, plan
from sfumato.runs.recipe import Recipe
from sfumato.training.ema import Averages, half_life

RECIPES = entries("recipe")
FIELDS = ("Command:", "Hardware and time:", "Expected:")

# name: published parameters, and the row of the class table that the null label adds here
PARAMETERS = {
    # of edm-ffhq64, without its augmentation, told forty numbers and whether each is known
    "celeba-64-attributes": (61_805_571 - 9 * 128 + 2 * 40 * 128, 0),
    # without the fixed table of positions and the learned variance of the published network
    "latent-dit-xl2-imagenet256": (675_129_632 - 256 * 1152 - 1153 * 16, 0),
    "ddpm-cifar10": (35_746_307, 0),
    "ddpm-celebahq-256": (113_673_219, 0),
    "ddpm-lsun-bedroom": (113_673_219, 0),
    "ddpm-lsun-bedroom-large": (255_677_955, 0),
    "ddpm-lsun-church": (113_673_219, 0),
    "ddpm-lsun-cat": (113_673_219, 0),
    "ddim-cifar10": (35_746_307, 0),
    "ddim-celeba-64": (78_700_803, 0),
    "ddpm-ablation-mu-bound-learned": (35_746_307 + 3_459, 0),
    "ddpm-ablation-mu-bound": (35_746_307, 0),
    "ddpm-ablation-mu-mse": (35_746_307, 0),
    "ddpm-ablation-eps-bound-learned": (35_746_307 + 3_459, 0),
    "ddpm-ablation-eps-bound": (35_746_307, 0),
    "ddpm-ablation-x0-mse": (35_746_307, 0),
    "iddpm-cifar10": (52_546_438, 0),
    "iddpm-cifar10-vlb": (52_546_438, 0),
    "iddpm-cifar10-simple": (52_542_979, 0),
    "iddpm-cifar10-linear": (52_546_438, 0),
    "iddpm-imagenet64": (121_063_942, 0),
    "iddpm-imagenet64-cond": (273_049_350, 4 * 192),
    "iddpm-lsun-bedroom": (113_676_678, 0),
    "adm-imagenet64": (295_904_454, 4 * 192),
    "adm-imagenet128": (421_529_606, 4 * 256),
    "adm-imagenet256": (553_838_086, 4 * 256),
    "adm-imagenet256-uncond": (552_814_086, 0),
    "adm-imagenet512": (558_997_638, 4 * 256),
    "adm-lsun-bedroom": (552_814_086, 0),
    "adm-lsun-horse": (552_814_086, 0),
    "adm-lsun-cat": (552_814_086, 0),
    "adm-imagenet64-classifier": (65_438_568, 0),
    "adm-imagenet128-classifier": (42_568_040, 0),
    "adm-imagenet256-classifier": (54_096_360, 0),
    "adm-imagenet512-classifier": (54_448_360, 0),
    "ddpmpp-cifar10": (61_804_419, 0),
    "ddpmpp-cifar10-discrete": (61_804_419, 0),
    "ddpmpp-cifar10-deep": (106_632_579, 0),
    "ncsnpp-cifar10": (62_758_787, 0),
    "ncsnpp-cifar10-deep": (107_586_947, 0),
    "jit-b16-imagenet256": (131_123_712, 0),
    "jit-l16-imagenet256": (458_877_664, 0),
    "jit-h16-imagenet256": (952_514_368, 0),
    "edm-cifar10": (55_733_891, 0),
    "edm-cifar10-ve": (56_397_827, 0),
    "edm-cifar10-cond": (55_735_299, 0),  # the null row stands where the original's label layer has a bias
    "edm-cifar10-cond-ve": (56_400_643, 0),
    "edm-ffhq64": (61_805_571, 0),
    "edm-ffhq64-ve": (62_761_091, 0),
    "edm-afhqv2": (61_805_571, 0),
    "edm-imagenet64": (295_899_267, 4 * 192),
    "edm-config-a": (61_804_419, 0),
    "edm-config-b": (61_804_419, 0),
    "edm-config-c": (55_732_739, 0),
    "edm-config-d": (55_732_739, 0),
    "edm-config-e": (55_732_739, 0),
    "edm2-imagenet64-s": (280_209_381 - 128, 4 * 192),  # the loss owns the 128 numbers of its log-variance
    "edm2-imagenet64-xs": (124_710_949 - 128, 4 * 128),
    "cfg-imagenet64": (295_904_454 - 3 * (9 * 192 + 1), 4 * 192),  # three channels out, not six
    "flow-cifar10": (171_268_099, 0),
    "otcfm-cifar10": (35_746_307, 0),
    "flow-cifar10-meta": (55_676_419, 0),
    "progressive-teacher-cifar10": (60_004_099, 0),
    "progressive-student-cifar10": (60_004_099, 0),
    "ect-cifar10": (55_733_891 - 9 * 128, 0),  # without labels of augmentation
    "course-edm-fashion-mnist": (5_031_081, 0),
    "course-edm-cifar10": (5_033_387, 0),
    "course-edm-celeba-big": (81_317_715, 0),
    "course-edm-celeba-small": (80_246_611, 0),
    "course-edm-celeba-tiny": (35_181_651, 0),
    "course-ddpm-cats": (23_332_739, 0),
    "course-ddpm-cats-cosine": (23_332_739, 0),
    "course-ddpm-cats-2xud": (16_062_083, 0),
    "course-ddpm-cats-half": (4_268_419, 0),
    "course-ddpm-cats-small": (3_062_531, 0),
    "course-ddpm-cats-frogs": (23_335_299 - 8 * 256, 256),  # two classes of ten
    "dcgan-lsun-bedroom": (3_576_704 + 2_765_568, 0),
    "sngan-cifar10": (4_276_739 + 1_053_824, 0),
    "course-dcgan-cats": (1_183_616 + 663_296, 0),
    "course-dcgan-cats-modified": (1_839_232 + 797_440, 0),
    "course-dcgan-cats-frogs": (1_880_192 + 673_536 + 2 * 2 * 10, 2 * 10),  # a table of two classes on either side
}


@functools.cache
def planned(name: str) -> Plan:
    """The plan of a recipe, whose network is built once for all that look at it."""
    return plan(RECIPES[name]())


def ready(name: str) -> Recipe:
    """A recipe with its stated shape, as if its data had been seen."""
    recipe = RECIPES[name]()
    return replace(recipe, sigma_data=recipe.sigma_data or 0.5)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    published, null_row = PARAMETERS[name]
    assert parameter_count(planned(name).network) == published + null_row


def test_the_plain_course_network_is_within_a_percent() -> None:
    assert parameter_count(plan(ready("course-ddpm-cats-plain")).network) == pytest.approx(4_072_899, rel=0.01)


def test_every_recipe_with_a_stated_shape_is_counted() -> None:
    stated = {name for name, recipe in RECIPES.items() if recipe().shape is not None}
    assert stated == {*PARAMETERS, "course-ddpm-cats-plain"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_carries_its_own_name_and_survives_json(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json()).hash == recipe.hash


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r().shape is not None])
def test_a_recipe_is_documented(name: str) -> None:
    text = inspect.getdoc(RECIPES[name]) or ""
    assert f"sfumato train {name}" in text
    assert "Paper:" in text or "Source:" in text
    for field in FIELDS:
        assert field in text, field


SLOW_WALKS = ("iddpm-cifar10", "iddpm-imagenet64", "cfg-imagenet64")  # thousands of steps: one of them will do


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n.startswith(SLOW_WALKS[:2]) and n != "iddpm-cifar10-vlb" else ())
        for n in PARAMETERS
    ],
)
def test_parts_fit_together(name: str) -> None:
    """Schedule, draw, objective, network, sampler and grid pass the check that a run makes first."""
    check(planned(name))


def test_sampling_costs_what_the_papers_say() -> None:
    steps = {"ddpm-cifar10": 1000, "iddpm-cifar10": 4000, "adm-imagenet256": 250, "edm-cifar10": 18}
    assert {name: len(plan(ready(name)).grid) - 1 for name in steps} == steps


def test_half_lives_are_the_papers_decays() -> None:
    """An average stated as a decay per update forgets at that rate, once warm."""
    for name, decay in (("ddpm-cifar10", 0.9999), ("adm-imagenet64", 0.9999), ("flow-cifar10-meta", 0.999)):
        recipe = RECIPES[name]()
        (million,) = recipe.ema.half_life
        keep = half_life(million, recipe.ema.warmup)(10**12, recipe.train.batch)
        assert 1 - keep == pytest.approx(1 - decay, rel=1e-3)
        assert Averages(plan(replace(ready(name))).network, recipe.ema).weights.keys() == {recipe.ema.use}


def test_budgets_are_updates_times_batch() -> None:
    updates = {"ddpm-cifar10": 800_000, "iddpm-cifar10": 500_000, "adm-imagenet64": 540_000}
    for name, count in updates.items():
        recipe = RECIPES[name]()
        assert recipe.train.images == count * recipe.train.batch


def test_classifiers_share_the_chain_and_classes_of_their_models() -> None:
    for size in (64, 128, 256, 512):
        model, guide = (RECIPES[f"adm-imagenet{size}{suffix}"]() for suffix in ("", "-classifier"))
        assert plan(guide).kind.name == "classifier" and plan(model).kind.name == "denoiser"
        assert (guide.schedule, guide.c_noise, guide.shape, guide.data) == (
            model.schedule,
            model.c_noise,
            model.shape,
            model.data,
        )
