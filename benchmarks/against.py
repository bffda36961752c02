"""Training speed of the compact U-Net against another checkout of this project, as a ratio of CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/against.py OTHER_CHECKOUT [FIELD=VALUE ...] [--rounds 7] [--calls IMAGES]

A process of each code takes two steps of `edm-fashion-mnist-cpu` in turn, or with --calls makes calls of its network on
so many images as samplers do, so that a busy machine treats both alike. The fields are set in this checkout only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
WORKER = """
import sys, time, torch
sys.path.insert(0, "benchmarks")
import training_speed as bench
from sfumato.core.level import Level
from sfumato.runs.plan import plan
from sfumato.training.trainer import Trainer
bench.keep_freed_memory()
data, images = bench._images(), int(sys.argv[1])
recipe = bench.resolve(bench.override(bench.edm_fashion_mnist_cpu(), sys.argv[2:]), data)
if images:
    made, repeats = plan(recipe), max(2, 256 // images)
    model = made.model(made.build_network().eval().requires_grad_(False))
    x, level, label = torch.randn(images, 1, 28, 28), Level.of(1.0, 1.0), torch.arange(images) % 10
    once = lambda: model(x, level, label)
else:
    trainer, repeats = Trainer(plan(recipe), data, torch.device("cpu")), 2
    once = lambda: trainer.advance(0.0)
def go():
    with torch.inference_mode(bool(images)):
        for _ in range(repeats):
            once()
go()
for _ in sys.stdin:
    began = time.process_time()
    go()
    print((time.process_time() - began) / repeats, flush=True)
"""


def start(checkout: Path, calls: int, fields: list[str]) -> subprocess.Popen[str]:
    """Start a process of a checkout's code that takes steps, or makes calls on images, whenever a line comes."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(calls), *fields],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def seconds(process: subprocess.Popen[str]) -> float:
    """Return the CPU seconds of a step or call."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline() or sys.exit("A process has ended; its error stands above."))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("fields", nargs="*", help="FIELD=VALUE of the recipe, here")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--calls", type=int, default=0, metavar="IMAGES", help="time calls on so many images, not steps"
    )
    arguments = parser.parse_args()
    calls = arguments.calls
    other, own = start(arguments.other.resolve(), calls, []), start(HERE, calls, arguments.fields)
    pairs = [(seconds(other), seconds(own)) for _ in range(arguments.rounds)]
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    print(f"CPU seconds a {'call' if calls else 'step'}: {statistics.median(a for a, _ in pairs):.4f} there, ", end="")
    print(f"{statistics.median(b for _, b in pairs):.4f} here: {middle:.2f} times as fast [{low:.2f}, {high:.2f}]")
    for process in (other, own):
        process.communicate()


if __name__ == "__main__":
    main()
