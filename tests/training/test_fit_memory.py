"""Short memory cuts the batch and changes nothing else; compiling changes no name and no copy."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from sfumato.recipes.fashion_mnist import fashion_mnist_cpu_hour
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.resolve import load_data, resolve
from sfumato.training import fit_memory, optim
from sfumato.training.trainer import Trainer

CPU = torch.device("cpu")


def trainer_of(tiny, *fields):
    recipe = override(tiny, fields)
    data = load_data(recipe, "train")
    return Trainer(plan(resolve(recipe, data)), data, CPU)


def starved(trainer, limit, error):
    """Let the trainer's objective fail, after some work, for more than `limit` images at once."""
    objective = trainer.objective

    def short(model, x0, *rest):
        loss = objective(model, x0, *rest)
        if len(x0) > limit:
            raise error
        return loss

    trainer.objective = short
    return trainer


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_short_memory_halves_the_rounds_and_the_step_is_that_of_smaller_rounds(tiny, error, capsys):
    """16 images do not fit, nor do 8; the steps are bit for bit those of train.micro=4."""
    short, small = starved(trainer_of(tiny), 5, error), trainer_of(tiny, "train.micro=4")
    for _ in range(2):
        assert short.advance(0.0) and small.advance(0.0)
    assert short.rounds == small.rounds == [(0, 4), (4, 4), (8, 4), (12, 4)] and short.seen == small.seen == 32
    for group, tensors in small.tensors().items():
        assert all(torch.equal(v, short.tensors()[group][k]) for k, v in tensors.items()), group


def test_what_cannot_be_cut_or_is_another_error_is_raised(tiny):
    with pytest.raises(RuntimeError, match="out of memory"):
        starved(trainer_of(tiny), 0, RuntimeError("out of memory")).advance(0.0)
    with pytest.raises(RuntimeError, match="something else"):
        starved(trainer_of(tiny), 5, RuntimeError("something else")).advance(0.0)
    coupled = trainer_of(tiny, "objective.coupling=ot")
    with pytest.raises(RuntimeError, match="out of memory"):
        starved(coupled, 5, RuntimeError("out of memory")).advance(0.0)


def test_compiling_is_for_one_gpu_unless_it_is_asked_for(tiny):
    cuda = torch.device("cuda")
    assert (
        fit_memory.compiles(plan(tiny), cuda, 1)
        and not fit_memory.compiles(plan(tiny), CPU, 1)
        and not fit_memory.compiles(plan(tiny), cuda, 2)
    )
    assert fit_memory.compiles(plan(override(tiny, ["train.compile=on"])), CPU, 1)
    assert not fit_memory.compiles(plan(override(tiny, ["train.compile=off"])), cuda, 1)


def test_a_compiled_network_keeps_its_names_and_its_copies(tiny):
    """Checkpoints and averages know nothing of it. (It is compiled when first called, which this does not do.)"""
    compiled, plain = trainer_of(tiny, "train.compile=on"), trainer_of(tiny)
    assert compiled.network._compiled_call_impl is not None and plain.network._compiled_call_impl is None
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()
    twin = copy.deepcopy(compiled.network)
    assert twin._compiled_call_impl is None


def test_optimisers_are_fused_on_gpus_only():
    on_cpu = optim._fused([torch.nn.Parameter(torch.zeros(2))])
    assert on_cpu is None and optim.adam(torch.nn.Linear(2, 2))[0].defaults["fused"] is None


def test_the_hour_follows_the_clock_and_works_on_a_short_budget(tmp_path, real_data):
    """The recipe as it stands, for three seconds on few images: the rate has fallen to zero, and widths can be made."""
    from sfumato.runs import averages
    from sfumato.training.loop import train

    fields = [
        "train.minutes=0.05",
        "data.first=256",
        "train.batch=8",
        "network.width=16",
        "network.embedding=32",
        "train.evaluate_every=none",
        "sample.grid.steps=6",
        "train.log_every=8",
    ]
    run = train(override(fashion_mnist_cpu_hour(), fields), tmp_path, root=real_data, quiet=True, device="cpu")
    assert 1 < run.checkpoint.state["elapsed"] < 4  # of the three seconds, preparation takes some
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["lr"] < 0.02 and last["spent"] > 0.9
    assert averages.reconstruct(tmp_path, 0.10).snapshots >= 2
