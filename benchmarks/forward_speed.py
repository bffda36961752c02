"""What a forward pass and a sampler's walk cost beyond their arithmetic, as ratios in one run.

    python benchmarks/forward_speed.py [--rounds 7] [--batch 16] [--networks NAME ...] [--json FILE]

Networks. Each is timed beside the same arithmetic in plain PyTorch, in two ways:

    replayed    the network's own tensor operations, recorded once and replayed by torch.fx: no module, no check, no
                Python of ours. Above 1 the network costs more than its arithmetic
    plain       a twin written here from torch.nn alone, with as many parameters and multiply-adds: for the U-Net of
                DDPM (whose ladder ADM, DDPM++ and NCSN++ share) and the compact U-Net

Samplers. A walk is timed with a network that costs nothing, so that levels, coefficients, addressed noise and the
sampler's own sums remain, beside as many bare calls of the recipe's network on as large a batch.

Times are CPU seconds of this process, rows are interleaved and ratios are of medians, so that a busy machine treats
both sides alike. Run it on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from sfumato.core.denoiser import Counted
from sfumato.core.find import find
from sfumato.networks._count import cost
from sfumato.processes.machine import describe, keep_freed_memory
from sfumato.recipes.digits_families import ddpm_digits
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, Shape
from sfumato.runs.run import Run

Pass = Callable[[], object]
SIZES: dict[str, dict[str, Any]] = {  # name -> options of each network, at 32x32
    "unet": {"width": 64},
    "ddpm": {"width": 64, "mult": (1, 2, 2)},
    "adm": {"width": 64, "mult": (1, 2, 2), "blocks": 2, "attention": (16,)},
    "songunet": {"width": 64, "mult": (1, 2, 2), "blocks": 2},
    "edm2": {"width": 64, "mult": (1, 2, 2), "blocks": 2, "attention": (8,), "head_width": 64},
    "dit": {"patch": 2, "width": 192, "depth": 6, "heads": 3},
    "condnorm-unet": {"width": 32},
    "cifar-unet": {},
    "convnet": {},
}
WALKS = {
    "heun, 18 steps": ("edm", ["sample.sampler=heun", "sample.grid=karras", "sample.grid.steps=18"]),
    "heun with churn, 12 steps": ("edm", ["sample.sampler=heun", "sample.sampler.churn=40"]),
    "dpmpp, 12 steps": ("edm", ["sample.sampler=dpmpp", "sample.grid.steps=12"]),
    "unipc, 12 steps": ("edm", ["sample.sampler=unipc", "sample.grid.steps=12"]),
    "ddim, 50 steps of a table": ("ddpm", ["sample.sampler=ddim", "sample.grid.steps=50"]),
    "ancestral, 100 steps of a table": ("ddpm", ["sample.sampler=ancestral", "sample.grid.steps=100"]),
    "heun with guidance 2, 12 steps": ("edm", ["sample.sampler=heun", "sample.guidance=2"]),
}


class PlainBlock(nn.Module):
    """GN, SiLU, conv; the embedding (added, or scale and shift); GN, SiLU, conv; a shortcut."""

    def __init__(self, width_in: int, width: int, embedding: int, groups: int, modulate: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups if not modulate else width_in // 4, width_in, affine=True)
        self.conv1, self.conv2 = nn.Conv2d(width_in, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.dense, self.modulate = nn.Linear(embedding, width * (2 if modulate else 1)), modulate
        self.norm2 = nn.GroupNorm(groups if not modulate else width // 4, width, affine=not modulate)
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h, m = self.conv1(F.silu(self.norm1(x))), self.dense(e)[:, :, None, None]
        if self.modulate:
            scale, shift = m.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + m)
        return self.shortcut(x) + self.conv2(F.silu(h))


class PlainAttention(nn.Module):
    """GN, qkv by 1x1, attention over positions, 1x1."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(groups, width), heads
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(seen.transpose(-1, -2).reshape(b, c, h, w))


