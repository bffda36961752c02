"""What is kept between evaluations, under keys made of content and never of names.

    $XDG_CACHE_HOME/sfumato/features    features of real images: pixels in their order, extractor, weights
    $XDG_CACHE_HOME/sfumato/floors      scores of real images: pixels of both sets, extractor, metric, sizes, strata
    $XDG_CACHE_HOME/sfumato/generated   features of generated images: weights, sampler, seeds, this program's source

(`~/.cache` without that variable.)  Everything in it can be made again; delete it at will.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from sfumato.metrics.protocol import canonical


def place(kind: str, facts: Any) -> Path:
    """Return the path of what is cached under some facts, without a suffix; its folder exists.

    Arguments:
        kind: "features", "floors" or "generated".
        facts: JSON values that decide the content, all of them.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfumato" / kind
    root.mkdir(parents=True, exist_ok=True)
    return root / hashlib.sha256(canonical(facts).encode()).hexdigest()[:32]


@cache
def source_hash() -> str:
    """Return a hash of this program's own source, so that a changed sampler never meets images of the old one."""
    total = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for file in sorted(folder.rglob("*.py")):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()
