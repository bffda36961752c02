"""A network that begins from one of other classes is, without a label, that one bit for bit: for every network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.networks.contract import NOT_DENOISERS, SMALL, awake

from sfumato.core.condition import Condition
from sfumato.core.find import entries
from sfumato.core.noise import normal
from sfumato.recipes.digits import edm_digits
from sfumato.runs.conditions import told
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Latent, Recipe, RecipeError, Shape, part
from sfumato.runs.run import Run
from sfumato.training.start_from import Parent, inherited, starting_weights

NETWORKS = [name for name in SMALL if name != "edm2" and name not in NOT_DENOISERS]
X = normal(range(2), (1, 16, 16), purpose="start", dtype=torch.float32)
C = torch.tensor([0.3, -0.5])
OLD, MIXED, NEW = ("a", "b", "c"), ("x", "c", "y", "a"), ("x", "y")


def recipe_of(network: str, classes: tuple[str, ...], dropped: float = 0.1) -> Recipe:
    base = edm_digits()
    return replace(
        base,
        data=replace(base.data, labels=bool(classes)),
        network=part("network", network, **SMALL[network.replace("-", "_")]["options"]),
        objective=part("objective", "denoising", label_dropout=dropped if classes else 0.0),
        shape=Shape(1, 16, 16, classes),
        sigma_data=0.5,
        train=replace(base.train, start="parent"),
    )


def parent_of(recipe: Recipe, **about: object) -> Parent:
    parent = Parent(Run(Path("parent"), recipe, about), None)
    vars(parent)["network"] = awake(plan(recipe).build_network(), seed=1)
    return parent


def child_of(parent: Parent, classes: tuple[str, ...]) -> torch.nn.Module:
    asked = recipe_of(parent.run.recipe.network.name, classes)
    planned = plan(inherited(asked, asked, parent.run.recipe))
    network = planned.build_network()
    network.load_state_dict(starting_weights(planned, parent))
    return network.eval()


def labels(*rows: int) -> torch.Tensor:
    return torch.tensor(rows)


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_label_it_is_the_parent(name: str) -> None:
    parent = parent_of(recipe_of(name, OLD))
    unconditional = parent.network(X, C)
    assert not torch.equal(unconditional, parent.network(X, C, labels(0, 1)))
    for classes in (OLD, MIXED, NEW, ()):
        assert torch.equal(child_of(parent, classes)(X, C), unconditional), classes


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_a_class_of_the_parent_keeps_its_row_and_a_new_one_begins_without_a_label(name: str) -> None:
    parent = parent_of(recipe_of(name, OLD))
    child = child_of(parent, MIXED)
    assert torch.equal(child(X, C, labels(1, 3)), parent.network(X, C, labels(2, 0)))
    assert torch.equal(child(X, C, labels(0, 2)), parent.network(X, C))


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_labels_come_to_an_unlabelled_parent_as_zeros(name: str) -> None:
    parent = parent_of(recipe_of(name, ()))
    child = child_of(parent, NEW)
    for label in (None, labels(0, 1)):
        assert torch.equal(child(X, C, label), parent.network(X, C))


@torch.no_grad()
def test_an_unlabelled_child_of_a_labelled_parent_is_a_parent_itself() -> None:
    parent = parent_of(recipe_of("unet", OLD))
    asked = recipe_of("unet", ())
    middle = inherited(asked, asked, parent.run.recipe)
    assert middle.shape is not None and middle.shape.null
    assert Recipe.from_json(middle.to_json()) == middle
    assert "null" not in asked.to_json()["shape"], "recipes of before are written as before"
    between = Parent(Run(Path("between"), middle, {}), None)
    vars(between)["network"] = child_of(parent, ())
    for classes in (NEW, ()):
        assert torch.equal(child_of(between, classes)(X, C), parent.network(X, C))


@torch.no_grad()
def test_where_every_label_was_told_a_new_class_begins_at_the_mean_of_the_others() -> None:
    """Its row for "no label" was never trained."""
    parent = parent_of(recipe_of("unet", OLD, dropped=0.0))
    table = parent.network.state_dict()["label.table.weight"]
    rows = child_of(parent, MIXED).state_dict()["label.table.weight"]
    assert (
        torch.equal(rows[0], table[:3].mean(0)) and torch.equal(rows[1], table[2]) and torch.equal(rows[-1], table[3])
    )
    assert torch.equal(child_of(parent, ()).state_dict()["label.table.weight"][0], table[:3].mean(0))


@torch.no_grad()
def test_classes_of_an_imported_parent_are_known_by_their_place() -> None:
    """Another project's checkpoint calls them 0, 1, 2."""
    parent = parent_of(recipe_of("unet", ("0", "1", "2")), imported={})
    table = parent.network.state_dict()["label.table.weight"]
    assert torch.equal(child_of(parent, OLD).state_dict()["label.table.weight"], table)
    assert torch.equal(child_of(parent, NEW).state_dict()["label.table.weight"][0], table[3])


