"""Train the project's feature networks and write them as package files.

    python -m sfumato.metrics.train_features --data fashion-mnist [--seed 0] [--out FOLDER] [--threads 2]

writes every network of that data set (`PLANS`).  A network of `extractors.classifier` learns the official training
images for a fixed number of epochs; no checkpoint is selected on
test images.  (Batch, rate and shift of the Fashion-MNIST plan were changed once after a test accuracy was seen.)
Augmentation: a shift by up to `shift` pixels with empty borders and, where a mirrored image is an image of
the same class, a mirror.  SGD with Nesterov momentum, the rate rising linearly for a fifth of the run and falling
linearly to 0.  bf16 autocast, channels_last.

Every random number comes from generators seeded by `--seed`, so two runs on one machine with the same number of
threads give the same bytes.  (On Linux, MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_MMAP_THRESHOLD_=4294967296 in the
environment keeps large blocks in the process and makes training half as fast again.)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sfumato.core.find import find
from sfumato.metrics.extractors.classifier import FILES, Conv, FeatureNet, Shape


@dataclass(frozen=True, slots=True)
class Plan:
    """How one feature network is trained.

    Arguments:
        data: Name of the data set.
        shape: Shape of the network.
        epochs: Passes over the training images.
        batch: Images a step.
        rate: Highest learning rate.
        decay: Weight decay.
        shift: Largest shift of augmentation, in pixels.
        mirror: Whether images are mirrored at random.
    """

    data: str
    shape: Shape
    epochs: int
    batch: int = 125
    rate: float = 0.15
    decay: float = 5e-4
    shift: int = 1
    mirror: bool = False


PLANS: dict[str, Plan] = {
    "fashion_mnist": Plan("fashion-mnist", Shape(28, 14, (32, 48, 112)), epochs=6, mirror=True),
    "fashion_mnist14": Plan("fashion-mnist", Shape(14, 14, (32, 48, 112)), epochs=5, mirror=True),
    "digits": Plan("digits", Shape(8, 8, (16, 32, 64)), epochs=40, batch=64),
    "mnist": Plan("mnist", Shape(28, 14, (8, 16, 48)), epochs=2),
}
"""The networks that are shipped, by the name of their extractor."""


def augment(images: Tensor, shift: int, mirror: bool, generator: torch.Generator) -> Tensor:
    """Shift and mirror each image of a batch by its own random amount.

    Arguments:
        images: uint8 (B, C, H, W).
        shift: Largest shift in pixels; borders are filled with 0.
        mirror: Whether half of the images are mirrored.
        generator: Source of random numbers.

    Returns:
        uint8 (B, C, H, W).
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, (shift, shift, shift, shift))
    top = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator)
    left = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator)
    rows, columns = top + torch.arange(height), torch.arange(width).expand(count, width)
    if mirror:
        flip = torch.rand((count, 1), generator=generator) < 0.5
        columns = torch.where(flip, width - 1 - columns, columns)
    item = torch.arange(count)[:, None, None]
    return padded[item, :, rows[:, :, None], (left + columns)[:, None, :]].movedim(3, 1)


def fresh(shape: Shape, generator: torch.Generator) -> FeatureNet:
    """Make a network that is ready to learn, its weights drawn from `generator` (He et al., 2015)."""
    with torch.device("meta"):
        net = FeatureNet(shape, learning=True)
    net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(module.bias)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold(net: FeatureNet) -> FeatureNet:
    """Fold every batch normalisation into its convolution; the function computed in evaluation mode is the same."""
    with torch.device("meta"):
        folded = FeatureNet(net.shape, learning=False)
    state = {f"head.{key}": value for key, value in net.head.state_dict().items()}
    for name, module in net.eval().named_modules():
        if isinstance(module, Conv):
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, module[0]), cast(nn.BatchNorm2d, module[1]))
            state |= {f"{name}.0.{key}": value for key, value in fused.state_dict().items()}
    folded.load_state_dict(state, assign=True)
    return folded.eval()


def rescale(net: FeatureNet, images: Tensor) -> None:
    """Scale the features in place so that their mean square over `images` is 1; the logits do not change.

    ReLU(s x) = s ReLU(x) for s > 0: if the last block receives s times its input and its biases are scaled by s, its
    output is scaled by s too; the block before it makes that input by scaling its two outgoing convolutions.
    """
    with torch.inference_mode():
        square = torch.stack([net.features(to_float(part)).square().mean() * len(part) for part in images.split(1000)])
        scale = (square.sum() / len(images)).rsqrt().item()
        layers = dict(net.named_parameters())
        for name in ("blocks.1.second.0", "blocks.1.skip.0"):  # the last block receives scale * input
            layers[f"{name}.weight"].mul_(scale)
            layers[f"{name}.bias"].mul_(scale)
        for name in ("blocks.2.first.0", "blocks.2.second.0"):  # relu(W(s x) + s b) = s relu(W x + b)
            layers[f"{name}.bias"].mul_(scale)
        layers["head.weight"].div_(scale)


