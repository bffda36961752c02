"""Checkpoints that are whole or not there.

A checkpoint is a directory. It is written as ``step-N.tmp``: every file is flushed to disk, `MANIFEST.json` (the size
and sha256 of each file, the schema, the recipe's hash, the dataset's fingerprint) comes last, then the directory is
renamed to ``step-N`` and its parent flushed. A crash leaves a ``.tmp`` that nobody reads and the next save removes.

Reading verifies the manifest, since a single flipped bit loads silently from safetensors; a damaged checkpoint is
named and the one before it is taken. What holds a number that is not finite is neither written nor read: it would
look whole, and push out one that is good. Tensors are safetensors and everything else is JSON: no pickle, no code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sfumato.core.reading import FileRefusedError, plain_name, read_json
from sfumato.core.weights import hash_tensors, read_tensors
from sfumato.core.writing import flush
from sfumato.processes.ranks import Ranks

SCHEMA = 1
COUNTS = ("seen", "step", "skipped")  # facts of a state that are whole numbers, where it has them
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or belongs to another run."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A verified checkpoint: groups of tensors by file name, the JSON state, and the hash of its manifest."""

    path: Path
    tensors: Mapping[str, dict[str, Tensor]]
    state: Mapping[str, Any]
    manifest: str = ""
    _digests: dict[str, str] = field(default_factory=dict, repr=False)

    def digest(self, group: str) -> str:
        """Return the hash of what a group of tensors holds."""
        if group not in self._digests:
            self._digests[group] = hash_tensors(self.tensors[group])
        return self._digests[group]


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
    fingerprint: Mapping[str, str] | None = None,
) -> Path:
    """Write checkpoint ``folder/step-<step>`` atomically and drop the oldest beyond `keep`; later steps do not count.

    Arguments:
        folder: The run's checkpoint folder; made if missing.
        step: Names the checkpoint.
        tensors: File stem -> tensors, one safetensors file each.
        state: JSON-serialisable rest.
        keep: How many newest checkpoints stay, at least 2.
        fingerprint: What the checkpoint belongs to (recipe hash, dataset hash), checked by the caller on resume.

    Raises:
        CheckpointError: If a tensor is not finite; nothing is written.
        OSError: If the disk is full or unwritable; earlier checkpoints are untouched and the partial one is removed.
    """
    final, partial = folder / f"step-{step}", folder / f"step-{step}.tmp"
    if wrong := not_finite(tensors):
        raise CheckpointError(f"{final} was not written: {wrong} is not finite. What was saved before is untouched.")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("step-*.tmp"):
        shutil.rmtree(stale)
    partial.mkdir()
    try:
        for stem, group in tensors.items():
            contiguous = {k: v.detach().to("cpu").contiguous() for k, v in group.items()}
            save_file(contiguous, partial / f"{stem}.safetensors")
            flush(partial / f"{stem}.safetensors")
        write_json(partial / "state.json", state)
        files = {p.name: {"size": p.stat().st_size, "sha256": _digest(p)} for p in sorted(partial.iterdir())}
        write_json(partial / "MANIFEST.json", {"schema": SCHEMA, "files": files, "belongs": dict(fingerprint or {})})
        flush(partial)
        if final.exists():
            shutil.rmtree(final)  # saving the same step again, e.g. after a signal
        os.rename(partial, final)
        flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        needed = sum(v.numel() * v.element_size() for group in tensors.values() for v in group.values())
        raise OSError(
            f"{final} could not be written ({error}); earlier checkpoints are untouched. It takes "
            f"{needed / 1e6:.1f} MB: make space and give the same command again."
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in [s for s in steps(folder) if s <= step][: -max(2, keep)]:
        shutil.rmtree(folder / f"step-{old}")
    return final


def drop_after(folder: Path, step: int) -> None:
    """Remove what a run has saved after a step: it was passed over, and the run goes on from there."""
    for later in steps(folder):
        if later > step:
            shutil.rmtree(folder / f"step-{later}")


def not_finite(groups: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Return the name of the first tensor that holds NaN or infinity, in words; "" if there is none."""
    for stem, group in groups.items():
        for name, value in group.items():
            if not bool(value.isfinite().all()):
                return f"{name} of {stem}"
    return ""


def steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, ascending."""
    found = (re.fullmatch(r"step-(\d+)", p.name) for p in folder.glob("step-*")) if folder.is_dir() else ()
    return sorted(int(m[1]) for m in found if m)


def load(path: Path, groups: tuple[str, ...] | None = None) -> Checkpoint:
    """Read one checkpoint after verifying every file against its manifest.

    Arguments:
        path: The directory ``step-N``.
        groups: File stems to load; None for all. Everything is verified either way.

    Raises:
        CheckpointError: Naming the file that is missing, truncated or changed.
    """
    try:
        found = _read(path, groups)
    except CheckpointError:
        raise
    except UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}): it is damaged.") from None
    if wrong := not_finite(found.tensors):
        raise CheckpointError(f"{path} is not taken: {wrong} is not finite.")
    return found


