"""Every reader of a file is bounded: by kind, bytes, entries, depth, digits and what it unpacks."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sfumato.core.archives import open_zip, opened, read_npz
from sfumato.core.database import check_pages
from sfumato.core.reading import (
    DEPTH,
    DIGITS,
    FileRefusedError,
    parse_json,
    plain_name,
    read_bytes,
    read_json,
    read_lines,
)
from sfumato.core.weights import read_tensors


def fifo(path: Path) -> None:
    os.mkfifo(path)


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (fifo, "it is a pipe"),
    "folder": (Path.mkdir, "it is a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_only_a_regular_file_is_read(name: str, tmp_path: Path) -> None:
    make, words = SPECIAL[name]
    make(tmp_path / "x")
    with pytest.raises(FileRefusedError, match=words):
        read_bytes(tmp_path / "x")
    for reader in (read_tensors, lambda path: read_npz(path, most=1), open_zip):
        with pytest.raises(FileRefusedError):
            reader(tmp_path / "x")


def test_a_file_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1" * 100)
    assert len(read_bytes(tmp_path / "x", 100)) == 100
    with pytest.raises(FileRefusedError, match="100 bytes, and at most 99"):
        read_bytes(tmp_path / "x", 99)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "absent")


REFUSED = {
    "[" * (DEPTH + 1) + "]" * (DEPTH + 1): "nested too deeply",
    "[" * 100_000: "nested too deeply",
    "9" * (DIGITS + 1): "a number of 41 digits",
    "9" * 10_000: "a number of 10,000 digits",
    '{"a": NaN}': "not finite",
    '{"a": -1e999}': "not finite",
    '"\\ud800"': "half of a character",
    "[1": "not JSON",
    "": "not JSON",
    '[{"steps": 4, "a": {"steps": 3}, "steps": 2}]': "the key 'steps' stands twice",
    "[" + "[]," * 1_000_000 + "1]": "about 2,000,001 entries",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:12] or "empty")
def test_json_is_bounded(text: str, tmp_path: Path) -> None:
    with pytest.raises(FileRefusedError, match=REFUSED[text]):
        parse_json(text, "It", kind=object)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileRefusedError, match=f"x.json.*{REFUSED[text]}"):
        read_json(tmp_path / "x.json", kind=object)


def test_json_of_the_wrong_kind_is_refused_and_what_fits_is_read() -> None:
    with pytest.raises(FileRefusedError, match="must hold a JSON object; got"):
        parse_json("[]", "It")
    with pytest.raises(FileRefusedError, match="not text in UTF-8"):
        parse_json(b"\xff", "It")
    deep = "[" * DEPTH + "]" * DEPTH
    assert json.dumps(parse_json(deep, "It", kind=list)) == deep
    assert math.isinf(parse_json('{"a": Infinity}', "It", finite=False)["a"])
    assert parse_json("9" * DIGITS, "It", kind=int) == 10**DIGITS - 1


def test_a_damaged_line_of_a_log_costs_that_line(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"a": 1}\nhello\n[1]\n\xff\n' + b"[" * 10_000 + b'\n{"a": 2}\n{"a": 3')
    assert list(read_lines(file)) == [{"a": 1}, {"a": 2}]
    assert list(read_lines(tmp_path / "absent")) == []


def test_names_beside_a_file_are_plain() -> None:
    for name in ("..", ".", "", "/dev/zero", "../x", "a/b", "a\\b", "c:x", "a\nb", "a\0", "x" * 300, 3, None):
        assert not plain_name(name), name


# what is unpacked


def test_an_array_that_unpacks_to_far_more_is_not_unpacked(tmp_path: Path) -> None:
    file, size = tmp_path / "bomb.npz", 300 << 20
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("images.npy", "w", force_zip64=True) as entry:
        entry.write(head.getvalue())
        for _ in range(30):
            entry.write(bytes(10 << 20))
    began = time.process_time()
    with pytest.raises(FileRefusedError, match="more than 100 times"):
        read_npz(file, ("images",), most=1 << 35)
    assert time.process_time() - began < 1


def test_an_archive_of_too_many_files_is_not_listed(tmp_path: Path) -> None:
    file = tmp_path / "many.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(50):
            archive.writestr(f"{i}.npy", b"")
    with opened(file, files=50) as archive:
        assert len(archive.namelist()) == 50
    with pytest.raises(FileRefusedError, match="holds 50 files, and at most 49"):
        open_zip(file, files=49)


def test_arrays_of_objects_and_shapes_that_lie_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(FileRefusedError, match="objects of Python"):
        read_npz(tmp_path / "objects.npz", most=1 << 20)
    np.savez(tmp_path / "two.npz", a=np.zeros(100, np.uint8), b=np.zeros(100, np.uint8))
    assert set(read_npz(tmp_path / "two.npz", most=200)) == {"a", "b"}
    with pytest.raises(FileRefusedError, match="at most 99 are read"):
        read_npz(tmp_path / "two.npz", most=199)


def test_a_million_tensors_are_refused_in_a_moment(tmp_path: Path) -> None:
    file = tmp_path / "many.safetensors"
    names = {f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(21_000)}
    head = json.dumps(names, separators=(",", ":")).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head)
    began = time.process_time()
    with pytest.raises(FileRefusedError, match="21,000 tensors, and at most 20,000"):
        read_tensors(file)
    file.write_bytes(struct.pack("<Q", 80 << 20) + b" " * 100)
    with pytest.raises(FileRefusedError, match="its header claims"):
        read_tensors(file)
    assert time.process_time() - began < 5
    save_file({"a": torch.arange(3)}, file)
    assert read_tensors(file)["a"].tolist() == [0, 1, 2]


def test_a_database_that_is_cut_short_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for i in range(300):
            transaction.put(b"%05d" % i, bytes(20 if i % 2 else 5000))
    file = tmp_path / "db" / "data.mdb"
    check_pages(file, FileRefusedError)
    content = file.read_bytes()
    for length in (0, 100, 4096, 8192, len(content) - 4096):
        file.write_bytes(content[:length])
        with pytest.raises(FileRefusedError, match="not a"):
            check_pages(file, FileRefusedError)
    broken = bytearray(content)
    for page in range(2, len(content) // 4096):
        broken[4096 * page + 12 : 4096 * page + 14] = b"\xff\xff"  # where its pointers end
    file.write_bytes(broken)
    with pytest.raises(FileRefusedError, match="not a whole database"):
        check_pages(file, FileRefusedError)


def test_finding_a_key_that_stands_twice_takes_no_longer_than_reading():
    """A file of many keys, the last of them twice: in seconds, where comparing each with those before takes hours."""
    keys = [*(f'"{i}":0' for i in range(300_000)), '"299999":0']
    began = time.perf_counter()
    with pytest.raises(FileRefusedError, match="the key '299999' stands twice"):
        parse_json("{" + ",".join(keys) + "}", "It")
    assert time.perf_counter() - began < 30
