"""Every extractor keeps one contract; the shipped networks do what their files say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.core.find import find
from sfumato.data import load
from sfumato.metrics.dinov2_net import DinoNet
from sfumato.metrics.extractors.classifier import FILES
from sfumato.metrics.extractors.dinov2 import DinoFeatures, build
from sfumato.metrics.extractors.inception import WeightsError
from sfumato.metrics.extractors.resnet import NAME as RESNET
from sfumato.metrics.extractors.resnet import ResNet, ResNetFeatures
from sfumato.metrics.extractors.resnet import build as resnet_of
from sfumato.metrics.features import ExtractorShapeError, available, extractor, features_of, file_hash, stream
from sfumato.metrics.metric import find_metric
from sfumato.metrics.views import view_of

OWN = {"fashion-mnist": (1, 28, 28), "fashion-mnist14": (1, 14, 14), "digits": (1, 8, 8), "mnist": (1, 28, 28)}
SHAPES = {**OWN, "pixels": (3, 6, 5), "random": (3, 12, 10)}


def images(n: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_every_extractor_is_listed_and_has_a_line_of_documentation() -> None:
    assert set(available()) == {*SHAPES, "inception", "dinov2", "resnet"}
    for make in available().values():
        assert (make.__doc__ or "").strip()


@pytest.mark.parametrize("name", SHAPES)
def test_an_extractor_keeps_the_contract(name: str) -> None:
    shape = SHAPES[name]
    extract, x = extractor(name, shape), images(9, shape)
    rows = features_of(extract, x)
    assert rows.shape == (9, extract.dimension) and rows.dtype == np.float32
    assert extract.name == name.replace("-", "_")
    json.dumps(extract.describe())
    np.testing.assert_allclose(features_of(extract, x, batch=2), rows, rtol=1e-5, atol=1e-5)  # any batch size
    np.testing.assert_array_equal(features_of(extractor(name, shape), x), rows)  # no hidden state
    one = features_of(extract, torch.cat((x[4:], x[:4])))
    np.testing.assert_allclose(one[5:], rows[:4], rtol=1e-5, atol=1e-5)  # any order
    assert np.abs(rows - rows.mean(0)).max() > 1e-3  # different images differ
    with pytest.raises(ValueError, match="uint8 images"):
        extract(x.float())
    with pytest.raises(ValueError, match="uint8 images"):
        extract(images(2, (shape[0], shape[1] + 1, shape[2])))


@pytest.mark.parametrize("name", OWN)
def test_a_shipped_network_is_small_and_refuses_other_sizes(name: str) -> None:
    path = FILES / f"{name.replace('-', '_')}_features.safetensors"
    assert path.stat().st_size < 1_000_000
    extract = extractor(name, OWN[name])
    assert extract.weights_hash == file_hash(path)
    with pytest.raises(ValueError, match="takes images of shape"):
        extractor(name, (1, 32, 32))


@pytest.mark.parametrize(
    ("name", "least"), [("fashion-mnist", 0.925), ("fashion-mnist14", 0.89), ("digits", 0.98), ("mnist", 0.99)]
)
def test_a_shipped_network_knows_its_test_images(name: str, least: float) -> None:
    data = name.removesuffix("14")
    if data != "digits" and not (Path(os.environ.get("SFUMATO_DATA", "/nowhere")) / data).is_dir():
        pytest.skip(f"{data} is not at hand; SFUMATO_DATA names its folder")
    from sfumato.metrics.train_features import box2

    extract, test = extractor(name, OWN[name]), find("data", data)(split="test")
    count = min(len(test.images), 2000)
    x = test.images[:count]
    x = x if x.shape[-1] == OWN[name][-1] else box2(x)
    right = (extract.logits(x).argmax(1) == test.labels[:count]).float().mean().item()
    recorded = extract.recorded["test_accuracy"]
    assert recorded >= least
    assert abs(right - recorded) < 4 * np.sqrt(recorded * (1 - recorded) / count) + 1e-9


def test_features_of_a_shipped_network_have_mean_square_one() -> None:
    train = find("data", "digits")(split="train")
    rows = features_of(extractor("digits", (1, 8, 8)), train.images)
    assert np.mean(rows.astype(np.float64) ** 2) == pytest.approx(1, rel=2e-3)


def test_pixels_are_the_images() -> None:
    x = images(3, (2, 4, 4))
    want = x.flatten(1).numpy() / 127.5 - 1
    np.testing.assert_allclose(features_of(extractor("pixels", (2, 4, 4)), x), want, atol=1e-6)


def test_random_weights_follow_the_seed_alone() -> None:
    x = images(4, (1, 9, 9))
    a, b, c = (features_of(extractor("random", (1, 9, 9), {"seed": s}), x) for s in (0, 0, 1))
    assert np.array_equal(a, b) and not np.allclose(a, c)
    with pytest.raises(ValueError, match="8x8"):
        extractor("random", (1, 7, 9))


def test_a_damaged_network_is_noticed() -> None:
    class Broken:
        name, dimension, weights_hash = "broken", 1, "none"

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x.flatten(1)[:, :1] == x[2, 0, 0, 0], torch.nan, 1.0)

        def describe(self) -> dict[str, object]:
            return {}

    x = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1)
    with pytest.raises(ValueError, match="NaN or infinity for 1 images, the first at position 2"):
        list(stream(Broken(), [x]))
    with pytest.raises(ValueError, match="no images"):
        features_of(Broken(), x[:0])


def small_dino() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        names = DinoNet(128, 2, grid=5).state_dict()
    generator = torch.Generator().manual_seed(3)
    return {key: torch.randn(value.shape, generator=generator) * 0.05 for key, value in names.items()}


def test_dinov2_reads_its_shape_off_the_weights_and_takes_any_image() -> None:
    extract = DinoFeatures(build(small_dino()), "rule", (1, 20, 30))
    assert (extract.dimension, extract.name, len(extract.net.blocks)) == (128, "dinov2-128", 2)
    x = images(2, (1, 20, 30))
    grey, colour = extract(x), DinoFeatures(extract.net, "rule", (3, 20, 30))(x.expand(-1, 3, -1, -1))
    assert torch.equal(grey, colour)
    assert extract.net.positions(16, 16).shape == (1, 257, 128)
    assert torch.equal(extract.net.positions(5, 5), extract.net.pos_embed)


def test_dinov2_refuses_other_networks() -> None:
    state = small_dino()
    with pytest.raises(WeightsError, match="'register_tokens'"):
        build({**state, "register_tokens": torch.zeros(1, 4, 128)})
    with pytest.raises(WeightsError, match="no tensor 'pos_embed'"):
        build({"a": torch.zeros(1)})
    with pytest.raises(WeightsError, match="no weights file"):
        extractor("dinov2", (3, 8, 8), {"weights": "none.pth"})


def small_resnet(**changed: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """Return what the published file holds, with numbers of our own: no counters of batches, names of a wrapper."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = {f"module.{key}": value for key, value in ResNet().state_dict().items() if "num_batches" not in key}
    return {"state_dict": {**state, **changed}}