def _read(path: Path, groups: tuple[str, ...] | None) -> Checkpoint:
    manifest_path = path / "MANIFEST.json"
    try:
        manifest = read_json(manifest_path)
    except (OSError, FileRefusedError) as error:
        raise CheckpointError(f"{manifest_path} cannot be read ({error}); the checkpoint is not complete.") from None
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} has schema {manifest.get('schema')!r:.40}; this version reads schema {SCHEMA}.")
    for name, want in _files(manifest, manifest_path).items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != want["size"]:
            raise CheckpointError(f"{file} has {size} bytes where its manifest says {want['size']}: truncated or lost.")
        if _digest(file) != want["sha256"]:
            raise CheckpointError(f"{file} does not match its manifest's sha256: its content has changed.")
    stems = [n.removesuffix(".safetensors") for n in manifest["files"] if n.endswith(".safetensors")]
    chosen = [s for s in stems if groups is None or s in groups]
    tensors = {s: read_tensors(path / f"{s}.safetensors", CheckpointError) for s in chosen}
    state = read_json(path / "state.json", finite=False, error=CheckpointError)
    for name in COUNTS:
        if type(count := state.get(name, 0)) is not int or count < 0:
            raise CheckpointError(
                f"{path / 'state.json'} is damaged: {name} must be a whole number >= 0; got {count!r}."
            )
    if not math.isfinite(state.get("elapsed", 0.0)) or not isinstance(state.get("recipe", {}), dict):
        raise CheckpointError(f"{path / 'state.json'} is damaged: its elapsed time or its recipe is none.")
    return Checkpoint(path, tensors, {**state, "belongs": manifest["belongs"]}, _digest(manifest_path))


def _files(manifest: Mapping[str, Any], where: Path) -> dict[str, dict[str, Any]]:
    """Return what a manifest says of each of its files: all lie beside it, and none is a link to elsewhere."""
    files = manifest.get("files")
    if not (isinstance(files, dict) and "state.json" in files and isinstance(manifest.get("belongs"), dict)):
        raise CheckpointError(f"{where} must name the files of its checkpoint, state.json among them; it does not.")
    for name, want in files.items():
        if not plain_name(name) or not isinstance(want, dict) or not {"size", "sha256"} <= set(want):
            raise CheckpointError(f"{where} must name files beside it, with size and sha256; got {name!r:.60}.")
        if (where.parent / name).is_symlink():
            raise CheckpointError(f"{where.parent / name} is a link; a checkpoint holds its own files.")
    return files


def holding(*names: str) -> Callable[[Checkpoint], None]:
    """Return what refuses a checkpoint that lacks a group of tensors, or a fact of its state, of these names."""

    def check(found: Checkpoint) -> None:
        lacking = [name for name in names if name not in found.tensors and name not in found.state]
        if lacking:
            raise CheckpointError(f"{found.path} lacks {', '.join(lacking)}.")

    return check


def of_run(mark: str, *names: str) -> Callable[[Checkpoint], None]:
    """Return what refuses a checkpoint of another run; one without a mark, of an earlier version, is taken.

    Arguments:
        mark: Of the run ("run" of its fingerprint); "" for any.
        names: What it must hold besides, as for `holding`.
    """
    whole = holding(*names)

    def check(found: Checkpoint) -> None:
        whole(found)
        belongs = found.state["belongs"]
        theirs = belongs.get("run", mark) if isinstance(belongs, Mapping) else mark
        if mark and theirs != mark:
            raise CheckpointError(
                f"{found.path} belongs to another run: it is marked {theirs}, and this run {mark}. Move it to the run "
                "that made it."
            )

    return check


def latest(folder: Path, fits: Callable[[Checkpoint], None] = holding()) -> Checkpoint | None:
    """Read the newest whole checkpoint; damaged ones are named loudly and passed over. None if there is none.

    Arguments:
        folder: The run's checkpoint folder.
        fits: Raises a CheckpointError for a checkpoint that cannot be used; the one before it is tried.

    Raises:
        CheckpointError: If checkpoints exist and every one is damaged, or none fits: then as `fits` says of the newest.
    """
    damaged, unfit = [], []
    for step in reversed(steps(folder)):
        try:
            found = load(folder / f"step-{step}")
        except CheckpointError as error:
            damaged.append(str(error))
            warnings.warn(f"DAMAGED CHECKPOINT passed over: {error} Taking the one before it.", stacklevel=2)
            continue
        try:
            fits(found)
        except CheckpointError as error:
            unfit.append(error)
            continue
        for said in unfit:
            warnings.warn(f"CHECKPOINT THAT DOES NOT FIT passed over: {said} Taking {found.path.name}.", stacklevel=2)
        return found
    if unfit:
        raise unfit[0]
    if damaged:
        raise CheckpointError(f"Every checkpoint in {folder} is damaged: " + " ".join(damaged))
    return None


def latest_of(ranks: Ranks, folder: Path, fits: Callable[[Checkpoint], None] = holding()) -> Checkpoint | None:
    """Return the newest whole checkpoint on every rank; the first alone reads it, so all have the same one.

    Arguments:
        ranks: Of the run; all of them call this.
        folder: As the first rank sees it.
        fits: As for `latest`; called on the first rank alone.
    """
    found = latest(folder, fits=fits) if ranks.first else None
    path, state = ranks.from_first((None, {}) if found is None else (found.path, dict(found.state)))
    tensors = ranks.tensors_from_first(None if found is None else found.tensors)
    return None if path is None or tensors is None else Checkpoint(path, tensors, state)


def write_json(path: Path, value: Any) -> None:
    """Write JSON and flush it to disk."""
    path.write_text(json.dumps(value, indent=1))
    flush(path)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
