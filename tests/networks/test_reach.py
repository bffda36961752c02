"""The receptive field that a network is said to have is where its gradient is."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sfumato.networks import _reach
from sfumato.networks._layers import GroupNorm
from sfumato.networks._reach import Reach, dependencies, reach
from sfumato.networks.ddpm import ddpm
from sfumato.networks.unet import unet

from .contract import SMALL, awake, make

SIDE = 32
LOOSE = {"edm2": {"clip": 1e100}}  # weights above 0 make large numbers


def local(network: nn.Module, name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return a network whose attention, normalisation and maxima move nothing, with convolutions above 0."""
    monkeypatch.setattr(GroupNorm, "_normalised", lambda self, x: x)
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)
    for module in ("_layers", name):
        found = importlib.import_module(f"sfumato.networks.{module}")
        if hasattr(found, "attend"):
            monkeypatch.setattr(found, "attend", lambda q, k, v: v)
    with torch.no_grad():
        for weight in awake(network.double()).parameters():
            if weight.ndim == 4:
                weight.abs_()
    return network


@pytest.mark.parametrize("name", SMALL)
def test_a_column_is_seen_exactly_where_the_gradient_is(name, monkeypatch):
    seen, attends = dependencies(make(name), (3, SIDE, SIDE))
    assert attends == (name != "convnet")
    network = local(make(name, **LOOSE.get(name, {})), name, monkeypatch)
    for column in (13, SIDE - 1):
        x = torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        network(x.requires_grad_(), torch.tensor(0.5, dtype=torch.float64))[0, :, column, column].sum().backward()
        touched = x.grad[0].abs().sum(0) > 0
        assert np.array_equal(touched.any(0).numpy(), seen[column])
        assert np.array_equal(touched.any(1).numpy(), seen[column])  # rows are as columns


def test_two_convolutions_of_three_see_five_pixels_and_a_halving_doubles_their_step():
    flat = {"width": 8, "mult": (1,), "blocks": 1, "attention": (), "embedding": 8, "head_width": 8}
    # conv_in, two convolutions each of the blocks down, in the middle and up, conv_out: 1 + 2 * 8
    assert reach(unet(patch=1, **flat), (1, 8, 8)) == Reach(17, attends=False)
    assert reach(unet(patch=2, **flat), (1, 8, 8)) == Reach(34, attends=False)


def test_a_field_that_the_largest_image_cuts_is_said_to_be_cut(monkeypatch):
    network = ddpm(width=32, mult=(1, 2), blocks=1, attention=(), size=16)
    whole = reach(network, (3, 16, 16))
    monkeypatch.setattr(_reach, "SIDE", 16)
    monkeypatch.setattr(_reach, "LARGEST", 32)
    small = reach(network, (3, 16, 16))
    assert not whole.cut and small.cut and small.side < whole.side


def test_the_field_does_not_depend_on_the_size_of_the_images():
    network = ddpm(width=32, mult=(1, 2), blocks=1, attention=(), size=16)
    assert reach(network, (3, 16, 16)) == reach(network, (3, 64, 64))
