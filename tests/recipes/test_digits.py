"""Small siblings of every family: they build, they are comparable, and (slow) each trains and samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.core.find import entries
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import load_data, resolve
from sfumato.studies.families import rivals
from sfumato.training.loop import train

DIGITS = [name for name, recipe in entries("recipe").items() if recipe().data.name == "digits"]
WHOLE = [name for name in DIGITS if not entries("recipe")[name]().data.classes]
STARTED = {name: recipe() for name, recipe in entries("recipe").items() if name in DIGITS and recipe().train.start}
ON_LATENTS = {name for name in DIGITS if entries("recipe")[name]().data.latent}  # tests/latent trains them
SHARED = ("ddpm", "iddpm", "iddpm-vlb", "vp", "ve", "ve-corrected", "flow", "otcfm", "v", "cfg")


def recipe_of(name: str) -> Recipe:
    return entries("recipe")[name]()


@pytest.mark.parametrize("name", DIGITS)
def test_it_builds(name: str) -> None:
    recipe = recipe_of(name)
    resolved = resolve(recipe, load_data(recipe, "train"))
    check(plan(resolved))
    assert sum(p.numel() for p in plan(resolved).network.parameters()) < 1_200_000


def test_every_family_has_a_small_sibling() -> None:
    assert {f"{family}-digits" for family in SHARED} <= set(DIGITS)
    others = {"edm-digits", "adm-digits", "adm-digits-classifier", "edm2-digits", "dit-digits", "dcgan-digits"}
    assert others <= set(DIGITS)


def test_the_comparison_is_fair() -> None:
    """Same images, budget, averages and score in every row; the same network and optimiser in the first group."""
    base = recipe_of("edm-digits")
    for name in WHOLE:
        recipe = recipe_of(name)
        kind = plan(recipe).kind
        if recipe.data.attributes or recipe.data.condition != "none":
            continue  # a task of its own, which is compared with nothing
        # the clusters are what a recipe is about, and an autoencoder is told no class
        told = True if name == "edm-digits-clusters" or kind.name == "autoencoder" else recipe.data.labels
        assert replace(recipe.data, augment=0.0, latent=None, labels=told) == base.data
        assert recipe.evaluate == base.evaluate
        gan = kind.name == "generator"  # its batch, average and arithmetic are part of what it is
        own = ("precision",) if kind.coder is not None else ("batch", "precision") if gan else ()
        for field in {"images", "minutes", "seed", "batch", "precision"} - set(own):
            assert getattr(recipe.train, field) == getattr(base.train, field)
        assert gan or recipe.ema == base.ema
    assert not set(STARTED) & set(rivals())
    for family in SHARED:
        recipe = recipe_of(f"{family}-digits")
        assert (recipe.network, recipe.train) == (base.network, base.train)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DIGITS if name not in {*STARTED, *ON_LATENTS}])
def test_it_learns_and_samples(name: str, tmp_path) -> None:
    """Thirty steps: the loss falls, and a model's images are finite, not constant, and differ by seed."""
    few = ["train.images=3840", "train.log_every=640", "train.sheet_every=1000000"]
    run = train(override(recipe_of(name), few), tmp_path, quiet=True, device="cpu")
    records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert all(record["skipped"] == 0 for record in records)
    if plan(run.recipe).kind.name == "generator":
        return  # a GAN's loss measures no images; tests/training/test_adversarial.py looks at them
    assert records[-1]["loss"] < 0.97 * records[0]["loss"]
    if plan(run.recipe).kind.name == "denoiser":
        x = run.source(use="raw").floats([0, 1, 2, 3], torch.tensor([0, 3, -1, 9]))
        assert bool(torch.isfinite(x).all()) and float(x.std()) > 0.05
        assert not torch.equal(x[0], x[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STARTED if name in WHOLE])
def test_it_goes_on_from_a_trained_model(name: str, tmp_path) -> None:
    """Distillation and consistency tuning: few steps come nearer to what many steps of the teacher make.

    A walk that draws fresh noise on its way ends elsewhere by design; its first call alone is then compared.
    """
    recipe = STARTED[name]
    few = ["train.images=3840", "train.log_every=640", "train.sheet_every=1000000"]
    teacher = Path(recipe.train.start or "").name
    taught = train(override(recipe_of(teacher), few), tmp_path / teacher, quiet=True, device="cpu")
    more = [f"train.start={taught.path}@raw", "train.images=15360", "train.precision=fp32"]
    run = train(override(recipe, [*few, *more]), tmp_path / name, quiet=True, device="cpu")
    label = torch.arange(32) % 10
    many = taught.with_recipe(override(taught.recipe, ["sample.sampler=ddim", "sample.grid.steps=200"]))
    goal = many.source(use="raw").floats(range(32), label)
    fresh = recipe.sample.sampler.options.get("fresh", False)
    first_call = ["sample.sampler.fresh=false", "sample.grid.steps=1"] if fresh else []
    student = run.with_recipe(override(run.recipe, first_call))
    before = student.source(denoiser=taught.denoiser("raw")).floats(range(32), label)
    after = student.source(use="raw").floats(range(32), label)
    assert bool(torch.isfinite(after).all())
    assert float((after - goal).square().mean()) < float((before - goal).square().mean())


@pytest.mark.slow
def test_five_digits_are_learned_from_a_model_of_the_other_five(tmp_path) -> None:
    """What is frozen is the parent's, the loss on the new classes falls, and an image obeys its class."""
    few = ["train.images=2560", "train.log_every=256", "train.sheet_every=1000000", "train.precision=fp32"]
    fields = [*few, "data.classes=0,1,2,3,4", "objective.label_dropout=0.1"]
    parent = train(override(recipe_of("edm-digits"), fields), tmp_path / "parent", quiet=True, device="cpu")
    child = override(recipe_of("finetune-digits"), [*few, f"train.start={parent.path}", "train.images=1280"])
    run = train(child, tmp_path / "child", quiet=True, device="cpu")
    before, after = parent.network().state_dict(), run.network().state_dict()
    down = [name for name in before if name.startswith("down.")]
    assert down and all(torch.equal(before[name], after[name]) for name in down)
    records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["loss"] < records[0]["loss"]
    assert run.classes == ("5", "6", "7", "8", "9")
    x = run.source().floats([0, 0], torch.tensor([0, 4]))
    assert bool(torch.isfinite(x).all()) and not torch.equal(x[0], x[1])
