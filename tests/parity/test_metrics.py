"""Metrics against numbers made by the reference implementations and by 50-digit arithmetic."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.kernel import mmd2

from sfumato.metrics.extractors.inception import InceptionFeatures
from sfumato.metrics.frechet import frechet_distance, frechet_plain
from sfumato.metrics.inception_net import blank
from sfumato.metrics.inception_score import inception_score, log_softmax, score_of
from sfumato.metrics.kid import kid
from sfumato.metrics.prdc import coverage, density, precision, recall
from sfumato.metrics.resize import tf1
from sfumato.metrics.statistics import Moments

from .measured import Error, Found, identical

DATA = Path(__file__).parent / "data"
GOLD = np.load(DATA / "E_metrics.npz", allow_pickle=False)
CASES = json.loads((DATA / "manifest_E.json").read_text())["cases"]


def named(prefix: str) -> list[str]:
    found = sorted(case for case in CASES if case.startswith(prefix))
    assert found
    return found


@pytest.mark.parametrize("case", named("fid_"))
def test_frechet_distance_matches_the_reference(case: str) -> None:
    x, y, truth = GOLD[f"{case}/X"], GOLD[f"{case}/Y"], float(GOLD[f"{case}/fid_reference"])
    assert Found(frechet_plain(x, y)) == pytest.approx(truth, rel=1e-9)
    a, b = Moments.of(x), Moments.of(y)
    full_rank = min(len(x), len(y)) > x.shape[1]
    found = Found(frechet_distance(a.mean, a.cov, b.mean, b.cov))
    assert found == pytest.approx(truth, rel=1e-9 if full_rank else 1e-7)
    if CASES[case]["reference"].startswith("mpmath"):
        assert Found(np.trace(a.cov)) == pytest.approx(float(GOLD[f"{case}/trace_1"]), rel=1e-11)
        assert Found(np.trace(b.cov)) == pytest.approx(float(GOLD[f"{case}/trace_2"]), rel=1e-11)


@pytest.mark.parametrize("case", named("kid_"))
def test_kernel_distance_matches_the_reference(case: str) -> None:
    x, y = GOLD[f"{case}/X"], GOLD[f"{case}/Y"]
    assert Found(mmd2(x, y)) == pytest.approx(float(GOLD[f"{case}/mmd2_unbiased"]), rel=1e-10)
    assert Found(mmd2(x, y, unbiased=False)) == pytest.approx(float(GOLD[f"{case}/mmd2_biased"]), rel=1e-10)
    assert Found(kid(x, y).value) == pytest.approx(float(GOLD[f"{case}/mmd2_unbiased"]), rel=1e-10)
    chosen = zip(GOLD[f"{case}/subset_index_X"], GOLD[f"{case}/subset_index_Y"], strict=True)
    subsets = np.array([mmd2(x[a], y[b]) for a, b in chosen])
    assert Found(subsets.mean()) == pytest.approx(float(GOLD[f"{case}/subset_mean"]), rel=1e-10)
    assert Found(subsets.std()) == pytest.approx(float(GOLD[f"{case}/subset_std"]), rel=1e-10)


def weights_by_rule(state: dict[str, torch.Tensor], seed: int, gain: float) -> dict[str, torch.Tensor]:
    """Make every tensor of a state dict from its name alone."""
    made = {}
    for name, like in state.items():
        n, shape = math.prod(like.shape), tuple(like.shape)
        raw = np.random.Philox(key=zlib.crc32(name.encode()) + (seed << 32)).random_raw(n)
        u = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        v = 2 * u - 1
        if name.endswith("num_batches_tracked"):
            value = np.zeros(n)
        elif name.endswith("running_var"):
            value = 0.5 + u
        elif name.endswith("running_mean"):
            value = 0.1 * v
        elif len(shape) >= 2:
            value = gain * np.sqrt(3 / math.prod(shape[1:])) * v
        elif name.endswith("weight"):
            value = 1 + 0.2 * v
        else:
            value = 0.1 * v
        made[name] = torch.from_numpy(value.reshape(shape)).to(like.dtype)
    return made


@pytest.fixture(scope="module")
def inception_state() -> dict[str, torch.Tensor]:
    rule = CASES["inception_0"]["weights_rule"]
    return weights_by_rule(blank().state_dict(), rule["seed"], rule["gain"])


def test_the_inception_network_has_the_566_tensors_of_the_checkpoint(inception_state: dict[str, torch.Tensor]) -> None:
    names = CASES["inception_state_dict"]["names_and_shapes"]
    assert {key: list(value.shape) for key, value in inception_state.items()} == names
    assert len(names) == CASES["inception_0"]["tensors"] == 566
    assert sum(p.numel() for p in blank().parameters()) == CASES["inception_0"]["parameters"]
    for name, first in zip(names, GOLD["inception_state_dict/first_values"]):
        flat = inception_state[name].flatten()[:8].float().numpy()
        np.testing.assert_array_equal(np.resize(flat, 8), first, err_msg=name)


@pytest.mark.parametrize("case", ["inception_0", "inception_1"])
def test_the_inception_network_matches_the_reference(case: str, inception_state: dict[str, torch.Tensor]) -> None:
    net = blank()
    net.load_state_dict(inception_state, assign=True)
    images = torch.from_numpy(GOLD[f"{case}/image"])
    extract = InceptionFeatures(net.fold(), "rule", tuple(images.shape[1:]))
    out = extract.outputs(images)
    close(out.pool, GOLD[f"{case}/pool3"])
    close(out.spatial, GOLD[f"{case}/spatial"])
    close(extract.logits(images), GOLD[f"{case}/logits_without_bias"])
    with torch.inference_mode():
        close(net.logits(out.pool, bias=True), GOLD[f"{case}/logits"])
        x = net.first((tf1(images.float(), 299) - 128) / 128)
        close(x.mean((2, 3)), GOLD[f"{case}/mean_64"])
        x = net.second(x)
        close(x.mean((2, 3)), GOLD[f"{case}/mean_192"])
        close(net.third(x)[0].mean((2, 3)), GOLD[f"{case}/mean_768"])
    assert torch.equal(InceptionFeatures(net, "rule", extract.shape, spatial=True)(images), out.spatial)


def close(found: torch.Tensor, truth: np.ndarray) -> None:
    error = Error(np.abs(found.numpy() - truth).max() / np.abs(truth).max())
    assert found.shape == truth.shape and error < 1e-5


@pytest.mark.parametrize("case", named("tf1_resize_"))
def test_the_resize_is_exact(case: str) -> None:
    wide = tf1(torch.from_numpy(GOLD[f"{case}/image"]).float(), CASES[case]["out_size"]).numpy()
    identical(wide[tuple(GOLD[f"{case}/pixels_nchw"].T)], GOLD[f"{case}/values"])
    identical(wide[1, :, 150], GOLD[f"{case}/row_150"])
    identical(wide[1, :, :, 298], GOLD[f"{case}/column_298"])
    np.testing.assert_allclose(wide.sum((2, 3), dtype=np.float64), GOLD[f"{case}/channel_sums"], rtol=1e-12)


@pytest.mark.parametrize("case", named("pr_"))
def test_precision_recall_density_coverage_match_the_references(case: str) -> None:
    gen, ref = GOLD[f"{case}/gen"], GOLD[f"{case}/ref"]
    for i, k in enumerate(CASES[case]["nhood_sizes"]):
        assert Found(precision(gen, ref, k).value) == GOLD[f"{case}/adm_precision"][i]
        assert Found(recall(gen, ref, k).value) == GOLD[f"{case}/adm_recall"][i]
    if f"{case}/prdc_k" in GOLD:
        k = int(GOLD[f"{case}/prdc_k"])
        assert Found(precision(gen, ref, k).value) == GOLD[f"{case}/prdc_precision"]
        assert Found(recall(gen, ref, k).value) == GOLD[f"{case}/prdc_recall"]
        assert Found(density(gen, ref, k).value) == pytest.approx(float(GOLD[f"{case}/prdc_density"]), rel=1e-14)
        assert Found(coverage(gen, ref, k).value) == GOLD[f"{case}/prdc_coverage"]


@pytest.mark.parametrize("case", named("is_"))
def test_the_inception_score_matches_the_references(case: str) -> None:
    logits, splits = GOLD[f"{case}/logits"], CASES[case]["tf_splits"]
    found = inception_score(logits, splits, seed=None)
    assert Found(found.estimate.value) == pytest.approx(float(GOLD[f"{case}/tf_is_mean"]), rel=1e-10)
    assert Found(found.spread) == pytest.approx(float(GOLD[f"{case}/tf_is_std"]), rel=1e-10)
    shuffled = inception_score(logits[GOLD[f"{case}/tf_permutation"]], splits, seed=None)
    assert Found(shuffled.estimate.value) == pytest.approx(float(GOLD[f"{case}/tf_is_shuffled_mean"]), rel=1e-10)
    assert Found(shuffled.spread) == pytest.approx(float(GOLD[f"{case}/tf_is_shuffled_std"]), rel=1e-10)
    log_p, size = log_softmax(logits), CASES[case]["adm_split_size"]
    parts = [score_of(log_p[start : start + size]) for start in range(0, len(log_p), size)]
    assert Found(np.mean(parts)) == pytest.approx(float(GOLD[f"{case}/adm_is"]), rel=1e-10)
