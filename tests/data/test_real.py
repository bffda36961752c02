"""The official files, where the data root has them: checksums, counts and known facts."""

import os
from pathlib import Path

import pytest
import torch

from sfumato.data import load, overlap, sigma_data
from sfumato.data.splits import split_by_hash

ROOT = Path(os.environ.get("SFUMATO_DATA", "/nonexistent"))


def needs(file):
    return pytest.mark.skipif(not (ROOT / file).exists(), reason=f"SFUMATO_DATA has no {file}")


@needs("fashion-mnist/train-images-idx3-ubyte.gz")
def test_fashion_mnist():
    train, test = load("fashion-mnist"), load("fashion-mnist", split="test")
    assert (len(train), len(test)) == (60000, 10000)
    assert torch.bincount(train.labels).tolist() == [6000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert sigma_data(train) == pytest.approx(0.70605, abs=1e-5)
    assert overlap(test, train) == 0
    held = load("fashion-mnist", split="val", val=0.1, size=14)
    assert held.index_hash == split_by_hash(train, "val", val=0.1).index_hash
    assert len(held) == 5984


@needs("mnist/train-images-idx3-ubyte.gz")
def test_mnist():
    train, test = load("mnist"), load("mnist", split="test")
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.images.sum().item() / train.images.numel() / 255 == pytest.approx(0.1306604, abs=1e-6)  # known: 0.1307
