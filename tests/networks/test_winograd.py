"""Convolutions with fewer products are convolutions: values, gradients, batches, threads, and where they stop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sfumato.networks import _layers, _native, _winograd
from sfumato.networks.unet import unet

needs_kernel = pytest.mark.skipif(_winograd.library() is None, reason="no CPU with avx512_bf16, or no C compiler")
LAST = torch.channels_last


def layer_and_input(into=32, out=48, height=5, width=7, images=3):
    torch.manual_seed(into)
    layer = _layers.conv(into, out).to(memory_format=LAST)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(images, into, height, width).bfloat16().contiguous(memory_format=LAST).requires_grad_()
    return layer, x, torch.randn(images, out, height, width).bfloat16()


def value_and_gradients(layer, x, g, fewer=True):
    layer.fewer_products = fewer
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    return y, *torch.autograd.grad(y, (x, layer.weight, layer.bias), g)


@needs_kernel
@pytest.mark.parametrize(
    ("into", "out", "height", "width"), [(32, 48, 5, 7), (16, 16, 1, 3), (128, 64, 6, 4), (64, 80, 14, 14)]
)
def test_value_and_gradients_are_those_of_a_convolution(into, out, height, width):
    """Against float64: within three times the error of torch's convolution in bfloat16, in the root of the squares."""
    layer, x, g = layer_and_input(into, out, height, width)
    found, usual = value_and_gradients(layer, x, g), value_and_gradients(layer, x, g, fewer=False)
    wide = [t.detach().double().requires_grad_() for t in (x, layer.weight, layer.bias)]
    y = F.conv2d(*wide, padding=1)
    expected = (y, *torch.autograd.grad(y, wide, g.double()))
    assert found[0].is_contiguous(memory_format=LAST) and found[2].dtype == torch.float32
    for own, torchs, exact in zip(found, usual, expected):
        error, rounding = (float((t.double() - exact).detach().norm() / exact.detach().norm()) for t in (own, torchs))
        assert error < 3 * rounding < 0.01
    assert not torch.equal(found[0], usual[0])  # it was the kernel that computed


@needs_kernel
def test_neither_batch_nor_threads_change_a_number():
    layer, x, g = layer_and_input(images=5, height=14, width=14)
    whole = value_and_gradients(layer, x, g)
    alone = value_and_gradients(layer, x[3:4].detach().requires_grad_(), g[3:4])
    assert torch.equal(whole[0][3:4], alone[0]) and torch.equal(whole[1][3:4], alone[1])
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert all(torch.equal(a, b) for a, b in zip(whole, value_and_gradients(layer, x, g)))
    finally:
        torch.set_num_threads(threads)


@needs_kernel
def test_what_is_added_is_rounded_with_the_sum():
    layer, x, g = layer_and_input()
    plus = torch.randn(3, 48, 5, 7).bfloat16().requires_grad_()
    layer.fewer_products = True
    with torch.autocast("cpu", torch.bfloat16):
        y, alone = layer(x, plus), layer(x)
    assert torch.allclose(y, alone + plus, rtol=2**-6, atol=0.05) and not torch.equal(y, alone)
    found, usual = (torch.autograd.grad(out, (x, layer.weight, layer.bias), g, retain_graph=True) for out in (y, alone))
    assert all(torch.equal(a, b) for a, b in zip(found, usual))
    assert torch.equal(torch.autograd.grad(y, plus, g)[0], g)
    layer.fewer_products = False
    assert torch.equal(layer(x.float(), plus), plus + layer(x.float()))


@needs_kernel
def test_weights_that_stay_are_transformed_once_and_anew_when_they_move(monkeypatch):
    layer, x, _ = layer_and_input()
    layer.fewer_products, made, pack = True, [], _winograd.pack
    monkeypatch.setattr(_winograd, "pack", lambda weight: made.append(1) or pack(weight))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        first = layer(x)
        assert torch.equal(layer(x), first) and len(made) == 1
        layer.weight.mul_(2)
        assert torch.allclose(layer(x) - layer.bias[:, None, None], 2 * (first - layer.bias[:, None, None]), atol=0.2)
    assert len(made) == 2


@needs_kernel
def test_a_gradient_of_the_gradient_is_computed_by_torch():
    layer, x, g = layer_and_input()
    layer.fewer_products = True
    with torch.autocast("cpu", torch.bfloat16):
        (dx,) = torch.autograd.grad(layer(x), x, g, create_graph=True)
    (dw,) = torch.autograd.grad(dx.float().square().sum(), layer.weight)
    weight = layer.weight.detach().double().requires_grad_()
    wide = F.conv_transpose2d(g.double(), weight, padding=1)
    (expected,) = torch.autograd.grad(wide.square().sum(), weight)
    assert float((dw - expected).norm() / expected.norm()) < 0.02


def test_only_where_it_was_asked_for_and_can_be():
    layer, x, _ = layer_and_input()
    assert not layer.fewer_products
    assert not _winograd.usable(x, layer.weight)  # no autocast: the weights' own precision
    with torch.autocast("cpu", torch.bfloat16):
        assert not _winograd.usable(x, torch.zeros(48, 24, 3, 3))
        assert not _winograd.usable(x, layer.weight.double())
    network = unet(classes=3, size=8, width=16)
    _layers.take_fewer_products(network)
    taken = [m.fewer_products for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(taken) > 10 and all(taken)


def test_whether_it_pays_depends_on_processor_and_network(monkeypatch):
    for library, pays in ((object(), True), (None, False)):
        monkeypatch.setattr(_winograd, "library", lambda library=library: library)
        assert _layers.fewer_products_pay(unet(size=8, width=16)) is pays
        assert not _layers.fewer_products_pay(
            unet(size=8, width=8, mult=(1,), attention=())
        )  # narrower than the kernel takes


def test_processors_without_pairs_or_with_matrix_units_do_without(monkeypatch):
    for features in ((), ("avx512_bf16", "amx_bf16")):
        monkeypatch.setattr(_winograd, "has", features.__contains__)
        assert _winograd.library.__wrapped__() is None
    monkeypatch.setattr(_native, "_cpu", lambda: frozenset({"flags : fpu avx512_bf16x"}))
    assert not _native.has("avx512_bf16")
