"""The Frechet distance beside `scipy.linalg.sqrtm`, and the memory of a large evaluation: ratios in one run.

    python benchmarks/frechet.py [--dimension 2048] [--rounds 2] [--rows 50000] [--json FILE]

Speed: the same two covariances (of features whose spectrum falls as that of Inception features does, rotated against
each other) go to

    eigenvalue form     `metrics.frechet.frechet_distance`
    sqrtm               tr S1 + tr S2 - 2 tr sqrtm(S1 S2), as the reference implementations compute it

interleaved, medians over rounds of the time of the processor (set OMP_NUM_THREADS=1).  Accuracy: a second pair has
equal eigenvectors and permuted eigenvalues, hence a closed form, and both errors are relative to it.

Memory: the peak of a process that draws `rows` features into a file in blocks, as an evaluation does, and takes a
distance of its jackknife from there, for several numbers of rows; it must not grow with them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

MEMORY = """
import sys
from pathlib import Path
import numpy as np
from sfumato.evaluation.rows import Rows
from sfumato.metrics.frechet import frechet_distance
from sfumato.metrics.statistics import Groups
from sfumato.processes.machine import peak_memory
n, d, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
rng, sides = np.random.default_rng(0), []
for name, count in (("x", n), ("y", max(n // 2, 2 * d))):
    rows = Rows(folder / name, count, d)
    for start in range(0, count, 500):
        rows.write(start, rng.normal(size=(min(500, count - start), d)).astype(np.float32))
    sides.append(rows.array())
x, y = (Groups.of(side) for side in sides)
p, q = x.total() - x.group(0), y.total() - y.group(0)  # one of the jackknife's 20 values; the others need no more
print(frechet_distance(p.mean, p.cov, q.mean, q.cov), peak_memory())
"""


def covariances(d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two covariances with eigenvalues falling as 1/i and different eigenvectors."""
    rng = np.random.default_rng(seed)
    spectrum = 1 / np.arange(1, d + 1)
    factors = [rng.normal(size=(d, 2 * d)) / np.sqrt(2 * d) for _ in range(2)]
    roots = [np.sqrt(spectrum)[:, None] * f for f in factors]
    return roots[0] @ roots[0].T, roots[1] @ roots[1].T


def by_sqrtm(cov_1: np.ndarray, cov_2: np.ndarray) -> float:
    """Return the distance of two centred Gaussians by the square root of the product."""
    from scipy.linalg import sqrtm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = sqrtm(cov_1 @ cov_2)
    return float(np.trace(cov_1) + np.trace(cov_2) - 2 * np.trace(np.real(root)))


def measured(rows: list[int], d: int) -> dict[int, int]:
    """Return the peak memory in bytes of processes with so many rows."""
    memory = {}
    for n in rows:
        with tempfile.TemporaryDirectory() as folder:
            said = subprocess.run(
                [sys.executable, "-c", MEMORY, str(n), str(d), folder], check=True, capture_output=True, text=True
            ).stdout.split()
        memory[n] = int(said[1])
        print(f"{n:,} rows of {d}: peak {memory[n] / 2**30:.2f} GiB", flush=True)
    return memory


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=2, help="0 measures memory alone")
    parser.add_argument("--rows", type=int, nargs="*", default=[12_500, 50_000], help="none skips the memory part")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    from sfumato.metrics.frechet import frechet_distance
    from sfumato.processes.machine import describe

    d = asked.dimension
    if not asked.rounds:
        measured(asked.rows, d)
        return
    a, b = covariances(d, 0)
    zero = np.zeros(d)
    seconds: dict[str, list[float]] = {"eigenvalue form": [], "sqrtm": []}
    values: dict[str, float] = {}
    for _ in range(asked.rounds):
        for name, compute in (
            ("eigenvalue form", lambda: frechet_distance(zero, a, zero, b)),
            ("sqrtm", lambda: by_sqrtm(a, b)),
        ):
            began = time.process_time()
            values[name] = compute()
            seconds[name].append(time.process_time() - began)
            print(f"{name}: {seconds[name][-1]:.1f} s, {values[name]:.9g}", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    spectrum = 1 / np.arange(1, d + 1)
    shuffled = np.random.default_rng(1).permutation(spectrum)
    truth = float(np.sum((np.sqrt(spectrum) - np.sqrt(shuffled)) ** 2))
    q = np.linalg.qr(np.random.default_rng(2).normal(size=(d, d)))[0]
    pair = (q * spectrum) @ q.T, (q * shuffled) @ q.T
    errors = {
        "eigenvalue form": abs(frechet_distance(zero, pair[0], zero, pair[1]) / truth - 1),
        "sqrtm": abs(by_sqrtm(*pair) / truth - 1),
    }
    ratio = medians["sqrtm"] / medians["eigenvalue form"]
    print(f"\nd = {d}: sqrtm takes {ratio:.1f} times the eigenvalue form's time")
    for name, error in errors.items():
        print(f"{name}: relative error {error:.1e} on a pair with a closed form")
    memory = measured(asked.rows, d)
    if asked.json:
        asked.json.write_text(
            json.dumps(
                {"dimension": d, "seconds": medians, "errors": errors, "memory": memory, "machine": describe("cpu")},
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
