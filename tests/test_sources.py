"""Starts between two seeds keep the law of a start, and their ends are the seeds' own images."""

from __future__ import annotations

import torch

from sfumato.core.noise import SamplingNoise
from sfumato.sources import between


def start(seed: int) -> torch.Tensor:
    return SamplingNoise([seed], (3, 64, 64)).start()


def test_the_ends_are_exact_and_the_way_keeps_its_length() -> None:
    a, b = start(1), start(2)
    mixed = between(a, b, torch.linspace(0, 1, 9))
    assert torch.equal(mixed[:1], a) and torch.equal(mixed[-1:], b)
    variance = mixed.flatten(1).var(1)
    assert bool(((variance - 1).abs() < 0.05).all())  # 12288 numbers: 4 sd are 0.051; a straight line has 1/2 midway
    assert abs(float(torch.lerp(a, b, 0.5).var()) - 0.5) < 0.05


def test_steps_are_equal_angles() -> None:
    mixed = between(start(1), start(2), torch.linspace(0, 1, 5)).flatten(1).double()
    mixed /= mixed.norm(dim=1, keepdim=True)
    angles = torch.acos((mixed[1:] * mixed[:-1]).sum(1))
    assert float(angles.std() / angles.mean()) < 0.01


def test_a_seed_and_itself_is_that_seed() -> None:
    assert torch.equal(between(start(3), start(3), torch.tensor([0.0, 0.3, 1.0])), start(3).expand(3, -1, -1, -1))
