"""Rows of numbers that arrive in blocks, on disk: memory does not grow with their number, and a kill loses one block.

    rows.bin        n rows of one width, each block at its own place, so blocks may come in any order
    blocks.jsonl    one line per block that is whole: first row, last row, checksum, what else is known of it

A block counts once its line is complete; the line is written after the rows.  When rows are opened again each block's
checksum is compared, and what does not match is made again.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.reading import read_lines
from sfumato.core.writing import naming
from sfumato.runs.records import append_record


class Rows:
    """An array (n, width) on disk that is filled block by block.

    Arguments:
        folder: Where it lies; made if missing.
        n: Number of rows.
        width: Numbers in a row.
        dtype: float32 or uint8.
    """

    def __init__(self, folder: Path, n: int, width: int, dtype: str = "float32"):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.n, self.width, self.dtype = folder, n, width, np.dtype(dtype)
        self._file, self._list = folder / "rows.bin", folder / "blocks.jsonl"
        self.blocks: dict[tuple[int, int], dict[str, Any]] = {}
        for facts in read_lines(self._list, whole=False):
            try:
                span = (int(facts.pop("start")), int(facts.pop("stop")))
                if zlib.crc32(self._bytes(span)) == facts.pop("crc32"):
                    self.blocks[span] = facts
            except (ValueError, KeyError, TypeError, OSError):
                continue  # the last line of a killed process

    def _bytes(self, span: tuple[int, int]) -> bytes:
        size = self.width * self.dtype.itemsize
        with self._file.open("rb") as file:
            file.seek(span[0] * size)
            return file.read((span[1] - span[0]) * size)

    def write(self, start: int, rows: np.ndarray, **facts: Any) -> None:
        """Write a block that begins at row `start`, with JSON facts about it."""
        data = np.ascontiguousarray(rows, self.dtype).reshape(len(rows), self.width).tobytes()
        with naming(self._file), self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.seek(start * self.width * self.dtype.itemsize)
            file.write(data)
        append_record(self._list, {"start": start, "stop": start + len(rows), "crc32": zlib.crc32(data), **facts})
        self.blocks[(start, start + len(rows))] = facts

    def array(self) -> np.ndarray:
        """Return all rows as an array (n, width) that is read from disk where it is used.

        Raises:
            ValueError: If blocks are missing.
        """
        done = sum(stop - start for start, stop in self.blocks)
        if done != self.n:
            raise ValueError(f"{done} of {self.n} rows in {self.folder} are made; the others are missing.")
        return np.memmap(self._file, self.dtype, "r", shape=(self.n, self.width))
