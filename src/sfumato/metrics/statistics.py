"""Mean and covariance of a stream of features, in float64, in memory that does not grow with n.

Sums are taken about a provisional shift c (the mean of the first batch), which keeps  S/n - s s^T/n^2  free of
cancellation when the mean is far from 0:

    s = sum (x - c)        S = sum (x - c)(x - c)^T
    mean = c + s/n         cov = (S - s s^T/n)/(n - 1)

Moments with different shifts merge exactly: with e = c_b - c_a,  s = s_a + s_b + n_b e  and
S = S_a + S_b + s_b e^T + e s_b^T + n_b e e^T.  Moments about one shift also subtract, which is what the jackknife
wants: `Groups` keeps the sums of each of G groups, so "all but group k" costs one subtraction.  Only the lower
triangle of a group's S is kept (G d(d+1)/2 numbers of 8 bytes: 336 MB at d = 2048 and G = 20).
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sfumato.metrics.jackknife import GROUPS, deal, group_of

Features = np.ndarray


def check_features(features: Features, what: str = "features") -> Features:
    """Refuse arrays that are not finite float (n, d).

    Raises:
        TypeError: If the array is not float32 or float64.
        ValueError: If it is not two-dimensional, has no column, or holds NaN or infinity.
    """
    features = np.asanyarray(features)
    if features.dtype not in (np.float32, np.float64):
        raise TypeError(f"The {what} must be float32 or float64, got {features.dtype}. Convert them explicitly.")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"The {what} must have shape (n, d) with d >= 1, got {features.shape}.")
    bad = sum(int((~np.isfinite(part)).any(axis=1).sum()) for part in blocks(features))
    if bad:
        raise ValueError(
            f"{bad} of {len(features)} rows of the {what} hold NaN or infinity. Find the images that "
            "made them; a score over the others would be a score of something else."
        )
    return features


def check_columns(generated: int, reference: int) -> None:
    """Refuse features of different numbers of columns."""
    if generated != reference:
        raise ValueError(
            f"Generated features have {generated} columns and reference features {reference}; both must come from one "
            "extractor."
        )


def check_pair(x: Features, y: Features) -> tuple[Features, Features]:
    """Refuse two feature arrays that cannot be compared: wrong kind, other dimensions, fewer than two rows."""
    x, y = check_features(x, "generated features"), check_features(y, "reference features")
    check_columns(x.shape[1], y.shape[1])
    if min(len(x), len(y)) < 2:
        raise ValueError(f"A comparison needs at least 2 images on each side, got n = {len(x)} and m = {len(y)}.")
    return x, y


def blocks(features: Features, rows: int = 4096) -> Iterator[np.ndarray]:
    """Yield consecutive blocks of at most `rows` rows; of an array mapped from a file one is in memory at a time."""
    for start in range(0, len(features), rows):
        yield features[start : start + rows]
        if sys.platform == "linux" and isinstance(features.base, mmap.mmap) and not features.flags.writeable:
            features.base.madvise(mmap.MADV_DONTNEED)  # else pages that were read stay and count as memory


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of first and second order about a shift.

    Arguments:
        n: Number of rows summed.
        shift: float64 (d,), the provisional mean c.
        first: float64 (d,), sum of x - c.
        second: float64 (d, d), sum of (x - c)(x - c)^T.
    """

    n: int
    shift: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, features: Features, shift: np.ndarray | None = None) -> Moments:
        """Sum the rows of one array (n, d), about its own mean unless a shift is given."""
        x = np.asarray(features, np.float64)
        shift = x.mean(0) if shift is None else shift
        x = x - shift
        return cls(len(x), shift, x.sum(0), x.T @ x)

    @classmethod
    def over(cls, features: Features) -> Moments:
        """Sum the rows of an array (n, d) block by block, about the mean of the first block."""
        first, *others = (cls.of(part) for part in blocks(features))
        return sum(others, start=first)

    @classmethod
    def weighted(cls, features: Features, weights: np.ndarray, shift: np.ndarray) -> Moments:
        """Sum the rows of an array (n, d) with weights (n,), 0 for the rows that are left out, block by block.

        The weights add up to the number of rows that count; `cov` treats them as that many rows.
        """
        first, second = np.zeros(len(shift)), np.zeros((len(shift), len(shift)))
        for start in range(0, len(features), 4096):
            w = weights[start : start + 4096, None]
            x = np.asarray(features[start : start + 4096], np.float64) - shift
            wx = w * x
            first += wx.sum(0)
            second += wx.T @ x
        return cls(int(np.count_nonzero(weights)), shift, first, second)

    def about(self, shift: np.ndarray) -> Moments:
        """Return the same moments about another shift."""
        e = self.shift - shift
        cross = np.outer(self.first, e)
        return Moments(self.n, shift, self.first + self.n * e, self.second + cross + cross.T + self.n * np.outer(e, e))

    def __add__(self, other: Moments) -> Moments:
        b = other if other.shift is self.shift else other.about(self.shift)
        return Moments(self.n + b.n, self.shift, self.first + b.first, self.second + b.second)

    def __sub__(self, other: Moments) -> Moments:
        b = other if other.shift is self.shift else other.about(self.shift)
        return Moments(self.n - b.n, self.shift, self.first - b.first, self.second - b.second)

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return len(self.shift)

    @property
    def mean(self) -> np.ndarray:
        """Mean (d,)."""
        return self.shift + self.first / self.n

    @property
    def cov(self) -> np.ndarray:
        """Unbiased covariance (d, d), symmetric to the last bit."""
        if self.n < 2:
            raise ValueError(f"A covariance needs at least 2 rows, got {self.n}.")
        cov = (self.second - np.outer(self.first, self.first) / self.n) / (self.n - 1)
        return (cov + cov.T) / 2


