"""Load a dataset by its name, then cut it to the wanted classes, number, size and channels.

A dataset is a file of this package that holds a function of its own name; nothing is registered. The order of the steps
is fixed: split by the source's own pixels first, so that every size and channel count shares one split; then classes,
then the first images, then channels, size and padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sfumato.core.find import OptionError, UnknownNameError, check_options, entries, find, nearest, options_of
from sfumato.core.outside import NAME
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.sources import OPENERS, kind_of, listings_of
from sfumato.data.told.attributes import MEASURES, with_attributes
from sfumato.data.told.beside import check_pairs, split_kind, with_condition
from sfumato.data.transforms import box_mean, pad_black, to_channels


def load(
    name: str,
    *,
    split: str = "train",
    root: str | Path | None = None,
    val: float = 0.0,
    test: float | None = None,
    classes: Sequence[str | int] | None = None,
    first: int | None = None,
    channels: int | None = None,
    size: int | None = None,
    pad: int | None = None,
    labels: bool = True,
    attributes: Sequence[str] = (),
    condition: str = "none",
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Load a dataset by name.

    Arguments:
        name: A dataset of this package ("fashion-mnist"; dashes and underscores are the same), "folder:PATH",
            "zip:PATH", "toy:KIND", "my_module:function" (with ":PATH" if it takes one), or simply the path of an
            existing folder, .zip, .npz, .npy, .parquet or database.
        split: "train", "val", "test" or "all".
        root: Data root with one folder a dataset; None means SFUMATO_DATA, else the cache.
        val: Share of the images held out for validation by their hash, in [0, 1).
        test: The same for testing, where the source has no official test part; None means its default.
        classes: Class names or numbers to keep, renumbered 0, 1, ... in this order; None keeps all.
        first: Keep the first so many images in the source's order; None keeps all.
        channels: 1 or 3; None leaves them.
        size: Side in pixels; a source of files crops and resizes, others take an exact box mean by a whole factor.
        pad: Side in pixels after padding with black.
        labels: Whether labels are wanted; False asks a source of files for none.
        attributes: Numbers that are wanted of each image: columns of the source, or measured (`data.told.attributes`).
        condition: The image that a model is told beside each: "none", "low", "low:K", "grey", "pairs:FOLDER".
        options: Further options of the dataset's own function, e.g. {"skip_bad": True} for a folder.

    Returns:
        The dataset.

    Raises:
        UnknownNameError: If there is no such dataset; the nearest name is offered.
        OptionError: If the dataset does not take an option.
        DataError: If files are missing or corrupt.
        ValueError: If a class, number, size or split is impossible.

    >>> load("digits", classes=("3", 7), first=100, pad=16)
    Dataset('digits', train, 100 images 1x16x16, 2 classes)
    """
    entry, key, source = _resolve(name)
    allowed = options_of(entry)
    given = {"split": split, "root": root, "val": val or None, "test": test}
    given |= {"size": size, "channels": channels, "first": first}
    given |= {"attributes": True if set(attributes) - set(MEASURES) else None}
    own = check_options(f"dataset '{key}'", entry, dict(options or {}), fixed=given)
    for share in ("val", "test"):
        if given[share] is not None and share not in allowed:
            raise OptionError(f"Dataset '{key}' has an official {share} part, so {share}={given[share]} means nothing.")
    own.update({option: value for option, value in given.items() if option in allowed and value is not None})
    own.update({"labels": False} if "labels" in allowed and not labels else {})
    data = entry(*source, **own)
    if classes is not None:
        data = data.keep_classes(classes)
    if first is not None and first != len(data):
        if not 0 < first <= len(data):
            raise ValueError(f"first must lie in [1, {len(data)}] for {data!r}; got {first}.")
        data = data.subset(range(first), note=f"first {first}")
    if channels is not None and channels != data.shape[0]:
        data = _changed(data, to_channels(data.images, channels), f"{channels} channels")
    if size is not None and data.shape[1:] != (size, size):
        data = _changed(data, box_mean(data.images, size), f"box mean to {size}")
    if pad is not None and data.shape[1:] != (pad, pad):
        data = _changed(data, pad_black(data.images, pad), f"padded to {pad}")
    if split_kind(condition)[0] == "pairs":
        if key not in OPENERS:
            raise DataError(f"data.condition={condition} pairs files by name, and {name} is no source of files.")
        check_pairs(listings_of(name), listings_of(split_kind(condition)[1]), condition)
    paired = partial(load, split="all", root=root, channels=None, labels=False)
    return with_condition(with_attributes(data, attributes), condition, paired)


def outside_name(name: str) -> str:
    """Return the "module.path:function" with which the name of a dataset from outside begins; "" for any other."""
    match = NAME.match(name)
    known = name.partition(":")[0].replace("_", "-") in entries("data") or Path(name).expanduser().exists()
    return "" if match is None or known else match[0]


def _resolve(name: str) -> tuple[Any, str, tuple[str, ...]]:
    """Find the function of a name, and the source it is to be given, if any."""
    available = entries("data")
    if not name.strip():
        raise UnknownNameError(f"data.name is empty. Name a dataset: {', '.join(available)}.")
    key, _, source = name.partition(":")
    key = key.replace("_", "-")
    if outer := outside_name(name):
        key, source = outer, name.removeprefix(outer).removeprefix(":")
        available = {key: find("data", key)}
    if key in available:
        entry = available[key]
        positional = [p.name for p in inspect.signature(entry).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        required = [name for name in positional if name not in options_of(entry)]
        if required and not source:
            raise UnknownNameError(f"Dataset '{key}' needs its {required[0]}: write '{key}:{required[0].upper()}'.")
        if source and not positional:
            raise UnknownNameError(f"Dataset '{key}' takes nothing after a colon; got {name!r}.")
        return entry, key, (source,) if source else ()
    path = Path(name).expanduser()
    if kind := kind_of(path):
        return available[kind], kind, (str(path),)
    raise UnknownNameError(nearest("dataset", name, available) + " Or give an existing folder or .zip file.")


def _changed(data: Dataset, images: Any, note: str) -> Dataset:
    return replace(data, images=images, rule="; ".join(filter(None, (data.rule, note))))
