"""The Inception Score on known predictions, the weights file's checks, and the resize modes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.metrics.extractors.inception import WeightsError, check_state, inception, read_weights
from sfumato.metrics.features import extractor, file_hash
from sfumato.metrics.inception_net import ConvBN, blank
from sfumato.metrics.inception_score import bounds, inception_score
from sfumato.metrics.resize import clean, half_pixel, tf1


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_balanced_sharp_predictions_score_the_number_of_classes(classes: int) -> None:
    n = 20 * classes
    logits = 1e4 * np.eye(classes)[np.arange(n) % classes]
    found = inception_score(logits, splits=1)
    assert found.estimate.value == pytest.approx(classes, rel=1e-9)


def test_equal_predictions_score_one_and_mixtures_lie_between() -> None:
    assert inception_score(np.tile([[3.0, 1.0]], (100, 1))).estimate.value == pytest.approx(1, abs=1e-12)
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    truth = np.exp(np.log(2) + 0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert inception_score(np.log(p)[np.arange(400) % 2], splits=1).estimate.value == pytest.approx(truth, rel=1e-12)


def test_the_interval_of_the_score_covers() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(200_000, 5)) * 2
    truth = inception_score(base[:100_000], splits=1).estimate.value
    runs = [inception_score(base[s * 400 : (s + 1) * 400], splits=1).estimate for s in range(250, 350)]
    assert np.mean([e.interval[0] <= truth <= e.interval[1] for e in runs]) >= 0.88


def test_parts_cover_every_image_once_and_the_shuffle_is_seeded() -> None:
    assert [stop for _, stop in bounds(333, 10)][-1] == 333
    logits = np.random.default_rng(1).normal(size=(333, 7))
    same = [inception_score(logits, seed=s).estimate.value for s in (0, 0, 1)]
    assert same[0] == same[1] != same[2]
    with pytest.raises(ValueError, match="between 1 and n = 333"):
        inception_score(logits, splits=400)


def test_pooling_in_branches_does_not_count_padding() -> None:
    from sfumato.metrics.inception_net import mean3

    assert torch.equal(mean3(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 5, 5))


def test_folding_keeps_the_function() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = ConvBN(3, 5, 3)
    for p in (layer.bn.weight, layer.bn.bias, layer.conv.weight):
        torch.nn.init.normal_(p, generator=generator)
    layer.bn.running_mean.normal_(generator=generator)
    layer.bn.running_var.uniform_(0.5, 2, generator=generator)
    x = torch.randn(2, 3, 9, 9, generator=generator)
    with torch.no_grad():
        before = layer.eval()(x)
        layer.fold()
        torch.testing.assert_close(layer(x), before, rtol=1e-5, atol=1e-5)


def test_a_file_with_another_hash_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match="must begin with 6726825d"):
        inception((3, 32, 32), weights=str(path))
    named = r"no weights file .*--weights FILE.*--weights download.*weights='FILE'.*weights='download'"
    with pytest.raises(WeightsError, match=named):
        inception((3, 32, 32), weights=str(tmp_path / "none.pth"))


def test_code_in_a_weights_file_is_not_executed(tmp_path: Path) -> None:
    path, mark = tmp_path / "weights.pth", tmp_path / "mark"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (mark,)  # type: ignore[return-value]

    path.write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        read_weights(path, begins=file_hash(path))
    assert not mark.exists()


def test_missing_and_misshapen_tensors_are_named() -> None:
    state = blank().state_dict()
    assert check_state(state) is state
    with pytest.raises(WeightsError, match=r"1 of 566 .* fc.bias: .*got None"):
        check_state({key: value for key, value in state.items() if key != "fc.bias"})
    with pytest.raises(WeightsError, match=r"1000"):
        check_state({**state, "fc.bias": torch.zeros(1000)})
    with pytest.raises(WeightsError, match="dictionary of tensors"):
        check_state([1, 2])


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="Did you mean 'inception'"):
        extractor("inceptoin", (3, 32, 32))
    with pytest.raises(ValueError, match="resizes"):
        extractor("inception", (3, 32, 32), {"resizes": "clean"})


def test_resize_modes_differ_as_they_should() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (1, 3, 32, 32), generator=generator).float()
    gap = (tf1(noise, 299) - half_pixel(noise, 299)).abs().mean()
    assert 25 < gap < 45  # about 36 grey levels
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.equal(tf1(ramp, 16)[0, 0, 0, :14], torch.arange(14) / 2)  # src = dst / 2, no shift by half a pixel
    np.testing.assert_allclose(half_pixel(ramp, 16)[0, 0, 0, 1:15], np.arange(1, 15) / 2 - 0.25)
    plane = noise[0, 1].numpy()
    want = np.asarray(Image.fromarray(plane).resize((50, 50), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(clean(noise, 50)[0, 1], want)
    assert clean(noise, 50).max() > 255  # not clipped, as in clean-fid
