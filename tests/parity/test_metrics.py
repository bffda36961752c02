"""Metrics against numbers made by the reference implementations and by 50-digit arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfumato.metrics.frechet import frechet_distance, frechet_plain
from sfumato.metrics.kid import kid, kid_subsets, mmd2
from sfumato.metrics.statistics import Moments

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
    assert frechet_plain(x, y) == pytest.approx(truth, rel=1e-9)
    a, b = Moments.of(x), Moments.of(y)
    full_rank = min(len(x), len(y)) > x.shape[1]
    assert frechet_distance(a.mean, a.cov, b.mean, b.cov) == pytest.approx(truth, rel=1e-9 if full_rank else 1e-7)
    if CASES[case]["reference"].startswith("mpmath"):
        assert np.trace(a.cov) == pytest.approx(float(GOLD[f"{case}/trace_1"]), rel=1e-11)
        assert np.trace(b.cov) == pytest.approx(float(GOLD[f"{case}/trace_2"]), rel=1e-11)


@pytest.mark.parametrize("case", named("kid_"))
def test_kernel_distance_matches_the_reference(case: str) -> None:
    x, y = GOLD[f"{case}/X"], GOLD[f"{case}/Y"]
    assert mmd2(x, y) == pytest.approx(float(GOLD[f"{case}/mmd2_unbiased"]), rel=1e-10)
    assert mmd2(x, y, unbiased=False) == pytest.approx(float(GOLD[f"{case}/mmd2_biased"]), rel=1e-10)
    assert kid(x, y).value == pytest.approx(float(GOLD[f"{case}/mmd2_unbiased"]), rel=1e-10)
    subsets = kid_subsets(x, y, GOLD[f"{case}/subset_index_X"], GOLD[f"{case}/subset_index_Y"])
    assert subsets.mean() == pytest.approx(float(GOLD[f"{case}/subset_mean"]), rel=1e-10)
    assert subsets.std() == pytest.approx(float(GOLD[f"{case}/subset_std"]), rel=1e-10)