class PlainLadder(nn.Module):
    """DDPM's U-Net for SIZES["ddpm"]: three levels, two blocks down and three up, attention at 16."""

    def __init__(self, width: int = 64, mult: tuple[int, ...] = (1, 2, 2)) -> None:
        super().__init__()
        half, e = width // 2, 4 * width
        self.register_buffer("frequencies", torch.logspace(0, -4, half))
        self.time = nn.Sequential(nn.Linear(width, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.first, down, seen, c = nn.Conv2d(3, width, 3, padding=1), [], [width], width
        for i, m in enumerate(mult):
            for _ in range(2):
                block = PlainBlock(c, m * width, e, 32)
                down.append(nn.ModuleList([block] + [PlainAttention(m * width, 1, 32)] * (i == 1)))
                c = m * width
                seen.append(c)
            if i + 1 < len(mult):
                down.append(nn.ModuleList([nn.Conv2d(c, c, 3, stride=2)]))
                seen.append(c)
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList([PlainBlock(c, c, e, 32), PlainAttention(c, 1, 32), PlainBlock(c, c, e, 32)])
        up = []
        for i, m in reversed(list(enumerate(mult))):
            for _ in range(3):
                block = PlainBlock(c + seen.pop(), m * width, e, 32)
                up.append(nn.ModuleList([block] + [PlainAttention(m * width, 1, 32)] * (i == 1)))
                c = m * width
            if i:
                up.append(nn.ModuleList([nn.Conv2d(c, c, 3, padding=1)]))
        self.up = nn.ModuleList(up)
        self.norm, self.last = nn.GroupNorm(32, c), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, label: None = None) -> Tensor:
        angle = t.expand(len(x))[:, None] * self.frequencies
        e = self.time(torch.cat((angle.sin(), angle.cos()), 1))
        h = self.first(x)
        seen = [h]
        for layers in self.down:
            if isinstance(layers[0], nn.Conv2d):
                h = layers[0](F.pad(h, (0, 1, 0, 1)))
            else:
                h = layers[0](h, e)
                for attention in layers[1:]:
                    h = attention(h)
            seen.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, e)), e)
        for layers in self.up:
            if isinstance(layers[0], nn.Conv2d):
                h = layers[0](F.interpolate(h, scale_factor=2.0))
            else:
                h = layers[0](torch.cat((h, seen.pop()), 1), e)
                for attention in layers[1:]:
                    h = attention(h)
        return self.last(F.silu(self.norm(h)))


