"""Fine-tuning: from a run of other classes, with weights frozen by name and learning rates by part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.faults.fields import fate
from torch import nn

from sfumato.recipes.digits import edm_digits
from sfumato.recipes.digits_families import flow_digits
from sfumato.recipes.few_calls import meanflow_digits
from sfumato.runs.check import check
from sfumato.runs.memory import peaks
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, RecipeError, Shape
from sfumato.runs.resolve import load_data, resolve
from sfumato.runs.run import Run
from sfumato.training.loop import train
from sfumato.training.start_from import inherited, parent_of, starting_weights
from sfumato.training.trainer import Trainer

FEW = ("train.images=48", "objective.label_dropout=0.2", "train.rate=constant")


@pytest.fixture(scope="module")
def parent(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps on the digits 0 to 4."""
    return train(
        override(tiny, [*FEW, "data.classes=0,1,2,3,4"]), tmp_path_factory.mktemp("run") / "parent", quiet=True
    )


@pytest.fixture(scope="module")
def tuned(tiny: Recipe, parent: Run) -> Run:
    """Its child on 3 to 6, three steps, but for the blocks on the way down."""
    fields = (*FEW, "data.classes=3,4,5,6", f"train.start={parent.path}", "train.freeze=down,conv_*")
    return train(override(tiny, [*fields, "train.rate_factors=label:10"]), parent.path.parent / "tuned", quiet=True)


def weights(run: Run, use: str = "raw") -> dict[str, torch.Tensor]:
    return run.network(use).state_dict()


def trainer_of(recipe: Recipe) -> Trainer:
    data = load_data(recipe, "train")
    return Trainer(plan(resolve(recipe, data)), data, torch.device("cpu"))


def test_frozen_weights_are_the_parents_bit_for_bit(parent: Run, tuned: Run) -> None:
    """In the averages too; what is not frozen has moved. sigma_data is the parent's, though the images are others."""
    start, mean = weights(parent, parent.recipe.ema.use), weights(tuned, "power-0.10")
    still = {name for name in start if name.split(".")[0] in ("down", "conv_in", "conv_out")}
    assert len(still) > 10
    for name, value in weights(tuned).items():
        if name in still:
            assert torch.equal(value, start[name]) and torch.equal(mean[name], start[name]), name
        elif value.shape == start[name].shape and not name.endswith("frequencies"):
            assert not torch.equal(value, start[name]), name
    assert (
        tuned.recipe.sigma_data
        == parent.recipe.sigma_data
        != resolve(edm_digits(), load_data(tuned.recipe, "train")).sigma_data
    )
    assert tuned.recipe.shape is not None and tuned.recipe.shape.classes == ("3", "4", "5", "6")


def test_it_goes_on_without_its_parent(tiny: Recipe, tuned: Run, parent: Run) -> None:
    (parent.path / "recipe.json").rename(parent.path / "gone")
    try:
        fields = ["train.images=64", "train.log_every=16"]
        asked = override(tiny, [*FEW, "data.classes=3,4,5,6", f"train.start={parent.path}", "train.freeze=down,conv_*"])
        asked = override(asked, ["train.rate_factors=label:10", *fields])
        longer = train(asked, tuned.path, quiet=True, allow=("train.images",))
        assert longer.checkpoint.state["seen"] == 64
        assert longer.recipe.sigma_data == tuned.recipe.sigma_data
    finally:
        (parent.path / "gone").rename(parent.path / "recipe.json")


def test_the_optimiser_holds_nothing_of_frozen_weights(tiny: Recipe) -> None:
    """Neither before nor after a step, and the estimate of memory knows it."""
    frozen = override(tiny, ["train.freeze=*.weight"])
    trainer = trainer_of(frozen)
    assert trainer.advance(0.0)
    held = sum(t.numel() for group in trainer.optimizers for s in group.state.values() for t in s.values() if t.ndim)
    moving = sum(p.numel() for n, p in trainer.network.named_parameters() if not n.endswith(".weight"))
    assert held == 2 * moving > 0
    assert all(p.grad is None for n, p in trainer.network.named_parameters() if n.endswith(".weight"))
    all_weights = sum(p.numel() for p in trainer.network.parameters())
    both = [peaks(plan(resolve(r, load_data(r, "train"))), "cpu").step for r in (tiny, frozen)]
    assert both[0] - both[1] == 4 * 2 * (all_weights - moving)


