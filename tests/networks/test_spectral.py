"""Layers of spectral norm 1: the power method finds the largest singular value, and moves in training only."""

from __future__ import annotations

import pytest
import torch

from sfumato.networks._spectral import Projection, SpectralConv, SpectralEmbedding, SpectralLinear, power_states
from sfumato.networks.dcgan import dcgan
from sfumato.networks.sngan import sngan

SMALL = {"latent": 8, "up": (8, 8), "down": (8, 8), "size": 16, "channels": 1}
LAYERS = {
    "conv": (lambda: SpectralConv(3, 7, 3, padding=1), torch.zeros(1, 3, 4, 4, dtype=torch.float64)),
    "linear": (lambda: SpectralLinear(9, 5), torch.zeros(1, 9, dtype=torch.float64)),
    "embedding": (lambda: SpectralEmbedding(6, 4), torch.zeros(1, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_largest_singular_value_becomes_one(name):
    make, x = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    for _ in range(300):
        layer(x)
    values = torch.linalg.svdvals(layer.eval().divided().detach().flatten(1))
    assert float(values[0]) == pytest.approx(1, abs=1e-9) and float(values[1]) < 1


def test_a_pass_of_training_is_one_round_and_a_pass_of_use_is_none():
    torch.manual_seed(0)
    layer = SpectralLinear(4, 3).double()
    weight, u = layer.weight.detach(), layer.u.clone()
    layer.eval()(torch.zeros(1, 4, dtype=torch.float64))
    assert torch.equal(layer.u, u)
    layer.train()(torch.zeros(1, 4, dtype=torch.float64))
    after = weight @ (weight.T @ u)
    torch.testing.assert_close(layer.u, after / after.norm())
    assert "u" in layer.state_dict()


def test_the_gradient_goes_through_the_weight_in_the_singular_value():
    """With u and v held, d/dW of sum(c W / (u^T W v)) agrees with finite differences."""
    torch.manual_seed(0)
    layer, c = SpectralLinear(4, 3).double().eval(), torch.randn(3, 4, dtype=torch.float64)
    rows = layer.weight.detach().clone()
    v = torch.nn.functional.normalize(rows.T @ layer.u, dim=0)

    def loss(weight):
        return (c * weight / (layer.u @ weight @ v)).sum()

    (c * layer.divided()).sum().backward()
    step = 1e-6 * torch.eye(12, dtype=torch.float64).reshape(12, 3, 4)
    slope = torch.stack([(loss(rows + d) - loss(rows - d)) / 2e-6 for d in step]).reshape(3, 4)
    torch.testing.assert_close(layer.weight.grad, slope, rtol=1e-6, atol=1e-8)


def test_only_discriminators_that_ask_for_it_are_divided():
    assert not power_states(dcgan(**SMALL)) and not power_states(dcgan(**SMALL, norm="plain"))
    assert len(power_states(dcgan(**SMALL, norm="spectral"))) == 3
    network = sngan(**SMALL, classes=3)
    assert len(power_states(network.discriminator)) == len(power_states(network)) > 0


@pytest.mark.parametrize("make", [lambda **o: sngan(**SMALL, **o), lambda **o: dcgan(**SMALL, projection=True, **o)])
def test_a_class_adds_the_product_of_its_vector_with_the_features(make):
    """D(x, y) - D(x, y') = (v_y - v_y') . h(x), and no label is a row as well."""
    network = make(classes=3).eval()
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found, hook = [], network.discriminator.project.register_forward_pre_hook(lambda module, given: found.append(given))
    zero, two = (network.discriminator(x, torch.tensor([k, k])) for k in (0, 2))
    hook.remove()
    table = network.discriminator.project.label.table
    rows = table(torch.tensor([0, 2]))
    torch.testing.assert_close(zero - two, found[0][1] @ (rows[0] - rows[1]), rtol=1e-3, atol=1e-6)
    none = network.discriminator(x, None)  # a row of its own
    torch.testing.assert_close(none - zero, found[0][1] @ (table(torch.tensor([3]))[0] - rows[0]), rtol=1e-3, atol=1e-6)


def test_an_unlabelled_pair_refuses_labels_and_a_projection_adds_nothing():
    h, logit = torch.ones(2, 4), torch.tensor([0.5, -1.0])
    assert torch.equal(Projection(0, 4, spectral=True)(logit, h, None), logit)
    with pytest.raises(ValueError, match="unlabelled"):
        sngan(**SMALL).discriminator(torch.zeros(1, 1, 16, 16), torch.tensor([0]))


def test_sizes_that_cannot_be_halved_are_refused_with_what_fits():
    with pytest.raises(ValueError, match="Blocks that fit: 1, 2"):
        sngan(size=28, up=(8, 8, 8), down=(8,))
    with pytest.raises(ValueError, match="norm must be one of batch, spectral, plain"):
        dcgan(**SMALL, norm="layer")
