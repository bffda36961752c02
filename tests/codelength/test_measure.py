"""Bits of real images, against what is known in closed form, and after an interruption."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato import grids
from sfumato.codelength.chain import Chain
from sfumato.codelength.measure import Images, OdePath, measure_bound, measure_ode
from sfumato.codelength.result import Measured, result
from sfumato.core import gauge
from sfumato.core.denoiser import Counted, Prediction
from sfumato.core.exact import Gaussian
from sfumato.core.images import to_float, to_uint8
from sfumato.core.level import Level
from sfumato.data.dataset import Dataset
from sfumato.likelihood.vlb import BITS
from sfumato.metrics.score import Score, compare

VARIANCES = torch.tensor([0.09, 0.04, 0.06, 0.03])
TRUTH = Gaussian(torch.tensor([0.1, -0.2, 0.0, 0.1]), VARIANCES)
CHAIN = Chain(grids.logsnr(300, sigma_min=0.03, sigma_max=60.0), "small-own", "logsnr")
WAY = OdePath(gauge.vp, Level.of(1.0, 1e-3), Level.of(1e-3, 1.0), 1e-4)
FACTS = {"labels": "none", "seeds": [0]}


def codes(count: int, seed: int = 0) -> Tensor:
    n = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return to_uint8((TRUTH.mean + VARIANCES.sqrt() * n).clamp(-1, 1).reshape(count, 1, 2, 2))


def information(images: Tensor) -> Tensor:
    """-log2 of the mass of each image's codes, bits/dim: the density is flat over a bin 1/127.5 wide."""
    density = TRUTH.log_density(to_float(images).flatten(1), Level.clean())
    return (-density * BITS / 4 + math.log2(127.5)).double()


def dataset(images: Tensor) -> Dataset:
    return Dataset("toy", images, None, (), "test", torch.arange(len(images)), "drawn")


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(codes(150), None)


def test_both_numbers_meet_the_true_information(images: Images) -> None:
    truth = information(images.codes)
    flow = measure_ode(TRUTH, images, WAY)
    # the probe is exact for a diagonal Jacobian; what is left is the dequantisation and the noise at the near level
    gap = flow.bits - truth
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / 150**0.5 + 1e-3
    bound = measure_bound(TRUTH, images, CHAIN)
    above = bound.total - truth
    error = float(above.std()) / 150**0.5
    assert float(above.mean()) + 3 * error > 0 and float(above.mean()) < 0.12 + 3 * error
    tree = result("toy", "exact", {"test": Measured(dataset(images.codes), bound, flow)}, FACTS, {"test": ()})
    vlb, ode = tree["scores"]
    assert vlb["interval"][1] > float(truth.mean()) and vlb["value"] == pytest.approx(float(bound.total.mean()))
    assert ode["interval"][0] < float(truth.mean()) < ode["interval"][1]
    row = tree["tables"]["likelihood"][0]
    assert row["|rate + L_0 - total|"] < 1e-9
    parts = row["L_T"] + row["KL terms"]["value"] + row["L_0"]["value"]
    assert parts == pytest.approx(row["bits/dim (VLB)"]["value"])
    curve = tree["curves"]["rate_distortion"]["series"]["test"]
    assert curve["x"][-1] + row["L_0"]["value"] == pytest.approx(row["bits/dim (VLB)"]["value"], abs=1e-5)
    assert curve["y"][0] == pytest.approx(127.5 * float((VARIANCES.mean()) ** 0.5), rel=0.1)  # nothing sent yet


def test_an_image_keeps_its_bits_whatever_is_measured_beside_it(images: Images) -> None:
    chain = Chain(grids.logsnr(8, sigma_min=0.01, sigma_max=20.0), "small-own", "")
    few = Images(images.codes[:5], None)
    torch.testing.assert_close(
        measure_bound(TRUTH, few, chain, batch=2).total, measure_bound(TRUTH, images, chain).total[:5]
    )
    torch.testing.assert_close(measure_ode(TRUTH, few, WAY, batch=2).bits, measure_ode(TRUTH, few, WAY, batch=5).bits)


def test_more_seeds_average_the_noise(images: Images) -> None:
    chain = Chain(grids.logsnr(8, sigma_min=0.01, sigma_max=20.0), "small-own", "")
    few = Images(images.codes[:7], None)
    each = [measure_bound(TRUTH, few, chain, seeds=(s,)).total for s in (0, 3)]
    assert not torch.allclose(each[0], each[1])
    torch.testing.assert_close(measure_bound(TRUTH, few, chain, seeds=(0, 3)).total, (each[0] + each[1]) / 2)


class Dies:
    """Works for a while."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return TRUTH(x, level)


def test_an_interrupted_measurement_goes_on_after_its_last_block(images: Images, tmp_path: Path) -> None:
    chain = Chain(grids.logsnr(8, sigma_min=0.01, sigma_max=20.0), "small-own", "")
    few, told = Images(images.codes[:10], None), []
    whole = measure_bound(TRUTH, few, chain, batch=4)
    with pytest.raises(KeyboardInterrupt):
        measure_bound(Dies(8 + 3), few, chain, batch=4, folder=tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["bound-0-0-4.npz"]
    counted = Counted(TRUTH)
    again = measure_bound(counted, few, chain, batch=4, folder=tmp_path, progress=told.append)
    assert counted.nfe == 16 and sum(told) == 10 * 8
    assert torch.equal(again.terms, whole.terms)
    (tmp_path / "bound-0-4-8.npz").write_bytes(b"cut off")
    assert torch.equal(measure_bound(TRUTH, few, chain, batch=4, folder=tmp_path).terms, whole.terms)
    flow = measure_ode(TRUTH, few, WAY, batch=4)
    measure_ode(TRUTH, few, WAY, batch=4, folder=tmp_path)
    assert torch.equal(measure_ode(Dies(0), few, WAY, batch=4, folder=tmp_path).bits, flow.bits)


class Blurred:
    """Is a little wrong everywhere."""

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(TRUTH(x, level).x0 * 0.98)


def test_two_models_on_the_same_images_are_compared_in_pairs(images: Images) -> None:
    chain = Chain(grids.logsnr(20, sigma_min=0.01, sigma_max=20.0), "small-own", "")
    few = Images(images.codes[:60], None)
    scores = []
    for model in (TRUTH, Blurred()):
        found = {"test": Measured(dataset(few.codes), measure_bound(model, few, chain), None)}
        scores.append(Score.from_json(result("m", "r", found, FACTS, {"test": ()})["scores"][0]))
    a, b = scores
    assert a.interval[0] < b.value and a.interval[1] > b.interval[0]  # apart they could not be told
    told = compare(a, b)
    assert told.verdict == "the first is better" and told.interval is not None and told.interval[0] > 0
