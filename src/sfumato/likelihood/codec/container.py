"""The file of a coded batch of images: a header, then sections that each stand on their own.

    header    magic, version, flags, model, seed, shape, grid, labels, codec options, crc32
    section   length (4 bytes), steps (1), check of these (1), payload, crc32 of the payload

A section covers whole steps, so a file cut anywhere decodes up to its last whole section: a coarser picture, not an
error. A file that was changed is an error: its checksum says so. A file made with another model is refused before
anything runs, for the header carries 64 bits of the model's identity.

A grid whose levels stand on a `ladder`, sigma / alpha = 2^(k / 8) on one of three paths, is stored as the steps of k, a
byte a level; any other as float32 pairs. The sender walks the stored grid, so sender and receiver walk the same levels.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfumato.core.denoiser import NULL
from sfumato.core.gauge import Gauge, flow, ve, vp
from sfumato.core.level import Level
from sfumato.core.weights import hash_tensors
from sfumato.likelihood.codec.channel import MAX_SEARCH

MAGIC = b"sfumato\x00"
VERSION = 1
LOSSLESS, LABELLED, EXACT, LADDER = 1, 2, 4, 8
RUNGS = 8  # of a ladder, per octave of sigma / alpha
PATHS: tuple[Gauge, ...] = (ve, flow, vp)  # in the order of their number in a file
_FIXED = struct.Struct("<8sBB8sQIHIIHB")
_FIRST = struct.Struct("<Bh")  # path and first rung of a ladder
_SECTION = struct.Struct("<IBB")
MAX_ELEMENTS = 1 << 30  # of a batch; a header that claims more is not believed


class CorruptFileError(ValueError):
    """The file is not a whole, unchanged file of this format."""


class WrongModelError(ValueError):
    """The file was made with another model."""


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of a module's weights: names, types, shapes and values, in order of name."""
    return hash_tensors(module.state_dict())


def ladder(path: Gauge, rungs: Sequence[int]) -> Level:
    """Return the grid with sigma / alpha = 2^(k / 8) at rungs k on a path, then clean; shape (len(rungs) + 1,).

    >>> ladder(ve, [16, 0, -8]).nsr.tolist()
    [4.0, 1.0, 0.5, 0.0]
    """
    nsr = torch.exp2(torch.tensor(list(rungs), dtype=torch.float64) / RUNGS)
    noisy = path.at(path.where(Level(torch.ones_like(nsr), nsr))[1])
    return Level(torch.cat((noisy.alpha, torch.ones(1))), torch.cat((noisy.sigma, torch.zeros(1))))


def _rungs(grid: Level) -> tuple[int, list[int]] | None:
    """Return (number of the path, rungs) of a grid on a ladder, or None."""
    if float(grid.sigma[-1]) != 0 or not bool((grid.alpha[:-1] > 0).all() and (grid.sigma[:-1] > 0).all()):
        return None
    rungs = (RUNGS * torch.log2(grid.nsr[:-1])).round().long().tolist()
    fits = abs(rungs[0]) < 1 << 15 and all(0 < a - b < 256 for a, b in zip(rungs, rungs[1:]))
    for number, path in enumerate(PATHS if fits else ()):
        own = ladder(path, rungs)
        if torch.allclose(own.alpha, grid.alpha, 1e-12, 0) and torch.allclose(own.sigma, grid.sigma, 1e-12, 0):
            return number, rungs
    return None


def stored(grid: Level) -> Level:
    """Return the grid as a file holds it: a ladder as it is, any other rounded to float32."""
    if (found := _rungs(grid)) is not None:
        return ladder(PATHS[found[0]], found[1])
    return Level(grid.alpha.float().double(), grid.sigma.float().double())


