"""The estimate of a step's memory is that of the process, and training cuts its rounds by it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import nn

from sfumato.cli._arguments import find_recipe
from sfumato.networks._memory import _Live, peak_bytes
from sfumato.networks.condnorm_unet import condnorm_unet
from sfumato.recipes.course_edm import course_edm_fashion_mnist
from sfumato.runs.memory import peaks
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Shape
from sfumato.training import fit_memory, trainer
from sfumato.training.trainer import Trainer

MIB = 2**20
STEPS = """
import resource, sys, torch
from sfumato.cli._arguments import find_recipe
from sfumato.data.dataset import Dataset
from sfumato.runs.plan import plan
from sfumato.runs.resolve import resolve
from sfumato.training.trainer import Trainer
from sfumato.processes.machine import keep_freed_memory
keep_freed_memory()
recipe = find_recipe(sys.argv[1], sys.argv[4:])
shape = tuple(map(int, sys.argv[2].split("x")))
images = torch.randint(0, 256, (256, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
names = recipe.shape.classes if recipe.shape else tuple("0123456789")
labels = torch.arange(256) % len(names)
data = Dataset("noise", images, labels, names, "train", torch.arange(256))
trainer = Trainer(plan(resolve(recipe, data)), data, torch.device("cpu"))
for _ in range(int(sys.argv[3])):
    trainer.advance(0.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_chain_of_two_layers_holds_what_its_backward_pass_reads():
    """x (batch, 100) -> 50 -> 10: at the end the output and its square; weights and their gradients are 4 bytes each.

    The forward pass keeps the 50 for the second layer's gradient. The largest moment of a pass without gradients is
    that of the second layer: the 50 and the 10 together.
    """
    network = nn.Sequential(nn.Linear(100, 50, bias=False), nn.Linear(50, 10, bias=False))
    assert peak_bytes(network, (8, 100), training=False) == 4 * 8 * (50 + 10)
    kept, gradients = 4 * 8 * (50 + 10), 4 * (100 * 50 + 50 * 10)
    assert kept + gradients <= peak_bytes(network, (8, 100)) <= 2 * kept + gradients


@pytest.mark.parametrize("training", [False, True])
def test_the_count_without_values_is_that_of_a_pass_with_values(training):
    """Each tensor of a real pass is there, and no other: what a process holds beyond them is its allocator's."""
    network = condnorm_unet(size=16, width=16, depths=(1, 1), attention=(8,), heads=(2, 2, 2), norm="batch")
    network = network.to(memory_format=torch.channels_last)
    x, c_noise = torch.zeros(4, 1, 16, 16), torch.zeros(4)
    with _Live([*network.parameters(), *network.buffers(), x, c_noise]) as live, torch.set_grad_enabled(training):
        out = network(x, c_noise)
        if training:
            out.float().square().sum().backward()
        del out
    counted = peak_bytes(network, x.shape, (0.0, None), training=training)
    assert abs(counted / live.peak - 1) < 0.02


def test_fused_attention_is_not_counted_as_a_square():
    """At twice the side, attention's square would be 16 times as large; everything else is 4 times."""
    recipe = dataclasses.replace(course_edm_fashion_mnist(), sigma_data=0.5)
    network = plan(recipe).network
    small, large = (peak_bytes(network, (4, 1, side, side), (0.0, None), training=False) for side in (32, 64))
    assert large < 4.2 * small


def test_a_step_that_would_not_fit_is_cut_before_it_is_taken(tiny, monkeypatch, capsys):
    """With as much free memory as half of the round needs, the round is halved, and no step fails on the way."""
    from sfumato.runs.resolve import load_data, resolve

    data = load_data(tiny, "train")
    planned = plan(resolve(tiny, data))
    whole, half, least = (peaks(planned, "cpu", images=n, data=data.images.numel()).step for n in (16, 8, 1))
    assert least < half < whole
    free = half - fit_memory.PROGRAM - data.images.numel()
    monkeypatch.setattr(trainer, "free_memory", lambda device: free)
    cut = Trainer(plan(resolve(tiny, data)), data, torch.device("cpu"))
    assert cut.rounds == [(0, 8), (8, 8)]
    assert "rounds of 8 images instead" in capsys.readouterr().out
    monkeypatch.setattr(trainer, "free_memory", lambda device: 2**40)
    assert Trainer(plan(resolve(tiny, data)), data, torch.device("cpu")).rounds == [(0, 16)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="getrusage counts kibibytes on Linux only")
@pytest.mark.parametrize(
    ("name", "shape", "fields"),
    [
        ("course-edm-fashion-mnist", "1x32x32", []),
        ("edm-digits", "1x8x8", []),
        ("fashion-mnist-cpu-hour", "1x28x28", []),
        ("fashion-mnist-cpu-hour", "1x28x28", ["train.precision=fp32"]),
        ("course-edm-cifar10", "3x32x32", ["train.batch=24"]),
    ],
)
def test_the_estimate_of_a_step_is_the_measured_peak_within_15_percent(name, shape, fields):
    command = [sys.executable, "-c", STEPS, name, shape, "3", *fields]
    measured = 1024 * int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    recipe = find_recipe(name, fields)
    known = recipe.shape or Shape(*map(int, shape.split("x")), tuple("0123456789"))
    estimated = peaks(plan(dataclasses.replace(recipe, shape=known)), "cpu").step
    print(f"{name} {fields}: estimated {estimated / MIB:.0f} MiB, measured {measured / MIB:.0f} MiB")
    assert measured < 4 * 2**30
    assert abs(estimated / measured - 1) < 0.15


FREED = r"""
import re, torch
from pathlib import Path
from sfumato.processes.machine import give_back_freed_memory, keep_freed_memory
held = lambda: int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
kept, before = keep_freed_memory(), held()
blocks = [torch.ones(2**18) for _ in range(200)]
last, full = torch.ones(2**18), held()
del blocks
after = held()
give_back_freed_memory()
print(kept, before, full, after, held(), float(last.sum()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep memory")
def test_what_is_kept_of_freed_memory_is_given_back_when_asked():
    """200 MiB stay the process's after they are freed, and go when it asks; the block after them keeps its values."""
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    kept, *sizes, values = done.stdout.split()
    if kept != "True":
        pytest.skip("no glibc")
    before, full, after, given = map(float, sizes)
    assert full - before > 190 and full - after < 20 and given - before < 20
    assert float(values) == 2**18
