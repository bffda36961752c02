"""Training and sampling beside other libraries, as ratios in one run, at the same batch and image size.

    python -m venv peers && peers/bin/pip install -e . diffusers accelerate denoising-diffusion-pytorch smalldiffusion
    OMP_NUM_THREADS=2 peers/bin/python benchmarks/peers.py [--steps 3] [--rounds 3] [--only diffusers,...] [--fp32]

The other libraries are never dependencies of this one: make an environment of their own for them. Two of them import
torchvision; with a torch that lacks its operators, two schemas are defined first, which is all that the import needs.

Networks of different libraries differ, so each row says its arithmetic (operations of one image's forward pass, counted
by torch) and what matters is arithmetic per second: that of `sfumato`, our network at a width of about the others'
arithmetic with Adam as they have it, over that of the library. `recipe` is our network as its recipe has it, trained by
Muon, and `10.7M` the same with that many weights. Rows with `fewer` leave out products by Winograd's convolutions (and
in Muon); their arithmetic is counted as that of the plain row, so that their ratio is one of time.
Every library trains as its documentation shows, with its own optimiser and average of the weights where it has one, in
bf16 autocast, which not all of them turn on by themselves; --fp32 leaves it off for the others. Rows are interleaved;
medians over rounds. Also measured: the share of the machine's own ceiling (convolutions and matrix products in bf16),
the most memory each library's process took, and what a checkpoint costs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sfumato.core.level import Level
from sfumato.processes.machine import describe, keep_freed_memory
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.resolve import resolve
from sfumato.samplers.euler import euler
from sfumato.training.trainer import Trainer

SIDE, STEPS = 28, 10  # of the images; network calls of an image sampled


@dataclass(frozen=True)
class Peer:
    """A library at work.

    Attributes:
        gflop: Forward arithmetic of one image, 1e9 operations (two per multiply-add).
        train: Takes one training step.
        sample: Makes a batch in `STEPS` network calls.
    """

    gflop: float
    train: Callable[[], None]
    sample: Callable[[], None]


def arithmetic(call: Callable[[], object]) -> float:
    """Return the operations of a call on one image, in 1e9."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() / 1e9


