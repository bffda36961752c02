"""Two real processes train as one: the same samples, noise and weights, and one log."""

from __future__ import annotations

import json

import pytest
import torch
from tests.processes.processes import codes, start

from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.training.loop import train
from sfumato.training.trainer import Trainer


def train_here(tree, folder, allow=()) -> None:
    """Work of a process: train a recipe."""
    train(Recipe.from_json(tree), folder, device="cpu", quiet=True, allow=allow)


def together(recipe, folder, world=2, work=train_here, **options) -> None:
    """Train in several processes."""
    assert codes(start(work, world, recipe.to_json(), folder, *options.values())) == [0] * world


def state(folder):
    """The newest checkpoint's tensors by group and name."""
    return checkpoint.latest(folder / "checkpoints").tensors


def log(folder):
    """The log without what depends on the clock."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "spent")} for r in records]


def same(a, b):
    """Whether two checkpoints are bit-identical."""
    return a.keys() == b.keys() and all(
        a[g].keys() == b[g].keys() and all(torch.equal(a[g][k], b[g][k]) for k in a[g]) for g in a
    )


def distance(a, b):
    """The Euclidean distance of two groups of tensors."""
    return sum(float((a[k].double() - b[k].double()).square().sum()) for k in a) ** 0.5


def same_format(a, b):
    """Whether two checkpoints hold tensors of the same names, shapes and types."""
    return {g: {k: (v.shape, v.dtype) for k, v in a[g].items()} for g in a} == {
        g: {k: (v.shape, v.dtype) for k, v in b[g].items()} for g in b
    }


@pytest.fixture
def steady(tiny):
    """The tiny recipe with rounds of half a batch and a rate that does not know the end."""
    return override(tiny, ["train.micro=8", "train.rate=constant", "train.images=96"])


@pytest.fixture
def one_thread():
    """Sums in the order of the other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_one_two_one_is_one_run(steady, tmp_path, one_thread):
    """World size 1 -> 2 -> 1, mid-epoch, with dropout, flips and averages: weights and log are those of one process."""
    straight = train(steady, tmp_path / "straight", quiet=True, device="cpu")
    folder, end = tmp_path / "mixed", ("train.images",)
    train(override(steady, ["train.images=32"]), folder, quiet=True, device="cpu")
    together(override(steady, ["train.images=64"]), folder, allow=end)
    train(steady, folder, quiet=True, device="cpu", allow=end)
    assert same(state(folder), state(straight.path))
    mixed, whole = log(folder), log(straight.path)
    assert [r["images"] for r in mixed] == [r["images"] for r in whole]
    for a, b in zip(mixed, whole):  # sums over images are added in another order
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["grad_norm"] == b["grad_norm"]


@pytest.mark.slow
def test_divided_weights_give_the_same_run(steady, tmp_path, one_thread):
    """One process -> two that divide the weights -> one: checkpoints of the same format, and the same weights."""
    straight = train(steady, tmp_path / "straight", quiet=True, device="cpu")
    folder, end = tmp_path / "mixed", ("train.images",)
    train(override(steady, ["train.images=32"]), folder, quiet=True, device="cpu")
    before = state(folder)
    together(override(steady, ["train.images=64", "train.shard=true"]), folder, allow=end)
    assert same_format(state(folder), state(straight.path))
    assert (folder / "sheets" / "000000064.png").exists()
    train(steady, folder, quiet=True, device="cpu", allow=end)
    mixed, whole = state(folder), state(straight.path)
    for group in ("network", "ema-power-0.10", "ema-half-0.001", "optimizer-0"):
        apart, moved = distance(mixed[group], whole[group]), distance(before[group], whole[group])
        assert apart < 1e-3 * moved, (group, apart, moved)  # the gradient's norm is added up in another order
    for a, b in zip(log(folder), log(straight.path)):
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