def to_float(images: Tensor) -> Tensor:
    """Map uint8 images to float32 in [-1, 1], channels_last."""
    return (images.to(torch.float32) / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose largest logit is their label's."""
    with torch.inference_mode():
        right = [(net(to_float(x)).argmax(1) == y).sum().item() for x, y in zip(images.split(1000), labels.split(1000))]
    return sum(right) / len(labels)


def train(plan: Plan, images: Tensor, labels: Tensor, seed: int = 0, tell: Callable[[str], None] = print) -> FeatureNet:
    """Train a feature network.

    Arguments:
        plan: Shape, length and augmentation.
        images: uint8 (n, C, size, size).
        labels: int64 (n,), in [0, classes).
        seed: Seed of initial weights, order and augmentation.
        tell: Receives one line an epoch.

    Returns:
        The folded network, features of mean square 1, weights rounded to float16 (held as float32).
    """
    generator = torch.Generator().manual_seed(seed)
    net = fresh(plan.shape, generator).train()
    per_epoch = len(images) // plan.batch
    total = per_epoch * plan.epochs
    kernels = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    kinds: list[dict[str, Any]] = [{"params": kernels, "weight_decay": plan.decay}, {"params": others}]
    optimiser = torch.optim.SGD(kinds, lr=plan.rate, momentum=0.9, nesterov=True)
    plan_rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.2 * total), (total - step) / (0.8 * total))
    )
    start = time.monotonic()
    for epoch in range(plan.epochs):
        order = torch.randperm(len(images), generator=generator)
        running = 0.0
        for step in range(per_epoch):
            chosen = order[step * plan.batch : (step + 1) * plan.batch]
            x = to_float(augment(images[chosen], plan.shift, plan.mirror, generator))
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(x)
            loss = functional.cross_entropy(logits.float(), labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            plan_rate.step()
            running += loss.item()
        seconds = time.monotonic() - start
        tell(
            f"epoch {epoch + 1}/{plan.epochs}  loss {running / per_epoch:.4f}  "
            f"{(epoch + 1) * per_epoch * plan.batch / seconds:.0f} img/s"
        )
    folded = fold(net)
    rescale(folded, images)
    with torch.no_grad():
        for weight in folded.parameters():
            weight.copy_(weight.half().float())
    return folded


def save(path: Path, net: FeatureNet, facts: dict[str, object]) -> None:
    """Write a network's float16 weights and the facts of its training as one safetensors file."""
    state = {key: value.half().contiguous() for key, value in net.state_dict().items()}
    save_file(state, path, {"sfumato": json.dumps({"shape": asdict(net.shape), **facts}, sort_keys=True)})


def box2(images: Tensor) -> Tensor:
    """Halve uint8 images by the rounded mean of 2x2 boxes."""
    total = functional.avg_pool2d(images.to(torch.float32), 2) + 0.5
    return total.floor().to(torch.uint8)


def main(arguments: list[str] | None = None) -> None:
    """Train the networks of one data set and write their files."""
    parser = argparse.ArgumentParser(prog="python -m sfumato.metrics.train_features", description=main.__doc__)
    parser.add_argument("--data", required=True, choices=sorted({plan.data for plan in PLANS.values()}))
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation (default 0)")
    parser.add_argument("--out", type=Path, default=FILES, help="folder of the files (default: this package's)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    load = find("data", asked.data)
    for name, plan in PLANS.items():
        if plan.data != asked.data:
            continue
        parts = {}
        for split in ("train", "test"):
            data = load(split=split)
            images = data.images
            while images.shape[-1] > plan.shape.size:
                images = box2(images)
            parts[split] = (images, data.labels)
        print(f"{name}: {len(parts['train'][0]):,} training images of {tuple(parts['train'][0].shape[1:])}")
        net = train(plan, *parts["train"], seed=asked.seed)
        right = accuracy(net, *parts["test"])
        path = asked.out / f"{name}_features.safetensors"
        save(path, net, {"plan": asdict(plan), "seed": asked.seed, "threads": asked.threads, "test_accuracy": right})
        size, count = path.stat().st_size, sum(p.numel() for p in net.parameters())
        print(f"{name}: test accuracy {right:.2%}, {count:,} parameters, {size:,} bytes, {path}")


if __name__ == "__main__":
    main()
