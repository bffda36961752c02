"""Our compact U-Net: its size, where it looks, and what zero padding tells it."""

from __future__ import annotations

import pytest
import torch

from sfumato.networks._count import cost
from sfumato.networks.unet import unet

from .contract import awake, images


def test_the_cpu_recipe_has_three_million_parameters():
    network = unet(classes=10, size=28)
    assert sum(p.numel() for p in network.parameters()) == 2_973_892


def test_multiply_adds_by_hand():
    """One level, no attention: count every product of one block each way, and the middle."""
    c, e, s = 8, 16, 64
    network = unet(width=c, mult=(1,), blocks=1, attention=(), embedding=e, patch=1, size=8, frequencies=4)
    block = 9 * c * c * s + e * 2 * c + 9 * c * c * s
    up = 9 * 2 * c * c * s + e * 2 * c + 9 * c * c * s + 2 * c * c * s
    total = 9 * c * s + 9 * c * s + 2 * block + up + 8 * e + e * e
    assert cost(network, (1, 8, 8)).macs == total


def test_attention_memory_grows_with_the_square_of_the_pixels():
    small, large = (cost(unet(attention=(0, 1)), (1, side, side)) for side in (16, 32))
    assert [level.height for level in large.levels] == [16, 8]
    for a, b in zip(small.levels, large.levels, strict=True):
        assert b.attention == 16 * a.attention
        assert b.features == 4 * a.features
    # 2 heads, 2 layers, 16 positions, 4 bytes
    assert small.levels[1].attention == 2 * 2 * 16**2 * 4


def test_zero_padding_tells_position():
    """A constant image has no position in it, yet the output differs near the border: padding is visible there."""
    network = awake(unet(channels=1, width=8, blocks=1, size=96, attention=(), embedding=16))
    out = network(torch.ones(1, 1, 96, 96), torch.tensor(0.5))[0, 0]
    centre = out[44:52, 44:52]
    assert (centre[::4, ::4] - centre[0, 0]).abs().max() < 1e-4 * centre.abs().max()  # same phase of the 4x4 lattice
    assert (out[0, 0] - centre[0, 0]).abs() > 1e-2 * centre.abs().max()


def test_convolutions_alone_move_with_the_image_in_the_interior():
    """Far from the border the output of a shifted image is the shifted output, by steps of the coarsest level."""
    network = awake(unet(channels=1, width=8, blocks=1, size=96, attention=(), embedding=16))
    x = torch.zeros(1, 1, 96, 96)
    x[..., 40:56, 40:56] = images(1, channels=1)

    def shift(image: torch.Tensor, by: int) -> torch.Tensor:
        return torch.roll(image, (by, by), dims=(2, 3))

    def error(by: int) -> float:
        here, there = network(x, torch.tensor(0.5)), network(shift(x, by), torch.tensor(0.5))
        change = (shift(there, -by) - here)[..., 36:60, 36:60].abs().max() / here[..., 36:60, 36:60].abs().max()
        return change.item()

    assert error(4) < 1e-3
    assert error(2) > 1e-2  # half a step of the coarsest lattice is not a symmetry


@pytest.mark.parametrize("resample", ["shuffle", "conv", "mean"])
@pytest.mark.parametrize("skips", [True, False])
def test_ablations_build_and_learn_from_every_weight(resample, skips):
    network = awake(unet(channels=1, width=8, size=16, embedding=16, resample=resample, skips=skips))
    network(images(2, channels=1), torch.tensor(0.5)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_without_skips_the_network_is_smaller():
    assert cost(unet(skips=False), (1, 28, 28)).parameters < cost(unet(), (1, 28, 28)).parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, r"multiple of 4 .*Nearest: 28 or 32"),
        ({"attention": (2,)}, r"levels 0\.\.1"),
        ({"resample": "cubic"}, "Available: shuffle, conv, mean"),
        ({"mult": (1, 2), "width": 48, "attention": (1,), "head_width": 64}, "divisor of 96"),
        ({"blocks": 0}, "at least one"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unet(**options)


def test_dropout_acts_in_training_only():
    network = awake(unet(channels=3, width=8, size=16, embedding=16, out_channels=3, dropout=0.5))
    x, c = images(1), torch.tensor(0.5)
    assert torch.equal(network(x, c), network(x, c))
    network.train()
    assert not torch.equal(network(x, c), network(x, c))


def test_a_size_below_the_smallest_offers_one_size():
    """With patch 2 and two levels sizes are multiples of 4; below 4 there is one nearest size, not two."""
    with pytest.raises(ValueError, match=r"Nearest: 4\."):
        unet(size=3)
    with pytest.raises(ValueError, match=r"Nearest: 28 or 32\."):
        unet(size=30)


def test_heads_of_the_compact_network_may_differ_by_level_and_are_set_by_a_field():
    from sfumato.networks._blocks import Attention
    from sfumato.recipes.digits import edm_digits
    from sfumato.runs.override import override
    from sfumato.runs.recipe import Recipe

    network = unet(width=16, mult=(1, 2), attention=(0, 1), bridge=True, head_width=(4, 16), embedding=16)
    found = {(m.out.in_channels, m.heads) for m in network.modules() if isinstance(m, Attention)}
    assert found == {(16, 4), (32, 2)}
    recipe = override(edm_digits(), ["network.head_width=16,32"])
    assert Recipe.from_json(recipe.to_json()) == recipe and recipe.network.options["head_width"] == (16, 32)
