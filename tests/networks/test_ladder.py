"""The published U-Nets' parts: attention at any size, resampling, options, the classifier."""

from __future__ import annotations

import pytest
import torch

from sfumato.networks._blocks import Attention, Style
from sfumato.networks._layers import Resample, attend, image_attention
from sfumato.networks.adm import adm
from sfumato.networks.adm_classifier import adm_classifier
from sfumato.networks.ddpm import ddpm
from sfumato.networks.songunet import songunet

from .contract import awake, images

SMALL = {"width": 32, "mult": (1, 1), "blocks": 1, "attention": (8,), "size": 16}


def test_attention_is_softmax_of_products_per_head():
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 3 * 6, 3, 5, generator=generator)
    out = image_attention(qkv, heads=2)
    for image in range(2):
        for head in range(2):
            q, k, v = (qkv[image, part * 6 + head * 3 : part * 6 + head * 3 + 3].reshape(3, 15) for part in range(3))
            expected = torch.empty(3, 15)
            for i in range(15):
                weight = torch.softmax((q[:, i, None] * k).sum(0) / 3**0.5, dim=0)
                expected[:, i] = (weight * v).sum(1)
            torch.testing.assert_close(out[image, head * 3 : head * 3 + 3].reshape(3, 15), expected)


def test_attention_by_products_equals_the_fused_kernel():
    q, k, v = torch.randn(3, 2, 4, 10, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("height", [4, 6])
def test_attention_commutes_with_moving_positions_and_never_mixes_images(height):
    """No position is special to attention, at the training size or another; another image changes nothing."""
    block = awake(Attention(16, Style(groups=4, heads=2)))
    x = torch.randn(2, 16, height, 5, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(height * 5, generator=torch.Generator().manual_seed(2))

    def move(h: torch.Tensor) -> torch.Tensor:
        return h.flatten(2)[..., order].reshape(h.shape)

    torch.testing.assert_close(block(move(x)), move(block(x)), rtol=1e-4, atol=1e-5)
    other = torch.cat((x[:1], 7 * x[1:]))
    torch.testing.assert_close(block(other)[0], block(x)[0])


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_up_is_four_times_the_adjoint_of_down(taps):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    down, up = Resample(False, taps).double(), Resample(True, taps).double()
    assert (up(y) * x).sum().item() == pytest.approx(4 * (y * down(x)).sum().item())
    assert down(torch.ones(1, 1, 8, 8))[0, 0, 1:-1, 1:-1].sub(1).abs().max() < 1e-6
    assert up(torch.ones(1, 1, 8, 8))[0, 0, 2:-2, 2:-2].sub(1).abs().max() < 1e-6


def test_the_box_filter_is_the_general_rule():
    x = images(1)
    for up in (False, True):
        box, general = Resample(up, (1, 1)), Resample(up, (1, 1))
        general.box = False
        torch.testing.assert_close(box(x), general(x))


def test_rescaling_multiplies_every_residual_sum():
    plain, scaled = (adm(**SMALL, head_width=16, rescale=rescale) for rescale in (False, True))
    scaled.load_state_dict(awake(plain).state_dict())
    h, e = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1, 128)
    for a, b in zip(plain.encoder.middle, scaled.encoder.middle, strict=True):
        torch.testing.assert_close(b.block(h, e), a.block(h, e) * 0.5**0.5)
    attention = (network.encoder.middle[0].attention for network in (plain, scaled))
    torch.testing.assert_close(next(attention)(h) * 0.5**0.5, next(attention)(h))


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (ddpm, {"size": 18, "mult": (1, 1, 1)}, "multiple of 4 .*Nearest: 16 or 20"),
        (ddpm, {"attention": (12,)}, "has 16, 8; got 12"),
        (adm, {"resample": "shuffle"}, "Available: block, conv, mean"),
        (adm, {"head_width": 24}, "32 channels cannot have heads of 24"),
        (adm, {"head_width": 0, "heads": 5}, "cannot have 5 heads"),
        (adm, {"width": 48}, "divides the 48 channels"),
        (songunet, {"taps": (1, 2, 1)}, "even number of taps"),
        (adm_classifier, {"pool": "max"}, "Available: attention, mean"),
        (adm_classifier, {"classes": 1}, "at least 2"),
    ],
)
def test_impossible_options_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**(SMALL | options))


def test_augmentation_labels_need_a_network_for_them():
    network, x, c = awake(songunet(**(SMALL | {"augments": 2}))), images(2), torch.tensor(0.5)
    none = network(x, c)
    assert torch.equal(network(x, c, None, torch.zeros(2, 2)), none)
    assert not torch.allclose(network(x, c, None, torch.ones(2, 2)), none, rtol=1e-3)
    with pytest.raises(ValueError, match="augments >= 1"):
        songunet(**SMALL)(x, c, None, torch.zeros(2, 2))


@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_the_classifier_sees_each_image_alone_and_has_a_gradient(pool):
    network = awake(adm_classifier(**SMALL, classes=5, pool=pool))
    x, c = images(3).requires_grad_(), torch.tensor([10.0, 500.0, 900.0])
    logits = network(x, c)
    assert logits.shape == (3, 5)
    torch.testing.assert_close(network(x[1:2], c[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    logits.log_softmax(1)[0, 3].backward()
    assert x.grad[1:].abs().max() == 0
    assert (x.grad[0].abs() > 0).float().mean() > 0.999
    with pytest.raises(ValueError, match="label=None"):
        network(x, c, torch.zeros(3, dtype=torch.int64))


def test_the_classifier_at_another_size():
    x, c = images(1, size=32), torch.tensor(0.5)
    assert adm_classifier(**SMALL, pool="mean")(x, c).shape == (1, 1000)
    with pytest.raises(ValueError, match="8x8, the training size; got 16x16"):
        adm_classifier(**SMALL, pool="attention")(x, c)


HEADS = {
    "adm": lambda **o: adm(width=32, mult=(1, 2), blocks=1, attention=(16, 8), size=16, **o),
    "classifier": lambda **o: adm_classifier(
        width=32, mult=(1, 2), blocks=1, attention=(16, 8), size=16, classes=2, **o
    ),
}


def heads_of(network: torch.nn.Module) -> list[tuple[int, int]]:
    """Channels and heads of every attention, in order."""
    found = [m for m in network.modules() if isinstance(m, Attention)]
    return [(m.out.in_channels, m.heads) for m in found]


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_heads_may_differ_by_level_and_the_middle_has_those_of_the_coarsest(make):
    by_count = heads_of(make(heads=(1, 4), head_width=0))
    assert set(by_count) == {(32, 1), (64, 4)} == set(heads_of(make(head_width=(32, 16))))
    torch.manual_seed(0)
    one = make(heads=2, head_width=0)
    torch.manual_seed(0)
    each = make(heads=(2, 2), head_width=(0, 0))
    assert heads_of(one) == heads_of(each)
    assert all(map(torch.equal, one.state_dict().values(), each.state_dict().values()))


def test_heads_are_one_number_or_one_for_each_level():
    with pytest.raises(ValueError, match="heads is one number, or one for each of 2 levels.*got 3: 1,2,4"):
        HEADS["adm"](heads=(1, 2, 4), head_width=0)
    with pytest.raises(ValueError, match="64 channels cannot have 5 heads"):
        HEADS["adm"](heads=(1, 5), head_width=0)
