"""The nearest-neighbour panel: has the model invented these images, or remembered them?

Beside every sample stand its nearest training images with their distances. A copy has distance 0 and says so. The
panel is for eyes; the numbers are in `metrics.memorization`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from sfumato.report._canvas import Frame, draw
from sfumato.report.sheet import choice


def neighbours(
    samples: Tensor,
    nearest: Tensor,
    distances: Tensor,
    indices: Tensor | None = None,
    *,
    seeds: Sequence[int] | None = None,
    curated: bool = False,
    row_labels: Sequence[str] = (),
    space: str = "pixel",
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Show samples beside their nearest training images.

    Arguments:
        samples: uint8, shape (B, C, H, W).
        nearest: Training images, nearest first, uint8, shape (B, K, C, H, W).
        distances: Shape (B, K), >= 0, ascending along K.
        indices: Positions of the neighbours in the training split, (B, K); None to leave them out.
        seeds: Seeds of the samples.
        curated: Whether the samples were picked, for example as the nearest of many.
        row_labels: One label per sample; () for none.
        space: In which space the distances were measured.
        title: Text above the panel.
        caption: Text that follows the statement on the samples.

    Returns:
        RGB picture: the sample, then its K neighbours, with distance and position below.

    Raises:
        ValueError: If the shapes do not fit, or distances are negative or not ascending.
    """
    count, k = distances.shape
    if nearest.shape != (count, k, *samples.shape[1:]) or len(samples) != count:
        raise ValueError(
            f"B samples have (B, K) distances and (B, K, C, H, W) neighbours; got samples {tuple(samples.shape)}, "
            f"neighbours {tuple(nearest.shape)}, distances {tuple(distances.shape)}."
        )
    if bool((distances < 0).any()) or bool((distances.diff(dim=1) < 0).any()):
        raise ValueError("Distances are non-negative and ascend along each row; sort the neighbours by distance.")
    images = torch.cat((samples.cpu().unsqueeze(1), nearest.cpu()), 1).flatten(0, 1)
    notes = []
    for i in range(count):
        notes.append(f"seed {seeds[i]}" if seeds is not None else "sample")
        for j in range(k):
            d = float(distances[i, j])
            place = f" #{int(indices[i, j])}" if indices is not None else ""
            notes.append(("copy" if d == 0 else f"{d:.3g}") + place)
    said = f"{choice(seeds, curated)} " if choice(seeds, curated) else ""
    words = f"{said}Below each neighbour its distance in {space} space"
    words += " and position in the training split." if indices is not None else "."
    frame = Frame(
        title=title,
        rows=row_labels,
        columns=["sample", *(f"neighbour {j + 1}" for j in range(k))],
        caption=f"{words} {caption}".strip(),
        notes=notes,
    )
    return draw(images, 1 + k, frame)[0]