def test_resnet_is_the_published_network_and_takes_its_images_only(tmp_path: Path) -> None:
    extract, x = ResNetFeatures(resnet_of(small_resnet()), "rule", (3, 32, 32)), images(3, (3, 32, 32))
    assert sum(p.numel() for p in extract.net.parameters()) == 853_018  # 0.85 million, He et al. 2016, table 6
    rows = extract(x)
    assert rows.shape == (3, 64) and torch.equal(extract.logits(x), extract.net.linear(rows))
    assert torch.equal(view_of(extract, find_metric("is"), (3, 32, 32))(x), extract.logits(x))
    assert torch.allclose(extract(x[1:2]), rows[1:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ExtractorShapeError, match=r"\(3, 32, 32\), got \(3, 28, 28\)"):
        ResNetFeatures(extract.net, "rule", (3, 28, 28))
    with pytest.raises(WeightsError, match=r"2 tensors do not fit .* first 'extra'"):
        resnet_of(small_resnet(**{"module.extra": torch.zeros(1), "module.linear.bias": torch.zeros(11)}))
    with pytest.raises(WeightsError, match="no weights file"):
        extractor("resnet", (3, 32, 32), {"weights": "none.th"})
    torch.save(small_resnet(), tmp_path / "other.th")
    with pytest.raises(WeightsError, match="must begin with 4bfd9763"):
        extractor("resnet", (3, 32, 32), {"weights": str(tmp_path / "other.th")})


@pytest.mark.parametrize("place", ["root", "root/a-folder", "cache/sfumato"])
def test_weights_are_found_by_their_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """In the data root, in one of its folders, and where downloads are kept: for commands that take no --weights."""
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sfumato.metrics.extractors.resnet.HASH", "")
    with pytest.raises(WeightsError, match=f"Bring {RESNET} .* put it here or into {tmp_path}/root, or name it by"):
        extractor("resnet", (3, 32, 32))
    (tmp_path / place).mkdir(parents=True)
    torch.save(small_resnet(), tmp_path / place / RESNET)
    extract = extractor("resnet", (3, 32, 32))
    assert extract.weights_hash == file_hash(tmp_path / place / RESNET)
    with pytest.raises(WeightsError, match="no weights file elsewhere/"):  # a path is that path
        extractor("resnet", (3, 32, 32), {"weights": f"elsewhere/{RESNET}"})


WEIGHTS = Path(os.environ.get("SFUMATO_DATA", "none")) / "cifar10-resnet" / RESNET


@pytest.mark.skipif(not WEIGHTS.exists(), reason=f"SFUMATO_DATA has no cifar10-resnet/{RESNET}")
def test_resnet_knows_the_images_that_it_learned() -> None:
    data = load("cifar10-first4000", first=100)
    extract = extractor("resnet", (3, 32, 32), {"weights": str(WEIGHTS)})
    assert torch.equal(extract.logits(data.images).argmax(1), data.labels)  # its accuracy there is 100.0%
