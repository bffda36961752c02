"""Steps that are settled on the device change what steps settled by the host change, and the host learns of them."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sfumato.cli._arguments import find_recipe
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, part
from sfumato.runs.resolve import load_data, resolve
from sfumato.training import deferred, optim
from sfumato.training import trainer as trainer_module
from sfumato.training.guard import Diverged
from sfumato.training.loop import train
from sfumato.training.trainer import Trainer

CPU = torch.device("cpu")
FINITE = [True, False, True, True, False, False, True]  # of the steps of a run
OPTIMIZERS = {
    "adamw": ["train.optimizer=adamw", "train.optimizer.weight_decay=0.1"],
    "adam": ["train.optimizer=adam"],
    "muon": ["train.optimizer=muon", "train.optimizer.weight_decay=0.1"],
}
BATCH_NORM = {"norm": "batch", "width": 8, "depths": (1,), "attention": (), "heads": (2, 2)}


@pytest.fixture(params=OPTIMIZERS)
def recipe(tiny: Recipe, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe with BatchNorm, whose optimisers are the fused ones that a GPU has."""
    monkeypatch.setattr(optim, "_fused", lambda parameters: True)
    with_statistics = replace(tiny, network=part("network", "condnorm-unet", **BATCH_NORM))
    return override(with_statistics, [*OPTIMIZERS[request.param], "train.images=9600"])


def trainer_of(recipe: Recipe) -> Trainer:
    data = load_data(recipe, "train")
    return Trainer(plan(resolve(recipe, data)), data, CPU)


def walk(trainer: Trainer, finite: list[bool]) -> list[bool]:
    """Take steps, some of which have one loss that is not a number; return what the host was told."""
    objective, told = trainer.objective, []

    def poisoned(*arguments: object):
        loss = objective(*arguments)
        loss.each[3] *= float("nan")
        return loss

    for good in finite:
        trainer.objective = objective if good else poisoned
        told.append(trainer.advance(0.0))
    trainer.objective = objective
    return told


def test_settled_on_the_device_a_run_is_the_one_settled_by_the_host(recipe: Recipe) -> None:
    at_once, waited = trainer_of(recipe), trainer_of(recipe)
    waited.deferred = deferred.Deferred(waited.watch, waited.optimizers)
    assert walk(at_once, FINITE) == FINITE
    assert walk(waited, FINITE) == [True, *FINITE[:-1]]  # each answer comes with the next step
    expected, got = at_once.tensors(), waited.tensors()
    assert expected.keys() == got.keys()
    for stem, group in expected.items():
        for name, value in group.items():
            assert torch.equal(value, got[stem][name]) or (
                stem.startswith("ema") and torch.allclose(value, got[stem][name], rtol=1e-5, atol=1e-7)
            ), (stem, name)
    assert at_once.watch.total == waited.watch.total == 3 and at_once.watch.where == waited.watch.where
    one, other = (trainer.record(1.0, 0.1) for trainer in (at_once, waited))
    assert one == other and one["skipped"] == 3


def test_a_bad_step_settled_on_the_device_changes_nothing(recipe: Recipe) -> None:
    """P8: weights, averages, optimisers, running statistics and log are those before it, bit for bit."""
    trainer = trainer_of(recipe)
    trainer.deferred = deferred.Deferred(trainer.watch, trainer.optimizers)
    walk(trainer, [True, True])
    before = {(s, k): v.clone() for s, group in trainer.tensors().items() for k, v in group.items()}
    walk(trainer, [False])
    after = {(s, k): v for s, group in trainer.tensors().items() for k, v in group.items()}
    assert before.keys() == after.keys() and all(torch.equal(v, after[key]) for key, v in before.items())
    batch = trainer.recipe.train.batch
    assert trainer.watch.where == f"step 3, samples {2 * batch} to {3 * batch - 1}"


def test_what_cannot_skip_on_the_device_waits(tiny: Recipe) -> None:
    trainer = trainer_of(override(tiny, ["train.optimizer=radam"]))
    cuda = torch.device("cuda")
    assert not deferred.can_wait(cuda, trainer.optimizers) and trainer.deferred is None
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    fused, loop = (torch.optim.Adam([weight], fused=choice) for choice in (True, False))
    muon = optim.Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0)
    assert deferred.can_wait(cuda, [muon, fused]) and not deferred.can_wait(cuda, [muon, loop])
    assert not deferred.can_wait(CPU, [muon, fused])


def test_endless_nan_settled_on_the_device_stops_and_names_a_bad_step(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: as where the host settles it, one step later."""
    monkeypatch.setattr(trainer_module, "can_wait", lambda device, optimizers: all(map(deferred.skips, optimizers)))
    advance, told = Trainer.advance, []

    def poison(self: Trainer, spent: float) -> bool:
        if self.seen >= 3 * self.recipe.train.batch:
            for p in self.network.parameters():
                p.data.fill_(float("nan"))
        told.append(advance(self, spent))
        return told[-1]

    monkeypatch.setattr(Trainer, "advance", poison)
    with pytest.raises(Diverged, match=r"step \d+, samples \d+ to \d+, 3 steps in a row"):
        train(override(recipe, ["train.bad_in_a_row=2"]), tmp_path / "run", quiet=True)
    assert told == [*[True] * 4, *[False] * 3]


class Readings(TorchDispatchMode):
    """Note which functions read a tensor's value on the host, what a GPU would have to be waited for."""

    ASK = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.by: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in self.ASK):
            ours = [frame.name for frame in traceback.extract_stack() if "/sfumato/" in frame.filename]
            self.by.add(ours[-1])
        return func(*args, **(kwargs or {}))


# what is read on the host because it is there, the seed of dropout, levels and which steps end clean; or on a CPU only,
# the range of labels (`embed` by torch's one_hot)
HOST = {"seeded", "index_in", "term", "label_rows", "embed"}


@pytest.mark.parametrize("name", ["edm", "ddpm", "iddpm", "flow", "edm2", "vp", "v"])
def test_a_step_asks_nothing_of_the_device_but_of_the_step_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "_fused", lambda parameters: True)
    trainer = trainer_of(find_recipe(f"{name}-digits", ["train.batch=16", "train.precision=fp32"]))
    trainer.deferred = deferred.Deferred(trainer.watch, trainer.optimizers)
    trainer.advance(0.0)
    with Readings() as readings:
        trainer.advance(0.0)
    assert "settle" in readings.by and readings.by <= {"settle", *HOST}
