"""Addressed noise: a pure function of its address, uniform, normal and independent."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.core.noise import SamplingNoise, normal, philox, stratify, uniform, words

ONES = 0xFFFFFFFF

# The known answers published with the generator (Random123, philox4x32 with 10 rounds): counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, int], output: tuple[int, ...]) -> None:
    got = philox(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(word) for word in got) == output


def test_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    """Image i identical for any batch size, order and company: bitwise."""
    ids = [5, 2**40 + 1, 0, 17]
    together = normal(ids, (3, 5), seed=9, purpose="test", step=4)
    for row, i in enumerate(ids):
        assert torch.equal(normal([i], (3, 5), seed=9, purpose="test", step=4)[0], together[row])
    assert torch.equal(normal(ids[::-1], (3, 5), seed=9, purpose="test", step=4), together.flip(0))


def test_every_part_of_the_address_matters() -> None:
    base = {"seed": 1, "purpose": "a", "step": 0}
    first = words([7], 64, **base)
    others = [
        words([8], 64, **base),
        words([7 + 2**32], 64, **base),
        words([7], 64, **(base | {"seed": 2})),
        words([7], 64, **(base | {"seed": 1 + 2**32})),
        words([7], 64, **(base | {"purpose": "b"})),
        words([7], 64, **(base | {"step": 1})),
    ]
    assert all(not bool((first == other).any()) for other in others)


def test_a_longer_draw_extends_a_shorter_one() -> None:
    assert torch.equal(words([3], 10, purpose="x")[:, :7], words([3], 7, purpose="x"))
    assert words([3], 7, purpose="x").shape == (1, 7)


def test_steps_are_32_bit() -> None:
    words([0], 1, purpose="x", step=ONES)
    with pytest.raises(ValueError, match="32-bit counter"):
        words([0], 1, purpose="x", step=ONES + 1)


def test_uniform_moments_and_range() -> None:
    """Mean 1/2 and variance 1/12 within 4 standard errors; never 0 or 1; no correlation between neighbouring ids."""
    u = uniform(range(400), (250,), purpose="moments")
    n = u.numel()
    assert float(u.min()) > 0 and float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(float(u.var()) - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    rows = (u[1:] - 0.5) * (u[:-1] - 0.5)
    assert abs(float(rows.mean())) < 4 / 12 / math.sqrt(rows.numel())


def test_normal_moments() -> None:
    """The first four moments of N(0, 1) within 4 standard errors, and no correlation inside a Box-Muller pair."""
    z = normal(range(200), (500,), purpose="moments", dtype=torch.float64)
    n = z.numel()
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(float((z**power).mean()) - mean) < 4 * math.sqrt(variance / n)
    assert abs(float((z[:, 0::2] * z[:, 1::2]).mean())) < 4 / math.sqrt(n / 2)
    assert abs(float((z[:, 0::2] ** 2 * z[:, 1::2] ** 2).mean()) - 1) < 4 * math.sqrt(8 / (n / 2))


def test_normal_of_odd_size() -> None:
    assert normal([1, 2], (3, 3), purpose="x").shape == (2, 3, 3)


def test_stratify_gives_each_rank_its_stratum() -> None:
    """Rank r of n lands in (r/n, (r+1)/n), and the union over ranks is uniform again."""
    u = uniform(range(64), purpose="strata")
    rank = torch.arange(64)
    got = stratify(u, rank, 64)
    assert torch.equal((got * 64).floor().long(), rank)
    torch.testing.assert_close(got * 64 - rank, u)
    with pytest.raises(ValueError, match=r"Ranks lie in \[0, 64\)"):
        stratify(u, 64, 64)


def test_sampling_noise_starts_and_steps_are_different_streams() -> None:
    noise = SamplingNoise([3, 4], (1, 2, 2))
    assert noise.start().shape == (2, 1, 2, 2)
    assert not torch.equal(noise.start(), noise(0))
    assert not torch.equal(noise(0), noise(1))
    assert torch.equal(noise(1), SamplingNoise([3, 4], (1, 2, 2))(1))
    assert torch.equal(noise(1)[1:], SamplingNoise([4], (1, 2, 2))(1))
