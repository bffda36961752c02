"""Training on a GPU: the step of a CPU, the same run however it is interrupted, every lever that a GPU has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import load_data, resolve
from sfumato.runs.run import Run
from sfumato.training import fit_memory
from sfumato.training.loop import train
from sfumato.training.trainer import Trainer

pytestmark = pytest.mark.slow


OPTIMIZERS = ("adam", "adamw", "muon", "radam")
PLAIN = ("network.dropout=0", "train.compile=off")  # dropout is drawn by each device's own generator
FULL = 640  # images of the runs that are resumed


def trainer_of(recipe: Recipe, device: torch.device) -> Trainer:
    data = load_data(recipe, "train")
    return Trainer(plan(resolve(recipe, data)), data, device)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return everything that the newest checkpoint holds."""
    return {
        f"{stem}.{name}": value
        for stem, group in Run.open(folder).checkpoint.tensors.items()
        for name, value in group.items()
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_steps_move_the_weights_alike(optimizer: str, tiny: Recipe, device: torch.device) -> None:
    recipe = override(tiny, [*PLAIN, f"train.optimizer={optimizer}"])
    ends = []
    for place in (torch.device("cpu"), device):
        trainer = trainer_of(recipe, place)
        begun = {name: p.detach().clone().cpu() for name, p in trainer.network.named_parameters()}
        assert all(trainer.advance(0.0) for _ in range(3))
        ends.append({name: p.detach().cpu() - begun[name] for name, p in trainer.network.named_parameters()})
    moved = torch.cat([p.flatten() for p in ends[0].values()])
    off = torch.cat([(ends[1][name] - p).flatten() for name, p in ends[0].items()])
    assert float(moved.norm()) > 0 and float(off.norm() / moved.norm()) < 0.02  # Muon's polynomial is in bf16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_resumes_to_the_bit(precision: str, tiny: Recipe, device: torch.device, tmp_path: Path) -> None:
    """Half the images, then all of them, is the straight run: weights, averages, optimisers."""
    recipe = override(
        tiny, ["train.compile=off", "train.rate=constant", f"train.precision={precision}", f"train.images={FULL}"]
    )
    train(recipe, tmp_path / "straight", device=device, quiet=True)
    half = override(recipe, [f"train.images={FULL // 2}"])
    train(half, tmp_path / "halves", device=device, quiet=True)
    train(recipe, tmp_path / "halves", device=device, quiet=True, allow=("train.images",))
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "halves")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_a_gpu_goes_on_on_a_cpu(tiny: Recipe, device: torch.device, tmp_path: Path) -> None:
    recipe = override(tiny, [*PLAIN, "train.rate=constant", f"train.images={FULL}"])
    half = override(recipe, [f"train.images={FULL // 2}"])
    train(half, tmp_path / "both", device=device, quiet=True)
    train(recipe, tmp_path / "both", device="cpu", quiet=True, allow=("train.images",))
    train(recipe, tmp_path / "cpu", device="cpu", quiet=True)
    one, other = weights(tmp_path / "both"), weights(tmp_path / "cpu")
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name.startswith("model") and value.is_floating_point():
            torch.testing.assert_close(value, other[name], rtol=0.02, atol=2e-3, msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_steps_settle_on_the_device(optimizer: str, tiny: Recipe, gpu: torch.device) -> None:
    """A poisoned step is skipped by the device itself, the host learns of it one step later, nothing else changes."""
    trainer = trainer_of(override(tiny, [*PLAIN, f"train.optimizer={optimizer}", "train.optimizer.lr=0.001"]), gpu)
    assert trainer.deferred is not None
    objective = trainer.objective

    def poisoned(*given: object):
        loss = objective(*given)
        loss.each[1] *= float("nan")
        return loss

    told = [trainer.advance(0.0)]
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    trainer.objective = poisoned
    told.append(trainer.advance(0.0))
    after = dict(trainer.network.named_parameters())
    trainer.objective = objective
    told.append(trainer.advance(0.0))
    assert told == [True, True, False]
    torch.cuda.synchronize()
    assert all(bool(p.isfinite().all()) for p in trainer.network.parameters()) and before.keys() == after.keys()


def test_a_compiled_network_answers_alike(tiny: Recipe, device: torch.device) -> None:
    eager, compiled = (trainer_of(override(tiny, PLAIN), device) for _ in range(2))
    fit_memory.compile_network(compiled.network, compiled.recipe)
    for _ in range(2):
        assert eager.advance(0.0) and compiled.advance(0.0)
    for (name, p), q in zip(eager.network.named_parameters(), compiled.network.parameters(), strict=True):
        torch.testing.assert_close(q.detach(), p.detach(), rtol=1e-3, atol=1e-3, msg=name)


def test_cuda_graphs_replay_the_network(tiny: Recipe, gpu: torch.device) -> None:
    trainer = trainer_of(override(tiny, PLAIN), gpu)
    network = trainer.network.eval()
    c, h, w = trainer.loader.batch(0, 8)[0].shape[1:]
    x, told = torch.randn(8, c, h, w, device=gpu), torch.linspace(-1, 1, 8, device=gpu)
    label = torch.zeros(8, dtype=torch.int64, device=gpu)
    with torch.no_grad():
        expected = network(x, told, label)
        replayed = torch.compile(network, mode="reduce-overhead")
        for _ in range(3):
            out = replayed(x, told, label).clone()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_one_process_under_torchrun_is_the_plain_run(tiny: Recipe, device: torch.device, tmp_path: Path) -> None:
    """NCCL on a GPU, gloo in a rehearsal: the same file of weights."""
    words = ["edm-digits", *(word for word in OWN), "--device", device.type, "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m"]
    launch = [*run, "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m"]
    for start, name in ((run, "plain"), (launch, "launched")):
        command = [*start, "sfumato", "train", *words, "--out", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "launched")
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-6) for name in one)


OWN = (
    *("data.first=96", "network.width=16", "network.mult=1,1", "network.blocks=1", "network.embedding=32"),
    *("train.optimizer=adam", "train.batch=16", "train.images=160", "train.precision=fp32", "train.compile=off"),
    *("train.sheet_every=1000000", "sample.grid.steps=3"),
)


def test_images_of_a_gpu_are_those_of_a_cpu(tiny: Recipe, device: torch.device, tmp_path: Path) -> None:
    """The same seeds make the same digits; a pixel may differ by a grey level where a rounding lies between."""
    train(override(tiny, [*PLAIN, f"train.images={FULL}"]), tmp_path / "run", device="cpu", quiet=True)
    run = Run.open(tmp_path / "run")
    one, other = (run.source(device=place)(range(16)).cpu().int() for place in ("cpu", device))
    off = (one - other).abs()
    assert int(off.max()) <= 2 and float((off > 0).float().mean()) < 0.02
