"""The plain network, the course projects' U-Nets, the transformer, and DCGAN."""

from __future__ import annotations

import pytest
import torch

from sfumato.networks._count import cost
from sfumato.networks.cifar_unet import cifar_unet
from sfumato.networks.condnorm_unet import condnorm_unet
from sfumato.networks.convnet import convnet
from sfumato.networks.dcgan import dcgan
from sfumato.networks.dit import dit, sincos

from .contract import awake, images

COND = {"size": 16, "width": 16, "depths": (1, 1), "attention": (4,), "heads": (2, 2, 2)}
GAN = {"size": 16, "latent": 8, "up": (8, 8), "down": (8, 8)}


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (convnet, {"size": 20}, "multiple of 8"),
        (cifar_unet, {"size": 20}, "multiple of 8"),
        (cifar_unet, {"up": (64,)}, "as many stages up as down"),
        (cifar_unet, {"plain": (6,)}, r"0\.\.5"),
        (cifar_unet, {"heads": 3}, "cannot have 3 heads"),
        (condnorm_unet, COND | {"norm": "layer"}, "Available: group, batch"),
        (condnorm_unet, COND | {"heads": (2, 2)}, "3 numbers"),
        (condnorm_unet, COND | {"heads": (2, 2, 3)}, "64 channels cannot have 3 heads"),
        (condnorm_unet, COND | {"up_kernel": 2}, "1 or 3"),
        (condnorm_unet, COND | {"size": 18}, "Nearest: 16 or 20"),
        (dit, {"size": 27}, "multiple of patch"),
        (dit, {"width": 190}, "multiple of 4"),
        (dit, {"position": "none"}, "Available: sincos, learned"),
        (dcgan, GAN | {"size": 36}, r"2 layers up leave size=36 a coarsest map of side 9.* Layers that fit: 3, 4, 5"),
        (dcgan, GAN | {"size": 64}, "Layers that fit: 3, 4, 5"),
        (dcgan, GAN | {"size": 32, "down": (8, 8, 8)}, "2 up and 3 down"),
        (dcgan, GAN | {"prior": "cauchy"}, "normal, uniform"),
    ],
)
def test_impossible_options_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_skips_let_detail_through_and_a_plain_network_squeezes_it():
    """Noise of one pixel: the derivative of an output pixel by its own input stands out only where there are skips."""

    def sharpness(network: torch.nn.Module) -> float:
        x = images(1).requires_grad_()
        awake(network)(x, torch.tensor(0.5))[0, 0, 8, 8].backward()
        energy = x.grad[0].square().sum(0)
        return (energy[6:11, 6:11].sum() / energy.sum()).item()

    plain = sharpness(convnet(size=16, widths=(16, 16, 16, 16)))
    skips = sharpness(condnorm_unet(3, 3, **(COND | {"attention": ()})))
    without = sharpness(condnorm_unet(3, 3, **(COND | {"attention": ()}), skips=False))
    assert skips > 2 * plain
    assert skips > without


def test_attention_of_the_big_preset_costs_most_at_the_finest_attended_level():
    build = {"channels": 3, "out_channels": 3, "size": 128, "depths": (2, 2, 2, 2), "heads": (4,) * 5}
    with torch.device("meta"):
        report = cost(condnorm_unet(**build, attention=(32, 16, 8)), (3, 128, 128))
    memory = {level.height: level.attention for level in report.levels}
    assert memory[128] == memory[64] == 0
    assert memory[32] == 16 * memory[16]  # the same heads and layers, four times the positions


def test_batch_norm_couples_images_in_training_which_is_why_it_is_not_the_default():
    for norm, coupled in (("group", False), ("batch", True)):
        network = awake(condnorm_unet(3, 3, **COND, norm=norm)).train()
        x = images(2).requires_grad_()
        network(x, torch.tensor(0.5))[0].square().sum().backward()
        assert bool(x.grad[1].abs().max() > 0) == coupled


def test_positions_are_distinct_and_start_at_the_corner():
    table = sincos(5, 7, 16)[0]
    assert table.shape == (35, 16)
    assert torch.pdist(table).min() > 0.1
    # column 0, row 0: all sines 0, all cosines 1
    assert torch.equal(table[0], torch.tensor([0.0] * 4 + [1.0] * 4 + [0.0] * 4 + [1.0] * 4))
    assert torch.equal(table[1, 8:], table[0, 8:])  # one step right changes the half that tells columns only
    assert torch.equal(table[7, :8], table[0, :8])


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_without_positions_a_transformer_only_permutes(position):
    """Swap two patches: the output's patches swap exactly if positions are removed, and do not otherwise."""
    network = awake(dit(3, 3, size=8, width=32, depth=2, heads=4, position=position))
    x = images(1, size=8)
    swapped = x.clone()
    swapped[..., :2, :2], swapped[..., 4:6, 4:6] = x[..., 4:6, 4:6], x[..., :2, :2]
    c = torch.tensor(0.5)
    there = network(swapped, c)[..., 4:6, 4:6]
    assert not torch.allclose(there, network(x, c)[..., :2, :2], rtol=1e-2, atol=1e-3)
    network.positions = lambda height, width, like: torch.zeros(1, height * width, 32)
    there = network(swapped, c)[..., 4:6, 4:6]
    torch.testing.assert_close(there, network(x, c)[..., :2, :2], rtol=1e-3, atol=1e-4)


def test_dit_steps_choose_the_frequencies():
    unit, steps = dit(size=8, width=32, depth=1, heads=4), dit(size=8, width=32, depth=1, heads=4, steps=True)
    assert unit.noise[0].frequencies.max() == pytest.approx(100, rel=1e-4)
    assert steps.noise[0].frequencies.max() == 1


def test_dcgan_generates_and_judges_with_labels():
    network = awake(dcgan(**GAN, classes=3))
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2, -1])
    x = network(z, label)
    assert x.shape == (4, 3, 16, 16)
    assert 0 < x.abs().max() < 1
    assert torch.equal(network(z, None), network(z, torch.full((4,), -1)))
    assert not torch.allclose(network(z, label)[0], network(z, None)[0], rtol=1e-3)
    logits = network.discriminator(x, label)
    assert logits.shape == (4,)
    torch.testing.assert_close(network.discriminator(x[1:2], label[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network.discriminator(x, None)[:3], logits[:3], rtol=1e-3)
    with pytest.raises(ValueError, match="unlabelled"):
        dcgan(**GAN)(z, label)
    with pytest.raises(ValueError, match=r"latents \(B, 8\)"):
        network(z[:, :4], label)
    with pytest.raises(ValueError, match="16x16"):
        network.discriminator(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("size", [14, 13, 28, 27])
def test_every_pixel_of_a_gan_of_an_odd_side_is_made_and_judged(size):
    network = awake(dcgan(**GAN | {"size": size, "up": (8, 8), "down": (8, 8)}))
    images = network(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (64, 3, size, size)
    assert images.std(0).min() > 0
    images = images.detach().requires_grad_()
    (seen,) = torch.autograd.grad(network.discriminator(images).sum(), images)
    assert seen.abs().amax(0).min() > 0


def test_dcgan_starts_as_published():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = dcgan()
    kernels = torch.cat([p.flatten() for p in network.parameters() if p.ndim == 4])
    gains = torch.cat([m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert kernels.std().item() == pytest.approx(0.02, rel=0.01)
    assert kernels.mean().abs().item() < 1e-4
    assert gains.mean().item() == pytest.approx(1, abs=0.005)
    assert gains.std().item() == pytest.approx(0.02, rel=0.1)