@torch.no_grad()
def test_clusters_of_other_images_are_other_classes() -> None:
    """Their names are numbers in every clustering."""
    parent = parent_of(replace(recipe_of("unet", OLD), learned="one"))
    table = parent.network.state_dict()["label.table.weight"]
    for learned, rows in (("one", table), ("another", table[-1].expand_as(table))):
        weights = starting_weights(plan(replace(recipe_of("unet", OLD), learned=learned)), parent)
        assert torch.equal(weights["label.table.weight"], rows)


def test_a_network_without_such_a_table_keeps_its_classes() -> None:
    """EDM2 normalises its label layer over all classes, so it cannot grow and stay the parent."""
    with pytest.raises(RecipeError, match="its table of labels cannot grow"):
        child_of(parent_of(recipe_of("edm2", OLD)), MIXED)
    assert {"edm2", *NETWORKS} == {n.replace("-", "_") for n in entries("network")} - NOT_DENOISERS


def test_sigma_data_is_the_parents_and_what_the_weights_mean_must_be_the_same() -> None:
    base = recipe_of("unet", OLD)
    parent = parent_of(replace(base, sigma_data=0.25))
    open_, set_ = replace(base, sigma_data=None), replace(base, sigma_data=0.5)
    assert inherited(replace(base, sigma_data=0.31), open_, parent.run.recipe).sigma_data == 0.25
    with pytest.raises(RecipeError, match="sigma_data: 0.25 -> 0.5"):
        starting_weights(plan(inherited(set_, set_, parent.run.recipe)), parent)
    told = replace(base, sigma_data=0.25, c_noise=part("conditioning", "flow-time"))
    with pytest.raises(RecipeError, match="c_noise.name: quarter-log-nsr -> flow-time"):
        starting_weights(plan(told), parent)


def told_by(*rows: tuple[str, float, float, float, float]) -> Recipe:
    """Return a recipe whose network is told attributes, with their mean, deviation, least and greatest value."""
    base, names = recipe_of("unet", ()), tuple(row[0] for row in rows)
    return replace(base, data=replace(base.data, attributes=names), shape=Shape(1, 16, 16, (), attributes=rows))


def test_a_number_that_is_asked_for_means_what_the_weights_learned() -> None:
    """A child of other images has other means; its first weights are the parent's only if numbers are told alike."""
    parent = told_by(("ink", 0.3, 0.1, 0.0, 0.9), ("slant", 0.0, 1.0, -3.0, 3.0))
    child = told_by(("ink", 0.6, 0.2, 0.1, 1.0), ("slant", 0.5, 2.0, -9.0, 9.0))
    found = inherited(child, child, parent)
    assert found.shape is not None
    assert found.shape.attributes == (("ink", 0.3, 0.1, 0.1, 1.0), ("slant", 0.0, 1.0, -9.0, 9.0))
    raw = Condition(vector=torch.tensor([[0.5, 1.0], [float("nan"), -2.0]]))
    ours, theirs = told(found, raw), told(parent, raw)
    assert isinstance(ours, Condition) and isinstance(theirs, Condition)
    torch.testing.assert_close(ours.vector, theirs.vector, rtol=0, atol=0, equal_nan=True)


