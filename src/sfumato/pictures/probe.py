"""What a linear classifier reads inside a run's network."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from sfumato.evaluation.probe import probe as measure
from sfumato.report.sections import CURVES
from sfumato.runs.run import Run


def probe(
    run: Run,
    *,
    at: tuple[float, ...] = (),
    blocks: tuple[str, ...] = (),
    n: int = 0,
    root: Path | None = None,
    device: str = "cpu",
) -> Figure:
    """Accuracy of a linear classifier on features of a run's network, against noise level and block.

    Arguments:
        run: A trained run.
        at: Levels sigma / alpha; several over those of training if empty.
        blocks: Paths of blocks; input, middle and output blocks if empty.
        n: Training images; 0 for all, and at most 5,000.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
    """
    found = measure(run, at=at, blocks=blocks, n=n or None, root=root, device=device)
    return CURVES["probe"][1](found.curves["probe"])
