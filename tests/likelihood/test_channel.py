"""Reverse channel coding: the receiver's sample is the sender's, has the right distribution, and costs what is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.likelihood.channel import Search, Shared, index_bits, index_law, search_depth

CPU = torch.device("cpu")
BIT = math.log(2)


def sent(bits: float, m: int, depth: int, steps: int, per_step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Send many chunks of one KL; return (samples, directions of their shifts, indices)."""
    generator = torch.Generator().manual_seed(0)
    samples, directions, found = [], [], []
    for step in range(steps):
        shared = Shared(3, step, CPU)
        search = Search(shared, m, depth)
        way = torch.randn(per_step, m, generator=generator)
        way = way / way.norm(dim=1, keepdim=True)
        signs = shared.signs(per_step, m)
        index = search.index(way * math.sqrt(2 * bits * BIT) * signs)
        samples.append(shared.candidates(index, m) * signs)
        directions.append(way)
        found.append(index)
    return torch.cat(samples), torch.cat(directions), torch.cat(found)


@pytest.mark.parametrize(("bits", "depth"), [(1.0, 10), (4.0, 14)])
def test_samples_follow_the_senders_gaussian(bits: float, depth: int) -> None:
    m, per_step = 48, 10
    z, way, index = sent(bits, m, depth, steps=60, per_step=per_step)
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
    _, _, index = sent(bits, 48, depth, steps=800 // per_step, per_step=per_step)
    octave = torch.tensor([k.bit_length() - 1 for k in index.tolist()])
    law = index_law(bits * BIT, depth) / index_law(bits * BIT, depth).sum()
    seen = np.bincount(octave.numpy(), minlength=depth) / len(octave)
    error = np.sqrt(law * (1 - law) / len(octave))
    assert (np.abs(seen - law) < 4.5 * error + 4e-3).all()
    length = octave + torch.tensor(-np.log2(law))[octave]
    assert float(length.mean()) == pytest.approx(index_bits(bits * BIT, depth), abs=4 * float(length.std()) / 28)


@pytest.mark.parametrize(("bits", "overhead"), [(8, 0.40), (12, 0.29), (16, 0.23)])
def test_the_overhead_of_an_exact_index_is_as_documented(bits: int, overhead: float) -> None:
    exact = index_bits(bits * BIT, 48)
    assert bits < exact < bits * (1 + overhead)
    assert index_bits(bits * BIT, bits + 4) < exact  # a search that ends early spends less, and says less


def test_the_receiver_draws_the_candidate_that_the_sender_chose() -> None:
    shared, m, depth = Shared(1, 5, CPU), 7, 8
    rows = torch.arange(math.ceil((2**depth - 1) / m))
    every = torch.stack([v.roll(s) for v in shared.vectors(rows, m) for s in range(m)])[: 2**depth - 1]
    index = torch.tensor([1, 2, 7, 8, 100, 255])
    assert torch.equal(shared.candidates(index, m), every[index - 1])
    search = Search(shared, m, depth)
    shift = torch.linspace(-2, 2, m)
    direct = (search.log_arrival - every @ shift).argmin() + 1
    assert int(search.index(shift.unsqueeze(0))) == int(direct)


def test_shared_randomness_is_a_function_of_its_address() -> None:
    a, b = Shared(1, 2, CPU), Shared(1, 3, CPU)
    assert torch.equal(a.order(3, 50)[:2], Shared(1, 2, CPU).order(2, 50))
    assert sorted(a.order(3, 50)[2].tolist()) == list(range(50))
    assert not torch.equal(a.order(1, 50), b.order(1, 50))
    assert not torch.equal(a.signs(2, 50)[0], a.signs(2, 50)[1])
    assert not torch.equal(a.vectors(torch.tensor([0]), 8), b.vectors(torch.tensor([0]), 8))


def test_without_information_one_candidate_is_enough() -> None:
    assert search_depth(0.0, 20) == 1
    assert index_bits(0.0, 1) == 0
    assert search_depth(100.0, 20) == 20
    for nats in (0.01, 0.5, 5.0):
        depth = search_depth(nats, 24)
        law = index_law(nats, 40)
        assert law[depth:].sum() / law.sum() < 0.08
