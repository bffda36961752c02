"""A recipe is assembled once: each entry is called once up to training; what the data decides is made anew."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace

import pytest
import torch

from sfumato.core.find import entries, find
from sfumato.runs.check import check
from sfumato.runs.kinds import KINDS, kind_of
from sfumato.runs.override import override
from sfumato.runs.plan import parts_of, plan
from sfumato.runs.recipe import Part, Recipe, Shape
from sfumato.runs.resolve import load_data, resolve
from sfumato.training.trainers import TRAINERS, trainer_of

CPU = torch.device("cpu")
GREY = Shape(1, 8, 8, tuple("0123456789"))
MADE_TWICE = {"network": 2}  # once without weights, to be checked and counted, and once with them


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is made, by axis."""
    counts: Counter[str] = Counter()
    make = importlib.import_module("sfumato.runs.plan").make

    def counted(part: Part, context: dict) -> object:
        counts[part.axis] += 1
        return make(part, context)

    for name in ("runs.plan", "training.trainer", "training.adversarial"):
        module = importlib.import_module(f"sfumato.{name}")
        if hasattr(module, "make"):
            monkeypatch.setattr(module, "make", counted)
    return counts


@pytest.mark.parametrize("name", ["edm-digits", "ddpm-digits", "iddpm-digits", "adm-digits-classifier"])
def test_every_part_is_made_once_from_planning_to_training(name: str, made: Counter[str]) -> None:
    recipe = replace(override(find("recipe", name)(), ["train.images=64", "train.batch=16"]), shape=GREY)
    first = plan(recipe)
    check(first)  # before the data is read
    data = load_data(recipe, "train")
    ready = first.resolved(resolve(recipe, data))
    check(ready)
    trainer = trainer_of(ready, data, CPU)
    trainer.advance(0.0)
    again = {axis for axis, count in made.items() if count > MADE_TWICE.get(axis, 1)}
    waited = {ready.parts[part].axis for part, (asked, _) in ready.asked.items() if "sigma_data" in asked}
    waited |= {"objective"} if ready.asked["weighting" if "weighting" in ready.asked else "draw"] else set()
    assert again <= waited, "only what asked for sigma_data is made again, and the objective that holds it"


def test_what_did_not_ask_for_the_data_is_kept() -> None:
    recipe = replace(find("recipe", "edm-digits")(), shape=GREY)
    first = plan(recipe)
    check(first)
    ready = first.resolved(replace(recipe, sigma_data=0.4))
    assert ready.draw is first.draw and ready.grid is first.grid and ready.network is first.network
    assert ready.target is not first.target and ready.asked["target"][0] == {"sigma_data": 0.4}
    assert "schedule" not in ready.asked, "nothing asks for the schedule, so it is not made"


def test_a_recipe_of_known_data_is_made_once(made: Counter[str]) -> None:
    recipe = replace(find("recipe", "edm-digits")(), shape=GREY, sigma_data=0.5)
    first = plan(recipe)
    check(first)
    ready = first.resolved(recipe)
    check(ready)
    trainer_of(ready, load_data(recipe, "train"), CPU)
    assert {axis: count for axis, count in made.items() if count != MADE_TWICE.get(axis, 1)} == {}


def test_every_kind_has_a_trainer_and_recipes() -> None:
    assert KINDS.keys() == TRAINERS.keys() == {kind_of(entry()).name for entry in entries("recipe").values()}


def test_the_plan_knows_every_part_by_its_field() -> None:
    recipe = Recipe("any")
    rooms = {part.axis for part in parts_of(recipe).values()}
    assert {"schedule", "network", "sampler", "grid", "optimizer", "rate"} <= rooms
    assert len(rooms) == len(parts_of(recipe))


def test_equal_networks_are_counted_once_and_others_anew() -> None:
    recipe = replace(find("recipe", "edm-digits")(), shape=GREY)
    counted = plan(recipe).cost
    assert plan(override(recipe, ["train.seed=9", "train.images=64"])).cost is counted
    for field in ("network.width=16", "network.blocks=1", "data.labels=false"):
        other = override(recipe, [field])
        other = replace(other, shape=GREY if other.data.labels else Shape(1, 8, 8))
        assert plan(other).cost.parameters != counted.parameters, field
    wider = replace(recipe, shape=Shape(1, 16, 16, GREY.classes))
    assert plan(wider).cost.training > 3 * counted.training
