"""The training of feature networks: exact folding, exact rescaling, seeded, and able to learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sfumato.core.find import find
from sfumato.metrics.extractors.classifier import Shape
from sfumato.metrics.train_features import PLANS, accuracy, augment, box2, fold, fresh, main, rescale, to_float, train

SHAPE = Shape(8, 8, (8, 8, 16))


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_folding_and_rescaling_keep_the_logits() -> None:
    net = fresh(SHAPE, torch.Generator().manual_seed(0)).train()
    x = noise(200)
    with torch.no_grad():
        net(to_float(x))  # moves the running statistics away from 0 and 1
        want = net.eval()(to_float(x))
        folded = fold(net)
        torch.testing.assert_close(folded(to_float(x)), want, rtol=1e-4, atol=1e-4)
        before = folded.features(to_float(x))
        rescale(folded, x)
        torch.testing.assert_close(folded(to_float(x)), want, rtol=1e-4, atol=1e-4)
        after = folded.features(to_float(x))
    assert after.square().mean().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(after, before * (after.norm() / before.norm()), rtol=1e-4, atol=1e-4)


def test_augmentation_shifts_and_mirrors_every_image_by_itself() -> None:
    x = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    x[:, 0, 3, 2] = 9
    moved = augment(x, 1, True, torch.Generator().manual_seed(0))
    assert (moved.flatten(1).sum(1) == 9).all()
    places = {divmod(int(p), 8) for p in moved.flatten(1).argmax(1)}
    assert places == {(row, column) for row in (2, 3, 4) for column in (1, 2, 3, 4, 5, 6)}
    assert torch.equal(augment(x, 0, False, torch.Generator().manual_seed(0)), x)


def test_boxes_are_rounded_means() -> None:
    x = torch.tensor([[[[0, 1], [0, 1]]], [[[255, 255], [255, 254]]]], dtype=torch.uint8)
    assert box2(x).flatten().tolist() == [1, 255]


def test_training_is_seeded() -> None:
    plan = dataclasses.replace(PLANS["digits"], shape=SHAPE, epochs=1)
    labels = torch.arange(200) % 10
    first, again, other = (train(plan, noise(200), labels, seed=s, tell=lambda _: None) for s in (1, 1, 2))
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters()):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert torch.equal(a, a.half().float())  # the float16 numbers are the network


def test_training_learns_the_digits() -> None:
    data, test = find("data", "digits")(split="train"), find("data", "digits")(split="test")
    plan = dataclasses.replace(PLANS["digits"], shape=SHAPE, epochs=4)
    net = train(plan, data.images, data.labels, tell=lambda _: None)
    assert accuracy(net, test.images, test.labels) > 0.9


def test_the_command_names_its_data_sets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--data", "fashion"])
    assert "fashion-mnist" in capsys.readouterr().err
