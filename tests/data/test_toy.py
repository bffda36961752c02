"""Toy data has the distribution it claims."""

import math

import pytest
import torch

from sfumato.core.find import UnknownNameError
from sfumato.data import load
from sfumato.data.toy import POINTS, SHAPES, points, toy


def test_image_i_does_not_depend_on_how_many_there_are():
    few, many = toy(n=20, split="all"), toy(n=300, split="all")
    assert many.images[:20].equal(few.images)
    assert not toy(n=20, split="all", seed=1).images.equal(few.images)
    assert torch.bincount(many.labels).tolist() == [75] * 4


def test_shapes_are_inside_the_picture_and_look_like_their_class():
    d = toy(n=800, size=32, split="all")
    lit = (d.images > 127).double()
    edge = torch.cat([d.images[..., 0, :], d.images[..., -1, :], d.images[..., :, 0], d.images[..., :, -1]], -1)
    assert (edge.float().mean((1, 2)) < 60).all()  # at most touched by a soft edge
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    area = lit.sum((1, 2, 3))
    cx, cy = ((lit[:, 0] * a).sum((1, 2)) / area for a in (x, y))
    centre = lit[torch.arange(800), 0, cy.round().long(), cx.round().long()]
    height, width = lit.amax(3).sum((1, 2)), lit.amax(2).sum((1, 2))
    fill = area / (height * width)
    mean = {name: fill[d.labels == k].mean().item() for k, name in enumerate(SHAPES)}
    assert mean["square"] == pytest.approx(1, abs=0.03)
    assert mean["disc"] == pytest.approx(math.pi / 4, abs=0.04)
    assert (centre[d.labels == SHAPES.index("ring")] == 0).all()
    assert (centre[d.labels != SHAPES.index("ring")] == 1).all()
    assert mean["cross"] == pytest.approx(1 - 0.7**2, abs=0.05)


def test_toy_is_found_by_name_and_split_by_hash():
    d = load("toy:shapes", size=8, channels=3, split="test", options={"n": 500})
    assert d.shape == (3, 8, 8)
    assert 60 < len(d) < 140
    with pytest.raises(UnknownNameError, match="Available: mixture, shapes"):
        load("toy:circles")
    with pytest.raises(ValueError, match="size >= 8"):
        load("toy", size=4)


def test_mixture_moments():
    """8 Gaussians of sd 0.1 on the unit circle: mean 0, covariance (1/2 + 0.01) I."""
    x = points("mixture", 40000)
    assert x.mean(0).abs().max() < 4 * (0.51 / 40000) ** 0.5
    assert torch.cov(x.T)[0, 0].item() == pytest.approx(0.51, abs=0.01)
    angle = torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)
    counts = torch.bincount(angle.round().long() % 8, minlength=8)
    assert (counts - 5000).abs().max() < 4 * (40000 * 7 / 64) ** 0.5


def test_checkerboard_fills_every_second_cell_evenly():
    cells = ((points("checkerboard", 16000) + 1) * 2).floor().long()
    assert (cells.sum(1) % 2 == 0).all()
    counts = torch.bincount(cells[:, 0] + 4 * cells[:, 1], minlength=16)
    assert sorted(counts.tolist())[:8] == [0] * 8
    assert (counts[counts > 0] - 2000).abs().max() < 4 * (16000 * 7 / 64) ** 0.5


def test_moons_lie_near_their_arcs():
    x = points("moons", 5000)
    upper, lower = x.norm(dim=1) - 1, (x - torch.tensor([1.0, 0.5])).norm(dim=1) - 1
    assert torch.minimum(upper.abs(), lower.abs()).max() < 0.05 * 5
    assert abs(int((upper.abs() < lower.abs()).sum()) - 2500) < 200


def test_spiral_is_even_along_its_arm():
    x = points("spiral", 20000)
    radius = x.norm(dim=1)
    assert (radius.median() - 0.5**0.5).abs() < 0.02  # r^2 is uniform


def test_points_are_addressed_and_named():
    for kind in POINTS:
        assert points(kind, 50)[:10].equal(points(kind, 10))
    with pytest.raises(UnknownNameError, match="Did you mean 'moons'"):
        points("moon", 3)
