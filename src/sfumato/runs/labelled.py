"""Labels that a run learns from its training images, in place of those of the data (axis labels).

    RUN/labels.safetensors   what was learned, the label of every training image, and which images these were

The recipe of a run records the hash of that file's tensors (`Recipe.learned`). A run that is opened says where its file
is, so the same labels are given again; without the file they are learned again, and refused if they are others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sfumato.core.weights import hash_tensors, read_tensors
from sfumato.core.writing import replacing
from sfumato.data.dataset import Dataset
from sfumato.labels._labelling import Labelling
from sfumato.runs.recipe import Part, Recipe, RecipeError
from sfumato.sources import in_turn, labels_by_share

FILE = "labels.safetensors"
Learned = Mapping[str, Tensor]

_learned: dict[str, Learned] = {}  # hash of the tensors -> tensors
_files: dict[str, Path] = {}  # the same hash -> the file of a run that holds them
_made: dict[tuple[str, bytes], str] = {}  # labels field and training images -> hash of what was learned of them


def labelling(part: Part, shape: tuple[int, int, int]) -> Labelling:
    """Return the rule that a recipe's labels field names.

    Arguments:
        part: A part of the axis labels.
        shape: (C, H, W) of the images.

    Raises:
        OptionError: If an option does not fit.
    """
    return part.entry()(shape, **part.checked())


def labelled(recipe: Recipe, data: Dataset, training: Callable[[], Dataset]) -> Dataset:
    """Return data with the labels that a recipe learns.

    Arguments:
        recipe: One that learns them, resolved or not; a resolved one says which labels were learned.
        data: One split.
        training: Loads the training images, from which labels are learned if they were not yet.

    Raises:
        RecipeError: If the labels of a run cannot be found again.
        DataError: If there are too few images.
    """
    assert isinstance(recipe.data.labels, Part)
    rule = labelling(recipe.data.labels, data.shape)
    learned = _find(recipe, data if data.split == "train" else None, training)
    same = bytes(learned["images"].numpy()) == _name(data)
    return replace(data, labels=learned["labels"] if same else rule.label(data.images, learned), classes=rule.classes)


def _name(data: Dataset) -> bytes:
    """Return the name of images in their order, 32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(data.image_hashes).tobytes()).digest()


def _find(recipe: Recipe, data: Dataset | None, training: Callable[[], Dataset]) -> Learned:
    """Return what a recipe has learned, from memory, the run's file or the training images."""
    if recipe.learned in _learned:
        return _learned[recipe.learned]
    if (file := _files.get(recipe.learned)) is not None and file.exists():
        found = read_tensors(file, RecipeError)
        if hash_tensors(found) != recipe.learned:
            raise RecipeError(
                f"{file} does not hold the labels that this run was trained with ({recipe.learned[:16]}). Restore it, "
                "or remove it to learn them again from the training images."
            )
        _learned[recipe.learned] = found
        return found
    own = _learn(recipe, training() if data is None else data)
    if recipe.learned not in ("", own):
        raise RecipeError(
            f"The labels of this run ({recipe.learned[:16]}) are in its {FILE}, which is gone, and these images and "
            f"versions give others ({own[:16]}). Restore that file."
        )
    return _learned[own]


def _learn(recipe: Recipe, data: Dataset) -> str:
    """Learn labels from training images, once; return the hash of what was learned."""
    assert isinstance(recipe.data.labels, Part)
    key = repr(recipe.data.labels), _name(data)
    if key not in _made:
        rule = labelling(recipe.data.labels, data.shape)
        learned = rule.learn(data.images)
        learned |= {"labels": rule.label(data.images, learned)}
        learned |= {"images": torch.frombuffer(bytearray(key[1]), dtype=torch.uint8)}
        _made[key] = hash_tensors(learned)
        _learned[_made[key]] = learned
    return _made[key]


def learned_of(recipe: Recipe, data: Dataset) -> str:
    """Return the hash by which a resolved recipe knows its labels.

    Arguments:
        recipe: One that learns them, with or without that hash.
        data: The training images.
    """
    return recipe.learned or _learn(recipe, data)


def adopted(recipe: Recipe, before: Recipe) -> Recipe:
    """Return a recipe that goes on with the labels of an earlier one, if it asks for the same."""
    return replace(recipe, learned=before.learned) if before.data.labels == recipe.data.labels else recipe


def keep(recipe: Recipe, folder: Path) -> None:
    """Write what a recipe has learned into a run's directory, whole or not at all.

    A run that goes on with other labels keeps those of its earlier checkpoints beside them.
    """
    if not recipe.learned:
        return
    file, found = _file(recipe, folder), _find(recipe, None, _no_data)
    if file.exists() and hash_tensors(read_tensors(file, RecipeError)) != recipe.learned:
        file = _own(recipe, folder)
    if not file.exists():
        with replacing(file) as partial:
            save_file({name: tensor.contiguous() for name, tensor in found.items()}, partial)


def kept_in(recipe: Recipe, folder: Path) -> None:
    """Remember that the labels of a recipe are in a run's directory."""
    if recipe.learned and (file := _file(recipe, folder)).exists():
        _files[recipe.learned] = file


def _file(recipe: Recipe, folder: Path) -> Path:
    return own if (own := _own(recipe, folder)).exists() else folder / FILE


def _own(recipe: Recipe, folder: Path) -> Path:
    """Return the file of labels that came after others in a run."""
    return folder / f"labels-{recipe.learned[:16]}.safetensors"


def asked_labels(recipe: Recipe, seeds: Sequence[int], classes: int) -> tuple[Tensor | None, str]:
    """Return the labels that images are asked for when they are scored together, and their prior in words.

    Classes are asked for in turn by the seed, as everywhere, and so equally often, without sampling noise. Clusters are
    of unequal sizes by chance, and only together do they make up the data: each is asked for as often as it occurs
    among the training images.

    Arguments:
        recipe: Resolved.
        seeds: Seeds of the images, in a row.
        classes: Number of classes that can be asked for; 0 for none.
    """
    if isinstance(recipe.data.labels, bool) or not classes:
        return in_turn(seeds, range(classes) if classes else None), "uniform" if classes else "unconditional"
    counts = torch.bincount(_find(recipe, None, _no_data)["labels"], minlength=classes)
    return labels_by_share(seeds, counts / counts.sum()), "training"


def _no_data() -> Dataset:
    raise RecipeError(f"The labels of this run are in its {FILE}, which is gone. Restore that file.")
