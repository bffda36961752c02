"""Fetch a data set's official files into its folder; failures are errors of the data."""

from __future__ import annotations

from pathlib import Path

from sfumato.data.dataset import DataError
from sfumato.download import Remote
from sfumato.download import fetch as fetch_official

REMEDY = "Put the file there yourself, or set SFUMATO_DATA to a folder that has it."


def fetch(remote: Remote, folder: Path) -> Path:
    """Return a verified local copy of a file of a data set, downloading it if it is missing.

    Raises:
        DataError: As `sfumato.download.fetch`.
    """
    return fetch_official(remote, folder, remedy=REMEDY, error=DataError)
