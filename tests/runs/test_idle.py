"""Fields that nothing reads are refused where a person sets them, shown as "-", and tell no two recipes apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfumato.cli._design import row
from sfumato.cli.explain import fields_of
from sfumato.core.find import find
from sfumato.runs import recipe as recipes
from sfumato.runs.idle import differences, idle, read_with
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, RecipeError, part


@pytest.mark.parametrize(
    ("name", "given", "field", "remedy"),
    [
        ("edm-digits", "schedule=cosine", "schedule", "draw=uniform"),
        ("edm-digits", "schedule.rho=5", "schedule", "draw=uniform"),
        ("edm-digits", "sample.autoguidance_weight=3", "sample.autoguidance_weight", "sample.autoguidance=RUN"),
        ("edm-digits", "sample.threshold_quantile=0.9", "sample.threshold_quantile", "sample.threshold=dynamic"),
        ("edm-digits", "sample.classifier_scale=2", "sample.classifier_scale", "sample.classifier=RUN"),
        ("edm-digits", "sample.guidance_ramp=linear", "sample.guidance_ramp", "sample.guidance=2"),
        ("iddpm-vlb-digits", "weighting=snr", "weighting", "objective="),
        ("distill-digits", "draw=logit-normal", "draw", "objective="),
        ("dcgan-digits", "target=v", "target", "objective="),
        ("dcgan-digits", "c_in=one", "c_in", "objective="),
        ("dcgan-digits", "sample.grid.steps=9", "sample.grid", "objective="),
        ("adm-digits-classifier", "sample.sampler=euler", "sample.sampler", "objective="),
    ],
)
def test_an_idle_field_is_refused_and_what_would_make_it_matter_is_named(
    name: str, given: str, field: str, remedy: str
) -> None:
    recipe = find("recipe", name)()
    with pytest.raises(RecipeError, match=f"reads {field}") as caught:
        override(recipe, [given])
    assert given in str(caught.value)
    assert any(remedy in way for way in read_with(recipe, field))


def test_a_field_that_another_assignment_wakes_is_taken() -> None:
    recipe = override(find("recipe", "edm-digits")(), ["schedule=cosine", "draw=uniform"])
    assert "schedule" not in idle(recipe) and recipe.schedule.name == "cosine"
    dynamic = override(recipe, ["sample.threshold_quantile=0.9", "sample.threshold=dynamic"])
    assert dynamic.sample.threshold_quantile == 0.9


def test_a_field_set_to_its_own_value_changes_nothing_and_is_taken() -> None:
    recipe = find("recipe", "edm-digits")()
    assert override(recipe, [f"schedule={recipe.schedule.name}", "sample.classifier_scale=1"]) == recipe


def test_an_idle_field_is_shown_as_a_dash() -> None:
    edm = find("recipe", "edm-digits")()
    shown = {path: value for path, _, value in fields_of(edm)}
    assert {shown["schedule"], shown["schedule.rho"], shown["sample.classifier_scale"]} == {"-"}
    assert shown["draw"] == "lognormal" and shown["sample.guidance"] == "1"
    assert row(find("recipe", "edm-digits"))["schedule"] == "-"
    assert {row(find("recipe", "dcgan-digits"))[axis] for axis in ("target", "draw", "sampler", "guidance")} == {"-"}


def test_an_idle_field_tells_no_two_recipes_apart() -> None:
    one = Recipe("any")
    other = replace(one, schedule=part("schedule", "cosine"))
    assert "schedule" in idle(one) and recipes.differences(one, other) and not differences(one, other)
    uniform = replace(other, draw=part("draw", "uniform"))
    assert differences(one, uniform)["schedule.name"] == ("-", "cosine")


def test_a_saved_recipe_with_an_idle_field_still_opens() -> None:
    tree = replace(Recipe("any"), schedule=part("schedule", "cosine")).to_json()
    assert Recipe.from_json(tree).schedule.name == "cosine"