def sfumato(batch: int, changes: Sequence[str]) -> Peer:
    """This library: its recipe for CPUs, with changes, by its own trainer."""
    from training_speed import _images

    data = _images()
    recipe = resolve(override(edm_fashion_mnist_cpu(), [f"train.batch={batch}", *changes]), data)
    trainer = Trainer(plan(recipe), data, torch.device("cpu"))
    denoiser = plan(recipe).model(trainer.network)
    sigmas = torch.cat((torch.linspace(80, 0.1, STEPS, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    grid, x = Level(torch.ones_like(sigmas), sigmas), torch.randn(batch, 1, SIDE, SIDE)

    def sample() -> None:
        with torch.no_grad():
            for _ in euler(denoiser, 80 * x, grid, noise=lambda step: x):
                pass

    plain = plan(override(recipe, ["train.precision=bf16"]))
    counted = plain.model(plain.build_network())
    one = arithmetic(lambda: counted(x[:1], Level.of(1.0, 1.0)))
    return Peer(one, lambda: trainer.advance(0.0) and None, sample)


Cast = Callable[[], AbstractContextManager[object]]  # what the others compute in


def bf16() -> AbstractContextManager[object]:
    """Return autocast to bf16."""
    return torch.autocast("cpu", torch.bfloat16)


def _steps(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batch: int,
    cast: Cast,
    after: Callable[[], None] = lambda: None,
) -> Callable[[], None]:
    """Return one step of a plain loop, as the other libraries' own loops take it."""

    def step() -> None:
        x = torch.rand(batch, 1, SIDE, SIDE) * 2 - 1
        with cast():
            value = loss(x)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        after()

    return step


def _calls(model: Callable[[Tensor], object], batch: int, cast: Cast) -> Callable[[], None]:
    x = torch.randn(batch, 1, SIDE, SIDE)

    def sample() -> None:
        with torch.no_grad(), cast():
            for _ in range(STEPS):
                model(x)

    return sample


def diffusers(batch: int, cast: Cast) -> Peer:
    """UNet2DModel in the loop of diffusers' training example: DDPM noise, AdamW, cosine rate, EMAModel."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    model = UNet2DModel(
        SIDE,
        1,
        1,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        norm_num_groups=32,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    noise, average = DDPMScheduler(1000), EMAModel(model.parameters())

    def loss(x: Tensor) -> Tensor:
        n, t = torch.randn_like(x), torch.randint(1000, (len(x),))
        return nn.functional.mse_loss(model(noise.add_noise(x, n, t), t).sample.float(), n)

    one = arithmetic(lambda: model(torch.randn(1, 1, SIDE, SIDE), 10))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    train = _steps(model, loss, optimizer, batch, cast, lambda: average.step(model.parameters()))
    return Peer(one, train, _calls(lambda x: model(x, 10), batch, cast))


def denoising_diffusion_pytorch(batch: int, cast: Cast) -> Peer:
    """Unet and GaussianDiffusion of denoising-diffusion-pytorch, as its Trainer steps them: Adam and EMA."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    model = Unet(dim=32, dim_mults=(1, 2, 4), channels=1, flash_attn=False)
    diffusion = GaussianDiffusion(model, image_size=SIDE, timesteps=1000)
    average = EMA(diffusion, beta=0.995, update_every=10)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
    one = arithmetic(lambda: model(torch.randn(1, 1, SIDE, SIDE), torch.tensor([10])))
    train = _steps(diffusion, lambda x: diffusion((x + 1) / 2), optimizer, batch, cast, average.update)
    return Peer(one, train, _calls(lambda x: model(x, torch.full((batch,), 10)), batch, cast))


def smalldiffusion(batch: int, cast: Cast) -> Peer:
    """Unet of smalldiffusion by its training_loop: Adam on its sigma-space loss."""
    from smalldiffusion import ScheduleDDPM, Unet, training_loop

    model = Unet(SIDE, 1, 1, ch=32, ch_mult=(1, 2, 4), attn_resolutions=(7,))
    loader = [torch.rand(batch, 1, SIDE, SIDE) * 2 - 1]
    steps: Iterator[object] = training_loop(loader, model, ScheduleDDPM(beta_start=1e-4, beta_end=0.02), epochs=10**6)
    one = arithmetic(lambda: model(torch.randn(1, 1, SIDE, SIDE), torch.tensor(1.0)))

    def train() -> None:
        with cast():
            next(steps)

    return Peer(one, train, _calls(lambda x: model(x, torch.tensor(1.0)), batch, cast))


OURS: dict[str, tuple[str, ...]] = {
    "sfumato": ("network.width=96", "train.optimizer=adam"),
    "fewer": ("network.width=96", "train.optimizer=adam", "train.precision=bf16-winograd"),
    "recipe": (),
    "recipe, fewer": ("train.precision=bf16-winograd", "train.optimizer.fewer_products=true"),
    "10.7M": ("network.width=128",),
}
THEIRS: dict[str, Callable[[int, Cast], Peer]] = {
    "diffusers": diffusers,
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
    "smalldiffusion": smalldiffusion,
}


def make(name: str, batch: int, cast: Cast) -> Peer:
    """Return a library at work, by its name in the table."""
    return sfumato(batch, OURS[name]) if name in OURS else THEIRS[name](batch, cast)


def ceiling(seconds: float = 0.5) -> dict[str, float]:
    """Return what the machine's convolutions and matrix products reach in bf16, in 1e9 operations a second."""
    x = torch.randn(64, 128, 28, 28).bfloat16().to(memory_format=torch.channels_last)
    w = torch.randn(128, 128, 3, 3).bfloat16().to(memory_format=torch.channels_last)
    a = torch.randn(1024, 1024).bfloat16()
    kinds = {
        "conv": (lambda: nn.functional.conv2d(x, w, padding=1), 2 * x.numel() * 9 * 128),
        "matmul": (lambda: a @ a, 2 * 1024**3),
    }
    found = {}
    for name, (call, operations) in kinds.items():
        call()
        took, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            call()
            took.append(time.perf_counter() - began)
        found[name] = operations / min(took) / 1e9
    return found


def checkpoint_seconds() -> float:
    """Return what writing one checkpoint of the recipe's run takes."""
    from training_speed import _images

    data = _images()
    trainer = Trainer(plan(resolve(edm_fashion_mnist_cpu(), data)), data, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        checkpoint.save(Path(folder), 1, trainer.tensors(), {})
        return time.perf_counter() - began


def peak(name: str, arguments: argparse.Namespace) -> float:
    """Return the GiB at most that a process of its own takes for training and sampling with a library."""
    command = [sys.executable, __file__, "--peak", name, "--batch", str(arguments.batch)]
    ended = subprocess.run([*command, *["--fp32"] * arguments.fp32], capture_output=True, text=True, check=True)
    return float(ended.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--only", default=",".join(THEIRS), help="of the other libraries, separated by commas")
    parser.add_argument("--fp32", action="store_true", help="the others without autocast")
    parser.add_argument("--peak", default="", help=argparse.SUPPRESS)  # a process of its own, for its memory
    arguments = parser.parse_args()
    for name in ("nms", "qnms"):
        with suppress(RuntimeError):  # there already
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    keep_freed_memory()
    cast: Cast = nullcontext if arguments.fp32 else bf16
    if arguments.peak:
        peer = make(arguments.peak, arguments.batch, cast)
        for call in (peer.train, peer.train, peer.sample):
            call()
        (most,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(most.split()[1]) / 2**20)
        return
    peers: dict[str, Peer] = {}
    for name in (*OURS, *arguments.only.split(",")):
        try:
            peers[name] = make(name, arguments.batch, cast)
            peers[name].train()
        except ImportError as error:
            print(f"{name}: not installed ({error})")
    speeds: dict[str, dict[str, list[float]]] = {name: {"train": [], "sample": []} for name in peers}
    for _ in range(arguments.rounds):
        for name, peer in peers.items():
            for kind, call, count in (("train", peer.train, arguments.steps), ("sample", peer.sample, 1)):
                began = time.perf_counter()
                for _ in range(count):
                    call()
                speeds[name][kind].append(count * arguments.batch / (time.perf_counter() - began))
    own = {kind: statistics.median(values) * peers["sfumato"].gflop for kind, values in speeds["sfumato"].items()}
    best = ceiling()
    heads = ("GFLOP", "train/s", "sample/s", "x train", "x sample", "% conv", "GiB")
    print(f"{'library':<28}" + "".join(f"{head:>10}" for head in heads))
    for name, peer in peers.items():
        train, sample = (statistics.median(speeds[name][kind]) for kind in ("train", "sample"))
        ratios = own["train"] / (train * peer.gflop), own["sample"] / (sample * peer.gflop)
        share = 3 * train * peer.gflop / best["conv"]  # a backward pass is two forward passes
        cells = (
            f"{peer.gflop:.3f}",
            f"{train:.1f}",
            f"{sample:.1f}",
            *(f"{ratio:.2f}" for ratio in ratios),
            f"{100 * share:.0f}",
            f"{peak(name, arguments):.2f}",
        )
        print(f"{name:<28}" + "".join(f"{cell:>10}" for cell in cells))
    print("x: arithmetic per second of sfumato over that of the row; % conv: of the bf16 ceiling, in training")
    print(", ".join(f"bf16 {name} ceiling {value:.0f} GFLOP/s" for name, value in best.items()))
    pause = checkpoint_seconds() / (60 * edm_fashion_mnist_cpu().train.save_every)
    print(f"checkpoints pause training for {100 * pause:.2f}% of the time at the default interval")
    print(describe("cpu"))


if __name__ == "__main__":
    main()
