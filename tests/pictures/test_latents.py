"""Latents obey what is known exactly: posterior variance, exact inversion in the limit, shared noise."""

from functools import partial

import pytest
import torch

from sfumato import schedules
from sfumato.core.exact import Gaussian
from sfumato.core.images import to_float, to_uint8
from sfumato.core.level import Level
from sfumato.grids import full
from sfumato.pictures import interpolation as interpolation_module
from sfumato.pictures import shared_latent as shared_module
from sfumato.pictures.interpolation import drawing as interpolation
from sfumato.pictures.reconstruction import drawing as reconstruction_error
from sfumato.pictures.reconstruction import reconstruct
from sfumato.pictures.shared_latent import drawing as shared_latent
from sfumato.report._canvas import draw
from sfumato.report.latents import decode, encode_at, evenly
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.ddim import ddim, encode
from sfumato.sources import Diffusion

V = 0.05  # variance of every pixel of the truth
TRUTH = Gaussian(torch.zeros(16), torch.full((16,), V))
SHAPE = (1, 4, 4)


def source(sampler, steps: int = 60) -> Diffusion:
    return Diffusion(TRUTH, sampler, full(schedules.linear(steps).levels), SHAPE)


def truth(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return to_uint8(V**0.5 * torch.randn(count, *SHAPE, generator=generator))


def test_stochastic_reconstruction_error_is_twice_the_posterior_variance() -> None:
    model = source(ancestral, 200)
    at = [20, 100, 150, 180]
    found = reconstruct(model, truth(400), range(400), at)
    a, s = model.grid.alpha[at], model.grid.sigma[at]
    expected = 2 * V * s**2 / (a**2 * V + s**2) * 127.5**2
    square = found.rmse.square()
    error = square.mean(1) - expected
    assert bool((error.abs() < 4 * square.std(1) / 400**0.5 + 0.03 * expected).all())
    assert found.t.tolist() == [180, 100, 50, 20]


def test_deterministic_encoding_is_undone_and_better_with_more_steps() -> None:
    errors = [
        float(reconstruct(source(ddim, steps), truth(16), range(16), [0], encode=encode).rmse.mean())
        for steps in (40, 160, 640)
    ]
    assert errors[0] > 2.5 * errors[1] > 6.25 * errors[2]  # first order: a quarter for four times the steps


@pytest.mark.parametrize("encoder", [None, encode])
def test_a_clean_latent_is_the_image(encoder) -> None:
    model, images = source(ddim), truth(3)
    clean = len(model.grid) - 1
    x = encode_at(model, images, clean, range(3), None, encoder)
    assert torch.equal(to_uint8(decode(model, x, clean, range(3))), images)


def test_the_noisiest_latent_decodes_like_a_sample() -> None:
    model = source(partial(ancestral, variance="small"))
    start = encode_at(model, truth(4), 0, range(4))
    model.grid = Level.of([0.0, *model.grid.alpha[1:].tolist()], [1.0, *model.grid.sigma[1:].tolist()])
    pure = encode_at(model, truth(4, seed=9), 0, range(4))  # at alpha = 0 nothing of the image is left
    assert torch.equal(decode(model, pure, 0, range(4)), model.floats(range(4)))
    assert not torch.equal(start, pure)


def test_levels_outside_the_grid_are_refused() -> None:
    model = source(ddim)
    for k in (-1, 61):
        with pytest.raises(ValueError, match=rf"\[0, 60\] .* got {k}"):
            encode_at(model, truth(1), k, [0])
    assert evenly(model, 5) == [0, 15, 30, 45, 60]
    model.grid = model.grid[-4:]
    assert evenly(model, 12) == [0, 1, 2, 3]  # fewer levels than asked for: each once


@pytest.fixture
def drawn(monkeypatch):
    seen = {}

    def spy(images, columns, frame, **options):
        seen.update(images=images, columns=columns, frame=frame)
        return draw(images, columns, frame, **options)

    for module in (interpolation_module, shared_module):
        monkeypatch.setattr(module, "draw", spy)
    return seen


def test_a_shared_latent_is_shared_and_its_continuations_agree_as_it_gets_cleaner(drawn) -> None:
    model, image = source(ancestral), truth(1)[0]
    picture = shared_latent(model, image, range(1, 17), [0, 45, 58, 60])
    rows = to_float(drawn["images"]).reshape(4, 17, 16)
    spread = rows[:, 1:].std(1).mean(1)
    assert bool((spread.diff() < 0).all()) and spread[-1] == 0
    assert torch.equal(drawn["images"].reshape(4, 17, *SHAPE)[3], image.expand(17, *SHAPE))
    assert "seeds 1..16" in picture.info["Description"] and list(drawn["frame"].columns)[:2] == ["x_t", "seed 1"]
    assert [row.split("\n")[0] for row in drawn["frame"].rows] == ["t = 60", "t = 15", "t = 2", "t = 0"]


@pytest.mark.parametrize("encoder", [None, encode])
def test_interpolation_ends_at_the_reconstructions_and_is_pixel_mixing_when_clean(drawn, encoder) -> None:
    model, (a, b) = source(ddim), truth(2)
    interpolation(model, a, b, [0, 30, 60], (0.0, 0.25, 1.0), encode=encoder, seed=5)
    rows = drawn["images"].reshape(3, 5, *SHAPE)
    assert torch.equal(rows[:, 0], a.expand(3, *SHAPE)) and torch.equal(rows[:, 4], b.expand(3, *SHAPE))
    for row, k in enumerate((0, 30, 60)):
        x = encode_at(model, torch.stack((a, b)), k, [5, 5], None, encoder)
        assert (rows[row, [1, 3]].int() - to_uint8(decode(model, x, k, [5, 5])).int()).abs().max() <= 1
    mixed = to_uint8(torch.lerp(to_float(a), to_float(b), 0.25))
    assert (rows[2, 2].int() - mixed.int()).abs().max() <= 1


def test_a_mask_keeps_the_first_image_outside(drawn) -> None:
    model, (a, b) = source(ddim), truth(2)
    mask = torch.zeros(4, 4)
    mask[:, :2] = 1
    picture = interpolation(model, a, b, [60], (0.0, 1.0), mask=mask)
    half = drawn["images"][2]
    assert torch.equal(half[..., :2], b[..., :2]) and torch.equal(half[..., 2:], a[..., 2:])
    assert "mask" in picture.info["Description"]
    with pytest.raises(ValueError, match=r"\[0, 1\]; got 0 to 2"):
        interpolation(model, a, b, mask=2 * mask)
    with pytest.raises(ValueError, match="one shape"):
        interpolation(model, a, b[:, :3])


def test_the_error_curve_is_the_mean_with_its_interval() -> None:
    found = reconstruct(source(ddim), truth(8), range(8), [0, 30, 60])
    figure = reconstruction_error({"noise, ddim": found})
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [60, 30, 0]
    assert torch.allclose(torch.tensor(line.get_ydata()), found.rmse.mean(1))
    assert "Mean over 8 images" in figure.get_label()
