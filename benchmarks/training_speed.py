"""Training speed of the compact U-Net, as ratios in one run: what each setting buys, and what the toolkit costs.

    python benchmarks/training_speed.py [--steps 10] [--rounds 4] [--batch 64] [--json FILE]

Rows, interleaved so that a busy machine treats them alike (medians over rounds):

    fp32             contiguous fp32
    channels_last    the same in channels_last
    unfused          channels_last and bf16 autocast, everything by torch's own kernels
    bf16             the same with GroupNorm, modulation and SiLU in one compiled pass: the recipes' setting
    bare             the arithmetic of the bf16 row in a plain loop: network, EDM loss, optimiser, averages; noise from
                     torch's own generator, no guard, no log

The toolkit's overhead is 1 - (bf16 / bare).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sfumato.core.images import to_float
from sfumato.data.dataset import Dataset
from sfumato.networks import _fused
from sfumato.processes.machine import describe, keep_freed_memory
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import resolve
from sfumato.training.optim import muon
from sfumato.training.trainer import Trainer


def toolkit(recipe: Recipe, data: Dataset, channels_last: bool) -> Callable[[], None]:
    """Return one step of the toolkit's loop."""
    trainer = Trainer(plan(recipe), data, torch.device("cpu"))
    if not channels_last:
        trainer.network.to(memory_format=torch.contiguous_format)

    def step() -> None:
        trainer.advance(0.0)

    return step


def unfused(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step in which torch's own kernels compute GroupNorm, modulation and SiLU."""

    def torch_step() -> None:
        usable, _fused.usable = _fused.usable, lambda x: False
        try:
            step()
        finally:
            _fused.usable = usable

    return torch_step


def bare(recipe: Recipe, data: Dataset) -> Callable[[], None]:
    """Return one step of a plain loop with the same arithmetic."""
    network = plan(recipe).build_network()
    optimizers = muon(network)
    averages = [{k: v.clone() for k, v in network.state_dict().items()} for _ in recipe.ema.power]
    batch, sd = recipe.train.batch, recipe.sigma_data or 0.5
    classes = len(data.classes)

    def step() -> None:
        pick = torch.randint(len(data), (batch,))
        x0, label = to_float(data.images[pick]), data.labels[pick]
        label = torch.where(torch.rand(batch) < 0.1, -1, label) if classes else None
        sigma = (torch.randn(batch, 1, 1, 1) * 1.2 - 1.2).exp()
        n = torch.randn_like(x0)
        h = torch.hypot(sigma, torch.tensor(sd))
        with torch.autocast("cpu", torch.bfloat16):
            f = network((x0 + sigma * n) / h, sigma.flatten().log() / 4, label)
        loss = (f.float() - (sigma / (sd * h) * x0 - sd / h * n)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), float("inf"))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        state = network.state_dict()
        for average in averages:
            torch._foreach_lerp_(list(average.values()), list(state.values()), 0.01)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="steps per round and row")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", type=Path, default=None, help="also write the table here")
    arguments = parser.parse_args()
    keep_freed_memory()
    data = _images()
    base = resolve(override(edm_fashion_mnist_cpu(), [f"train.batch={arguments.batch}"]), data)
    fp32 = override(base, ["train.precision=fp32"])
    rows = {
        "fp32": toolkit(fp32, data, channels_last=False),
        "channels_last": toolkit(fp32, data, channels_last=True),
        "unfused": unfused(toolkit(base, data, channels_last=True)),
        "bf16": toolkit(base, data, channels_last=True),
        "bare": bare(base, data),
    }
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for step in rows.values():
        step()
    for _ in range(arguments.rounds):
        for name, step in rows.items():
            began = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            speeds[name].append(arguments.steps * arguments.batch / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    table = {
        name: {"images_per_second": round(v, 1), "over_fp32": round(v / medians["fp32"], 3)}
        for name, v in medians.items()
    }
    overhead = 1 - medians["bf16"] / medians["bare"]
    print(f"{'row':<15}{'images/s':>10}{'over fp32':>11}")
    for name, row in table.items():
        print(f"{name:<15}{row['images_per_second']:>10}{row['over_fp32']:>11}")
    print(f"overhead of the toolkit's loop over the bare loop: {100 * overhead:.1f}%")
    print(describe("cpu"))
    if arguments.json:
        found = {"rows": table, "overhead": overhead, "machine": describe("cpu")}
        arguments.json.write_text(json.dumps(found, indent=1))


def _images() -> Dataset:
    """Return random 28x28 images of ten classes: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2048, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(2048) % 10
    return Dataset("noise", images, labels, tuple("0123456789"), "train", torch.arange(2048))


if __name__ == "__main__":
    main()
