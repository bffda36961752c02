"""How images are made is said in full, alike everywhere, and read again from results of earlier versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.core.find import find
from sfumato.runs.making import Making, shared
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.runs.run import Run

SAVED = Path(__file__).parent / "saved" / "run"
PLAIN = ["sample.sampler=heun", "sample.grid=karras", "sample.grid.steps=18", "sample.guidance=1"]
GUIDED = {
    "plain": ([], [], "heun-karras-18"),
    "churn": (["sample.sampler.churn=40"], None, "heun-churn40-karras-18"),
    "weight in an interval": (
        ["sample.guidance=2", "sample.interval=0.2,5"],
        ["guidance 2 at nsr 0.2..5"],
        "heun-karras-18-w2-nsr0.2..5",
    ),
    "ramp": (
        ["sample.guidance=2.5", "sample.guidance_ramp=cosine"],
        ["guidance 2.5 on a cosine ramp"],
        "heun-karras-18-w2.5-cosine",
    ),
    "by class": (["sample.guidance_by_class=1,2.5"], ["guidance by class 1,2.5"], "heun-karras-18-w1_2.5"),
    "autoguidance": (
        ["sample.autoguidance=runs/small@200", "sample.autoguidance_weight=1.5"],
        ["autoguidance 1.5 by small@200"],
        "heun-karras-18-auto1.5-small@200",
    ),
    "autoguidance in an interval": (
        ["sample.autoguidance=@raw", "sample.interval=1,5"],
        ["autoguidance 2 by @raw at nsr 1..5"],
        "heun-karras-18-auto2-@raw-nsr1..5",
    ),
    "threshold": (["sample.threshold=static"], ["static threshold"], "heun-karras-18-static"),
    "quantile": (
        ["sample.threshold=dynamic", "sample.threshold_quantile=0.9"],
        ["dynamic threshold 0.9"],
        "heun-karras-18-dynamic0.9",
    ),
    "classifier": (
        ["sample.classifier=runs/judge", "sample.classifier_scale=3"],
        ["classifier 3 by judge"],
        "heun-karras-18-s3-judge",
    ),
    "all": (
        ["sample.guidance=2", "sample.interval=1,5", "sample.autoguidance=@raw", "sample.threshold=static"],
        ["autoguidance 2 by @raw at nsr 1..5", "guidance 2 at nsr 1..5", "static threshold"],
        "heun-karras-18-auto2-@raw-nsr1..5-w2-nsr1..5-static",
    ),
}


@pytest.fixture
def recipe() -> Recipe:
    return override(find("recipes", "edm-digits")(), PLAIN)


@pytest.mark.parametrize("name", GUIDED)
def test_all_that_guides_is_said_in_caption_file_name_card_and_result(name: str, recipe: Recipe) -> None:
    fields, guided, short = GUIDED[name]
    made = Making.of(override(recipe, fields), images_seen=60_000)
    first = "heun on karras(steps=18)" if guided is not None else "heun(churn=40) on karras(steps=18)"
    words = ", ".join([first, *(guided or [])])
    assert made.how == words
    assert made.sentence == f"{words}, 60,000 training images, weights power-0.10."
    assert made.stem("power-0.10") == f"000060000-{short}" and made.stem("raw") == f"000060000-{short}-power-0.10"
    assert made.pairs()["guidance"] == (", ".join(guided or []) or "none")
    assert made.to_json()["guided"] == ", ".join(guided or [])
    again = Making.from_json(json.loads(json.dumps(made.to_json())))
    assert again is not None and again.sentence == made.sentence


def test_no_two_ways_of_making_images_share_a_file_name(recipe: Recipe) -> None:
    made = [Making.of(override(recipe, fields), images_seen=1) for fields, _, _ in GUIDED.values()]
    made += [Making.of(override(recipe, ["sample.size=16"])), Making.of(recipe, "raw", 1), Making.of(recipe, None, 2)]
    assert len({one.stem("power-0.10") for one in made}) == len(made)
    many = Making.of(override(recipe, [f"sample.guidance_by_class={','.join(['1.25'] * 300)}"]))
    more = Making.of(override(recipe, [f"sample.guidance_by_class={','.join(['1.25'] * 299)}"]))
    assert len(many.short) <= 120 and many.short != more.short


def test_a_generator_has_no_sampler_no_grid_and_no_guidance() -> None:
    made = Making.of(find("recipes", "dcgan-digits")(), images_seen=128)
    assert made.sentence.startswith("one pass of the generator, 128 training images, weights ")
    assert made.short == "generator" and set(made.pairs()) == {"images", "weights"}
    tree = made.to_json()
    assert (tree["sampler"], tree["grid"], tree["guided"]) == ("one pass of the generator", "", "")
    for word in ("heun", "karras", "ancestral", "guidance"):
        assert word not in made.sentence and word not in json.dumps(made.pairs())


def test_a_classifier_makes_no_images() -> None:
    made = Making.of(find("recipes", "adm-digits-classifier")(), images_seen=128)
    assert made.sentence.startswith("128 training images, weights ") and set(made.pairs()) == {"weights"}


def test_an_imported_chain_names_its_file_and_no_training_images() -> None:
    recipe = override(find("recipes", "ddpm-cifar10")(), ["ema.use=raw"])
    made = Making.of(recipe, images_seen=0, imported="ddpm.ckpt")
    assert made.sentence == f"{recipe.sample.sampler} on {recipe.sample.grid}, weights imported from ddpm.ckpt."


def test_size_calls_and_seeds_are_said_where_they_are_known(recipe: Recipe) -> None:
    made = replace(Making.of(override(recipe, ["sample.size=16"])), nfe=35, seeds=(0, 64))
    assert made.sentence.startswith("heun on karras(steps=18), 16x16 pixels, 35 network calls per image, weights ")
    assert made.to_json() | {"nfe": 35, "seeds": [0, 64], "size": "16x16"} == made.to_json()
    assert Making.from_json(made.to_json()) == replace(made, short="")


def test_what_several_ways_share_leaves_out_what_differs(recipe: Recipe) -> None:
    one, other = (
        Making.of(override(recipe, [f"sample.guidance={w}", "sample.threshold=static"]), images_seen=5)
        for w in (1.5, 3)
    )
    assert shared([one, other]).sentence.startswith("heun on karras(steps=18), static threshold, 5 training images")
    swept = [Making.of(override(recipe, [f"sample.sampler={name}"])) for name in ("heun", "ddim")]
    assert shared(swept).sentence == "on karras(steps=18), weights power-0.10."
    assert shared([one]) == one


def test_results_of_an_earlier_version_say_how_they_were_made() -> None:
    tree = json.loads(next((SAVED / "results").glob("*.json")).read_text())
    made, run = Making.from_json(tree["provenance"]), Run.open(SAVED)
    assert made is not None and made.guided == ("guidance 1.5 at nsr 0.1..10",) == run.making().guided
    assert made.sentence.startswith(replace(run.making(), nfe=made.nfe).sentence.partition(", weights")[0])
    old = Making.from_json({"sampler": "heun", "grid": "karras(steps=18)", "guidance": 2.0})
    assert old is not None and old.sentence == "heun on karras(steps=18), guidance 2."
    assert Making.from_json({"nfe": 0, "pool": 5}) is None
