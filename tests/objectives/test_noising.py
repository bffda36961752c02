"""What objectives share: addressed examples, dropped labels, optimal coupling, reduction over pixels."""

from __future__ import annotations

import inspect
import itertools
import sys

import pytest
import torch

from sfumato import schedules, weightings
from sfumato.core.denoiser import NULL, Preconditioned
from sfumato.core.find import entries
from sfumato.core.level import Level
from sfumato.core.target import edm, eps
from sfumato.draws import lognormal, uniform
from sfumato.objectives._noising import Noising, assign
from sfumato.objectives.denoising import denoising
from sfumato.runs.kinds import KINDS
from sfumato.training.trainers import TRAINERS


class Half(torch.nn.Module):
    """A stand-in network: half its input, whatever it is told."""

    def forward(self, x, c_noise, label=None, augment=None):
        return 0.5 * x


def batch(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, 4, 4, generator=generator) * 2 - 1, torch.arange(100, 100 + count)


@pytest.mark.parametrize("name", entries("objective"))
def test_every_objective_says_what_it_trains(name):
    """An objective names a kind of model that assembly can build and a trainer trains, and takes what it is passed."""
    entry = entries("objective")[name]
    kind = sys.modules[entry.__module__].TRAINS
    assert kind in KINDS and kind in TRAINERS
    asked = set(inspect.signature(entry).parameters)
    # distillation visits the student's own times, and what is told no level draws none
    assert {"seed"} <= asked and (not KINDS[kind].levels or "batch" in asked and asked & {"draw", "schedule"})


def test_an_example_does_not_depend_on_its_batch():
    x0, positions = batch()
    noising = Noising(lognormal(), seed=3, batch=6)
    whole, part = noising.levels(positions), noising.levels(positions[2:4])
    assert torch.equal(whole.sigma[2:4], part.sigma)
    assert torch.equal(noising.noise(x0, positions)[2:4], noising.noise(x0[2:4], positions[2:4]))
    assert not torch.equal(whole.sigma, Noising(lognormal(), seed=4, batch=6).levels(positions).sigma)


def test_labels_are_dropped_as_often_as_asked():
    label, positions = torch.zeros(4000, dtype=torch.int64), torch.arange(4000)
    told = Noising(lognormal(), seed=0, batch=1, label_dropout=0.25).label(label, positions)
    share = float((told == NULL).double().mean())
    assert share == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    assert Noising(lognormal(), seed=0, batch=1).label(label, positions) is label
    assert Noising(lognormal(), seed=0, batch=1, label_dropout=1.0).label(None, positions) is None


def test_coupling_is_the_nearest_of_all_pairings():
    """The assignment has the least total squared distance of all 5! permutations, and pairs every noise once."""
    generator = torch.Generator().manual_seed(1)
    x0, n = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    chosen = assign(x0, n)
    best = min(float((x0 - n[list(p)]).square().sum()) for p in itertools.permutations(range(5)))
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]
    assert float((x0 - n[chosen]).square().sum()) == pytest.approx(best, rel=1e-6)


def test_coupled_noise_is_the_same_noise_nearer():
    x0, positions = batch(16)
    free, near = (Noising(lognormal(), 0, 16, coupling=c).noise(x0, positions) for c in ("independent", "ot"))
    assert torch.equal(free.flatten().sort().values, near.flatten().sort().values)
    assert (x0 - near).square().sum() < (x0 - free).square().sum()


def test_reductions_differ_by_the_number_of_pixels():
    x0, positions = batch()
    denoiser = Preconditioned(Half(), edm(0.5), c_noise=lambda level: level.nsr)
    each = {
        r: denoising(lognormal(), weightings.edm(0.5), 0, 6, reduce=r)(denoiser, x0, None, positions).each
        for r in ("mean", "sum", "half-sum")
    }
    assert torch.allclose(each["sum"], 32 * each["mean"]) and torch.allclose(each["half-sum"], 16 * each["mean"])
    with pytest.raises(ValueError, match="half-sum"):
        denoising(lognormal(), weightings.edm(0.5), 0, 6, reduce="median")


def test_the_loss_is_the_weighted_error_of_the_denoiser():
    """F-space and x0-space agree: w c_out^2 |F - F*|^2 = w |D - x0|^2."""
    x0, positions = (t.double() if t.is_floating_point() else t for t in batch())
    denoiser = Preconditioned(Half(), eps(), c_noise=lambda level: level.nsr)
    draw, weighting = uniform(schedules.linear(20, 1e-4, 0.01)), weightings.min_snr()
    loss = denoising(draw, weighting, 0, 6)(denoiser, x0, None, positions)
    noising = Noising(draw, 0, 6)
    level, n = noising.levels(positions), noising.noise(x0, positions)
    error = (denoiser(level.noisy(x0, n), level).x0 - x0).square().flatten(1).mean(1)
    assert isinstance(loss.level, Level) and torch.equal(loss.level.sigma, level.sigma)
    assert torch.allclose(loss.each, weighting(level, eps()) * error, rtol=1e-10)


@pytest.mark.parametrize("options", [{"label_dropout": 1.5}, {"coupling": "nearest"}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        denoising(lognormal(), weightings.simple(), 0, 6, **options)


def classes_apart(count: int = 4096, batch: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images of two classes at +3 and -3 along every pixel, their labels and positions, in batches."""
    label = torch.arange(count) % 2
    x0 = (6.0 * label - 3).reshape(-1, 1, 1, 1) + 0.1 * torch.randn(
        count, 1, 2, 2, generator=torch.Generator().manual_seed(0)
    )
    return x0, label, torch.arange(count)


def mean_noise_along_the_class(labelled: bool) -> float:
    """Return the mean of n times the class's sign, per pixel."""
    x0, label, positions = classes_apart()
    noising = Noising(lognormal(), 0, 64, coupling="ot")
    parts = [
        noising.noise(x0[i : i + 64], positions[i : i + 64], label[i : i + 64] if labelled else None)
        for i in range(0, len(x0), 64)
    ]
    return float((torch.cat(parts).mean((1, 2, 3)) * (2.0 * label - 1)).mean())


def test_a_class_meets_noise_of_mean_zero():
    """E[n | class] = 0: within 4 standard errors of the mean over 4,096 images of 4 pixels, 1 / sqrt(16,384)."""
    assert abs(mean_noise_along_the_class(labelled=True)) < 4 / 128
    assert mean_noise_along_the_class(labelled=False) > 0.3  # over the whole batch a class draws the noises its way


def test_within_a_class_the_assignment_is_the_nearest():
    generator = torch.Generator().manual_seed(3)
    x0, n = torch.randn(10, 3, generator=generator), torch.randn(10, 3, generator=generator)
    label = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 0, 1])
    chosen = assign(x0, n, label)
    assert sorted(chosen.tolist()) == list(range(10)) and torch.equal(label[chosen], label)
    for own in (0, 1):
        members = (label == own).nonzero().flatten()
        assert torch.equal(chosen[members], members[assign(x0[members], n[members])])
    assert torch.equal(assign(x0, n, torch.zeros(10, dtype=torch.int64)), assign(x0, n))
