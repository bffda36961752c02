"""The recipe as a value: overriding by dotted path, JSON and back, and what every refusal says."""

from __future__ import annotations

import json
import warnings

import pytest

from sfumato.cli.explain import fields_of
from sfumato.core.find import OptionError, UnknownNameError, entries, find
from sfumato.runs.override import override, with_warnings
from sfumato.runs.recipe import Part, Recipe, RecipeError, differences, part

RECIPES = sorted(entries("recipe"))


@pytest.fixture
def recipe() -> Recipe:
    return find("recipe", "edm-digits")()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_documented_named_after_itself_and_survives_json(name: str) -> None:
    made = find("recipe", name)()
    assert made.name == name
    again = Recipe.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made and again.hash == made.hash
    assert len((find("recipe", name).__doc__ or "").strip()) > 20


@pytest.mark.parametrize("name", RECIPES)
def test_every_listed_field_can_be_set_to_its_own_value_and_then_nothing_changes(name: str) -> None:
    made = find("recipe", name)()
    listed = list(fields_of(made))
    assert len(listed) > 60
    settable = [f"{path}={value}" for path, _, value in listed if _at(made, path) is not made and value != "-"]
    assert len(settable) > 20
    assert not differences(made, override(made, settable))


def test_a_field_of_words_takes_the_word_none(recipe: Recipe) -> None:
    assert override(override(recipe, ["variance=range"]), ["variance=none"]) == recipe


def _at(recipe: Recipe, path: str) -> object:
    """Return the value of a field, or the recipe itself where the path leads into a part."""
    node: object = recipe
    for key in path.split("."):
        if isinstance(node, Part):
            return recipe
        node = getattr(node, key)
    return recipe if isinstance(node, Part) else node


def test_overrides_reach_fields_parts_and_options_and_leave_the_original(recipe: Recipe) -> None:
    before = recipe.to_json()
    changed = override(
        recipe, ["train.batch=96", "data.classes=3,7", "sample.sampler=ddim", "sample.sampler.eta=1", "train.clip=1"]
    )
    assert recipe.to_json() == before
    assert (changed.train.batch, changed.data.classes, changed.train.clip) == (96, (3, 7), 1.0)
    assert changed.sample.sampler == part("sampler", "ddim", eta=1.0)
    assert set(differences(recipe, changed)) == {
        *("train.batch", "train.clip", "data.classes", "sample.sampler.name", "sample.sampler.options.eta")
    }


def test_a_chosen_part_starts_from_its_own_defaults_and_order_matters(recipe: Recipe) -> None:
    assert override(recipe, ["sample.grid=logsnr"]).sample.grid == part("grid", "logsnr")
    with pytest.raises(RecipeError, match="eta"):
        override(recipe, ["sample.sampler.eta=1", "sample.sampler=ddim"])


def test_dashes_and_underscores_name_the_same_field_and_entry(recipe: Recipe) -> None:
    assert override(recipe, ["sigma-data=0.5"]) == override(recipe, ["sigma_data=0.5"])
    assert override(recipe, ["draw=logit_normal"]).draw == override(recipe, ["draw=logit-normal"]).draw


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.batch", "An override reads field=value, for example train.batch=128; got 'train.batch'"),
        ("trian.batch=3", "Unknown field 'trian'. Did you mean 'train'?"),
        ("train.bacth=3", "Unknown field 'bacth'. Did you mean 'batch'?"),
        ("train.batch.size=3", "has no field 'size'"),
        ("train.batch=true", "train.batch must be a whole number; got True"),
        ("train.batch=none", "train.batch must be a whole number; got None"),
        ("train.batch=3.0", "train.batch must be a whole number; got 3.0"),
        ("data.labels=1", "data.labels must be true or false; got 1"),
        ("data.val=some", "data.val must be a number; got 'some'"),
        ("ema.power=0.1,x", "ema.power must be"),
        ("variance=both", "must be none, range or diagonal; got 'both'"),
        ("sample=3", "sample is a group of fields; set one of sample.sampler"),
        ("network.width=wide", "network=unet: width must be a whole number; got 'wide'"),
        ("network.width.x=3", "has no fields of its own"),
        ("network.widht=3", "Unknown option of network=unet 'widht'. Did you mean 'width'?"),
    ],
)
def test_a_refused_override_gives_the_rule_the_value_and_the_nearest_name(
    assignment: str, message: str, recipe: Recipe
) -> None:
    with pytest.raises(RecipeError) as caught:
        override(recipe, [assignment])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["sigma_data=0.5", "sigma-data=0.6"],
            "sigma_data is set twice; the last holds, sigma-data=0.6, and sigma_data=0.5",
        ),
        (
            ["sample.grid.steps=5", "sample.grid=karras"],
            "sample.grid=karras undoes sample.grid.steps=5, .* Put sample.grid",
        ),
        (["network.width=8", "train.batch=2", "network=unet"], "network=unet undoes network.width=8"),
    ],
)
def test_an_assignment_that_is_lost_is_said(recipe: Recipe, assignments: list[str], message: str) -> None:
    with pytest.warns(UserWarning, match=message) as said:
        found = override(recipe, with_warnings(assignments))
    assert len(said) == 1 and found == override(override(recipe, assignments[:-1]), assignments[-1:])


