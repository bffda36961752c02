"""Speed on one GPU, as shares of what the card can do, and what each lever buys.

    python benchmarks/gpu.py [--minutes 7] [--out docs/results/gpu.md]       (make gpu-check runs the checks, then this)
    python benchmarks/gpu.py --device cpu --rehearse                         every line but CUDA's own, in a minute

First the card itself is measured: a product of square matrices in bf16 (its peak), and a copy (its bandwidth). Then
each network trains by the toolkit's own step with one lever more in every row, and makes images' network calls:

    fp32        float32 with TF32 off, channels_last
    tf32        matrix units take float32 in 19 bits
    bf16        autocast, the recipes' setting
    compile     torch.compile, on by default on one GPU
    graph       sampling only: torch.compile with CUDA graphs

The arithmetic of a step is counted (2 MAC, three passes a trained image), not measured. A row that the time no longer
allows is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sfumato.data.dataset import Dataset
from sfumato.processes.machine import describe
from sfumato.recipes.edm import edm_cifar10
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.report.table import markdown_table
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import resolve
from sfumato.training.trainer import Trainer

TRAINING: dict[str, tuple[str, ...]] = {
    "fp32": ("train.precision=fp32", "train.compile=off"),
    "tf32": ("train.precision=fp32", "train.compile=off"),
    "bf16": ("train.precision=bf16", "train.compile=off"),
    "compile": ("train.precision=bf16", "train.compile=on"),
}
SAMPLING = ("fp32", "tf32", "bf16", "compile", "graph")
LEAST = 20.0  # seconds that a row may need at most when it begins
SECONDS = 3.0  # of measuring a row


@dataclass(frozen=True)
class Subject:
    """A network to time: a recipe and its batch."""

    name: str
    recipe: Recipe
    batch: int


def subjects(rehearse: bool) -> list[Subject]:
    """Return the networks: the compact U-Net at two widths, and DDPM++ of EDM with 55.7M weights."""
    compact = edm_fashion_mnist_cpu()
    if rehearse:
        return [Subject("compact U-Net, 16 wide", override(compact, ["network.width=16", "network.head_width=16"]), 4)]
    return [
        *(
            Subject(
                f"compact U-Net, {w} wide, 28x28", override(compact, [f"network.width={w}", "network.patch=1"]), 512
            )
            for w in (64, 128)
        ),
        Subject("DDPM++ of EDM, 32x32", override(edm_cifar10(), ["data.augment=0"]), 256),
    ]


def noise(shape: tuple[int, int, int], classes: int) -> Dataset:
    """Return random images: speed does not depend on what they show."""
    count, generator = 4096, torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    names = tuple(map(str, range(max(1, classes))))
    return Dataset("noise", images, torch.arange(count) % len(names), names, "train", torch.arange(count))


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def per_second(work: Callable[[], object], device: torch.device, seconds: float, warm: int = 3) -> float:
    """Return how often a second work is done: the median of three rounds after some that do not count."""
    for _ in range(warm):
        work()
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    times = max(1, int(seconds / 3 / max(time.perf_counter() - began, 1e-6)))
    rounds = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(times):
            work()
        wait(device)
        rounds.append(times / (time.perf_counter() - began))
    return statistics.median(rounds)


def card(device: torch.device, rehearse: bool) -> tuple[float, float]:
    """Return FLOP a second of products of bf16 matrices, and bytes a second that a copy reads and writes."""
    side, count = (256, 2**20) if rehearse else (8192, 2**29)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    x = torch.empty(count, device=device, dtype=torch.bfloat16)
    y = torch.empty_like(x)
    flops = 2 * side**3 * per_second(lambda: a @ a, device, SECONDS)
    return flops, 2 * x.nbytes * per_second(lambda: y.copy_(x), device, SECONDS)


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Let matrix units take float32, or not, inside the block."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def trainer_of(subject: Subject, fields: tuple[str, ...], device: torch.device) -> Trainer:
    """Return a trainer of a network on random images."""
    shape = plan(subject.recipe).image if subject.recipe.shape is not None else (1, 28, 28)
    data = noise(shape, 10 if subject.recipe.data.labels else 0)
    recipe = replace(
        override(subject.recipe, [f"train.batch={subject.batch}", "train.micro=none", *fields]), shape=None
    )
    return Trainer(plan(resolve(recipe, data)), data, device)


def training(subject: Subject, lever: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Return images a second and peak memory of training with a lever."""
    trainer = trainer_of(subject, TRAINING[lever], device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tf32(lever != "fp32"):
        steps = per_second(lambda: trainer.advance(0.0), device, seconds)
    flop = 1e9 * plan_cost(trainer).training
    return {"images/s": steps * subject.batch, "FLOP": flop, "memory": peak(device)}


def sampling(subject: Subject, lever: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Return network calls a second, an image each, with a lever."""
    trainer = trainer_of(subject, TRAINING["fp32"], device)
    network = trainer.network.eval()
    c, h, w = plan_image(trainer)
    classes = len(trainer.recipe.shape.classes) if trainer.recipe.shape and trainer.recipe.data.labels else 0
    x = torch.randn(subject.batch, c, h, w, device=device).to(memory_format=torch.channels_last)
    told = torch.linspace(-1, 1, subject.batch, device=device)
    label = torch.zeros(subject.batch, dtype=torch.int64, device=device) if classes else None
    call: Callable[..., Any] = network
    if lever in ("compile", "graph"):
        call = torch.compile(network, mode="reduce-overhead" if lever == "graph" else None)
    half = lever not in ("fp32", "tf32")

    def once() -> object:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            return call(x, told, label)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tf32(lever != "fp32"):
        calls = per_second(once, device, seconds)
    return {"images/s": calls * subject.batch, "FLOP": 2 * plan_cost(trainer).network.macs, "memory": peak(device)}


def plan_cost(trainer: Trainer) -> Any:
    """Return what a trainer's recipe costs, counted."""
    return plan(trainer.recipe).cost


def plan_image(trainer: Trainer) -> tuple[int, int, int]:
    """Return the shape of a trainer's images."""
    return plan(trainer.recipe).image


def peak(device: torch.device) -> float:
    """Return the peak memory of a GPU in GiB; nan elsewhere."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")


def measured(
    device: torch.device, minutes: float, rehearse: bool
) -> tuple[list[dict[str, Any]], list[str], float, float]:
    """Return the rows of the table, the rows left out and why, and the card's peak and bandwidth."""
    end = time.monotonic() + 60 * minutes
    seconds = 0.3 if rehearse else SECONDS
    peak_flops, bandwidth = card(device, rehearse)
    rows: list[dict[str, Any]] = []
    left: list[str] = []
    for subject in subjects(rehearse):
        for what, levers, work in (("training", TRAINING, training), ("sampling", SAMPLING, sampling)):
            first: float | None = None
            for lever in levers:
                name = f"{subject.name}, {what}, {lever}"
                if rehearse and lever in ("compile", "graph"):
                    left.append(f"{name}: a rehearsal")
                    continue
                if time.monotonic() + LEAST > end:
                    left.append(f"{name}: no time left")
                    continue
                try:
                    found = work(subject, lever, device, seconds)
                except Exception as error:
                    left.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
                    continue
                finally:
                    torch.compiler.reset()
                first = first or found["images/s"]
                rows.append(
                    {
                        "network": subject.name,
                        "work": what,
                        "lever": lever,
                        "batch": subject.batch,
                        "images/s": f"{found['images/s']:,.0f}",
                        "over fp32": f"{found['images/s'] / first:.2f}",
                        "share of peak": f"{100 * found['FLOP'] * found['images/s'] / peak_flops:.1f}%",
                        "GiB": f"{found['memory']:.2f}",
                    }
                )
                print(name, rows[-1]["images/s"], "images/s", rows[-1]["share of peak"], flush=True)
    return rows, left, peak_flops, bandwidth


def page(
    rows: list[dict[str, Any]], left: list[str], flops: float, bandwidth: float, device: torch.device, words: str
) -> str:
    """Return the page of results."""
    facts = ", ".join(f"{key} {value}" for key, value in describe(device).items())
    missing = "".join(f"- {line}\n" for line in left)
    return (
        "# Speed on a GPU\n\n"
        f"Written by `{words}`. Machine: {facts}.\n\n"
        f"The card itself: {flops / 1e12:.3g} TFLOP/s for products of bf16 matrices, {bandwidth / 1e9:,.0f} GB/s for "
        "a copy (read and written). *Share of peak* is counted arithmetic over the first of them; training counts "
        "three passes an image. In a row every lever above it is on, too.\n\n"
        f"{markdown_table(rows)}\n" + (f"\nLeft out:\n\n{missing}" if left else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7.0, help="of wall time, for all rows")
    parser.add_argument("--out", type=Path, default=None, help="page to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true", help="one tiny network, any device")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device, so nothing is measured. --device cpu --rehearse tries the script.")
        return
    words = "python benchmarks/gpu.py" + (" --device cpu --rehearse" if arguments.rehearse else "")
    text = page(*measured(device, arguments.minutes, arguments.rehearse), device, words)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
