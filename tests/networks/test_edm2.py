"""EDM2's operations keep magnitudes; its weights only rotate."""

from __future__ import annotations

import pytest
import torch

from sfumato.networks.edm2 import Layer, blend, edm2, join, silu, unit

from .contract import awake, images

SMALL = {"size": 16, "width": 64, "mult": (1, 1), "blocks": 1, "attention": (8,), "head_width": 64}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def test_operations_keep_unit_magnitude():
    a, b = normal(8, 96, 16, 16), normal(8, 32, 16, 16, seed=1)
    assert rms(silu(a)) == pytest.approx(1, rel=0.01)
    assert rms(blend(a, normal(8, 96, 16, 16, seed=2), 0.3)) == pytest.approx(1, rel=0.01)
    joined = join(a, b, 0.3)
    assert rms(joined) == pytest.approx(1, rel=0.01)
    # shares 0.7 and 0.3 of the magnitude, whatever the number of channels
    assert joined[:, 96:].norm().item() / joined[:, :96].norm().item() == pytest.approx(3 / 7, rel=0.01)
    assert unit(7 * a, 1).square().mean(1).sub(1).abs().max() < 1e-3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer, x in ((Layer(96, 64, 3), a), (Layer(96, 64, 1), a), (Layer(96, 64), normal(512, 96))):
            assert rms(layer(x)[..., 1:-1, 1:-1] if layer.kernel == 3 else layer(x)) == pytest.approx(1, rel=0.05)


def test_gain_scales_and_the_length_of_the_weights_does_not():
    layer = Layer(8, 4, 3)
    x, before = normal(2, 8, 6, 6), None
    before = layer.eval()(x)
    with torch.no_grad():
        layer.weight.mul_(5)
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer(x, 2.0), 2 * before, rtol=1e-3, atol=1e-4)


def test_training_puts_the_weights_back_on_the_sphere_and_evaluation_does_not_touch_them():
    layer = Layer(8, 4)
    with torch.no_grad():
        layer.weight.mul_(3)
    stored = layer.weight.detach().clone()
    layer.eval()(normal(2, 8))
    assert torch.equal(layer.weight, stored)
    layer.train()
    # two forwards before one backward, as in two micro-batches of one graph
    (layer(normal(2, 8)).sum() + layer(normal(2, 8, seed=1)).sum()).backward()
    assert layer.weight.square().mean(1).sub(1).abs().max() < 1e-3
    # what is left of the gradient is perpendicular to the weights: it can only turn them
    along = (layer.weight.grad * layer.weight).sum(1) / (layer.weight.grad.norm(dim=1) * layer.weight.norm(dim=1))
    assert along.abs().max() < 1e-2


def test_activations_stay_of_order_one_through_the_whole_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = edm2(**SMALL, classes=3).eval()
        seen: list[float] = []
        for block in [*network.down, *network.middle, *network.up]:
            block.register_forward_hook(lambda module, args, out: seen.append(rms(out)))
        network.gain_out.data.fill_(1)
        out = network(images(4), torch.tensor(0.3), torch.tensor([0, 1, 2, -1]))
    assert len(seen) == 3 + 2 + 5
    assert all(0.5 < value < 1.5 for value in seen)
    assert 0.5 < rms(out) < 1.5


def test_a_constant_image_is_seen_through_the_constant_channel():
    network = awake(edm2(**SMALL))
    assert network(torch.zeros(1, 3, 16, 16), torch.tensor(0.5)).abs().max() > 1e-3


def test_heads_must_fill_the_width():
    with pytest.raises(ValueError, match="Heads of 48"):
        edm2(**(SMALL | {"head_width": 48}))
