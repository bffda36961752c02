"""The linear classifier of a probe: right where classes are apart, chance where there is nothing to read."""

from __future__ import annotations

import numpy as np
import pytest
from tests.networks.contract import SMALL, awake, images, make

from sfumato.metrics.linear_probe import ProbeError, Reading, principal, read_out
from sfumato.networks._pooled import all_blocks, pooled, usual_blocks

pytest.importorskip("sklearn")


def test_classes_that_lie_apart_are_all_named_right() -> None:
    """Three Gaussians, 10 sd apart; one feature is constant and says nothing."""
    rng = np.random.default_rng(0)
    labels, asked = np.arange(300) % 3, np.arange(90) % 3
    train, held = (np.c_[10.0 * np.eye(3)[y] + rng.normal(size=(len(y), 3)), np.ones(len(y))] for y in (labels, asked))
    found = read_out(train, labels, held, asked)
    assert found.right.all() and found.validated == 1
    assert found.accuracy.value == 1 and found.accuracy.interval[0] == pytest.approx(90 / (90 + 1.959963984540054**2))


def test_random_labels_are_named_by_chance() -> None:
    rng = np.random.default_rng(1)
    train, held = rng.normal(size=(400, 8)), rng.normal(size=(1000, 8))
    found = read_out(train, rng.integers(0, 4, 400), held, rng.integers(0, 4, 1000))
    low, high = found.accuracy.interval
    assert low < 0.25 < high and high - low < 0.06


def test_regularisation_is_chosen_on_training_images_only() -> None:
    """Other held-out images change neither the choice nor its accuracy; strong noise is regularised strongly."""
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 2
    train = np.c_[labels + 0.8 * rng.normal(size=60), rng.normal(size=(60, 100))]
    a = read_out(train, labels, train[:10], labels[:10])
    b = read_out(train, labels, -train[:10], labels[:10])
    assert (a.chosen, a.validated) == (b.chosen, b.validated) and not np.array_equal(a.right, b.right)
    assert a.chosen < 10


def test_the_difference_is_paired() -> None:
    right = np.array([True] * 80 + [False] * 20)
    other = np.array([True] * 70 + [False] * 30)
    above = Reading(right, 1.0, 1.0).above(Reading(other, 1.0, 1.0))
    assert above.value == pytest.approx(0.1) and above.se == pytest.approx((0.1 * 0.9 / 100) ** 0.5)
    equal = Reading(right, 1.0, 1.0).above(Reading(right, 1.0, 1.0))
    assert equal.interval[0] < 0 < equal.interval[1]


def test_principal_axes_of_a_gaussian_are_found_in_order() -> None:
    rng = np.random.default_rng(3)
    train = rng.normal(size=(4000, 3)) * [1, 5, 3] + 7
    a, b = principal(train, train[:5], 2)
    assert np.allclose(a.std(0), [5, 3], rtol=0.05) and np.allclose(a[:5], b)
    assert np.allclose(np.abs(np.corrcoef(a[:, 0], train[:, 1])[0, 1]), 1, atol=0.01)


def test_one_class_is_refused() -> None:
    with pytest.raises(ProbeError, match="all of one"):
        read_out(np.ones((4, 2)), np.zeros(4, int), np.ones((2, 2)), np.zeros(2, int))


@pytest.mark.parametrize("name", SMALL)
def test_every_network_has_blocks_and_an_image_has_its_own_features(name: str) -> None:
    network, x = awake(make(name)), images(3)
    c = x.new_zeros(3)
    known = all_blocks(network, lambda: network(x, c, None), 3)
    usual = usual_blocks(network, known)
    assert len(usual) >= 2 and set(usual) <= set(known)
    found = pooled(network, lambda: network(x, c, None), usual, 3)
    alone = pooled(network, lambda: network(x[1:2], c[1:2], None), usual, 1)
    assert list(found) == usual
    for block, rows in found.items():
        assert rows.ndim == 2 and len(rows) == 3
        assert np.allclose(rows[1], alone[block][0], atol=1e-4), block
    assert not network._forward_hooks and not any(m._forward_hooks for m in network.modules())  # nothing stays behind


def test_features_are_means_over_space() -> None:
    network, x = awake(make("unet")), images(2)
    seen = []
    handle = network.middle.register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    found = pooled(network, lambda: network(x, x.new_zeros(2), None), ["middle"], 2)["middle"]
    handle.remove()
    assert found.equal(seen[0].mean((2, 3)))
