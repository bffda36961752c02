"""Files that anyone may have written, read within bounds: the one reader of text and of JSON.

What a file claims decides neither what is opened nor how much time and memory are spent:

    kind        a pipe, a device or a folder is refused before a byte of it is read
    bytes       a file has at most so many
    entries     JSON has at most so many, counted before anything is built of them
    depth       at most `DEPTH` lists and objects stand inside each other
    keys        none stands twice in one object of JSON
    numbers     each has at most `DIGITS` characters, and is finite unless our own files may hold others there
    text        is UTF-8 and can be written again

Archives and arrays are read by `core.archives`, tensors by `core.weights`, pickles by `data.pickles`, images by
`data.decoding`; each bounds what it unpacks.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BYTES = 64 << 20
"""The most bytes of a file of text: 64 MiB."""
ENTRIES = 1_000_000
"""The most entries of a JSON text; each costs up to 250 bytes of memory."""
DEPTH = 64
"""The most lists and objects of a JSON text that stand inside each other."""
DIGITS = 40
"""The most characters of a number."""

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class FileRefusedError(ValueError):
    """A file that is not what it should be, or more than is read."""


Error = type[ValueError]


def read_bytes(path: Path | str, most: int = BYTES, error: Error = FileRefusedError) -> bytes:
    """Read a regular file whole.

    Arguments:
        path: The file; links are followed.
        most: The most bytes that it may have.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, if it is no regular file or too large.
        OSError: If it is missing or may not be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            found = KINDS.get(stat.S_IFMT(about.st_mode), "something else")
            raise error(f"{path} must be a file; it is {found}.")
        if about.st_size <= most:
            with os.fdopen(os.dup(handle), "rb") as file:
                content = file.read(min(most, max(about.st_size, 1 << 16)) + 1)  # allocates what it is asked for
            if len(content) <= most:
                return content
        raise error(f"{path} has {about.st_size:,} bytes, and at most {most:,} are read.")
    finally:
        os.close(handle)


def read_text(path: Path | str, most: int = BYTES, error: Error = FileRefusedError) -> str:
    """Read a regular file of UTF-8 text; arguments and errors as for `read_bytes`."""
    return _decoded(read_bytes(path, most, error), str(path), error)


def read_json(
    path: Path | str, *, kind: type[Any] = dict, finite: bool = True, most: int = BYTES, error: Error = FileRefusedError
) -> Any:
    """Read a JSON file.

    Arguments:
        path: Path of the file.
        kind: Type of the outermost value: dict, list or object (any).
        finite: Whether NaN and infinity are refused.
        most: The most bytes that it may have.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, naming the file and what is wrong with it.
        OSError: If it is missing or may not be read.
    """
    content = read_bytes(path, most, error)
    return parse_json(content, str(path), kind=kind, finite=finite, error=error)


def parse_json(
    text: str | bytes,
    what: str,
    *,
    kind: type[Any] = dict,
    finite: bool = True,
    entries: int = ENTRIES,
    error: Error = FileRefusedError,
) -> Any:
    """Return the value of a JSON text; errors as for `read_json`.

    Arguments:
        text: JSON, in UTF-8 if it is bytes.
        what: What messages call it.
        kind, finite, error: The same as in `read_json`.
        entries: The most entries that it may have.

    >>> parse_json('{"a": [1, 2.5, null]}', "It")
    {'a': [1, 2.5, None]}
    """
    text = _decoded(text, what, error) if isinstance(text, bytes) else text
    if not isinstance(text, str):
        raise error(f"{what} must be text; got {repr(text)[:60]}.")
    count = text.count(",") + text.count("[") + text.count("{")
    if count > entries:
        raise error(f"{what} has about {count:,} entries, and at most {entries:,} are read.")
    try:
        numbers: dict[str, Any] = {"parse_int": _whole, "parse_float": _number(finite)}
        tree = json.loads(text, object_pairs_hook=_once, parse_constant=_number(finite), **numbers)
        _check_depth(tree)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(tree, ensure_ascii=False).encode()  # half of a character cannot be written again
    except RecursionError:
        raise error(
            f"{what} is nested too deeply; at most {DEPTH} lists and objects stand inside each other."
        ) from None
    except UnicodeEncodeError:
        raise error(f"{what} holds half of a character.") from None
    except ValueError as reason:
        raise error(f"{what} is not JSON that can be read: {str(reason)[:200]}.") from None
    if not isinstance(tree, kind):
        raise error(f"{what} must hold a JSON {'object' if kind is dict else 'list'}; got {repr(tree)[:60]}.")
    return tree


def read_lines(path: Path | str, *, whole: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with one a line, as logs are; a line that cannot be read is passed over.

    Arguments:
        path: The file; one that is missing has no lines.
        whole: Whether a last line without its end is passed over as well: its writer may still be at it.

    Raises:
        FileRefusedError: If it is no regular file or too large.
    """
    if not os.path.exists(path):
        return
    for line in read_bytes(path, 4 * BYTES).splitlines(keepends=True):
        if whole and not line.endswith(b"\n"):
            continue
        try:
            yield parse_json(line, "The line", finite=False)
        except FileRefusedError:
            continue


@contextmanager
def as_written(what: str, remedy: str) -> Iterator[None]:
    """Raise what values of another kind than was written lead to as an error that names the file.

    Arguments:
        what: The file, or files, in words.
        remedy: What to do, a sentence.
    """
    try:
        yield
    except (TypeError, LookupError, AttributeError, ArithmeticError) as reason:
        told = f"{type(reason).__name__}: {str(reason)[:100]}"
        raise FileRefusedError(f"{what} holds values of another kind than was written ({told}). {remedy}") from reason


def with_a_name(path: Path) -> Path:
    """Return a path whose last part is a name, from which others can be made: "." and ".." are written out."""
    return path if path.name.strip(".") else path.resolve()


def plain_name(name: object) -> bool:
    """Return whether a file may call a file beside itself by a name: no path, no way out, nothing that is not shown.

    >>> plain_name("state.json"), plain_name("../x"), plain_name("/dev/zero"), plain_name("")
    (True, False, False, False)
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name.isprintable()
        and not any(c in name for c in "/\\:")
        and name not in (".", "..")
    )


def _decoded(content: bytes, what: str, error: Error) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{what} is not text in UTF-8: byte {reason.start:,} cannot be read.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, in which no key stands twice: which of the two was meant, nobody knows."""
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        twice = next(key for key, count in times.items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return found


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _number(finite: bool) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if finite and not math.isfinite(value):
            raise ValueError(f"a number that is not finite ({text[:20]})")
        return value

    return read


def _check_depth(tree: Any) -> None:
    """Raise a RecursionError if more than `DEPTH` containers stand inside each other."""
    level = [tree]
    for _ in range(DEPTH + 1):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        if not inner:
            return
        level = [value for values in inner for value in values]
    raise RecursionError
