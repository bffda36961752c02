"""Restoring and editing with a maker of images: seeds, batches, ends, masks, and what does not fit."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from sfumato import grids
from sfumato.core.denoiser import Prediction
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.find import OptionError, UnknownNameError, find
from sfumato.core.images import NonFiniteError
from sfumato.core.level import Level
from sfumato.core.noise import normal
from sfumato.core.task import TaskError
from sfumato.editing import edit, first_entry, reencode, start_level
from sfumato.guidance.cfg import cfg
from sfumato.guidance.threshold import threshold
from sfumato.pictures.autoregressive import block_by_block
from sfumato.restoration import Restored, coverage, measured, method_of, restore, right_share
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.ddim import ddim
from sfumato.samplers.heun import heun
from sfumato.sources import Diffusion

SHAPE = (1, 2, 4)


def prior() -> GaussianMixture:
    """Two classes of pictures of eight correlated pixels."""
    q, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
    variances = torch.tensor([0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01])
    parts = [Gaussian(sign * torch.full((8,), 0.3), variances, q) for sign in (1.0, -1.0)]
    return GaussianMixture(torch.tensor([0.5, 0.5]), parts)


def source(sampler=ancestral, steps: int = 15, batch: int = 64, **options) -> Diffusion:
    return Diffusion(prior(), partial(sampler, **options), grids.karras(steps), SHAPE, classes=2, batch=batch)


def pictures(count: int = 3) -> Tensor:
    return normal(range(count), SHAPE, purpose="picture").clamp(-1, 1)


TASK = find("task", "inpaint")(SHAPE, mask="random 50%")


def test_a_sample_does_not_depend_on_what_else_is_restored() -> None:
    """Sample k of a picture is a function of its seed and k: alone, in a batch of one, among more samples."""
    y = measured(TASK, pictures(), [5, 6, 7])
    found = restore(source(), TASK, y, method_of("moment"), samples=3, seeds=[5, 6, 7])
    assert found.samples.shape == (3, 3, *SHAPE)
    alone = restore(source(batch=2), TASK, y[1:2], method_of("moment"), samples=2, seeds=[6])
    assert torch.allclose(alone.samples[0], found.samples[1, :2], atol=1e-5)
    flat = found.samples.flatten(2)
    assert (flat[:, 0] - flat[:, 1]).abs().amax(1).min() > 0.05  # the samples of one picture differ


def test_what_was_seen_without_noise_is_kept_to_the_last_bit() -> None:
    """Every method, at the hidden pixels something new, at the others the picture."""
    x0 = pictures()
    y = measured(TASK, x0, range(3))
    for name in ("ddnm", "replacement", "dps", "pigdm", "moment"):
        samples = restore(source(), TASK, y, method_of(name), samples=2).samples
        assert all(torch.equal(TASK.apply(samples[:, k]), y) for k in range(2))
        assert (samples[:, 0] - x0).abs().amax() > 0.05


@pytest.mark.parametrize("name", ["ddnm", "replacement", "dps", "pigdm", "moment"])
def test_the_ends(name: str) -> None:
    """A mask over nothing returns the picture, a mask over everything the plain samples of the seeds, bit for bit."""
    x0, everything = pictures(), torch.ones(2, 4) > 0
    whole = find("task", "inpaint")(SHAPE, mask=~everything)
    assert torch.equal(restore(source(), whole, whole.apply(x0), method_of(name), samples=1).samples[:, 0], x0)
    blind = find("task", "inpaint")(SHAPE, mask=everything)
    plain = source().floats([0, 1, 2])
    assert torch.equal(restore(source(), blind, blind.apply(x0), method_of(name), samples=1).samples[:, 0], plain)


@pytest.mark.parametrize("sampler", [ancestral, ddim, heun])
def test_methods_compose_with_guidance_labels_and_samplers(sampler) -> None:
    """A guided denoiser inside: the hidden pixels go to the class; a threshold inside bounds the estimate."""
    y = measured(TASK, 0 * pictures(40), range(40))
    means = []
    for weight in (1.0, 4.0):
        maker = source(sampler).having(denoiser=threshold(cfg(prior(), weight), 1.5))
        labels = torch.ones(40, dtype=torch.int64)
        found = restore(maker, TASK, y, method_of("pigdm"), samples=1, labels=labels)
        means.append(float(found.samples.mean()))
    assert means[1] < means[0] - 0.02 and means[0] < 0  # class 1 is the darker one


def test_calls_and_products_are_those_of_one_batch() -> None:
    y = measured(TASK, pictures(), range(3))
    found = restore(source(batch=4), TASK, y, method_of("moment", iterations=2), samples=3)
    assert (found.nfe, found.vjps) == (15, 30)
    told: list[int] = []
    restore(source(batch=4), TASK, y, method_of("ddnm"), samples=3, progress=told.append)
    assert told == [4, 4, 1]


def test_the_mean_and_the_band() -> None:
    """Rank (K + 1) / 20 from either end; the ends themselves if there are too few samples for that."""
    found = Restored(torch.arange(1.0, 100.0).flip(0).reshape(1, 99, 1, 1, 1), 0, 0)
    assert [float(v) for v in (found.mean, *found.band())] == [50, 5, 95]
    few = Restored(torch.tensor([3.0, 1.0, 2.0]).reshape(1, 3, 1, 1, 1), 0, 0)
    assert [float(v) for v in few.band()] == [1, 3]
    one = Restored(torch.ones(2, 1, *SHAPE), 0, 0)
    assert torch.equal(*one.band()) and right_share(1) == 0


@pytest.mark.parametrize(("count", "share"), [(1, 0.9), (3, 0.9), (19, 0.9), (30, 0.8)])
@pytest.mark.parametrize("ties", [False, True])
def test_draws_hold_another_draw_as_often_as_they_say(count: int, share: float, ties: bool) -> None:
    """Also where most values are equal, as of a background that makes up two thirds."""
    draws = normal(range(count + 1), (20_000, 1, 1), purpose="draws")
    draws = draws.clamp(min=0.43) if ties else draws
    truth, samples = draws[0][:, None], draws[1:].movedim(1, 0)[:, :, None]
    assert abs(float(coverage(samples, truth, share).mean()) - right_share(count, share)) < 0.01
    if not ties:  # the band itself
        low, high = Restored(samples, 0, 0).band(share)
        inside = ((low <= truth) & (truth <= high)).double()
        assert count == 1 or torch.equal(inside, coverage(samples, truth, share))


def test_the_band_of_the_exact_posterior_covers_as_often_as_it_says() -> None:
    """Truths drawn from the prior: the band of 90% over 39 samples holds about 90% of the hidden pixels."""
    count = 150
    gaussian = prior().components[0]
    z = normal(range(count), (8,), purpose="truth")
    x0 = (gaussian.mean + (z * gaussian.variances.sqrt()) @ gaussian.basis.T).reshape(count, *SHAPE)
    maker = source(steps=40, batch=8000).having(denoiser=gaussian)
    found = restore(maker, TASK, measured(TASK, x0, range(count)), method_of("moment", iterations=4), samples=39)
    low, high = found.band(0.9)
    hidden = TASK.seen(torch.ones(1, *SHAPE)) == 0
    inside = ((low <= x0) & (x0 <= high))[hidden.expand_as(x0)].double().mean()
    assert 0.86 < inside < 0.94


def test_measurement_noise_is_that_of_the_seed() -> None:
    noisy = find("task", "denoise")(SHAPE, noise=0.5)
    x0 = torch.zeros(2, *SHAPE)
    y = measured(noisy, x0, [3, 4])
    assert torch.equal(measured(noisy, x0[:1], [4]), y[1:]) and not torch.equal(y[0], y[1])


def test_what_does_not_fit_is_said_before_any_call() -> None:
    y = measured(TASK, pictures(), range(3))

    def never(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        raise AssertionError("the denoiser was called")

    maker = source().having(denoiser=never)
    with pytest.raises(UnknownNameError, match="Unknown method 'pigmd'. Did you mean 'pigdm'"):
        method_of("pigmd")
    with pytest.raises(OptionError, match="option of method 'dps' 'wieght'. Did you mean 'weight'"):
        method_of("dps", wieght=2.0)
    with pytest.raises(TaskError, match="at least one sample"):
        restore(maker, TASK, y, method_of("dps"), samples=0)
    with pytest.raises(TaskError, match="NaN"):
        restore(maker, TASK, y * float("nan"), method_of("dps"))
    with pytest.raises(TaskError, match=r"shape \(1, 2, 4\)"):
        measured(TASK, torch.zeros(1, 1, 3, 3), [0])
    with pytest.raises(TaskError, match="needs a linear task"):
        jpeg = find("task", "jpeg")(SHAPE)
        restore(maker, jpeg, jpeg.apply(pictures()), method_of("ddnm"))
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(TaskError, match=r"strength of an edit lies in \[0, 1\]"):
            edit(maker, pictures(), strength, seeds=[0, 1, 2])
    with pytest.raises(TaskError, match="A mask has the size of the image"):
        edit(maker, pictures(), 0.5, seeds=[0, 1, 2], mask=torch.ones(3, 3) > 0)
    with pytest.raises(TaskError, match="3 of 3 pictures hold NaN"):
        reencode(maker, pictures() * float("nan"), None, None)


def test_a_result_that_is_no_number_is_said() -> None:
    def broken(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(x * float("nan"))

    y = measured(TASK, pictures(), range(3))
    with pytest.raises(NonFiniteError, match="3 of 3 restored pictures"):
        restore(source().having(denoiser=broken), TASK, y, method_of("ddnm"), samples=1)


@pytest.mark.parametrize("sampler", [ancestral, heun])
def test_strength_1_is_the_plain_sample_and_strength_0_the_picture(sampler) -> None:
    """Bit for bit; the level that is walked from falls with the strength."""
    labels = torch.tensor([0, 1, 0])
    maker, x0 = source(sampler), pictures()
    assert torch.equal(edit(maker, x0, 1.0, seeds=[3, 4, 5], labels=labels), maker.floats([3, 4, 5], labels))
    assert torch.equal(edit(maker, x0, 0.0, seeds=[3, 4, 5], labels=labels), x0)
    off = [float((edit(maker, x0, s, seeds=[3, 4, 5]) - x0).square().mean()) for s in (0.01, 0.3, 0.9)]
    assert off == sorted(off) and off[0] < 0.01
    assert [float(start_level(maker.grid, s).nsr) for s in (0.0, 1.0)] == [0.0, pytest.approx(80.0)]


def test_between_the_ends_an_edit_has_the_marginal_of_a_gaussian() -> None:
    """Noised to a level and taken down the exact ODE, pictures have the mean and spread of the closed form."""
    gaussian, count, x0 = prior().components[0], 4000, pictures(1)
    maker = source(heun, steps=60, batch=count).having(denoiser=gaussian)
    found = edit(maker, x0.expand(count, -1, -1, -1), 0.5, seeds=range(count)).flatten(1)
    level = start_level(maker.grid, 0.5)
    centre = gaussian.ode(level.noisy(x0, torch.zeros_like(x0)), level, Level.clean()).flatten()
    scale = (gaussian.variances / (gaussian.variances + float(level.sigma) ** 2)).sqrt() * float(level.sigma)
    spread = (gaussian.basis * scale**2) @ gaussian.basis.T
    assert (found.mean(0) - centre).norm() < 0.03
    assert (found.T.cov() - spread).norm() / spread.norm() < 0.08


def test_an_edit_inside_a_mask_leaves_the_rest_to_the_last_bit() -> None:
    mask = torch.tensor([[True, True, False, False], [False, True, False, False]])
    x0 = pictures()
    for found in (
        edit(source(), x0, 0.7, seeds=[0, 1, 2], mask=mask),
        edit(source(), x0, 1.0, seeds=[0, 1, 2], mask=mask),
        reencode(source(), x0, torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]), mask=mask),
    ):
        assert torch.equal(found[:, :, ~mask], x0[:, :, ~mask])
        assert (found[:, :, mask] - x0[:, :, mask]).abs().amax() > 0.05
    assert torch.equal(edit(source(), x0, 0.7, seeds=[0, 1, 2], mask=mask & False), x0)


def test_encoding_and_decoding() -> None:
    """Under its own class a picture comes back; under the other it moves to it and keeps what the classes share."""
    maker, zeros = source(steps=200), torch.zeros(3, dtype=torch.int64)
    x0 = maker.floats([0, 1, 2], zeros)
    assert (reencode(maker, x0, zeros, zeros) - x0).abs().amax() < 0.05
    other = reencode(maker, x0, zeros, zeros + 1)
    assert torch.allclose(other, x0 - 0.6, atol=0.15)  # the classes differ by their mean
    with pytest.raises(TaskError, match="at least 2 steps"):
        reencode(source(steps=1), x0, zeros, zeros)


def test_any_strength_above_0_takes_a_step() -> None:
    assert [first_entry(25, s) for s in (0.0, 1e-6, 0.04, 0.28, 0.999, 1.0)] == [25, 24, 24, 18, 0, 0]


def test_the_noise_of_an_edit_is_that_of_its_seed() -> None:
    found = edit(source(), pictures(), 0.5, seeds=[7, 8, 9])
    assert torch.allclose(edit(source(), pictures()[1:2], 0.5, seeds=[8]), found[1:2], atol=1e-5)


def test_generating_block_by_block_follows_the_chain_rule() -> None:
    """Of a Gaussian, inpainting one block after the other draws from the prior itself: mean and covariance."""
    gaussian, count = prior().components[0], 3000
    maker = source(heun, steps=30, batch=count).having(denoiser=gaussian)
    steps, calls, products = block_by_block(maker, list(range(count)), None, 2, "moment", 0.4)
    assert len(steps) == 2 and calls == 2 * 59 and products == 3 * 59  # the first block knows of none
    assert torch.equal(steps[1][..., :2], steps[0][..., :2]) and not steps[0][..., 2:].any()
    narrow = Gaussian(gaussian.mean, gaussian.variances / 16, gaussian.basis)  # inside [-1, 1], where nothing is cut
    last = block_by_block(maker.having(denoiser=narrow), list(range(count)), None, 2, "moment", 0.1)[0][-1].flatten(1)
    covariance = (narrow.basis * narrow.variances) @ narrow.basis.T
    assert (last.mean(0) - narrow.mean).norm() < 0.02
    assert (last.T.cov() - covariance).norm() / covariance.norm() < 0.15
