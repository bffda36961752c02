"""The file of a coded batch of images: a header, then sections that each stand on their own.

    header    magic, version, flags, model, seed, shape, grid, labels, codec options, crc32
    section   length (4 bytes), steps (1), check of these (1), payload, crc32 of the payload

A section covers whole steps, so a file cut anywhere decodes up to its last whole section: a coarser picture, not an
error. A file that was changed is an error: its checksum says so. A file made with another model is refused before
anything runs, for the header carries 64 bits of the model's identity.

Grids are stored as float32 pairs and the sender walks the stored ones, so both sides walk the same levels.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfumato.core.denoiser import NULL
from sfumato.core.level import Level
from sfumato.likelihood.channel import MAX_SEARCH

MAGIC = b"sfumato\x00"
VERSION = 1
LOSSLESS, LABELLED, EXACT = 1, 2, 4
_FIXED = struct.Struct("<8sBB8sQIHIIHB")
_SECTION = struct.Struct("<IBB")
MAX_ELEMENTS = 1 << 30  # of a batch; a header that claims more is not believed


class CorruptFileError(ValueError):
    """The file is not a whole, unchanged file of this format."""


class WrongModelError(ValueError):
    """The file was made with another model."""


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of a module's weights: names, types, shapes and values, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def stored(grid: Level) -> Level:
    """Return the grid as a file holds it: rounded to float32."""
    return Level(grid.alpha.float().double(), grid.sigma.float().double())


@dataclass(frozen=True, eq=False)
class Header:
    """What a receiver must know before the first step.

    Attributes:
        model: Identity of the model, any text (e.g. `fingerprint`); the file keeps 64 bits of its SHA-256.
        seed: Of all shared randomness, in [0, 2^64).
        shape: (B, C, H, W).
        grid: As stored, noisy to clean, shape (N + 1,).
        label: int64 (B,), or None.
        lossless: Whether the pixel codes follow the last step.
        rule: Of the channel, "greedy" or "exact".
        search: Limit of log2 of the candidates.
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
        fixed = (MAGIC, VERSION, flags, _short(self.model), self.seed, *self.shape)
        body = _FIXED.pack(*fixed, len(self.grid), self.search)
        pairs = torch.stack((self.grid.alpha, self.grid.sigma), 1).float().numpy()
        body += pairs.astype("<f4").tobytes()
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
        end = _FIXED.size + 8 * levels + (4 * b if flags & LABELLED else 0)
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
        pairs = torch.frombuffer(bytearray(data[_FIXED.size : _FIXED.size + 8 * levels]), dtype=torch.float32)
        alpha, sigma = pairs.reshape(levels, 2).double().unbind(1)
        label = None
        if flags & LABELLED:
            label = torch.frombuffer(bytearray(data[end - 4 * b : end]), dtype=torch.int32).long()
        rule = "exact" if flags & EXACT else "greedy"
        header = cls(model, seed, (b, c, h, w), Level(alpha, sigma), label, bool(flags & LOSSLESS), rule, search)
        return header, end + 4

    def __post_init__(self) -> None:
        if self.label is not None and not bool((self.label >= NULL).all()):
            raise ValueError(f"Labels are classes >= 0 or {NULL} for none; got {int(self.label.min())}.")


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
        data: The file.
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
