"""Objectives inside the trainer: a draw that remembers, a loss that learns, augmentation; all resume bit-exactly."""

from __future__ import annotations

import json

import pytest
import torch

from sfumato.core.level import Level
from sfumato.data.augment import edm_augment
from sfumato.draws import Importance
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.resolve import load_data, resolve
from sfumato.training.loop import train
from sfumato.training.trainer import Memory, Trainer

CPU = torch.device("cpu")
DISCRETE = (
    *("target=eps", "schedule=linear", "schedule.steps=40", "c_noise=index", "c_noise.scale=0.025", "c_in=one"),
    *("draw=uniform", "sample.sampler=ancestral", "sample.grid=respaced", "sample.grid.steps=3"),
)
IMPORTANCE = (*DISCRETE, "variance=range", "objective=vlb", "draw=importance", "draw.history=2")
SONGUNET = (
    *("network=songunet", "network.width=16", "network.mult=1,1", "network.blocks=1", "network.attention=[4]"),
    *("data.augment=0.5", "data.flip=false"),
)
UNCERTAIN = ("objective=uncertainty", "objective.features=16")
ROWS = {"importance": IMPORTANCE, "augmented": SONGUNET, "uncertainty": UNCERTAIN}


def trainer_of(recipe):
    data = load_data(recipe, "train")
    return Trainer(plan(resolve(recipe, data)), data, CPU)


@pytest.mark.parametrize("row", ROWS)
def test_resume_is_bit_exact(tiny, tmp_path, row):
    """20 steps equal 10 + resume + 10, the draw's history and the loss's own numbers included."""
    recipe = override(tiny, [*ROWS[row], "train.rate=constant"])
    straight = train(recipe, tmp_path / "a", quiet=True, device="cpu")
    train(override(recipe, ["train.images=160"]), tmp_path / "b", quiet=True, device="cpu")
    resumed = train(recipe, tmp_path / "b", quiet=True, device="cpu", allow=("train.images",))
    a, b = straight.checkpoint.tensors, resumed.checkpoint.tensors
    assert a.keys() == b.keys()
    for group in a:
        assert a[group].keys() == b[group].keys()
        assert all(torch.equal(a[group][key], b[group][key]) for key in a[group]), group


def test_an_importance_draw_remembers_losses_and_weighs_them(tiny):
    """After its history is full the draw is not uniform, and the logged loss is the weighted one."""
    trainer = trainer_of(override(tiny, [*IMPORTANCE, "train.batch=40", "train.optimizer.lr=0.001"]))
    assert isinstance(trainer.memory, Memory) and isinstance(trainer.memory, Importance)
    for _ in range(2):  # stratified over 40 entries: each step visits every entry once
        assert not trainer.memory.warm
        assert trainer.advance(0.0)
    assert trainer.memory.warm
    trainer.log.take()
    probabilities = trainer.memory.probabilities
    assert float(probabilities.max() / probabilities.min()) > 2
    trainer.advance(0.0)
    logged = trainer.log.total / trainer.log.count.sum()
    plain = trainer.log.sum.sum() / trainer.log.count.sum()
    # entries with large losses come more often, and count for less: the plain mean overstates the bound
    assert float(plain) > float(logged) > 0


def test_weights_of_an_importance_draw_leave_the_expected_loss(tiny):
    """sum_i p_i (1 / (T p_i)) L_i is the uniform mean of L_i, for any history."""
    trainer = trainer_of(override(tiny, IMPORTANCE))
    table = trainer.memory.table
    losses = torch.arange(1.0, 41.0, dtype=torch.float64)
    for _ in range(2):
        trainer.memory.update(table[1:], losses)
    expected = (trainer.memory.probabilities * trainer.memory.weight(table[1:]) * losses).sum()
    assert float(expected) == pytest.approx(float(losses.mean()), rel=1e-12)


def test_a_skipped_step_is_not_remembered(tiny):
    trainer = trainer_of(override(tiny, IMPORTANCE))
    objective = trainer.objective

    def poisoned(*arguments):
        loss = objective(*arguments)
        loss.each[0] *= float("nan")
        return loss

    trainer.objective = poisoned
    assert trainer.advance(0.0) is False
    assert int(trainer.memory.counts.sum()) == 0


def test_learned_numbers_of_a_loss_are_trained_and_saved(tiny):
    """u follows the error: at a converged weight exp(u) is the mean error, so its gradient vanishes there."""
    trainer = trainer_of(override(tiny, [*UNCERTAIN, "network.dropout=0.0"]))
    before = trainer.objective.linear.weight.detach().clone()
    trainer.advance(0.0)
    assert not torch.equal(before, trainer.objective.linear.weight)
    assert set(trainer.tensors()["objective"]) == {"fourier.frequencies", "fourier.phases", "linear.weight"}
    assert "objective" not in trainer_of(tiny).tensors()


def test_uncertainty_is_least_at_the_true_error(tiny):
    """error / exp(u) + u has its minimum at u = ln error, which is the loss's own log_variance there."""
    trainer = trainer_of(override(tiny, [*UNCERTAIN, "network.dropout=0.0"]))
    x0, label, positions = trainer.loader.batch(0, 16)
    found = trainer.objective(trainer.model, x0, label, positions)
    error, u = found.parts["error"], found.parts["log_variance"]
    assert torch.allclose(found.each, error * (-u).exp() + u, atol=1e-6)
    assert bool((found.each >= error.log() + 1 - 1e-6).all())


def test_augmentation_reaches_the_image_and_the_network(tiny):
    """The trainer's examples are the augmented images, and the network is told: other labels, other loss."""
    trainer = trainer_of(override(tiny, [*SONGUNET, "network.dropout=0.0"]))
    x0, label, positions, augment = trainer._examples(0, 16)
    plain, _, _ = trainer.loader.batch(0, 16)
    assert torch.equal(x0, edm_augment(plain, positions, seed=0, p=0.5)[0]) and augment.shape == (16, 9)
    for _ in range(3):
        trainer.advance(0.0)
    trainer.network.eval()
    told, untold = (
        trainer.objective(trainer.model, x0, label, positions, a).each for a in (augment, torch.zeros_like(augment))
    )
    same = (augment == 0).all(1)
    assert not torch.equal(told, untold) and torch.equal(told[same], untold[same])
    assert trainer_of(tiny)._examples(0, 4)[3] is None


def test_parts_of_a_loss_are_logged_by_level(tiny, tmp_path):
    run = train(
        override(tiny, [*DISCRETE, "weighting=simple", "variance=range", "objective=hybrid"]),
        tmp_path,
        quiet=True,
        device="cpu",
    )
    for record in map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines()):
        assert record["simple"] + record["bound"] == pytest.approx(record["loss"], rel=1e-5)
        assert len(record["simple_by_log_snr"]) == len(record["loss_by_log_snr"])


def test_the_log_of_an_older_run_is_taken_over(tiny):
    """Runs written before the total was kept apart have none: their total is the sum over the bins."""
    trainer = trainer_of(tiny)
    trainer.log.add(torch.tensor([1.0, 3.0]), Level.of(1.0, [1.0, 2.0]).log_snr, torch.tensor(1.0))
    saved = {k: v.clone() for k, v in trainer.log.tensors().items() if k != "total"}
    fresh = trainer_of(tiny).log
    fresh.load(saved)
    assert fresh.take()["loss"] == pytest.approx(2.0)
