"""Changes made at random to bytes, JSON, archives and files, and pictures that claim too much."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import random
import struct
import zipfile
import zlib
from copy import deepcopy
from pathlib import Path
from typing import Any

NUMBERS = [0, -1, 1, 2, 7, 0.5, 1e-300, 1e308, -1e308, 2**31, 2**63, 2**64, 10**12, 10**30, math.inf, math.nan]
VALUES = [*NUMBERS, None, True, "", "x", "../../x", "/dev/zero", "\ud800", "\0", "é" * 300, [], {}, [[]], {"a": 1},
          "os:system", "a" * 100_000, ["heun"], [1, 2], [0] * 50]  # fmt: skip


def changed_bytes(content: bytes, r: random.Random) -> bytes:
    """Return bytes with some cut, flipped, doubled, exchanged or put between."""
    data = bytearray(content)
    for _ in range(r.choice([1, 1, 2, 8])):
        if not data:
            break
        at = r.randrange(len(data)) if r.random() < 0.5 else r.randrange(min(len(data), 300))
        match r.randrange(6):
            case 0:
                del data[at:]
            case 1:
                data[at] ^= 1 << r.randrange(8)
            case 2:
                data[at] = r.randrange(256)
            case 3:
                data[at:at] = r.randbytes(r.choice([1, 8, 1000]))
            case 4:
                data[at : at + 8] = struct.pack("<Q", r.choice([0, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1]))
            case 5:
                del data[at : at + r.choice([1, 4, 64])]
    return bytes(data)


def changed_tree(tree: Any, r: random.Random) -> Any:
    """Return JSON with a value or a key exchanged, dropped, doubled or nested."""
    tree = json.loads(json.dumps(tree))
    for _ in range(r.choice([1, 1, 2])):
        spots: list[tuple[Any, Any]] = []
        todo = [tree]
        while todo:
            node = todo.pop()
            keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
            for key in keys:
                spots.append((node, key))
                todo.append(node[key])
        if not spots:
            return deepcopy(r.choice(VALUES))
        node, key = r.choice(spots)
        match r.randrange(6):
            case 0 | 1 | 2:
                node[key] = deepcopy(r.choice(VALUES))
            case 3:
                del node[key]
            case 4:
                other, another = r.choice(spots)
                with contextlib.suppress(LookupError):
                    node[key] = json.loads(json.dumps(other[another]))
            case 5:
                if isinstance(node, dict):
                    node[r.choice(["x", "", "\ud800", "a" * 5000, "room", "axis", "__class__"])] = deepcopy(
                        r.choice(VALUES)
                    )
                else:
                    node.insert(0, deepcopy(r.choice(VALUES)))
    return tree


TEXTS = [b"", b"null", b"[]", b"3", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000,
         b"1" * 5000, b"NaN", b'{"recipe": 1e999}', b"\0" * 100, b"[" + b"[]," * 400_000 + b"[]]"]  # fmt: skip


def changed_json(file: Path, r: random.Random) -> None:
    """Change a JSON file as a tree, as bytes, or for another one."""
    content = file.read_bytes()
    kind = r.random()
    if kind < 0.7:
        text = json.dumps(changed_tree(json.loads(content), r))
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    else:
        file.write_bytes(changed_bytes(content, r) if kind < 0.9 else r.choice(TEXTS))


def changed_kind(file: Path, r: random.Random) -> None:
    """Put a pipe, a folder, a device or nothing where a file was."""
    file.unlink()
    match r.randrange(5):
        case 0:
            os.mkfifo(file)
        case 1:
            file.mkdir()
        case 2:
            file.symlink_to("/dev/zero")
        case 3:
            file.symlink_to(file.name)
        case 4:
            pass


def changed_zip(file: Path, r: random.Random) -> None:
    """Change an archive: an entry's name or content, or its bytes."""
    if r.random() < 0.5:
        file.write_bytes(changed_bytes(file.read_bytes(), r))
        return
    with zipfile.ZipFile(file) as archive:
        entries = [(e.filename, archive.read(e)) for e in archive.infolist()]
    i = r.randrange(len(entries))
    name, content = entries[i]
    match r.randrange(5):
        case 0:
            entries[i] = (r.choice(["../out.png", "/tmp/out.npy", "a/../../b", "images.npy", "dataset.json"]), content)
        case 1 | 2:
            entries[i] = (name, changed_bytes(content, r))
        case 3:
            entries[i] = (name, content[:128] + bytes(40 << 20))
        case 4:
            del entries[i]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in entries:
            archive.writestr(name, content)


def png(r: random.Random, side: int = 8) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.frombytes("L", (side, side), r.randbytes(side * side)).save(out, "PNG")
    return out.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A small file that announces a large picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def settle(folder: Path) -> None:
    """Make a manifest agree with the files that were changed, so that the change is read."""
    if not all(file.is_file() and not file.is_symlink() for file in folder.iterdir()):
        return
    tree = json.loads((folder / "MANIFEST.json").read_text())
    for name in tree["files"]:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            tree["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps(tree))
