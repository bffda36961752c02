"""Where data lies, one root and one folder a dataset, and how official files come there.

The root is the argument where one is given, else the environment variable SFUMATO_DATA, else
``$XDG_CACHE_HOME/sfumato/data`` (``~/.cache/sfumato/data`` by default).
"""

from __future__ import annotations

from pathlib import Path

from sfumato.data.dataset import DataError
from sfumato.download import Remote, data_root
from sfumato.download import fetch as fetch_official

REMEDY = "Put the file there yourself, or set SFUMATO_DATA to a folder that has it."


def folder_of(name: str, root: str | Path | None = None) -> Path:
    """Return the folder of one dataset under the root."""
    return data_root(root) / name


def fetch(remote: Remote, folder: Path) -> Path:
    """Return a verified local copy of a file of a data set, downloading it if it is missing.

    Raises:
        DataError: As `sfumato.download.fetch`.
    """
    return fetch_official(remote, folder, remedy=REMEDY, error=DataError)
