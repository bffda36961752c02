"""Generated and held-out images beside their nearest training images, between features and between pixels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from sfumato.core.noise import uniform
from sfumato.data.dataset import Dataset
from sfumato.evaluation.findings import Findings, Table, cell
from sfumato.evaluation.judge import Generated, Judge
from sfumato.evaluation.real import cached_features
from sfumato.metrics.extractors.pixels import pixels
from sfumato.metrics.memorization import memorization as nearest_training
from sfumato.metrics.neighbours import nearest as neighbours
from sfumato.metrics.rules import shared

PIXEL_IMAGES = 1000  # of each kind, for distances between pixels; distances between features take all
PANEL, NEIGHBOURS = 8, 3  # samples on the neighbour panel, and training images beside each


def memorization() -> Table:
    """Nearest training images of generated and of held-out images: distances, AuthPct, exact copies, a picture."""
    return Table(_measure, _check, pixels=True)


def _check(judge: Judge, labels: np.ndarray | None) -> None:
    """Refuse a reference of training images where held-out ones are needed."""
    real, training = _sets(judge)
    if seen := shared(real.image_hashes, training.image_hashes):
        raise ValueError(
            f"Memorization is judged beside held-out images, and {seen} of the {len(real)} of the split "
            f"{real.split!r} were trained on. Ask for it with --split test."
        )


def _sets(judge: Judge) -> tuple[Dataset, Dataset]:
    """Return the held-out images and the training images; a stream says what it lacks where its pixels are asked."""
    assert judge.real is not None and judge.training is not None
    return judge.real, cast(Dataset, judge.training)


def _measure(judge: Judge, made: Generated) -> Findings:
    real, training = _sets(judge)
    extract = judge.extract
    train = cached_features(extract, training, judge.quiet)
    held = judge.features(extract)
    found = {f"{extract.name} features": nearest_training(made.rows["features"], train, held)}
    flat = pixels(training.shape)
    some = _some(len(real))
    near = nearest_training(
        made.rows["pixels"][:PIXEL_IMAGES].astype(np.float32) / 127.5 - 1,
        flat(training.images).numpy(),
        flat(real.images[some]).numpy(),
    )
    found["pixels"] = near
    assert made.copies is not None
    rows: list[dict[str, Any]] = [
        {
            "measure": "exact copies of training images",
            "generated": int((made.copies >= 0).sum()),
            "held out": int(np.isin(_void(real.image_hashes), _void(training.image_hashes)).sum()),
            "n": made.n,
        }
    ]
    for space, m in found.items():
        rows += [
            {"measure": f"nearest distance, median ({space})", "generated": float(np.median(m.distance)),
             "held out": float(np.median(m.held_out_distance)), "n": len(m.distance)},
            {"measure": f"nearer than all but 1% of held-out images ({space})", "generated": cell(m.closer),
             "held out": 0.01, "n": len(m.distance)},
            {"measure": f"AuthPct ({space})", "generated": cell(m.authentic), "held out": cell(m.authentic_held_out),
             "n": len(m.distance)},
        ]  # fmt: skip
    first = next(iter(found.values()))
    groups = {"generated to train": first.distance, f"{real.split} to train": first.held_out_distance}
    picked = near.nearest_first(PANEL)
    samples = torch.from_numpy(np.array(made.rows["pixels"][picked])).reshape(-1, *training.shape)
    squared, index = neighbours(flat(samples).numpy(), flat(training.images).numpy(), NEIGHBOURS)
    shown = {
        "samples": samples,
        "nearest": training.images[torch.from_numpy(index)],
        "distances": torch.from_numpy(np.sqrt(squared)),
        "indices": torch.from_numpy(index),
        "seeds": [made.first_seed + int(i) for i in picked],
        "curated": True,
        "caption": f"The {len(picked)} of {len(near.distance)} samples that lie nearest to the training set.",
    }
    curve = {
        "groups": {
            name: [round(float(v), 5) for v in values[_some(len(values), 2000)]] for name, values in groups.items()
        },
        "space": next(iter(found)),
    }
    return Findings(tables={"memorization": rows}, curves={"distances": curve}, panels={"neighbours": shown})


def _some(count: int, most: int = PIXEL_IMAGES) -> np.ndarray:
    """Return at most so many positions, drawn by addressed noise, in order."""
    return np.sort(np.argsort(uniform(range(count), purpose="some images").numpy(), kind="stable")[:most])


def _void(hashes: np.ndarray) -> np.ndarray:
    """Return rows of hashes as single values that numpy can compare."""
    return np.ascontiguousarray(hashes).view(f"V{hashes.shape[1]}")[:, 0]
