"""The loop: resuming is exact, accumulation changes nothing, bad steps change nothing, other runs are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import RecipeError, part
from sfumato.runs.resolve import load_data, resolve
from sfumato.runs.run import Run
from sfumato.training.guard import Diverged
from sfumato.training.loop import train
from sfumato.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def trainer(tiny):
    data = load_data(tiny, "train")
    return Trainer(plan(resolve(tiny, data)), data, CPU)


def same(a, b):
    """Whether two nested groups of tensors are bit-identical."""
    return a.keys() == b.keys() and all(
        a[g].keys() == b[g].keys() and all(torch.equal(a[g][k], b[g][k]) for k in a[g]) for g in a
    )


def log_of(path):
    """The loss log without what depends on the clock or the budget."""
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "spent")} for r in records]


def test_resume_is_bit_exact(tiny, tmp_path):
    """P2: 20 steps equal 10 + resume + 10: weights, averages, optimiser and loss log, mid-epoch, with dropout."""
    # two optimisers, and a rate that ignores the budget's end
    tiny = override(tiny, ["train.optimizer=muon", "train.rate=constant", "train.rate.warmup=128"])
    straight = train(tiny, tmp_path / "a", quiet=True)
    train(override(tiny, ["train.images=160"]), tmp_path / "b", quiet=True)
    resumed = train(tiny, tmp_path / "b", quiet=True, allow=("train.images",))
    assert straight.checkpoint.state["step"] == resumed.checkpoint.state["step"] == 20
    assert same(straight.checkpoint.tensors, resumed.checkpoint.tensors)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_accumulation_keeps_the_gradient(tiny):
    """Micro-batches of 5 give the step of one batch of 16, up to the rounding of sums."""
    recipe = override(tiny, ["network.dropout=0.0"])
    data = load_data(recipe, "train")
    whole = Trainer(plan(resolve(recipe, data)), data, CPU)
    rounds = Trainer(plan(resolve(override(recipe, ["train.micro=5"]), data)), data, CPU)
    for _ in range(2):
        whole.advance(0.0)
        rounds.advance(0.0)
    assert whole.log.tensors()["norm"].item() == pytest.approx(rounds.log.tensors()["norm"].item(), rel=1e-4)
    assert torch.allclose(whole.log.sum, rounds.log.sum, rtol=1e-3)


def test_training_learns(tiny):
    """The loss on fixed noise falls by a fifth within 60 steps."""
    fields = ["train.rate=constant", "train.optimizer.lr=0.003", "network.dropout=0.0", "train.images=960"]
    recipe = override(tiny, fields)
    data = load_data(recipe, "train")
    trainer = Trainer(plan(resolve(recipe, data)), data, CPU)

    def loss() -> float:
        x0, label, positions = trainer.loader.batch(0, 96)
        with torch.no_grad():
            return float(trainer.objective(trainer.model, x0, label, positions).each.mean())

    trainer.network.eval()
    before = loss()
    for _ in range(60):
        trainer.advance(0.0)
    trainer.network.eval()
    assert loss() < 0.8 * before


def test_a_bad_step_changes_nothing(trainer):
    """P8: a NaN loss leaves weights, averages and optimiser as they were, is counted, and later steps are taken."""
    trainer.advance(0.0)
    before = {g: {k: v.clone() for k, v in group.items()} for g, group in trainer.tensors().items()}
    objective = trainer.objective

    def poisoned(*arguments):
        loss = objective(*arguments)
        loss.each[3] *= float("nan")
        return loss

    trainer.objective = poisoned
    assert trainer.advance(0.0) is False
    assert same(before, trainer.tensors())
    assert trainer.watch.total == 1
    trainer.objective = objective
    assert trainer.advance(0.0) is True
    assert not same(before, trainer.tensors())


def test_a_bad_step_moves_no_running_statistic(tiny):
    """P8 for networks with BatchNorm: a forward pass moves their statistics, a skipped step sets them back."""
    options = {"norm": "batch", "width": 8, "depths": (1,), "attention": (), "heads": (2, 2)}
    recipe = replace(tiny, network=part("network", "condnorm-unet", **options))
    data = load_data(recipe, "train")
    trainer = Trainer(plan(resolve(recipe, data)), data, CPU)
    assert trainer.statistics
    trainer.advance(0.0)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    objective = trainer.objective

    def poisoned(*arguments):
        loss = objective(*arguments)
        return replace(loss, each=loss.each * float("nan"))

    trainer.objective = poisoned
    assert trainer.advance(0.0) is False
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())
    trainer.objective = objective
    assert trainer.advance(0.0) is True
    assert any(not torch.equal(v, before[n]) for n, v in trainer.network.state_dict().items() if "running" in n)


def test_endless_nan_stops_and_names_the_samples(tiny, tmp_path, monkeypatch):
    """P9: a run that is never finite again rolls back once, then stops, naming step and samples."""
    recipe = override(tiny, ["train.bad_in_a_row=2", "train.images=1600"])
    advance = Trainer.advance

    def poison(self, spent):
        if self.seen >= 96:
            for p in self.network.parameters():
                p.data.fill_(float("nan"))
        return advance(self, spent)

    monkeypatch.setattr(Trainer, "advance", poison)
    with pytest.raises(Diverged, match=r"step \d+, samples \d+ to \d+"):
        train(recipe, tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    "change", ["train.optimizer.lr=0.5", "network.width=32", "data.first=64", "train.batch=8", "ema.power=0.05,0.10"]
)
def test_a_changed_recipe_is_refused(tiny, tmp_path, change):
    """P11: resuming with another rate, network or dataset is refused and the field is named."""
    train(override(tiny, ["train.images=32"]), tmp_path, quiet=True)
    with pytest.raises(RecipeError, match=change.split("=")[0].split(".")[-1]):
        train(override(tiny, ["train.images=32", change]), tmp_path, quiet=True)


def test_finished_run_opens_without_flags(tiny, tmp_path):
    """A run samples from its own checkpoint: averages differ from raw weights, shapes and labels are right."""
    train(tiny, tmp_path, quiet=True)
    run = Run.open(tmp_path)
    images = run.source()([5, 6, 7], torch.tensor([0, 9, -1]))
    assert images.dtype == torch.uint8 and images.shape[1:] == (1, 8, 8)
    raw = run.source(use="raw")([5, 6, 7], torch.tensor([0, 9, -1]))
    assert not torch.equal(images, raw)
    with pytest.raises(RecipeError, match="power-0.10"):
        run.denoiser("power-0.11")
    with pytest.raises(ValueError, match=r"\[0, 10\)"):
        run.source()([1], torch.tensor([10]))


def test_sheets_and_log_are_written(tiny, tmp_path):
    sheets = []
    train(override(tiny, ["train.sheet_every=160"]), tmp_path, quiet=True, on_sheet=sheets.append)
    assert [p.name for p in sheets] == ["000000160.png", "000000320.png"]
    records = log_of(tmp_path)
    assert [r["images"] for r in records] == list(range(32, 321, 32))  # as train.log_every says
    assert all(r["loss"] > 0 and r["skipped"] == 0 for r in records)


def test_checkpoints_kept(tiny, tmp_path):
    """At least two checkpoints stay, the newest last."""
    train(override(tiny, ["train.save_every=0.0"]), tmp_path, quiet=True)
    assert checkpoint.steps(tmp_path / "checkpoints") == [19, 20]


@pytest.mark.parametrize("content", ["", "{not json", "[]", "{}", '"text"'])
def test_a_damaged_recipe_is_named_with_the_remedy(tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(RecipeError, match=r"recipe.json is damaged .*checkpoints"):
        Run.open(tmp_path)
