"""A GPU computes what a CPU computes: every network, sampler, extractor, and the noise, which is equal to the bit."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from tests.networks.contract import NOT_DENOISERS, SMALL, awake, images, make

from sfumato import grids, schedules
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.find import entries
from sfumato.core.noise import SamplingNoise, normal
from sfumato.metrics.features import available, extractor, features_of
from sfumato.networks._fused import usable

pytestmark = pytest.mark.slow


SAME = {"rtol": 1e-4, "atol": 1e-4}  # float32 sums in another order
HALF = 0.03  # root mean square of what bf16 changes, of the output's own
CLASSES, BATCH = 4, 6
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "fashion-mnist14": (1, 14, 14)}


def asked(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """Return an awake small network and what it is asked about, on the CPU."""
    network = awake(make(name, classes=CLASSES))
    told = torch.linspace(-2, 2, BATCH)
    return network, (images(BATCH), told, torch.arange(BATCH) % CLASSES)


def test_every_network_is_checked() -> None:
    assert set(SMALL) == {name.replace("-", "_") for name in entries("network")} - NOT_DENOISERS


@pytest.mark.parametrize("name", SMALL)
def test_a_network_answers_alike(name: str, device: torch.device) -> None:
    """Output and the gradient of every weight, float32 with TF32 off."""
    network, given = asked(name)
    outputs, gradients = [], []
    for place in (torch.device("cpu"), device):
        network.to(place, memory_format=torch.channels_last).zero_grad()
        out = network(*(each.to(place) for each in given))
        out.square().mean().backward()
        outputs.append(out.detach().cpu())
        gradients.append({key: p.grad.cpu() for key, p in network.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*outputs, **SAME)
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    largest = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-3, atol=1e-4 * largest, msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_bf16_stays_near(name: str, device: torch.device) -> None:
    network, given = asked(name)
    with torch.no_grad():
        exact = network(*given)
        network.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            half = network(*(each.to(device) for each in given)).float().cpu()
    off = float((half - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert 0 < off < HALF, off


def test_the_kernels_of_a_cpu_are_not_asked_for_a_gpu(device: torch.device) -> None:
    x = torch.zeros(1, 8, 4, 4, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    assert device.type == "cpu" or not usable(x)


@pytest.mark.parametrize("name", entries("sampler"))
def test_a_sampler_walks_alike(name: str, device: torch.device) -> None:
    """On an exact denoiser, which is asked for the same numbers; the noise is the CPU's, to the bit."""
    sampler = entries("sampler")[name]
    sides = [Gaussian(torch.full((4,), mean), torch.full((4,), 0.05)) for mean in (-0.6, 0.7)]
    mixture = GaussianMixture(torch.tensor([0.3, 0.7]), sides)
    needs_table = "snap" in inspect.signature(sampler).parameters
    grid = grids.respaced(schedules.linear().levels, 10) if needs_table else grids.karras(10)
    ends = []
    for place in ("cpu", device):
        noise = SamplingNoise(range(8), (1, 2, 2), device=place)
        x = normal(range(8), (1, 2, 2), purpose="x", device=place) * float(grid.sigma[0])
        *_, last = sampler(mixture, x, grid, noise=noise)
        ends.append(last.x.cpu())
    torch.testing.assert_close(*ends, **SAME)


def test_noise_is_the_same_to_the_bit(device: torch.device) -> None:
    one, other = (normal(range(5, 500), (3, 8, 8), purpose="x", device=place).cpu() for place in ("cpu", device))
    torch.testing.assert_close(one, other, rtol=0, atol=5e-7)  # the words are equal; logarithms may differ in a bit
    coins = [torch.as_tensor(SamplingNoise(range(4), (2,), device=place)(3)).cpu() for place in ("cpu", device)]
    torch.testing.assert_close(*coins, rtol=0, atol=5e-7)


@pytest.mark.parametrize("name", [name for name in available() if name in (*SHAPES, "random", "pixels")])
def test_an_extractor_sees_alike(name: str, device: torch.device) -> None:
    shape = SHAPES.get(name, (3, 12, 10))
    pictures = torch.randint(0, 256, (40, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = [features_of(extractor(name, shape), pictures.to(place)) for place in ("cpu", device)]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4, atol=1e-4 * np.abs(rows[0]).max())
