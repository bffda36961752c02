"""Reverse channel coding: the receiver's sample is the sender's, has the right distribution, and costs what is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.likelihood.codec.channel import RULES, Rule, Search, Shared, expected_best, hadamard, octaves

CPU = torch.device("cpu")
BIT = math.log(2)
EXACT, GREEDY = RULES["exact"], RULES["greedy"]


def index_bits(rule: Rule, nats: float, count: int) -> float:
    """Return the expected length of an index under its own law, in bits."""
    law = rule.law(nats, count)
    p = law / law.sum()
    return float((p * (np.log2(octaves(count)) - np.log2(p))).sum())


def sent(
    rule: Rule, bits: float, m: int, count: int, steps: int, per_step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Send many chunks of one KL; return (samples, directions of their shifts, indices)."""
    generator = torch.Generator().manual_seed(0)
    samples, directions, found = [], [], []
    for step in range(steps):
        shared = Shared(3, step, CPU)
        search = Search(shared, rule, m, count)
        way = torch.randn(per_step, m, generator=generator)
        way = way / way.norm(dim=1, keepdim=True)
        index = search.index(way * math.sqrt(2 * bits * BIT))
        samples.append(shared.candidates(index, m))
        directions.append(way)
        found.append(index)
    return torch.cat(samples), torch.cat(directions), torch.cat(found)


