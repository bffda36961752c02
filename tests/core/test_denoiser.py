"""`Preconditioned`: a network and a target make a denoiser; labels, tables and learned variance pass through it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sfumato import conditioning, schedules
from sfumato.core import target as targets
from sfumato.core.denoiser import NULL, Counted, Denoiser, Preconditioned, clipped, unit_circle
from sfumato.core.exact import Empirical
from sfumato.core.level import Level
from sfumato.core.noise import normal, uniform

F64 = torch.float64


class Label(nn.Module):
    """A network whose output is its label plus one (0 for NULL and for no label at all), and which remembers inputs."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen.append((x, c_noise))
        value = torch.zeros(len(x), dtype=x.dtype) if label is None else (label + 1).to(x.dtype)
        return value.reshape(-1, 1, 1, 1).expand(-1, self.channels * x.shape[1], *x.shape[2:])


def images(count: int = 3) -> Tensor:
    return normal(range(count), (1, 2, 2), purpose="x")


def test_a_denoiser_needs_no_base_class() -> None:
    assert isinstance(Empirical(images()), Denoiser)
    assert isinstance(Preconditioned(Label(), targets.x0(), c_noise=conditioning.angle()), Denoiser)


def test_null_is_no_label_and_class_0_is_a_class() -> None:
    network = Preconditioned(Label(), targets.x0(), c_noise=conditioning.angle())
    x, level = images(), Level.of(0.6, 0.8)
    mixed = network(x, level, torch.tensor([NULL, 0, 1])).x0
    assert mixed[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert torch.equal(network(x, level).x0, network(x, level, torch.full((3,), NULL)).x0)
    assert not torch.equal(network(x, level).x0, network(x, level, torch.zeros(3, dtype=torch.int64)).x0)


def test_one_level_or_one_per_image() -> None:
    network = Preconditioned(Label(), targets.eps(), c_noise=conditioning.angle(), c_in=unit_circle())
    x, label = images(), torch.tensor([0, 1, 2])
    single = network(x, Level.of(0.6, 0.8), label).x0
    each = network(x, Level.of([0.6] * 3, [0.8] * 3), label).x0
    assert torch.equal(single, each)


def test_conditioning_reaches_the_network_per_image_in_its_dtype() -> None:
    inner = Label()
    network = Preconditioned(inner, targets.x0(), c_noise=conditioning.angle(scale=2.0), c_in=unit_circle())
    network(images(), Level.of([3.0, 4.0, 1.0], [4.0, 3.0, 0.0]))
    x, c_noise = inner.seen[-1]
    assert c_noise.dtype == torch.float32 and c_noise.shape == (3,)
    torch.testing.assert_close(x, images() * torch.tensor([0.2, 0.2, 1.0]).reshape(-1, 1, 1, 1))


def test_a_discrete_network_refuses_other_levels_and_snaps_to_its_own() -> None:
    table = schedules.linear(100).levels
    network = Preconditioned(Label(), targets.eps(), c_noise=conditioning.index(table), table=table)
    between = Level.of(table.alpha[10:12].mean(), table.sigma[10:12].mean())
    with pytest.raises(ValueError, match="knows 100 discrete levels"):
        network(images(), between)
    network(images(), network.snap(between))
    assert float(network.snap(Level.of(1.0, 1e-9)).sigma) == float(table.sigma[1])
    grid = network.snap(Level.of([0.0, 1.0, 1.0], [1.0, 0.5, 0.0]))
    assert float(grid.sigma[0]) == float(table.sigma[-1]) and float(grid.sigma[-1]) == 0
    continuous = Preconditioned(Label(), targets.eps(), c_noise=conditioning.angle())
    assert continuous.snap(between) is between


def test_learned_variance_is_the_second_half() -> None:
    """Range: (v + 1) / 2 of the output; diagonal: the output itself; none: all channels are F."""
    level, x, label = Level.of(0.6, 0.8), images(), torch.tensor([0, 1, 2])
    heads = {}
    for variance in ("range", "diagonal"):
        network = Preconditioned(Label(2), targets.x0(), c_noise=conditioning.angle(), variance=variance)
        prediction = network(x, level, label)
        assert prediction.v is not None and prediction.v.shape == prediction.x0.shape == x.shape
        heads[variance] = prediction.v[:, 0, 0, 0].tolist()
    assert heads == {"range": [1.0, 1.5, 2.0], "diagonal": [1.0, 2.0, 3.0]}
    assert Preconditioned(Label(), targets.x0(), c_noise=conditioning.angle())(x, level).v is None
    with pytest.raises(ValueError, match="variance must be"):
        Preconditioned(Label(), targets.x0(), c_noise=conditioning.angle(), variance="both")


def test_autocast_computes_in_bf16_and_returns_the_images_dtype() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False)
            self.dtype: torch.dtype | None = None
            nn.init.eye_(self.layer.weight)

        def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
            out = self.layer(x)
            self.dtype = out.dtype
            return out

    inner = Linear()
    network = Preconditioned(inner, targets.x0(), c_noise=conditioning.angle(), autocast=torch.bfloat16)
    with torch.no_grad():
        assert network(images(), Level.of(0.6, 0.8)).x0.dtype == torch.float32
    assert inner.dtype == torch.bfloat16


def test_counted_counts_calls() -> None:
    counted = Counted(Empirical(uniform(range(3), (1, 2, 2), purpose="data", dtype=torch.float32)))
    for _ in range(3):
        counted(images(), Level.of(1.0, 1.0))
    assert counted.nfe == 3 and counted.rows == 3 * len(images())


def test_clipped() -> None:
    x = torch.tensor([-3.0, -0.5, 2.0])
    assert clipped(x, False) is x
    assert clipped(x, True).tolist() == [-1.0, -0.5, 1.0]
    assert clipped(x, 2.5).tolist() == [-2.5, -0.5, 2.0]
