"""What a model is told beside the noise level: a class, numbers, an image, or all of them.

A label is an int64 per image, or a `Condition` of three parts. Each part has a null for each image, "not told":

    label    int64 (B,)           -1
    vector   float (B, d)         NaN, each number by itself: an attribute that is not known
    image    float (B, C, H, W)   NaN, each pixel by itself

A part that is None is not told to any image. A plain label is a condition of that part alone, and stays the tensor that
it is. So null is one value in the data, in training, which drops parts at random, in guidance, which asks without them,
and in what a person asks for by naming some attributes and not others.

References:
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022. https://arxiv.org/abs/2207.12598
    Saharia et al. Image Super-Resolution via Iterative Refinement. 2021 (SR3). https://arxiv.org/abs/2104.07636
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NULL = -1
PARTS = ("label", "vector", "image")
NULLS = {"label": NULL, "vector": math.nan, "image": math.nan}


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What each image of a batch is made under; see the module docstring.

    Attributes:
        label: Classes int64 (B,), NULL where there is none; None for no classes.
        vector: Numbers (B, d), NaN where one is not told; None for no numbers.
        image: Images (B, C, H, W) in [-1, 1], NaN where a pixel is not told; None for no images.

    Raises:
        ValueError: If no part is given, or the parts are of different numbers of images.

    >>> Condition(torch.tensor([3, -1]), torch.tensor([[0.5], [math.nan]]))[1:].told
    ()
    """

    label: Tensor | None = None
    vector: Tensor | None = None
    image: Tensor | None = None

    def __post_init__(self) -> None:
        counts = {name: len(value) for name, value in self.parts.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"The parts of a condition are of the same images; got {counts or 'no part'}.")

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts that are given, by name."""
        return {name: value for name in PARTS if (value := getattr(self, name)) is not None}

    @property
    def told(self) -> tuple[str, ...]:
        """The names of the parts that at least one image is told."""
        return tuple(name for name, value in self.parts.items() if not bool(is_null(value).all()))

    def having(self, change: Callable[[str, Tensor], Tensor]) -> Condition:
        """Return the condition with every part replaced by change(name, value)."""
        return Condition(**{name: change(name, value) for name, value in self.parts.items()})

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return self.having(lambda _, value: value[rows])

    def to(self, device: torch.device | str) -> Condition:
        """Return the condition on a device."""
        return self.having(lambda _, value: value.to(device))


Label = Tensor | Condition


def condition(label: Label | None) -> Condition | None:
    """Return a label as a condition; None if nothing is told."""
    return Condition(label) if isinstance(label, Tensor) else label


def part_of(label: Label | None, name: str) -> Tensor | None:
    """Return one part of a label, "label", "vector" or "image"; None if it is not given."""
    return None if label is None else getattr(condition(label), name)


def is_null(value: Tensor) -> Tensor:
    """Return where a part holds its null, bool of its shape."""
    return value.isnan() if value.is_floating_point() else value == NULL


def told(label: Label | None) -> tuple[str, ...]:
    """Return the names of the parts that at least one image is told."""
    found = condition(label)
    return () if found is None else found.told


def without(label: Label, parts: Sequence[str] = PARTS) -> Label:
    """Return a label with some parts null for every image; a plain label stays one."""
    if isinstance(label, Tensor):
        return torch.full_like(label, NULL) if "label" in parts else label
    return label.having(lambda name, value: torch.full_like(value, NULLS[name]) if name in parts else value)


def dropped(label: Label, where: dict[str, Tensor]) -> Label:
    """Return a label whose parts are null where a mask says so.

    Arguments:
        label: What each of B images is told.
        where: Masks by part, bool, of the part's shape or of its first dimensions; a part without one stays.
    """
    if isinstance(label, Tensor):
        return torch.where(where["label"].to(label.device), NULL, label) if "label" in where else label

    def drop(name: str, value: Tensor) -> Tensor:
        if name not in where:
            return value
        mask = where[name].to(value.device)
        return value.masked_fill(mask.reshape(*mask.shape, *(1,) * (value.ndim - mask.ndim)), NULLS[name])

    return label.having(drop)


def joined(labels: Sequence[Label]) -> Label:
    """Return the labels of several batches as those of one; all have the same parts."""
    if all(isinstance(label, Tensor) for label in labels):
        return torch.cat([label for label in labels if isinstance(label, Tensor)])
    known = [found for label in labels if (found := condition(label)) is not None]
    return known[0].having(lambda name, _: torch.cat([each.parts[name] for each in known]))


def filled(values: Tensor) -> Tensor:
    """Return values (B, C, ...) with 0 for NaN, and beside them whether each was told, (B, 2 C, ...)."""
    null = values.isnan()
    return torch.cat((values.masked_fill(null, 0), (~null).to(values)), 1)
