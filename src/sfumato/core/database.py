"""Check the pages of an LMDB file before the library maps them.

The library trusts what it maps: a page number beyond the end of the file ends the process (a bus error), and one that
points into the middle of something reads what is not meant. So every page that a reader can come to is walked here
first: it lies inside the file, is of the kind that its parent says, is met once, and its entries lie inside it.

    page     number (8 bytes), unused (2), kind (2), end of the pointers (2), begin of the entries (2), pointers
    entry    low, high and top bits of a size or a child's number (2 each), length of the key (2), key, value

References:
    LMDB, Howard Chu, 2011, https://www.symas.com/lmdb, libraries/liblmdb/mdb.c: struct MDB_page, MDB_node, MDB_meta
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from sfumato.core.reading import Error

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, OVERFLOW = 1, 2, 4
BIG, NONE = 1, (1 << 64) - 1
_PAGE, _ENTRY = struct.Struct("<QHHHH"), struct.Struct("<HHHH")
DEEPEST = 32


def check_pages(file: Path, error: Error) -> None:
    """Refuse a database whose pages do not hang together.

    Arguments:
        file: Path of data.mdb.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, if it is cut short, damaged or no such file.
    """
    size = file.stat().st_size if file.is_file() else 0
    if size < 2 * 512:
        raise error(f"{file} is not a database: it has {size:,} bytes.")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            _walk(content)
        except (ValueError, struct.error) as reason:
            raise error(f"{file} is not a whole database: {reason}. Copy or make it again.") from None


def _meta(content: mmap.mmap, start: int) -> tuple[int, int, int, int, int] | None:
    """Return (transaction, bytes of a page, last page, root, flags) of a meta page; None if it is none."""
    if len(content) < start + 152 or struct.unpack_from("<II", content, start + 16) != (MAGIC, VERSION):
        return None
    (page,), (flags,) = struct.unpack_from("<I", content, start + 40), struct.unpack_from("<H", content, start + 92)
    root, last, transaction = struct.unpack_from("<QQQ", content, start + 128)
    return transaction, page, last, root, flags


def _walk(content: mmap.mmap) -> None:
    first = _meta(content, 0)
    if first is None or first[1] not in {1 << k for k in range(9, 17)}:
        raise ValueError("its first page is damaged, or of another version")
    metas = [meta for meta in (first, _meta(content, first[1])) if meta is not None]
    if len(metas) < 2 or metas[1][1] != first[1]:
        raise ValueError("its second page is damaged")
    for _, size, last, _root, flags in metas:  # the library takes the newer one, or the other if that is torn
        if (last + 1) * size > len(content):
            raise ValueError(f"it has {len(content):,} bytes where its pages take {(last + 1) * size:,}")
        if flags & ~8:
            raise ValueError("its keys are not plain ones")
    _, size, last, root, _ = max(metas)
    seen, todo = set(), [] if root == NONE else [(root, 1)]
    while todo:
        number, depth = todo.pop()
        if number in seen or not 2 <= number <= last or depth > DEEPEST:
            raise ValueError(f"page {number} is met twice, or lies outside")
        seen.add(number)
        todo += [(child, depth + 1) for child in _children(content, number, size, last)]


def _children(content: mmap.mmap, number: int, size: int, last: int) -> list[int]:
    """Return the pages below a page, after checking its entries."""
    start = number * size
    own, _, kind, lower, upper = _PAGE.unpack_from(content, start)
    if own != number or kind & ~16 not in (BRANCH, LEAF) or lower % 2 or not 16 <= lower <= upper <= size:
        raise ValueError(f"page {number} is damaged")
    children = []
    for pointer in struct.unpack_from(f"<{(lower - 16) // 2}H", content, start + 16):
        if not upper <= pointer <= size - 8:
            raise ValueError(f"an entry of page {number} lies outside it")
        low, high, flags, key = _ENTRY.unpack_from(content, start + pointer)
        if kind & BRANCH:
            children.append(low | high << 16 | flags << 32)
            value = 0
        elif flags & BIG:
            value = 8
        else:
            value = low | high << 16
        if pointer + 8 + key + value > size or (kind & LEAF and flags & ~BIG):
            raise ValueError(f"an entry of page {number} is longer than the page, or no plain one")
        if kind & LEAF and flags & BIG:
            _check_overflow(
                content, struct.unpack_from("<Q", content, start + pointer + 8 + key)[0], size, last, low | high << 16
            )
    if kind & BRANCH and len(children) < 2:
        raise ValueError(f"page {number} has {len(children)} pages below it")
    return children


def _check_overflow(content: mmap.mmap, number: int, size: int, last: int, length: int) -> None:
    """Refuse a value of its own pages that does not lie in them."""
    pages = -(-(16 + length) // size)
    if not 2 <= number <= last - pages + 1:
        raise ValueError(f"a value of {length:,} bytes lies outside it")
    own, _, kind, low, high = _PAGE.unpack_from(content, number * size)
    if own != number or not kind & OVERFLOW or (low | high << 16) < pages:
        raise ValueError(f"page {number} is damaged")
