"""Put things in a random order that is a pure function of (seed, stream), with no generator state to keep."""

from __future__ import annotations

import numpy as np


def ranking(n: int, seed: int, stream: int) -> np.ndarray:
    """Return a uniformly random permutation of range(n) that depends on (seed, stream) alone.

    The order is that of n raw 64-bit words of a Philox counter generator with the key (seed, stream). Only raw words
    are used because NumPy promises their stability between versions, and that of `Generator.permutation` it does not.

    Arguments:
        n: Length of the permutation, >= 0.
        seed: 0 <= seed < 2**64.
        stream: 0 <= stream < 2**64; a different permutation for each.

    Returns:
        int64 (n,), a permutation.

    Raises:
        ValueError: If the seed or stream is out of range.

    References:
        Parallel random numbers: as easy as 1, 2, 3 (Salmon, Moraes, Dror, Shaw, 2011),
        https://doi.org/10.1145/2063384.2063405
    """
    for name, value in (("seed", seed), ("stream", stream)):
        if not 0 <= value < 2**64:
            raise ValueError(f"A {name} must lie in [0, 2**64); got {value}.")
    words = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64)
