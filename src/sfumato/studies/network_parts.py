"""Study: parts of the U-Net that the sources ask about: skips, how to double a map, positions, where to attend.

    no skips        nothing is carried across from the way down: the report saw noise and weird textures
    nearest         nearest neighbour and a 1x1 convolution in place of the default way to double a map
    positions       a learned position added to the features: zero padding tells the position already
    attention at 1  only at the coarsest map, the bridge

Reference: a student report on EDM, "Practical lessons". Islam, Jia, Bruce, How Much Position Information Do
Convolutional Neural Networks Encode?, 2020, https://arxiv.org/abs/2001.08248
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.runs.recipe import Recipe, part
from sfumato.studies._bases import small_edm

SIZES = {"tiny": (60, (0,), 8), "cpu": (2000, (0,), 14)}  # images judged, training seeds, side
CHANGES: dict[str, dict[str, object]] = {
    "base": {},
    "no skips": {"skips": False},
    "no skips, 1x1 up": {"skips": False, "up_kernel": 1},
    "1x1 up": {"up_kernel": 1},
    "positions": {"position": True},
}


def _recipe(scale: str, side: int, name: str, options: dict[str, object]) -> Recipe:
    base = small_edm(scale)
    shared = {"width": 32, "depths": (1,), "attention": (side // 2,), "heads": (4, 4)}
    network = part("network", "condnorm-unet", **{**shared, **options})
    adam = part("optimizer", "adam", lr=1e-3)
    return replace(variant(base, name), network=network, train=replace(base.train, optimizer=adam))


def network_parts(scale: str) -> Study:
    """Take skips away, double maps otherwise, add positions.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    n, seeds, side = at(scale, SIZES)
    return Study(
        name="network-parts",
        scale=scale,
        question="Which parts of the U-Net matter: skips, the way up, positions?",
        varies="one part of the report's network at a time",
        equal="data, EDM's objective, images seen, optimiser, sampler, grid, n; sizes are in the table",
        rows=tuple(Row(name, _recipe(scale, side, name, options)) for name, options in CHANGES.items()),
        n=n,
        seeds=seeds,
        orderings=(
            Ordering("skips score below none", ("base", "no skips"), source="a student report on EDM"),
            Ordering(
                "with 1x1 convolutions on the way up, skips score below none",
                ("1x1 up", "no skips, 1x1 up"),
                source="a student report on EDM",
            ),
            Ordering("positions score below none", ("positions", "base")),
        ),
        pictures=sheets,
    )
