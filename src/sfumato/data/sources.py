"""Sources of image files by the name a person gives them: one row a kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfumato.data.dataset import DataError
from sfumato.data.hub import row_listings
from sfumato.data.listing import Listing, open_listing
from sfumato.data.lmdb import DatabaseListing

OPENERS: dict[str, Callable[[str], Listing]] = {
    "folder": open_listing,
    "zip": open_listing,
    "lmdb": lambda path: DatabaseListing(Path(path).expanduser()),
    "hub": lambda path: next(iter(row_listings(path).values())),
}


def listing_of(name: str) -> Listing:
    """Open a source: a path, or KIND:PATH; of a dataset with splits the first one, usually train.

    Raises:
        DataError: If there is no such source, or it is of no kind that holds files.
    """
    kind, _, source = name.partition(":")
    if kind in OPENERS and source:
        return OPENERS[kind](source)
    path = Path(name).expanduser()
    if path.exists():
        return DatabaseListing(path) if (path / "data.mdb").is_file() else open_listing(path)
    kinds = ", ".join(f"{kind}:PATH" for kind in OPENERS)
    raise DataError(f"There is no folder or .zip file {name}; other sources are {kinds}.")