@dataclass(frozen=True, eq=False)
class Header:
    """The facts that a receiver needs before the first step.

    Attributes:
        model: Identity of the model, any text (e.g. `fingerprint`); the file keeps 64 bits of its SHA-256.
        seed: Seed of all shared randomness, in [0, 2^64).
        shape: Shape of the batch, (B, C, H, W).
        grid: Levels as stored, from noisy to clean, shape (N + 1,).
        label: int64 (B,), or None.
        lossless: Whether the pixel codes follow the last step.
        rule: How the sender chooses a candidate, "greedy" or "exact".
        search: log2 of the largest number of candidates.
    """

    model: str
    seed: int
    shape: tuple[int, int, int, int]
    grid: Level
    label: Tensor | None
    lossless: bool
    rule: str
    search: int

    def pack(self) -> bytes:
        """Return the header's bytes, checksum included."""
        flags = LOSSLESS * self.lossless | LABELLED * (self.label is not None) | EXACT * (self.rule == "exact")
        rungs = _rungs(self.grid)
        flags |= LADDER * (rungs is not None)
        fixed = (MAGIC, VERSION, flags, _short(self.model), self.seed, *self.shape)
        body = _FIXED.pack(*fixed, len(self.grid), self.search)
        if rungs is not None:
            number, steps = rungs
            body += _FIRST.pack(number, steps[0]) + bytes(a - b for a, b in zip(steps, steps[1:]))
        else:
            body += torch.stack((self.grid.alpha, self.grid.sigma), 1).float().numpy().astype("<f4").tobytes()
        if self.label is not None:
            body += self.label.cpu().numpy().astype("<i4").tobytes()
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def unpack(cls, data: bytes, model: str) -> tuple[Header, int]:
        """Read a header and return it with the offset of the first section.

        Raises:
            CorruptFileError: If these are not the bytes of a header.
            WrongModelError: If the file was made with another model.
        """
        if data[: len(MAGIC)] != MAGIC[: len(data)]:
            raise CorruptFileError(f"Not a sfumato image file: it starts with {data[:8]!r}, not {MAGIC!r}.")
        if len(data) < _FIXED.size:
            raise CorruptFileError(f"The file ends within its header ({len(data)} bytes); nothing can be decoded.")
        magic, version, flags, short, seed, b, c, h, w, levels, search = _FIXED.unpack_from(data)
        if version != VERSION:
            raise CorruptFileError(f"This is version {version} of the format and this program reads version {VERSION}.")
        size = _FIRST.size + max(0, levels - 2) if flags & LADDER else 8 * levels
        end = _FIXED.size + size + (4 * b if flags & LABELLED else 0)
        if b * c * h * w > MAX_ELEMENTS:
            raise CorruptFileError(f"The header claims {b} images of {c} x {h} x {w}: over {MAX_ELEMENTS} numbers.")
        if len(data) < end + 4:
            raise CorruptFileError(f"The file ends within its header ({len(data)} of {end + 4} bytes).")
        if zlib.crc32(data[:end]) != struct.unpack_from("<I", data, end)[0]:
            raise CorruptFileError("The header's checksum is wrong: the file was changed or damaged.")
        if levels < 3 or not 1 <= search <= MAX_SEARCH:
            raise CorruptFileError(f"The header holds {levels} levels and search {search}; no encoder writes that.")
        if short != _short(model):
            raise WrongModelError(
                f"The file was made with model {short.hex()} and this one is {_short(model).hex()}. "
                "Decode it with the checkpoint that encoded it."
            )
        grid = _read_grid(data[_FIXED.size : _FIXED.size + size], bool(flags & LADDER))
        label = None
        if flags & LABELLED:
            label = torch.frombuffer(bytearray(data[end - 4 * b : end]), dtype=torch.int32).long()
        rule = "exact" if flags & EXACT else "greedy"
        header = cls(model, seed, (b, c, h, w), grid, label, bool(flags & LOSSLESS), rule, search)
        return header, end + 4

    def __post_init__(self) -> None:
        if self.label is not None and not bool((self.label >= NULL).all()):
            raise ValueError(f"Labels are classes >= 0 or {NULL} for none; got {int(self.label.min())}.")


def _read_grid(data: bytes, on_ladder: bool) -> Level:
    if not on_ladder:
        alpha, sigma = torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(-1, 2).double().unbind(1)
        grid = Level(alpha, sigma)
    else:
        number, rung = _FIRST.unpack_from(data)
        if number >= len(PATHS):
            raise CorruptFileError(f"The header names path {number}; no encoder writes that.")
        rungs = [rung]
        for step in data[_FIRST.size :]:
            rungs.append(rungs[-1] - step)
        grid = ladder(PATHS[number], rungs)
    descends = bool((grid.nsr.diff() < 0).all()) and float(grid.sigma[-1]) == 0
    if not (descends and bool(grid.alpha.isfinite().all() and grid.sigma.isfinite().all())):
        raise CorruptFileError("The header's levels do not run from noisy to clean; no encoder writes that.")
    return grid


def _short(model: str) -> bytes:
    return hashlib.sha256(model.encode()).digest()[:8]


class Section(NamedTuple):
    """Whole steps of a file: how many, and their coded bytes."""

    steps: int
    payload: bytes

    def pack(self) -> bytes:
        """Return the section's bytes, checks included."""
        head = struct.pack("<IB", len(self.payload), self.steps)
        return head + bytes([zlib.crc32(head) & 0xFF]) + self.payload + struct.pack("<I", zlib.crc32(self.payload))


def sections(data: bytes, start: int) -> Iterator[Section]:
    """Yield the whole sections of a file that may have been cut.

    Arguments:
        data: The bytes of the file.
        start: Offset of the first section.

    Raises:
        CorruptFileError: If a whole section does not match its checksum.
    """
    number = 0
    while start + _SECTION.size <= len(data):
        length, steps, check = _SECTION.unpack_from(data, start)
        if zlib.crc32(data[start : start + _SECTION.size - 1]) & 0xFF != check or steps == 0:
            raise CorruptFileError(f"The head of section {number} is damaged: the file was changed.")
        body = start + _SECTION.size
        if body + length + 4 > len(data):
            return
        payload = data[body : body + length]
        if zlib.crc32(payload) != struct.unpack_from("<I", data, body + length)[0]:
            raise CorruptFileError(f"The checksum of section {number} is wrong: the file was changed or damaged.")
        yield Section(steps, payload)
        start, number = body + length + 4, number + 1