class PlainCompact(nn.Module):
    """The compact U-Net of SIZES["unet"]: patches of 2, widths 64 and 128, two blocks, attention at the coarser."""

    def __init__(self, width: int = 64, embedding: int = 256) -> None:
        super().__init__()
        wide, e = 2 * width, embedding
        self.register_buffer("frequencies", torch.logspace(-0.3, 2, 32))
        self.time = nn.Sequential(nn.Linear(64, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.first, self.last = nn.Conv2d(12, width, 3, padding=1), nn.Conv2d(width, 12, 3, padding=1)
        self.fine = nn.ModuleList(PlainBlock(width, width, e, 0, True) for _ in range(2))
        self.narrow = nn.Conv2d(4 * width, wide, 1)
        self.coarse = nn.ModuleList(PlainBlock(wide, wide, e, 0, True) for _ in range(3))
        self.look = nn.ModuleList(PlainAttention(wide, wide // 64, wide // 4) for _ in range(2))
        self.back = nn.ModuleList(PlainBlock(2 * wide, wide, e, 0, True) for _ in range(2))
        self.widen = nn.Conv2d(wide, 4 * width, 1)
        self.rise = nn.ModuleList(PlainBlock(2 * width, width, e, 0, True) for _ in range(2))
        self.norm = nn.GroupNorm(width // 4, width)

    def forward(self, x: Tensor, t: Tensor, label: None = None) -> Tensor:
        angle = t.expand(len(x))[:, None] * self.frequencies
        e = self.time(torch.cat((angle.cos(), angle.sin()), 1))
        a = self.fine[0](self.first(F.pixel_unshuffle(x, 2)), e)
        b = self.fine[1](a, e)
        c = self.coarse[0](self.narrow(F.pixel_unshuffle(b, 2)), e)
        d = self.look[0](self.coarse[1](c, e))
        h = self.coarse[2](d, e)
        h = self.back[1](torch.cat((self.back[0](torch.cat((h, d), 1), e), c), 1), e)
        h = F.pixel_shuffle(self.widen(self.look[1](h)), 2)
        h = self.rise[1](torch.cat((self.rise[0](torch.cat((h, b), 1), e), a), 1), e)
        return F.pixel_shuffle(self.last(F.silu(self.norm(h))), 2)


PLAIN: dict[str, Callable[[], nn.Module]] = {"unet": PlainCompact, "ddpm": PlainLadder}


def network_of(name: str) -> nn.Module:
    """Return a network of `SIZES`, unlabelled, on 3x32x32, with weights that are not zero."""
    torch.manual_seed(0)
    network: nn.Module = find("network", name)(channels=3, out_channels=3, classes=0, size=32, **SIZES[name])
    return network.eval().requires_grad_(False)


def measure(rows: Mapping[str, Pass], rounds: int) -> dict[str, float]:
    """Return the median seconds of every pass, interleaved, after one of each unmeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for index in range(rounds + 1):
        for name, call in rows.items():
            began = time.process_time()
            call()
            if index:
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def networks(names: list[str], batch: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row per network: its cost, and its time over the replayed and the plain one."""
    x, t = torch.randn(batch, 3, 32, 32), torch.tensor(0.5)
    found = []
    for name in names:
        network = network_of(name)
        recorded = make_fx(network)(x, t)
        passes: dict[str, Pass] = {"ours": partial(network, x, t), "replayed": partial(recorded, x, t)}
        mine = cost(network, (3, 32, 32))
        row: dict[str, Any] = {"network": name, "parameters": mine.parameters, "GMAC": round(mine.gmac, 3)}
        if name in PLAIN:
            twin = PLAIN[name]().eval().requires_grad_(False)
            its = cost(twin, (3, 32, 32))
            if (its.parameters, its.macs) != (mine.parameters, mine.macs):
                raise SystemExit(
                    f"{name}: the twin has {its.parameters:,} parameters and {its.macs:,} MAC; the "
                    f"network has {mine.parameters:,} and {mine.macs:,}."
                )
            passes["plain"] = partial(twin, x, t)
        with torch.no_grad():
            seconds = measure(passes, rounds)
        row["images/s"] = round(batch / seconds["ours"], 1)
        row["over replayed"] = round(seconds["ours"] / seconds["replayed"], 3)
        row["over plain"] = round(seconds["ours"] / seconds["plain"], 3) if "plain" in seconds else None
        found.append(row)
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return found


class Free(nn.Module):
    """A network that costs nothing: it answers with its input."""

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return x


def walks(batch: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row per sampler: what its walk takes with a network that costs nothing, beside the network's calls."""
    shape = Shape(1, 28, 28, tuple("0123456789"))
    base = {"edm": edm_fashion_mnist_cpu(), "ddpm": replace(ddpm_digits(), network=edm_fashion_mnist_cpu().network)}
    fp32 = ["train.precision=fp32"]
    recipes: dict[str, Recipe] = {k: override(replace(r, shape=shape, sigma_data=0.5), fp32) for k, r in base.items()}
    labels, found = torch.arange(batch) % 10, []
    for name, (which, fields) in WALKS.items():
        recipe = override(recipes[which], fields)
        network = plan(recipe).build_network().eval().requires_grad_(False)
        counted = Counted(plan(recipe).model(Free()))
        source = Run(Path(), recipe, {}).diffusion(denoiser=counted)
        source.floats(range(batch), labels)
        calls, rows = counted.nfe, counted.rows // counted.nfe
        asked = torch.randn(rows, 1, 28, 28), torch.tensor(0.5), torch.arange(rows) % 10
        passes: dict[str, Pass] = {
            "walk": partial(source.floats, range(batch), labels),
            "network": partial(network, *asked),
        }
        with torch.no_grad():
            seconds = measure(passes, rounds)
        around, inside = seconds["walk"], calls * seconds["network"]
        row = {"walk": name, "calls": calls, "images of a call": rows, "overhead": f"{100 * around / inside:.2f}%"}
        found.append(row)
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16, help="images of a forward pass")
    parser.add_argument("--walk-batch", type=int, default=64, help="images of a walk")
    parser.add_argument("--networks", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--only", choices=("networks", "walks"), default=None)
    parser.add_argument("--json", type=Path, default=None, help="also write the tables here")
    arguments = parser.parse_args()
    keep_freed_memory()
    tables: dict[str, Any] = {}
    if arguments.only != "walks":
        tables["networks"] = networks(arguments.networks, arguments.batch, arguments.rounds)
    if arguments.only != "networks":
        tables["walks"] = walks(arguments.walk_batch, arguments.rounds)
    print(describe("cpu"))
    if arguments.json:
        arguments.json.write_text(json.dumps({**tables, "machine": describe("cpu")}, indent=1))


if __name__ == "__main__":
    main()