def test_magnitude_preserving_weights_stay_when_frozen() -> None:
    """EDM2 puts weights back to unit norm at every forward pass; frozen ones are left alone."""
    from sfumato.networks.edm2 import Layer

    layer = Layer(3, 4)
    before = layer.weight.detach().clone()
    layer.weight.requires_grad_(False)
    layer.train()(torch.ones(1, 3))
    assert torch.equal(layer.weight, before)
    layer.weight.requires_grad_(True)
    layer(torch.ones(1, 3))
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_factor_is_that_of_the_learning_rate(tiny: Recipe, optimizer: str) -> None:
    """Adam's first step is lr times the sign of the gradient, so ten times the rate is ten times the way."""
    base = override(tiny, [f"train.optimizer={optimizer}", "train.rate=constant", "train.clip=none"])
    fields = "train.rate_factors=label:10,down.0:0.0,down:0.5"
    plain, scaled = trainer_of(base), trainer_of(override(base, [fields]))
    before = {n: p.detach().clone() for n, p in plain.network.named_parameters()}
    assert plain.advance(0.0) and scaled.advance(0.0)
    moved = [{n: p.detach() - before[n] for n, p in t.network.named_parameters()} for t in (plain, scaled)]
    for name, way in moved[0].items():
        factor = 10 if name.startswith("label") else 0 if name.startswith("down.0.") else 0.5 if "down" in name else 1
        torch.testing.assert_close(moved[1][name], factor * way, rtol=1e-3, atol=1e-6)
    assert scaled.record(0.0, 0.0)["lr"] == plain.record(0.0, 0.0)["lr"], "the log shows the rate without a factor"


def test_factors_survive_a_checkpoint(tiny: Recipe, tmp_path: Path) -> None:
    """A run that stopped half-way is that of one piece."""
    recipe = override(tiny, ["train.rate_factors=label:10,up:0.1", "train.freeze=down", "train.rate=constant"])
    whole = train(override(recipe, ["train.images=64"]), tmp_path / "whole", quiet=True)
    train(override(recipe, ["train.images=32"]), tmp_path / "parts", quiet=True)
    parts = train(override(recipe, ["train.images=64"]), tmp_path / "parts", quiet=True, allow=("train.images",))
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(parts)[name]), name


SHAPE = Shape(1, 8, 8, tuple("0123456789"))


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("train.freeze=donw.*", "'donw.*' means none. Did you mean 'down'? The network's parts are"),
        ("train.freeze=*", "train.freeze=* leaves no weight of the network to train. Leave out a pattern."),
        ("train.freeze=noise.nosuch", "means none"),
        (
            "train.rate_factors=label",
            "reads PATTERN:FACTOR with a factor of at least 0, for example label:10; got 'label'",
        ),
        ("train.rate_factors=label:-1", "factor of at least 0"),
        ("train.rate_factors=label:nan", "factor of at least 0"),
        ("train.rate_factors=labels:2", "Did you mean 'label'?"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(tiny: Recipe, field: str, words: str) -> None:
    asked = override(tiny, [field])
    with pytest.raises(RecipeError) as refused:
        check(plan(Recipe(**{**vars(asked), "shape": SHAPE, "sigma_data": 0.5})))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("data.channels=3",), "It is a model of 1x8x8 images of 5 classes, and this recipe's data is 3x8x8"),
        (("network.width=24",), "Set network to unet("),
        (("network=adm", "network.width=16", "network.mult=1,1", "network.attention=8"), "Set network to unet("),
        (("train.start=nosuch",), "nosuch is not a run"),
        (("train.start=@raw",), "names no run"),
        (("target=v", "weighting=simple"), "target.name: edm -> v"),
    ],
)
def test_a_parent_that_does_not_fit_is_refused_in_a_sentence(
    tiny: Recipe, parent: Run, tmp_path: Path, fields: tuple[str, ...], words: str
) -> None:
    start = f"train.start={parent.path}"
    with pytest.raises(RecipeError) as refused:
        train(override(tiny, [*FEW, start, *fields]), tmp_path / "new", quiet=True)
    assert words in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_a_gan_freezes_nothing(tmp_path: Path) -> None:
    found = fate(("dcgan-digits", "network.up=[8]", "network.down=[8]", "train.freeze=generator"), tmp_path / "run")
    assert found.code == 2 and "train.freeze is for a network trained alone" in found.said


