"""How much memory training and sampling hold at their peak, before either is tried.

    held        weights, averages, what the optimiser remembers; on a CPU also the images of the data and the program
    a step      held + activations and gradients of a round, as `networks._memory` counts them
    a sheet     held + a second copy of the weights + the largest moment of a pass without gradients

On a CPU the number is that of the whole process, as the system counts it; on a GPU what torch takes there. What
reading the data holds on the way is not counted: the allocator keeps it (`processes.machine`), and a pass takes little
of it up.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.networks._memory import peak_bytes
from sfumato.networks._named import frozen_weights
from sfumato.runs.plan import Plan

FLOAT = 4
PROGRAM = 320 * 2**20  # torch and this package in a process that has trained on a CPU, measured
SLACK = 1.25  # of a pass on a CPU: what the allocator cannot reuse, measured
REMEMBERED = {"sgd": 1, "muon": 1}  # numbers that an optimiser keeps of a weight; all others keep two (Adam's moments)
SHEET = 80  # images of the largest sheet in training (`training.hooks.sheets`)


@dataclass(frozen=True)
class Peaks:
    """Bytes held at the largest moment of a training step, and of a sheet drawn while training (0 if none is)."""

    step: int
    sheet: int


def peaks(plan: Plan, device: str, *, images: int | None = None, data: int = 0) -> Peaks:
    """Return the peaks of a plan.

    Arguments:
        plan: With its shape.
        device: Type of the device, such as "cpu" or "cuda".
        images: Images in one forward pass of training; as the recipe says unless given.
        data: Bytes of the training images in memory.
    """
    train, sample = plan.recipe.train, plan.recipe.sample
    half = plan.precision.autocast is not None
    held = held_bytes(plan) + (PROGRAM + data if device == "cpu" else 0)
    inner, told, shape = plan.kind.step(plan.network, plan.image)

    def most(count: int, training: bool) -> int:
        counted = peak_bytes(inner, (count, *shape), told, device=device, half=half, training=training)
        return int(counted * (SLACK if device == "cpu" else 1))

    step = most(images or min(train.batch, train.micro or train.batch), True)
    if not plan.kind.draws:
        return Peaks(held + step, 0)
    drawn = min(SHEET, sample.batch) * (2 if sample.by_weight else 1)
    return Peaks(held + step, held + _weights(plan) + most(drawn, False))


def held_bytes(plan: Plan) -> int:
    """Return what training holds between two steps: weights, averages, what the optimiser remembers."""
    averages = len(plan.recipe.ema.power) + len(plan.recipe.ema.half_life)
    remembered = REMEMBERED.get(plan.recipe.train.optimizer.name, 2)
    return _weights(plan) * (1 + averages) + FLOAT * remembered * _moving(plan)


def _weights(plan: Plan) -> int:
    return FLOAT * sum(t.numel() for t in (*plan.network.parameters(), *plan.network.buffers()))


def _moving(plan: Plan) -> int:
    """Return the number of learned values that move, of which an optimiser remembers something."""
    frozen = frozen_weights(plan.network, plan.recipe.train.freeze)
    return sum(weight.numel() for name, weight in plan.network.named_parameters() if name not in frozen)


def surely_fits(plan: Plan, images: int, free: int) -> bool:
    """Return whether a step fits many times over, from the counts that every plan has, without going through a pass.

    Arguments:
        plan: With its shape.
        images: Images in one forward pass.
        free: Bytes that may be taken.
    """
    found = plan.cost.network
    features = sum(level.features for level in found.levels)
    attention = sum(level.attention for level in found.levels)
    weights = FLOAT * found.parameters * (6 + len(plan.recipe.ema.power) + len(plan.recipe.ema.half_life))
    return features > 0 and weights + images * (20 * features + 5 * attention) < free