@pytest.mark.parametrize(("bits", "depth"), [(1.0, 10), (4.0, 14)])
def test_samples_follow_the_senders_gaussian(bits: float, depth: int) -> None:
    m, per_step = 48, 10
    z, way, index = sent(EXACT, bits, m, 2**depth - 1, steps=60, per_step=per_step)
    shift = math.sqrt(2 * bits * BIT)
    along = (z * way).sum(1)
    count = len(along)
    # the search is long enough to be exact here: mean shift, unit variance, and no other direction moved
    assert abs(float(along.mean()) - shift) < 4 / math.sqrt(count)
    assert abs(float(along.var()) - 1) < 4 * math.sqrt(2 / count)
    across = z - along.unsqueeze(1) * way
    assert abs(float(across.mean())) < 4 / math.sqrt(across.numel())
    # shifts of one vector share its norm, so the samples of a step count by their vectors
    norms = across.square().sum(1)
    vectors = len({(i // per_step, int(k - 1) // m) for i, k in enumerate(index)})
    assert abs(float(norms.mean()) / (m - 1) - 1) < 4 * math.sqrt(2 / ((m - 1) * vectors))


@pytest.mark.parametrize(("bits", "depth", "per_step"), [(0.2, 6, 2), (2.0, 12, 5), (6.0, 15, 40)])
def test_indices_follow_the_law_computed_from_the_divergence(bits: float, depth: int, per_step: int) -> None:
    # chunks of one step share arrival times, which matters to the few first indices: many steps where K is small
    _, _, index = sent(EXACT, bits, 48, 2**depth - 1, steps=800 // per_step, per_step=per_step)
    octave = torch.tensor([k.bit_length() - 1 for k in index.tolist()])
    law = EXACT.law(bits * BIT, 2**depth - 1)
    law = law / law.sum()
    seen = np.bincount(octave.numpy(), minlength=depth) / len(octave)
    error = np.sqrt(law * (1 - law) / len(octave))
    assert (np.abs(seen - law) < 4.5 * error + 4e-3).all()
    length = octave + torch.tensor(-np.log2(law))[octave]
    expected = index_bits(EXACT, bits * BIT, 2**depth - 1)
    assert float(length.mean()) == pytest.approx(expected, abs=4 * float(length.std()) / 28)


@pytest.mark.parametrize(("bits", "overhead"), [(8, 0.40), (12, 0.29), (16, 0.23)])
def test_the_overhead_of_an_exact_index_is_as_documented(bits: int, overhead: float) -> None:
    exact = index_bits(EXACT, bits * BIT, 2**48 - 1)
    assert bits < exact < bits * (1 + overhead)
    early = index_bits(EXACT, bits * BIT, 2 ** (bits + 4) - 1)
    assert early < exact  # a search that ends early spends less, and says less


@pytest.mark.parametrize(("search", "overhead"), [(12, 0.27), (16, 0.21), (18, 0.19), (20, 0.17)])
def test_the_overhead_of_a_greedy_index_is_as_documented(search: int, overhead: float) -> None:
    nats = GREEDY.capacity(search)
    count = GREEDY.count(nats, search)
    assert abs(math.log2(count) - search) < 0.01
    assert index_bits(GREEDY, nats, count) == pytest.approx(math.log2(count))
    assert search / (nats / BIT) - 1 < overhead


@pytest.mark.parametrize("bits", [1.0, 4.0, 9.0])
def test_greedy_samples_have_the_senders_mean_and_less_variance_along_it(bits: float) -> None:
    m, per_step = 48, 5
    count = GREEDY.count(bits * BIT, 16)
    z, way, _ = sent(GREEDY, bits, m, count, steps=50, per_step=per_step)
    along = (z * way).sum(1)
    error = float(along.std()) / math.sqrt(len(along) / 2)  # chunks of a step share their vectors
    assert abs(float(along.mean()) - math.sqrt(2 * bits * BIT)) < 4 * error + 0.5 / count
    assert float(along.var()) < 0.8
    across = (z - along.unsqueeze(1) * way).square().sum(1).mean() / (m - 1)
    assert abs(float(across) - 1) < 4 * math.sqrt(2 / (m * 50))


def test_the_expected_best_of_normals() -> None:
    n = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for count in (2, 8, 64):
        best = n[:, :count].amax(1)
        assert abs(float(best.mean()) - expected_best(count)) < 4 * float(best.std()) / math.sqrt(4000)


def test_octaves_partition_the_indices() -> None:
    for count in (1, 2, 3, 11, 64, 1000):
        sizes = octaves(count)
        assert sum(sizes) == count
        assert sizes == [sum(k.bit_length() - 1 == e for k in range(1, count + 1)) for e in range(len(sizes))]


def test_the_hadamard_transform_is_orthonormal_and_its_own_inverse() -> None:
    h = hadamard(torch.eye(16, dtype=torch.float64))
    torch.testing.assert_close(h @ h.T, torch.eye(16, dtype=torch.float64))
    assert set(h.mul(4).round(decimals=12).unique().tolist()) == {-1.0, 1.0}
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(hadamard(hadamard(x)), x)


def test_the_receiver_draws_the_candidate_that_the_sender_chose() -> None:
    shared, m, depth = Shared(1, 5, CPU), 7, 8
    rows = torch.arange(math.ceil((2**depth - 1) / m))
    every = torch.stack([v.roll(s) for v in shared.vectors(rows, m) for s in range(m)])[: 2**depth - 1]
    index = torch.tensor([1, 2, 7, 8, 100, 255])
    assert torch.equal(shared.candidates(index, m), every[index - 1])
    search = Search(shared, EXACT, m, 2**depth - 1)
    shift = torch.linspace(-2, 2, m)
    direct = (search.log_arrival - every @ shift).argmin() + 1
    assert int(search.index(shift.unsqueeze(0))) == int(direct)


def test_shared_randomness_is_a_function_of_its_address() -> None:
    a, b = Shared(1, 2, CPU), Shared(1, 3, CPU)
    assert torch.equal(a.signs(3, 50)[:2], Shared(1, 2, CPU).signs(2, 50))
    assert set(a.signs(2, 50).unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(a.signs(2, 50)[0], a.signs(2, 50)[1])
    assert not torch.equal(a.signs(1, 50), b.signs(1, 50))
    assert not torch.equal(a.vectors(torch.tensor([0]), 8), b.vectors(torch.tensor([0]), 8))


def test_the_search_grows_with_the_information() -> None:
    for rule in (EXACT, GREEDY):
        assert rule.count(0.0, 20) == 1
        assert index_bits(rule, 0.0, 1) == 0
        assert rule.count(100.0, 20) == 2**20 - 1
        for search in (8, 12, 18):
            capacity = rule.capacity(search)
            assert rule.count(capacity, search) == pytest.approx(2**search, rel=0.01)
            assert rule.count(0.5 * capacity, search) < 2 ** (search - 2)
    for nats in (0.01, 0.5, 5.0):
        depth = EXACT.count(nats, 24).bit_length()
        law = EXACT.law(nats, 2**40 - 1)
        assert law[depth:].sum() / law.sum() < 0.08