def test_an_unlabelled_child_samples_without_labels(tiny: Recipe, parent: Run, tmp_path: Path) -> None:
    """Its row for "no label" is trained, saved and sampled with."""
    fields = ("train.images=16", "data.labels=false", f"train.start={parent.path}")
    run = train(override(tiny, fields), tmp_path / "run", quiet=True)
    assert weights(run)["label.table.weight"].shape[0] == 1
    assert run.classes == ()
    x = run.source().floats([0, 1], None)
    assert bool(torch.isfinite(x).all())
    table = parent.network(parent.recipe.ema.use).get_submodule("label.table")
    assert isinstance(table, nn.Embedding)
    assert not torch.equal(weights(run)["label.table.weight"][0], table.weight[-1])


def beginning(recipe: Recipe) -> Trainer:
    """Return a training before its first step, with the weights that it begins from."""
    data, parent = load_data(recipe, "train"), parent_of(recipe)
    assert parent is not None
    made = plan(inherited(resolve(recipe, data), recipe, parent.run.recipe))
    trainer = Trainer(made, data, torch.device("cpu"))
    trainer.network.load_state_dict(trainer.network.state_dict() | starting_weights(made, parent))
    return trainer


def answers(network: nn.Module, label: int) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    with torch.no_grad():
        return network.eval()(x, torch.tensor(0.3), torch.full((2,), label))


def test_a_child_that_is_told_more_learns_it(tiny: Recipe, parent: Run) -> None:
    """Told nothing it is its parent, bit for bit; after a step the new layers tell something."""
    told = ("data.attributes=ink,width", "data.condition=low:2")
    trainer = beginning(override(tiny, [*FEW, *told, "data.classes=0,1,2,3,4", f"train.start={parent.path}"]))
    before = answers(parent.network(parent.recipe.ema.use), 3)
    assert bool(before.any()) and torch.equal(answers(trainer.network, 3), before)
    assert trainer.advance(0.0)
    for layer in ("label.vector", "label.image"):
        assert bool(trainer.network.get_parameter(f"{layer}.weight").any())


def test_meanflow_begins_from_flow_matching(tmp_path: Path) -> None:
    """At first a step of any length has the velocity at its start, that of the parent."""
    small = (
        "network.width=16",
        "network.head_width=16",
        "network.blocks=1",
        "train.images=128",
        "train.precision=fp32",
    )
    parent = train(override(flow_digits(), small), tmp_path / "parent", quiet=True)
    network = beginning(override(meanflow_digits(), [*small, f"train.start={parent.path}"])).network
    before = answers(parent.network(parent.recipe.ema.use), 3)
    assert bool(before.any()) and torch.equal(answers(network, 3), before)
    x = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(x, torch.tensor(0.3), torch.full((2,), 3), torch.tensor(0.1)), before)
    with pytest.raises(RecipeError, match="span"):  # without the length it would not be what it was
        run = train(override(meanflow_digits(), small), tmp_path / "meanflow", quiet=True)
        beginning(override(flow_digits(), [*small, f"train.start={run.path}"]))
