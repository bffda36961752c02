"""Sources of image files by the name a person gives them: one row a kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfumato.data.dataset import DataError
from sfumato.data.hub import row_listings
from sfumato.data.listing import Listing, open_listing, parts_of
from sfumato.data.lmdb import database_parts, is_database
from sfumato.data.splits import pieces

Parts = dict[str, Listing]

OPENERS: dict[str, Callable[[str], Parts]] = {
    "folder": lambda path: parts_of(open_listing(path)),
    "zip": lambda path: parts_of(open_listing(path)),
    "lmdb": database_parts,
    "hub": lambda path: dict(row_listings(path)),
}
SUFFIXES = {".zip": "zip", ".npz": "npz", ".npy": "npz", ".parquet": "hub", ".arrow": "hub"}
"""The kind of a file that is named without one."""


def kind_of(path: Path) -> str:
    """Return which kind of source an existing path is; "" for none."""
    if is_database(path):
        return "lmdb"
    return "folder" if path.is_dir() else SUFFIXES.get(path.suffix.lower(), "zip" if path.is_file() else "")


def listings_of(name: str) -> Parts:
    """Open a source: a path, or KIND:PATH.

    Returns:
        Its official splits by name; under "" what has none.

    Raises:
        DataError: If there is no such source, or it is of no kind that holds files.
    """
    kind, _, source = name.partition(":")
    if kind not in OPENERS or not source:
        kind, source = kind_of(Path(name).expanduser()), name
    if kind in OPENERS:
        return OPENERS[kind](source)
    kinds = ", ".join(f"{kind}:PATH" for kind in OPENERS)
    raise DataError(f"There is no folder or .zip file {name}; other sources are {kinds}.")


def listing_of(name: str, split: str = "train") -> tuple[str, Listing]:
    """Open one split of a source, whole.

    Returns:
        The split's own name, "" for a source that has none, and its files.

    Raises:
        DataError, ValueError: If there is no such source, or it is not clear which split is meant.
    """
    parts = listings_of(name)
    part = "" if len(parts) == 1 else pieces(parts, split, val=0.0, test=0.0)[0].part
    return part, parts[part] if part else next(iter(parts.values()))
