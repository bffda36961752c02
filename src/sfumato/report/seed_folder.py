"""Images as files, one verified entry a seed, so that a killed run loses nothing and a restart makes what is missing.

An entry is ``seed-000000007.png``, signed with its seed, label and settings (`report.signature`).
It is written under another name, flushed and renamed, so an entry is whole or absent; on a restart each entry
is decoded and its hash compared, and one that does not match is made again.

Seeds are computed in fixed blocks, those of the first run: a block with anything missing is computed whole and only
the missing entries are written, so the set equals an uninterrupted run's, bit for bit. Several processes share a folder
of one file system: each looks at its own blocks, then the incomplete ones are dealt anew.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato.core.condition import Label, part_of
from sfumato.core.images import NonFiniteError, finite, to_uint8
from sfumato.core.reading import parse_json, read_json
from sfumato.core.writing import replace_json, write_whole
from sfumato.processes.ranks import Ranks
from sfumato.report.signature import SignatureError, picture_of, read, signed
from sfumato.runs.identity import changed
from sfumato.runs.recipe_json import today
from sfumato.sources import Maker


class SettingsError(ValueError):
    """A folder that holds images of other settings."""


def file_of(seed: int) -> str:
    """Return the file name of a seed's entry."""
    return f"seed-{seed:09d}.png"


def fill(
    folder: Path,
    source: Maker,
    seeds: Sequence[int],
    labels: Label | None,
    settings: Mapping[str, Any],
    progress: Callable[[int], None] | None = None,
    ranks: Ranks = Ranks(),
    words: str = "",
) -> int:
    """Write the images of the seeds that are missing.

    Arguments:
        folder: Where entries go; made if missing.
        source: Makes the images.
        seeds: Distinct seeds, one per image.
        labels: One class per image, int64 (B,), or a `Condition`; None for no class. What is told beside a class is in
            the settings.
        settings: JSON values that decide the images (`report.signature.settings_of`).
        progress: Told the number of images done by all processes after every block of this one.
        ranks: The processes that share the work.
        words: How the images are made, for a person who opens one.

    Returns:
        How many entries were written by all processes; the others were there.

    Raises:
        SettingsError: If the folder holds images of other settings.
        NonFiniteError: After everything else is written, if any image holds NaN or infinity; none of those is.
    """
    text, classes = json.dumps(settings, sort_keys=True), part_of(labels, "label")
    with ranks.in_turn():
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            _claim(folder, settings)
    names = {seed: folder / file_of(seed) for seed in seeds}
    tags = {
        s: {"seed": s, "label": None if classes is None else int(classes[i]), "settings": text}
        for i, s in enumerate(seeds)
    }
    lacking = [
        (part, missing)
        for part in ranks.deal(len(seeds), source.batch)
        if (missing := [seed for seed in seeds[part] if not whole(names[seed], tags[seed])])
    ]
    lacking = sorted((found for own in ranks.gather(lacking) for found in own), key=lambda found: found[0].start)
    sizes = [len(seeds[part]) for part, _ in lacking]
    if progress is not None:
        progress(len(seeds) - sum(sizes))
    written, bad = 0, []
    for k in range(ranks.rank, len(lacking), ranks.world):
        part, missing = lacking[k]
        floats = source.floats(seeds[part], None if labels is None else labels[part])
        good = finite(floats)
        for i, seed in enumerate(seeds[part]):
            if seed in missing and bool(good[i]):
                image = to_uint8(floats[i : i + 1], source.quantisation)[0].cpu()
                _write(names[seed], image, tags[seed], words)
                written += 1
        bad += [seed for i, seed in enumerate(seeds[part]) if not bool(good[i])]
        if progress is not None:  # while this process made a block, so did the others
            progress(sum(sizes[k - ranks.rank : k - ranks.rank + ranks.world]))
    found_by_all = ranks.gather((written, bad))
    written, bad = sum(n for n, _ in found_by_all), sorted(seed for _, seeds_ in found_by_all for seed in seeds_)
    if bad:
        raise NonFiniteError(
            f"{len(bad)} of {len(seeds)} images hold NaN or infinity and were not written (seeds {bad[:8]}); the other "
            f"{len(seeds) - len(bad)} are in {folder}. Look at the checkpoint, the step count and the guidance weight."
        )
    return written


def whole(path: Path, tag: Mapping[str, Any]) -> bool:
    """Return whether an entry is there, decodes, and is what its text says: the wanted seed, label and settings.

    Arguments:
        path: Path of the entry.
        tag: What should have made it.
    """
    try:
        found = read(path)[1]
        same = not changed(today(parse_json(found["settings"], "The text", finite=False)), json.loads(tag["settings"]))
        return same and {**found, "settings": tag["settings"]} == tag
    except (SignatureError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write down the folder's settings, or refuse a folder of other ones; what an earlier version left out is added."""
    file = folder / "settings.json"
    before = today(read_json(file, finite=False, error=SettingsError)) if file.exists() else {}
    if differ := changed(before, settings):
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in differ.items())
        raise SettingsError(
            f"{folder} holds images of other settings:\n{lines}\nName another folder, or make the same images."
        )
    if settings.keys() - before.keys():
        replace_json(file, settings)


def _write(path: Path, image: Tensor, tag: Mapping[str, Any], words: str) -> None:
    picture, out = picture_of(image), io.BytesIO()
    picture.save(out, format="PNG", pnginfo=signed(picture, tag, words))
    write_whole(path, out.getvalue())