def first_of(asked: Recipe, parent: Parent) -> torch.nn.Module:
    """Return the network of a child before its first step."""
    planned = plan(inherited(asked, asked, parent.run.recipe))
    network = planned.build_network()
    network.load_state_dict(network.state_dict() | starting_weights(planned, parent))
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "ddpm", "adm", "songunet", "dit", "edm2", "jit"])
def test_told_nothing_a_child_that_can_be_told_more_is_its_parent(name: str) -> None:
    """An attribute and an image beside come as zeros; they go, and what is left is the parent that is not told them."""
    base = recipe_of(name, ())
    more = replace(base, data=replace(base.data, attributes=("ink",), condition="low:2"))
    assert more.shape is not None
    row = ("ink", 0.3, 0.1, 0.0, 0.9)
    more = replace(more, shape=replace(more.shape, attributes=(row,), beside=(1, 8, 8)))
    for asked, parent in ((more, parent_of(base)), (base, parent_of(more))):
        before = parent.network(X, C, None)
        assert bool(before.any())
        assert torch.equal(first_of(asked, parent)(X, C, None), before)


@torch.no_grad()
def test_attributes_in_another_order_keep_what_each_of_them_says() -> None:
    """The same numbers told by their names give the same first answer; a new one says nothing yet."""
    ink, slant, width = ("ink", 0.3, 0.1, 0.0, 0.9), ("slant", 0.0, 1.0, -3.0, 3.0), ("width", 0.3, 0.1, 0.0, 0.9)
    parent, asked = parent_of(told_by(ink, slant)), told_by(slant, width, ink)
    found = inherited(asked, asked, parent.run.recipe)
    raw = torch.tensor([[0.5, 1.0], [float("nan"), -2.0]])
    mine = told(found, Condition(vector=torch.stack([raw[:, 1], torch.tensor([0.1, 0.7]), raw[:, 0]], 1)))
    theirs = parent.network(X, C, told(parent.run.recipe, Condition(vector=raw)))
    assert not torch.equal(theirs, parent.network(X, C, None))
    torch.testing.assert_close(first_of(asked, parent)(X, C, mine), theirs)


@torch.no_grad()
def test_an_image_of_another_kind_is_told_by_a_new_layer() -> None:
    """The same kind keeps what it says."""
    base = recipe_of("unet", ())
    shape = replace(base.shape or Shape(1, 16, 16), beside=(1, 8, 8))
    parent = parent_of(replace(base, data=replace(base.data, condition="low:2"), shape=shape))
    beside = Condition(image=normal(range(2), (1, 16, 16), purpose="beside", dtype=torch.float32))
    said = parent.network(X, C, beside)
    assert not torch.equal(said, parent.network(X, C, None))
    same, other = (replace(base, data=replace(base.data, condition=c), shape=shape) for c in ("low:2", "grey"))
    assert torch.equal(first_of(same, parent)(X, C, beside), said)
    assert torch.equal(first_of(other, parent)(X, C, beside), parent.network(X, C, None))


def test_a_latent_of_the_weights_keeps_its_scale_and_its_autoencoder() -> None:
    base = recipe_of("unet", ())
    base = replace(base, data=replace(base.data, latent="ae"))
    parent = replace(base, latent=Latent(2, 2, (0.5, 0.1), (2.0, 3.0), "one"))
    found = inherited(replace(base, latent=Latent(2, 2, weights="one")), base, parent)
    assert found.latent == parent.latent
    with pytest.raises(RecipeError, match=r"data.latent=ae \(one\), and this recipe's are for ae \(other\)"):
        starting_weights(plan(replace(parent, latent=Latent(2, 2, (0.5, 0.1), (2.0, 3.0), "other"))), parent_of(parent))


def test_a_table_of_levels_belongs_to_the_weights() -> None:
    """c_noise=index counts the levels of one chain; number 7 of another is another level."""
    chain = replace(
        recipe_of("unet", OLD),
        schedule=part("schedule", "linear", steps=50),
        c_noise=part("conditioning", "index"),
        draw=part("draw", "uniform"),
    )
    with pytest.raises(RecipeError, match="schedule.name: linear -> cosine"):
        starting_weights(plan(replace(chain, schedule=part("schedule", "cosine", steps=50))), parent_of(chain))