@pytest.mark.slow
def test_divided_weights_are_fine_tuned(steady, tmp_path, one_thread):
    """Two processes that divide the weights begin from a run of other classes: frozen bits, factors, the same run."""
    few = ["train.images=32", "objective.label_dropout=0.2"]
    parent = train(override(steady, [*few, "data.classes=0,1,2"]), tmp_path / "parent", quiet=True, device="cpu")
    fields = ["data.classes=2,3", f"train.start={parent.path}", "train.freeze=down", "train.rate_factors=label:10"]
    recipe = override(steady, [*few, *fields])
    together(override(recipe, ["train.shard=true"]), tmp_path / "two")
    one, two = train(recipe, tmp_path / "one", quiet=True, device="cpu"), state(tmp_path / "two")
    start = state(parent.path)["ema-power-0.10"]
    down = [name for name in start if name.startswith("down.")]
    for group in ("network", "ema-power-0.10"):
        assert down and all(torch.equal(two[group][name], start[name]) for name in down)
    assert same_format(two, state(one.path))
    for group in ("network", "optimizer-0"):
        apart = distance(two[group], state(one.path)[group])
        assert apart < 1e-3 * distance(state(one.path)[group], dict.fromkeys(two[group], torch.zeros(()))), group


def test_an_indivisible_batch_is_shared(steady, tmp_path, one_thread):
    """Batch 15 on 2 processes is 7 + 8, and the gradient that of one process up to the order of sums."""
    recipe = override(steady, ["train.batch=15", "train.micro=none", "train.images=45", "network.dropout=0.0"])
    together(recipe, tmp_path / "two")
    train(recipe, tmp_path / "one", quiet=True, device="cpu")
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-4)
    assert one[0]["grad_norm"] == pytest.approx(two[0]["grad_norm"], rel=1e-4)
    for name, value in state(tmp_path / "one")["network"].items():  # Adam turns rounding near 0 into whole steps
        assert torch.allclose(value, state(tmp_path / "two")["network"][name], atol=1e-4), name


def train_poisoned(tree, folder) -> None:
    """Work of a process: train with a loss that is NaN for the sample at position 45 alone."""
    advance = Trainer.advance

    def poisoned(self, spent):
        objective = self.objective

        def loss(model, x0, label, positions, augment):
            found = objective(model, x0, label, positions, augment)
            found.each[positions == 45] *= float("nan")
            return found

        self.objective = loss
        try:
            return advance(self, spent)
        finally:
            self.objective = objective

    Trainer.advance = poisoned
    try:
        train_here(tree, folder)
    finally:
        Trainer.advance = advance


def test_nan_on_one_process_is_skipped_by_all(steady, tmp_path, one_thread):
    """The step of position 45 is skipped everywhere and counted once; the run is that of one process with that NaN."""
    together(steady, tmp_path / "two", work=train_poisoned)
    train_poisoned(steady.to_json(), tmp_path / "one")
    assert log(tmp_path / "two")[-1]["skipped"] == 1
    assert same(state(tmp_path / "one"), state(tmp_path / "two"))


@pytest.mark.slow
def test_a_budget_in_minutes_ends_on_all_at_once(steady, tmp_path):
    """Clocks differ between processes; the first to say that time is up ends the run for all."""
    together(override(steady, ["train.minutes=0.01", "train.save_every=0.005"]), tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints").state["seen"] >= 16


@pytest.mark.slow
def test_a_draw_with_a_memory_remembers_all_losses(tmp_path, one_thread):
    """Importance sampling on two processes holds the history of one."""
    from sfumato.recipes.digits_families import iddpm_digits

    fields = [
        "draw=importance",
        "draw.history=2",
        "data.first=64",
        "train.batch=16",
        "train.micro=8",
        "train.images=64",
        "network.width=16",
        "sample.grid.steps=2",
        "train.precision=fp32",
        "train.sheet_every=10000",
    ]
    recipe = override(iddpm_digits(), fields)
    together(recipe, tmp_path / "two")
    train(recipe, tmp_path / "one", quiet=True, device="cpu")
    assert state(tmp_path / "one")["draw"]["counts"].sum() > 0
    assert same(state(tmp_path / "one"), state(tmp_path / "two"))
