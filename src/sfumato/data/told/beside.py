"""The image that a model is told beside the one it makes: made from it, or paired with it in another folder.

    low[:K]        the image K times smaller (4 unless given) by box means: super-resolution (SR3)
    grey           its luma: colourisation
    pairs:FOLDER   the file of the same name in another folder or archive, whatever its format: anything

They are kept at their own size and brought to the model's size, bicubically, where they are told.

References:
    Saharia et al. Image Super-Resolution via Iterative Refinement. 2021 (SR3). https://arxiv.org/abs/2104.07636
    Saharia et al. Palette: Image-to-Image Diffusion Models. 2022. https://arxiv.org/abs/2111.05826
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.core.condition import Condition, Label
from sfumato.core.errors import UnknownNameError, nearest
from sfumato.core.images import to_float
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.listing import Listing
from sfumato.data.transforms import box_mean, to_channels

KINDS = ("none", "low", "grey", "pairs")
FACTOR = 4  # of low, unless given


def split_kind(condition: str) -> tuple[str, str]:
    """Return the kind of a condition and what follows its colon.

    Raises:
        UnknownNameError: For an unknown kind; the nearest is offered.
        ValueError: For a factor that is no whole number above 1, or pairs without a folder.

    >>> split_kind("low:7"), split_kind("low"), split_kind("none")
    (('low', '7'), ('low', '4'), ('none', ''))
    """
    kind, _, rest = condition.partition(":")
    if kind not in KINDS:
        raise UnknownNameError(nearest("condition", kind, KINDS))
    rest = rest or (str(FACTOR) if kind == "low" else "")
    if kind == "low" and not (rest.isdecimal() and len(rest) < 10 and int(rest) > 1):
        raise ValueError(f"data.condition=low:K makes images K times smaller, K = 2, 3, ...; got {condition!r}.")
    if (kind == "pairs") != bool(rest) and kind != "low":
        raise ValueError(f"data.condition is none, low, low:K, grey or pairs:FOLDER; got {condition!r}.")
    return kind, rest


def twin(images: Tensor, condition: str) -> Tensor:
    """Return what a model is told of images that it is to make, uint8 (N, c, h, w).

    Arguments:
        images: uint8 (N, C, H, W).
        condition: "low", "low:K" or "grey".

    Raises:
        ValueError: If the images cannot be made so much smaller, or are grey already.
    """
    kind, factor = split_kind(condition)
    side = images.shape[-1]
    if kind == "low":
        if side % int(factor):
            raise ValueError(f"data.condition={condition} needs a side that is a multiple of {factor}; got {side}.")
        return box_mean(images, side // int(factor))
    if images.shape[1] != 3:
        raise ValueError(f"data.condition=grey is the luma of colour images; these have {images.shape[1]} channels.")
    return to_channels(images, 1)


def check_pairs(mine: Mapping[str, Listing], theirs: Mapping[str, Listing], condition: str) -> None:
    """Refuse pairs whose files do not stand at the same places of both sources.

    Arguments:
        mine: The source of the images by its official splits.
        theirs: That of what is told beside them.
        condition: "pairs:FOLDER", for messages.

    Raises:
        DataError: If either has official splits, or holds a file that the other does not.
    """
    if splits := sorted({name for name in (*mine, *theirs) if name}):
        raise DataError(
            f"data.condition={condition} pairs files by name, and folders of splits stand there ({', '.join(splits)}). "
            "Name one of them on both sides; data.test holds out a share of it."
        )
    ours, others = ([PurePosixPath(name).with_suffix("") for name in each[""].names] for each in (mine, theirs))
    if ours != others:
        alone = sorted(map(str, set(ours) ^ set(others))) or ["one that stands there twice"]
        raise DataError(
            f"data.condition={condition} pairs files of one name, and {len(alone)} have no pair, such as {alone[0]}. "
            "Give every image its pair, and no other file."
        )


def with_condition(data: Dataset, condition: str, paired: Callable[[str], Dataset]) -> Dataset:
    """Return a dataset with what a model is told beside each image.

    Arguments:
        data: Dataset whose images a model is to make.
        condition: What is told, or "none".
        paired: Loads the images of another folder, all of them; they stand as the source's files do (`check_pairs`).
    """
    kind, folder = split_kind(condition)
    if kind == "none":
        return data
    if kind != "pairs":
        return replace(data, beside=twin(data.images, condition), condition=condition)
    other = paired(folder)
    return replace(data, beside=other.images[data.indices], condition=condition)


def told_image(codes: Tensor, size: Sequence[int]) -> Tensor:
    """Return condition images as a network is told them: float (B, c, H, W) in [-1, 1], brought to a size."""
    images = to_float(codes)
    if images.shape[2:] == tuple(size):
        return images
    return functional.interpolate(images, tuple(size), mode="bicubic", align_corners=False)


def condition_of(
    data: Dataset,
    label: Tensor | None,
    rows: Tensor,
    *,
    mirrored: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Label | None:
    """Return what some images of a dataset are told: their class, raw attributes and the image beside them.

    Arguments:
        data: Dataset that holds the images.
        label: Classes of the rows, int64 (B,), on the device of the result; None for none.
        rows: Places of the images in the dataset, int64 (B,), on the CPU.
        mirrored: Which of them are mirrored, bool (B,); None for none.
        device: Device of the result.
    """
    if data.vector is None and data.beside is None:
        return label
    vector = None if data.vector is None else data.vector[rows].to(device)
    image = None if data.beside is None else told_image(data.beside[rows].to(device), data.shape[1:])
    if image is not None and mirrored is not None:
        image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
    return Condition(label, vector, image)
