"""What a convolution knows of its place: zero padding tells it, so positions need not be encoded.

An image that is the same everywhere offers no clue but the border. With circular padding every position sees the same
and answers alike; with zero padding the answers differ, and at the coarsest level every position has features of its
own: position is encoded already (Islam et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from sfumato.networks.condnorm_unet import condnorm_unet
from sfumato.networks.unet import unet

SIZE = 32


def network(**options) -> nn.Module:
    torch.manual_seed(0)
    made = condnorm_unet(size=SIZE, width=16, attention=(), heads=(1, 1, 1), **options)
    return made.double().eval()


def with_circular_padding(made: nn.Module) -> nn.Module:
    for layer in convolutions(made):
        layer.padding_mode = "circular"
        layer._reversed_padding_repeated_twice = [p for p in reversed(layer.padding) for _ in range(2)]
    return made


def convolutions(made: nn.Module) -> Iterator[nn.Conv2d]:
    return (layer for layer in made.modules() if isinstance(layer, nn.Conv2d))


def answers(made: nn.Module) -> tuple[Tensor, Tensor]:
    """Return (output, features of the coarsest level) for an image that is the same everywhere."""
    seen: list[Tensor] = []
    made.down[-1].register_forward_hook(lambda module, given, out: seen.append(out))  # type: ignore[union-attr, index]
    with torch.no_grad():
        out = made(torch.full((1, 1, SIZE, SIZE), 0.3, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64))
    return out[0], seen[0][0]


def spread(features: Tensor) -> float:
    """Return the standard deviation over positions, relative to the size of the features."""
    return float(features.std((1, 2)).mean() / features.abs().mean())


def test_without_a_border_no_position_is_special() -> None:
    out, coarse = answers(with_circular_padding(network()))
    assert spread(out) < 1e-10 and spread(coarse) < 1e-10


def test_zero_padding_tells_every_position_where_it_is() -> None:
    out, coarse = answers(network())
    assert spread(out) > 0.05
    places = coarse.flatten(1).T  # (positions, channels)
    apart = torch.cdist(places, places) + 1e9 * torch.eye(len(places), dtype=torch.float64)
    assert len(places) == 64 and float(apart.min()) > 1e-4 * float(places.norm(dim=1).mean())


def test_the_border_fades_with_distance() -> None:
    """Where the receptive field of the fine level alone ends, an interior pixel knows less of the border."""
    with torch.no_grad():
        first = network().conv_in(torch.full((1, 1, SIZE, SIZE), 0.3, dtype=torch.float64))[0]  # type: ignore[operator]
    inside = first[:, 1:-1, 1:-1]
    assert spread(inside) < 1e-12 < spread(first)


def test_positions_can_be_learned_too() -> None:
    """The option: attention adds a learned number per position, which breaks the symmetry even without a border."""
    torch.manual_seed(0)
    made = condnorm_unet(size=SIZE, width=16, attention=(8,), heads=(1, 1, 1), position=True).double().eval()
    torch.manual_seed(0)
    without = condnorm_unet(size=SIZE, width=16, attention=(8,), heads=(1, 1, 1)).double().eval()
    assert spread(answers(with_circular_padding(made))[0]) > 1e-6
    assert spread(answers(with_circular_padding(without))[0]) < 1e-10


@pytest.mark.parametrize("resample", ["shuffle", "conv", "mean"])
@pytest.mark.parametrize("skips", [True, False])
def test_every_way_up_and_its_ablation_run_at_any_size(resample: str, skips: bool) -> None:
    """Up-sampling kinds with and without skips: fewer weights without, and only with them does detail pass by."""
    made = unet(width=16, head_width=16, blocks=1, resample=resample, skips=skips, attention=())
    full = unet(width=16, head_width=16, blocks=1, resample=resample, skips=True, attention=())
    for size in (28, 36):
        assert made(torch.zeros(1, 1, size, size), torch.zeros(1)).shape == (1, 1, size, size)
    count, most = (sum(p.numel() for p in net.parameters()) for net in (made, full))
    assert count == most if skips else count < most
