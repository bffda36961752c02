"""Statistics files: what is written comes back, and each kind of damage has its own message."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from sfumato.metrics.statistics import Moments
from sfumato.metrics.statistics_file import StatisticsError, load_statistics, save_statistics

D = 5


def good() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(40, D))
    return {"mu": x.mean(0), "sigma": np.cov(x.T)}


def test_a_file_comes_back(tmp_path: Path) -> None:
    moments = Moments.of(np.random.default_rng(1).normal(size=(40, D)))
    save_statistics(tmp_path / "a.npz", moments, {"content_hash": "ab", "extractor": "pixels"})
    found = load_statistics(tmp_path / "a.npz", D)
    np.testing.assert_array_equal(found.mean, moments.mean)
    np.testing.assert_array_equal(found.cov, moments.cov)
    assert (found.n, found.about["content_hash"], found.verified) == (40, "ab", True)


def test_files_of_other_tools_are_read_as_unverified(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **good())
    found = load_statistics(tmp_path / "a.npz", D)
    assert (found.n, found.verified) == (0, False)
    np.testing.assert_allclose(found.cov, good()["sigma"], rtol=1e-15)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mu": np.full(D, np.nan)}, "NaN or infinity"),
        ({"sigma": np.arange(25.0).reshape(5, 5)}, "not symmetric"),
        ({"sigma": -np.eye(D)}, "negative eigenvalue"),
        ({"sigma": 1e308 * np.eye(D)}, "no features in float32 can have"),
        ({"sigma": 1e307 * np.arange(-12.0, 13).reshape(5, 5)}, "no features in float32 can have"),
        ({"mu": np.full(D, 1e200)}, "no features in float32 can have"),
        ({"sigma": np.full((D, D), np.inf)}, "NaN or infinity"),
        ({"mu": np.zeros(4)}, r"shape \(4,\), the extractor needs \(5,\)"),
        ({"sigma": np.eye(4)}, r"shape \(4, 4\)"),
        ({"mu": np.array([None] * D)}, "dtype object"),
        ({"mu": np.zeros(D, np.int64)}, "dtype int64"),
        ({"n": np.int64(1)}, "n = 1"),
        ({"sigma": np.zeros((1000, 1000))}, "was not unpacked"),
        ({"about": np.array("{broken")}, "not a readable statistics file"),
    ],
)
def test_damage_is_named(change: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{**good(), **change})
    with pytest.raises(StatisticsError, match=words):
        load_statistics(tmp_path / "a.npz", D)


def test_files_that_are_no_archives_or_lack_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(StatisticsError, match="not a readable"):
        load_statistics(path, D)
    np.savez(path, mu=np.zeros(D))
    with pytest.raises(StatisticsError, match="no array 'sigma'"):
        load_statistics(path, D)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", b"\x93NUMPYgarbage")
        archive.writestr("sigma.npy", b"")
    with pytest.raises(StatisticsError, match="damaged header"):
        load_statistics(path, D)
    whole = tmp_path / "whole.npz"
    np.savez(whole, **good())
    path.write_bytes(whole.read_bytes()[:-60])
    with pytest.raises(StatisticsError):
        load_statistics(path, D)
