"""The Hugging Face Hub: a run goes up as a folder and comes down as one. These two functions are all that talks to it.

Only JSON, safetensors, Markdown and pictures come down, so nothing that could run does. `huggingface_hub` is optional:
pip install 'sfumato[hub]'.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sfumato.core.optional import optional
from sfumato.interop.tensors import ForeignError

PATTERNS = ["*.json", "*.safetensors", "*.md", "*.png", "*.gif", "*.jsonl"]
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Create a model repository if it is missing and put a folder into it.

    Arguments:
        folder: A run, or any exported folder.
        repo: OWNER/NAME of the repository.
        private: Whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        ForeignError: If the package is missing, the name is none, or the Hub refuses.
    """
    _check(repo)
    api = _library().HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=f"Upload {folder.name}"))
    except Exception as error:  # the library raises its own and its transport's errors
        raise ForeignError(f"The Hub did not take {repo}: {error}. `hf auth login` signs in.") from error


def download(repo: str, *, revision: str | None = None) -> Path:
    """Fetch a model repository, or find it in the local cache.

    Arguments:
        repo: OWNER/NAME of the repository.
        revision: Branch, tag or commit.

    Returns:
        The folder that holds it.

    Raises:
        ForeignError: If the package is missing, the name is none, or there is no such repository.
    """
    _check(repo)
    try:
        return Path(_library().snapshot_download(repo, revision=revision, allow_patterns=PATTERNS))
    except Exception as error:
        raise ForeignError(f"{repo} could not be fetched from the Hub: {error}") from error


def _check(repo: str) -> None:
    if not REPOSITORY.fullmatch(repo):
        raise ForeignError(f"A repository on the Hub is named OWNER/NAME; got {repo!r}.")


def _library() -> Any:
    return optional("huggingface_hub", "hub", "The Hub", ForeignError)