class Groups:
    """Moments of a stream of features, kept for each jackknife group.

    Rows are dealt to groups by their position in the stream, so the batches they come in do not matter.

    Arguments:
        groups: Number of groups.

    >>> stream = Groups(2)
    >>> stream.add(np.array([[0.0], [2.0]])); stream.add(np.array([[4.0]]))
    >>> stream.n, float(stream.total().mean[0]), float(stream.total().cov[0, 0])
    (3, 2.0, 4.0)
    """

    def __init__(self, groups: int = GROUPS):
        self.groups = groups
        self.n = 0
        self._shift: np.ndarray | None = None
        self._counts = np.zeros(groups, np.int64)
        self._firsts: list[np.ndarray] = []
        self._seconds: list[np.ndarray] = []

    @classmethod
    def of(cls, features: Features, groups: int = GROUPS, member: np.ndarray | None = None) -> Groups:
        """Sum an array (n, d), block by block; `member` (n,) deals its rows to groups (`jackknife.deal`)."""
        stream, member = cls(groups), deal(len(features), groups) if member is None else member
        for part in blocks(check_features(features)):
            stream.add(part, member[stream.n : stream.n + len(part)])
        return stream

    def add(self, features: Features, member: np.ndarray | None = None) -> None:
        """Add a batch of rows (b, d).

        Arguments:
            features: The rows.
            member: int64 (b,), the group of each row; by default that of its position in the stream.
        """
        x = check_features(features)
        if len(x) == 0:
            return
        if self._shift is None:
            self._shift = x.mean(0, dtype=np.float64)
            d = x.shape[1]
            self._rows = np.tril_indices(d)
            self._firsts = [np.zeros(d) for _ in range(self.groups)]
            self._seconds = [np.zeros(d * (d + 1) // 2) for _ in range(self.groups)]
        if x.shape[1] != len(self._shift):
            raise ValueError(f"The stream has {len(self._shift)} features, this batch {x.shape[1]}.")
        member = group_of(self.n, self.n + len(x), self.groups) if member is None else member
        for k in np.unique(member):
            part = Moments.of(x[member == k], self._shift)
            self._counts[k] += part.n
            self._firsts[k] += part.first
            self._seconds[k] += part.second[self._rows]
        self.n += len(x)

    def _unpack(self, count: int, first: np.ndarray, packed: np.ndarray) -> Moments:
        if self._shift is None:
            raise ValueError("The stream is empty; add features first.")
        second = np.zeros((len(first), len(first)))
        second[self._rows] = packed
        second += np.tril(second, -1).T
        return Moments(count, self._shift, first, second)

    def total(self) -> Moments:
        """Return the moments of all rows."""
        return self._unpack(self.n, sum(self._firsts, start=np.zeros(1)), sum(self._seconds, start=np.zeros(1)))

    def group(self, k: int) -> Moments:
        """Return the moments of group k."""
        return self._unpack(int(self._counts[k]), self._firsts[k], self._seconds[k])
