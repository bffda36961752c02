"""Training speed of the compact U-Net, as ratios in one run: what each setting buys, and what the toolkit costs.

    python benchmarks/training_speed.py [--steps 10] [--rounds 4] [--batch 64] [--rows NAME ...] [--calls] [--cpu-time]

Rows, interleaved so that a busy machine treats them alike (medians over rounds):

    fp32             contiguous fp32
    channels_last    the same in channels_last
    unfused          channels_last and bf16 autocast, everything by torch's own kernels
    bf16             the same with GroupNorm, modulation and SiLU in one compiled pass: the recipes' setting
    bare             the arithmetic of the bf16 row in a plain loop: network, EDM loss, optimiser, averages; noise from
                     torch's own generator, no guard, no log
    winograd         the bf16 row with fewer products in 3x3 convolutions (train.precision=bf16-winograd)
    fewer            that row with fewer products in Muon, too (train.optimizer.fewer_products=true)

The toolkit's overhead is 1 - (bf16 / bare). A call is one pass of the trained network without gradients, as samplers
make it. On a machine that does other work, take --cpu-time on one thread: seconds of this process, not of the clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from sfumato.core.images import to_float
from sfumato.core.level import Level
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

ROWS = ("fp32", "channels_last", "unfused", "bf16", "bare", "winograd", "fewer")
PLAIN = ("train.precision=bf16", "train.optimizer.fewer_products=false")


def call(recipe: Recipe) -> Callable[[], None]:
    """Return one call of a network whose weights stay, on a batch of noise."""
    made = plan(recipe)
    model = made.model(made.build_network().eval().requires_grad_(False))
    x, label = torch.randn(recipe.train.batch, 1, 28, 28), torch.arange(recipe.train.batch) % 10
    level = Level.of(1.0, 1.0)

    def denoise() -> None:
        with torch.inference_mode():
            model(x, level, label)

    return denoise


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
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), choices=ROWS, help="the first is what others are held to"
    )
    parser.add_argument("--calls", action="store_true", help="time calls without gradients in place of steps")
    parser.add_argument("--cpu-time", action="store_true", help="count seconds of this process, not of the clock")
    parser.add_argument("--json", type=Path, default=None, help="also write the table here")
    arguments = parser.parse_args()
    keep_freed_memory()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    data = _images()
    base = resolve(override(edm_fashion_mnist_cpu(), [f"train.batch={arguments.batch}", *PLAIN]), data)
    fp32, winograd = override(base, ["train.precision=fp32"]), override(base, ["train.precision=bf16-winograd"])
    fewer = override(winograd, ["train.optimizer.fewer_products=true"])
    if arguments.calls:
        makers = {"fp32": partial(call, fp32), "bf16": partial(call, base), "winograd": partial(call, winograd)}
    else:
        makers = {
            "fp32": partial(toolkit, fp32, data, channels_last=False),
            "channels_last": partial(toolkit, fp32, data, channels_last=True),
            "unfused": lambda: unfused(toolkit(base, data, channels_last=True)),
            "bf16": partial(toolkit, base, data, channels_last=True),
            "bare": partial(bare, base, data),
            "winograd": partial(toolkit, winograd, data, channels_last=True),
            "fewer": partial(toolkit, fewer, data, channels_last=True),
        }
    rows = {name: makers[name]() for name in arguments.rows if name in makers}
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for step in rows.values():
        step()
    for _ in range(arguments.rounds):
        for name, step in rows.items():
            began = clock()
            for _ in range(arguments.steps):
                step()
            speeds[name].append(arguments.steps * arguments.batch / (clock() - began))
    first = next(iter(rows))
    table = {}
    for name, values in speeds.items():
        low, middle, high = statistics.quantiles([v / f for v, f in zip(values, speeds[first])], n=4)
        table[name] = {"images_per_second": round(statistics.median(values), 1), "ratio": round(middle, 3)}
        table[name] |= {"quarters": [round(low, 3), round(high, 3)]}
    print(f"{'row':<15}{'images/s':>10}{'over ' + first:>20}  (median of the rounds, and their quarters)")
    for name, row in table.items():
        print(f"{name:<15}{row['images_per_second']:>10}{row['ratio']:>20} {row['quarters']}")
    overhead = None
    if {"bf16", "bare"} <= rows.keys():
        overhead = 1 - statistics.median(speeds["bf16"]) / statistics.median(speeds["bare"])
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