def test_nothing_is_said_where_nothing_is_lost(recipe: Recipe) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = with_warnings(["sample.grid=karras", "sample.grid.steps=5", "train.batch=8", "network.width=8"])
    assert override(recipe, kept).sample.grid.options["steps"] == 5


def test_images_are_not_asked_for_in_vain(recipe: Recipe) -> None:
    """A budget of minutes would go on: the hour's recipe trained for the hour."""
    with pytest.raises(RecipeError, match="train.images would change nothing: the budget is train.minutes=2"):
        override(recipe, ["train.minutes=2", "train.images=600"])
    hour = find("recipe", "fashion-mnist-cpu-hour")()
    with pytest.raises(RecipeError, match="Set train.minutes=none for a budget of images"):
        override(hour, ["train.images=600"])
    assert override(hour, ["train.images=600", "train.minutes=none"]).train.images == 600


def test_guidance_turned_off_lets_go_of_what_shaped_it_unless_that_is_asked_for_too(recipe: Recipe) -> None:
    guided = override(recipe, ["sample.guidance=2", "sample.interval=0.3,5", "sample.guidance_ramp=cosine"])
    assert override(guided, ["sample.guidance=1"]) == recipe
    assert override(guided, ["sample.guidance=1", "sample.interval=0.1,2"]).sample.interval == (0.1, 2)
    assert override(guided, ["sample.guidance=1", "sample.autoguidance=@7"]).sample.interval == (0.3, 5)
    assert override(guided, ["sample.guidance=3"]).sample.interval == (0.3, 5)
    assert override(recipe, ["sample.interval=0.3,5"]).sample.interval == (0.3, 5)  # refused where it is resolved


@pytest.mark.parametrize(
    ("room", "name", "near"),
    [
        ("recipes", "edm-digit", "edm-digits"),
        ("samplers", "huen", "heun"),
        ("core.target", "epss", "eps"),
        ("schedules", "cosin", "cosine"),
        ("training.optim", "adm", "adam"),
        ("metrics.extractors", "pixel", "pixels"),
    ],
)
def test_an_unknown_entry_offers_the_nearest_and_all_available(room: str, name: str, near: str) -> None:
    """A long list is left to the command that prints it."""
    with pytest.raises(UnknownNameError) as caught:
        find(room, name)
    said = str(caught.value)
    assert f"'{name}'. Did you mean '{near}'? " in said
    if "`sfumato list" in said:
        assert f"all {len(entries(room))}." in said and len(entries(room)) > 20
    else:
        assert all(other in said for other in entries(room))


@pytest.mark.parametrize("wrong", [True, None, [], "list", 3])
def test_a_part_is_one_part(recipe: Recipe, wrong: object) -> None:
    """Only labels may be told by a yes or no, and only guides are several."""
    tree = recipe.to_json()
    given = [tree["c_noise"]] if wrong == "list" else wrong
    with pytest.raises(RecipeError, match="recipe.c_noise must have an axis, a name and options"):
        Recipe.from_json(tree | {"c_noise": given})


def test_json_of_another_shape_is_refused(recipe: Recipe) -> None:
    tree = recipe.to_json()
    with pytest.raises(RecipeError, match="Unknown field 'batc'. Did you mean 'batch'"):
        Recipe.from_json({**tree, "train": {**tree["train"], "batc": 3}})
    with pytest.raises(OptionError, match="recipe.train.batch must be a whole number; got 'many'"):
        Recipe.from_json({**tree, "train": {**tree["train"], "batch": "many"}})


def test_the_hash_names_the_content(recipe: Recipe) -> None:
    assert override(recipe, ["train.seed=0"]).hash == recipe.hash
    assert override(recipe, ["train.seed=1"]).hash != recipe.hash
