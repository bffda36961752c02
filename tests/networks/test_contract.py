"""What every denoising network promises: found by its name, called alike, labels, batches, sizes, precision."""

from __future__ import annotations

import inspect
import typing

import pytest
import torch

from sfumato.core.find import entries
from sfumato.networks import _embeddings

from .contract import NOT_DENOISERS, SMALL, awake, images, make

FIXED = ("channels", "out_channels", "classes", "size")


def c_noise(batch: int) -> torch.Tensor:
    return torch.linspace(0.1, 0.9, batch)


def test_every_file_of_the_room_is_covered():
    assert {name.replace("-", "_") for name in entries("network")} == set(SMALL) | set(NOT_DENOISERS)


@pytest.mark.parametrize("name", SMALL)
def test_constructor_names_its_options(name):
    entry = entries("network")[name.replace("_", "-")]
    parameters = inspect.signature(entry).parameters
    assert tuple(parameters)[:4] == FIXED
    hints = typing.get_type_hints(entry)  # without the bounds that a type may carry
    for parameter in parameters.values():
        assert parameter.default is not inspect.Parameter.empty, parameter
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert hints[parameter.name] in (
            *(int, float, bool, str, tuple[int, ...], tuple[float, ...]),
            int | tuple[int, ...],
        )
    assert entry.__doc__ and len(entry.__doc__.splitlines()[0]) > 20


@pytest.mark.parametrize("name", SMALL)
def test_null_label_is_none_bitwise_and_class_zero_is_a_class(name):
    network, x, c = awake(make(name, classes=3)), images(2), c_noise(2)
    none = network(x, c, None)
    assert torch.equal(network(x, c, torch.tensor([-1, -1])), none)
    zero = network(x, c, torch.tensor([0, -1]))
    assert not torch.allclose(zero[0], none[0], rtol=1e-3)
    torch.testing.assert_close(zero[1], none[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_labels_are_checked(name):
    x, c = images(2), c_noise(2)
    with pytest.raises(ValueError, match="unlabelled"):
        make(name, classes=0)(x, c, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"0\.\.2"):
        make(name, classes=3)(x, c, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="int64"):
        make(name, classes=3)(x, c, torch.zeros(2))
    with pytest.raises(ValueError, match="one per image"):
        make(name, classes=3)(x, c, torch.tensor([1]))


@pytest.mark.parametrize("name", SMALL)
def test_an_image_does_not_depend_on_its_batch(name):
    network, x, c, label = awake(make(name, classes=3)), images(3), c_noise(3), torch.tensor([0, 2, -1])
    together = network(x, c, label)
    for i in range(3):
        alone = network(x[i : i + 1], c[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_stay_inside_each_image_and_reach_every_pixel_and_weight(name):
    network, x = awake(make(name, classes=3)), images(2).requires_grad_()
    network(x, c_noise(2), torch.tensor([1, 2]))[0].square().sum().backward()
    assert x.grad is not None
    assert x.grad[1].abs().max() == 0
    assert (x.grad[0].abs() > 0).float().mean() > 0.999
    idle = [n for n, p in network.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize("name", SMALL)
def test_noise_number_matters_and_is_one_or_one_per_image(name):
    network, x = awake(make(name)), images(2)
    once = network(x, torch.tensor(0.5))
    assert torch.equal(once, network(x, torch.tensor([0.5, 0.5])))
    assert not torch.allclose(once, network(x, torch.tensor(0.9)), rtol=1e-3)
    with pytest.raises(ValueError, match="c_noise"):
        network(x, torch.zeros(3))


@pytest.mark.parametrize("name", SMALL)
def test_wrong_images_are_refused_with_the_nearest_sizes(name):
    network = make(name)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        network(images(1, channels=1), torch.tensor(0.5))
    if SMALL[name].get("any_size"):
        return
    with pytest.raises(ValueError, match=r"multiples of .*17x17.*Nearest .* 16, \d\d"):
        network(images(1, size=17), torch.tensor(0.5))


@pytest.mark.parametrize("name", SMALL)
def test_other_sizes_than_the_training_size_work(name):
    network = awake(make(name))
    wide = torch.cat((images(1), images(1, seed=2)), dim=3)
    assert network(wide, torch.tensor(0.5)).shape == wide.shape


@pytest.mark.parametrize("name", SMALL)
def test_output_starts_at_zero_where_promised(name):
    out = make(name)(images(1), torch.tensor(0.5))
    assert out.shape == (1, 3, 16, 16)
    if SMALL[name].get("zero", True):
        assert out.abs().max() <= SMALL[name].get("almost", 0.0)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_and_channels_last_stay_close_to_float32(name):
    network, x = awake(make(name, classes=3)), images(2)
    exact = network(x, c_noise(2), torch.tensor([0, 1]))
    network = network.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x, c_noise(2), torch.tensor([0, 1])), exact, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, c_noise(2), torch.tensor([0, 1]))
    assert rough.dtype == torch.float32
    error = (rough - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < 0.03


@pytest.mark.parametrize("name", SMALL)
def test_float64_agrees_with_float32(name):
    network, x = awake(make(name, classes=3)), images(2)
    single = network(x, c_noise(2), torch.tensor([0, 1]))
    double = network.double()(x.double(), c_noise(2), torch.tensor([0, 1]))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


def test_null_is_the_same_number_everywhere():
    from sfumato.core import denoiser

    assert _embeddings.NULL == denoiser.NULL
