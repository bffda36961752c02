"""What is kept between evaluations, under keys made of content and never of names.

    $XDG_CACHE_HOME/sfumato/features    features of real images: pixels in their order, extractor, weights
    $XDG_CACHE_HOME/sfumato/floors      scores of real images: pixels of both sets, extractor, metric, sizes, strata
    $XDG_CACHE_HOME/sfumato/latents     posteriors of training images: pixels in their order, the autoencoder's weights
    $XDG_CACHE_HOME/sfumato/generated   features of generated images: weights, sampler, seeds, this program's source

(`~/.cache` without that variable.)  Everything in it can be made again; delete it at will.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.reading import read_json
from sfumato.download import cache_folder
from sfumato.metrics.protocol import canonical
from sfumato.metrics.statistics import blocks


def place(kind: str, facts: Any) -> Path:
    """Return the path of what is cached under some facts, without a suffix; its folder exists.

    Arguments:
        kind: "features", "floors", "generated" or "latents".
        facts: JSON values that decide the content, all of them.
    """
    root = cache_folder(kind)
    root.mkdir(parents=True, exist_ok=True)
    return root / hashlib.sha256(canonical(facts).encode()).hexdigest()[:32]


def whole(file: Path) -> np.ndarray | None:
    """Return numbers that are kept, float32, read from disk where they are used; None unless they are as written.

    Arguments:
        file: An .npy file, with its checksum beside it (`keep`).
    """
    try:
        stored: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        if stored.dtype != np.float32:
            return None
        wanted, crc = read_json(file.with_suffix(".json"), finite=False)["crc32"], 0
        for part in blocks(stored):
            crc = zlib.crc32(np.ascontiguousarray(part).tobytes(), crc)
        return stored if crc == wanted else None
    except (ValueError, OSError, EOFError, KeyError, TypeError):
        return None


def keep(partial: Path, file: Path, crc: int, facts: Any) -> None:
    """Keep numbers that were written beside their place, with their checksum.

    Arguments:
        partial: The .npy file as it was written.
        file: Its place, with suffix .npy.
        crc: zlib's CRC-32 of the numbers.
        facts: JSON values that decide them, for people.
    """
    file.with_suffix(".json").write_text(json.dumps({"crc32": crc, "facts": facts}))
    os.replace(partial, file)


@cache
def source_hash() -> str:
    """Return a hash of this program's own source, so that a changed sampler never meets images of the old one."""
    total = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for file in sorted(folder.rglob("*.py")):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()
