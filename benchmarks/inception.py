"""Inception features in fp32 as a share of what convolutions reach on this machine, in one run.

    python benchmarks/inception.py [--batch 8] [--rounds 3] [--threads 1] [--json FILE]

The ceiling is the best rate of single convolutions (3x3 and 1x1, channels_last, the widths and maps of the network's
own middle) at the same batch; the share is the rate of the whole extractor, resize and pools included, over it. Rows
are interleaved and the best of the rounds counts, in time of the processor for one thread. The weights are noise: speed
does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.metrics.extractors.inception import InceptionFeatures
from sfumato.metrics.features import exact_float32
from sfumato.metrics.inception_net import blank
from sfumato.processes.machine import describe, keep_freed_memory

CEILING = ((3, 64, 96, 35), (3, 96, 96, 35), (3, 192, 192, 17), (1, 768, 192, 17), (3, 448, 384, 8), (1, 2048, 320, 8))
"""(kernel, channels in, channels out, side of the map)"""


def network() -> InceptionFeatures:
    """Return the extractor with weights of noise."""
    net = blank()
    state = {}
    for i, (name, like) in enumerate(net.state_dict().items()):
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(i))
        scale = 1 / like[0].numel() ** 0.5 if like.ndim > 1 else 0.1
        state[name] = (noise.abs() + 0.5 if "running_var" in name else scale * noise).to(like.dtype)
    net.load_state_dict(state, assign=True)
    return InceptionFeatures(net.fold(), "noise", (3, 32, 32))


def count(extract: InceptionFeatures) -> int:
    """Return the operations of the convolutions for one image: two for each multiplication with its addition."""
    total = 0

    def add(layer: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        total += 2 * out[0].numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(add) for m in extract.net.modules() if isinstance(m, nn.Conv2d)]
    extract(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return total


def main() -> None:
    """Run and print the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    clock = time.process_time if asked.threads == 1 else time.perf_counter
    extract, batch = network(), asked.batch
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    per_image = count(extract)
    work: dict[str, tuple[Callable[[], Tensor], float]] = {}
    for kernel, cin, cout, side in CEILING:
        layer = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False).to(memory_format=torch.channels_last)
        x = torch.randn(batch, cin, side, side).contiguous(memory_format=torch.channels_last)
        operations = 2.0 * batch * cout * side * side * cin * kernel * kernel
        repeats = max(1, int(4e9 / operations))

        def convolve(layer: nn.Conv2d = layer, x: Tensor = x, repeats: int = repeats) -> Tensor:
            for _ in range(repeats):
                out = layer(x)
            return out

        work[f"{kernel}x{kernel} {cin} -> {cout} at {side}x{side}"] = convolve, operations * repeats
    work["inception"] = (lambda: extract(images.clone())), float(per_image * batch)
    rates = dict.fromkeys(work, 0.0)
    with exact_float32(torch.device("cpu")):
        for turn in range(asked.rounds + 1):
            for name, (run, operations) in work.items():
                began = clock()
                run()
                rates[name] = max(rates[name], operations / (clock() - began)) if turn else 0.0  # the first warms up
    ceiling = max(rate for name, rate in rates.items() if name != "inception")
    for name, rate in rates.items():
        print(f"{name:<28} {rate / 1e9:7.1f} GFLOP/s")
    share = rates["inception"] / ceiling
    print(
        f"\nInception: {per_image / 1e9:.2f} GFLOP an image, {rates['inception'] / per_image:.2f} images/s at batch "
        f"{batch}; {share:.0%} of the ceiling"
    )
    if asked.json:
        asked.json.write_text(
            json.dumps(
                {
                    "rates": rates,
                    "share": share,
                    "operations": per_image,
                    "batch": batch,
                    "threads": asked.threads,
                    "machine": describe("cpu"),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
