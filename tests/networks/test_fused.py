"""The compiled GroupNorm-SiLU is torch's, forwards and backwards, image by image; without a compiler torch computes."""

from __future__ import annotations

import pytest
import torch

from sfumato.networks import _fused, _layers
from sfumato.networks.unet import unet

needs_compiler = pytest.mark.skipif(_fused.library(torch.bfloat16) is None, reason="no C compiler at hand")


def example(dtype, channels=24, side=5, images=3, mean=4.0):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(images, channels, side, side, generator=generator) * 2 + mean
    x = x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    gain, shift = (torch.randn(images, channels, generator=generator).requires_grad_() for _ in range(2))
    return x, gain, shift, torch.randn(x.shape, generator=generator).to(dtype)


@needs_compiler
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "groups"), [(24, 6), (24, 1), (24, 24), (7, 7), (70, 35), (88, 22)])
def test_value_and_gradients_are_those_of_torch(dtype, silu, channels, groups):
    """Against float64, relative to the size: 1e-6 in float32, the rounding of the stored result in bfloat16."""
    x, gain, shift, g = example(dtype, channels)
    assert _fused.usable(x)
    y = _fused.norm_act(x, groups, 1e-5, gain, shift, silu)
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    found = (y, *torch.autograd.grad(y, (x, gain, shift), g))
    wide = [t.detach().double().requires_grad_() for t in (x, gain, shift)]
    z = _fused.plain(wide[0], groups, 1e-5, *wide[1:], silu)
    expected = (z, *torch.autograd.grad(z, wide, g.double()))
    for i, (a, b) in enumerate(zip(found, expected)):
        rounding = 2**-8 if a.dtype == torch.bfloat16 else 1e-5
        scale = b.abs().max().clamp(min=1e-3)
        assert float((a.double() - b).detach().abs().max() / scale) < rounding, i


@needs_compiler
def test_an_image_does_not_depend_on_its_batch():
    x, gain, shift, _ = example(torch.bfloat16, images=5)
    whole = _fused.norm_act(x, 6, 1e-5, gain, shift, True)
    alone = _fused.norm_act(x[3:4], 6, 1e-5, gain[3:4], shift[3:4], True)
    assert torch.equal(whole[3:4], alone)


@needs_compiler
def test_shared_gain_and_shift_collect_the_gradients_of_all_images():
    x, gain, shift, g = example(torch.float32)
    shared = [t[0].detach().requires_grad_() for t in (gain, shift)]
    y = _fused.norm_act(x, 6, 1e-5, *shared, True)
    spread = [t.detach().expand(3, -1).clone().requires_grad_() for t in shared]
    z = _fused.norm_act(x, 6, 1e-5, *spread, True)
    assert torch.equal(y, z)
    for a, b in zip(torch.autograd.grad(y, shared, g), torch.autograd.grad(z, spread, g)):
        assert torch.allclose(a, b.sum(0), rtol=1e-5)


@needs_compiler
def test_nan_stays_nan():
    x, gain, shift, _ = example(torch.bfloat16)
    with torch.no_grad():
        x[1, 2, 0, 0] = float("nan")
    y = _fused.norm_act(x, 6, 1e-5, gain, shift, True)
    assert bool(y[1, :4].isnan().all()) and not bool(y[[0, 2]].isnan().any())


@needs_compiler
def test_a_gradient_of_the_gradient_is_computed_by_torch():
    """Gradient penalties need it: the second derivative agrees with that of torch's own operations."""
    x, gain, shift, g = example(torch.float32)

    def penalty(function):
        (dx,) = torch.autograd.grad(function(x, 6, 1e-5, gain, shift, True), x, g, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), x)[0]

    assert torch.allclose(penalty(_fused.norm_act), penalty(_fused.plain), rtol=1e-3, atol=1e-4)


@needs_compiler
def test_a_network_computes_the_same_either_way(monkeypatch):
    """In float32 the whole U-Net and its gradient agree with torch's operations to rounding."""
    torch.manual_seed(0)
    network = unet(classes=3, size=8, width=16).to(memory_format=torch.channels_last)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x, label = torch.randn(2, 1, 8, 8), torch.tensor([0, 2])

    def run():
        y = network(x, torch.tensor([0.1, -0.7]), label)
        return y, *torch.autograd.grad(y.square().sum(), list(network.parameters()))

    asked = []
    usable = _fused.usable
    monkeypatch.setattr(_layers._fused, "usable", lambda t: asked.append(usable(t)) or usable(t))
    native = run()
    assert len(asked) > 10 and all(asked)
    monkeypatch.setattr(_layers._fused, "usable", lambda t: False)
    for a, b in zip(native, run()):
        assert torch.allclose(a, b, rtol=2e-3, atol=1e-4 * float(b.abs().max()) + 1e-6)


def test_without_a_compiler_or_when_told_torch_computes(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert _fused.library.__wrapped__(torch.float32) is None
    monkeypatch.delenv("CC")
    monkeypatch.setenv("SFUMATO_NATIVE", "0")
    assert _fused.library.__wrapped__(torch.float32) is None and not list(tmp_path.rglob("*.so"))
