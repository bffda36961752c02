"""A file is written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from sfumato.core.reading import FileRefusedError
from sfumato.core.writing import check_writable, replacing, write_whole


@pytest.mark.parametrize("lasting", [False, True])
def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path, lasting: bool) -> None:
    file = write_whole(tmp_path / "made" / "file.txt", b"old")
    with pytest.raises(KeyboardInterrupt), replacing(file, lasting=lasting) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old" and list(file.parent.iterdir()) == [file]
    with replacing(file, lasting=lasting) as partial:
        partial.write_text("new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new" and list(file.parent.iterdir()) == [file]


def test_a_pipe_or_a_device_is_not_replaced_and_a_link_is(tmp_path: Path) -> None:
    """As root, a file would take the place of /dev/null for every program."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileRefusedError, match="pipe is a pipe, which no file replaces. Name another path"):
        write_whole(tmp_path / "pipe", b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    (tmp_path / "link").symlink_to(write_whole(tmp_path / "other", b"old"))
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "other").read_bytes() == b"old" and (tmp_path / "link").read_bytes() == b"new"


def test_an_error_names_the_place_and_not_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for place in (tmp_path / "taken", Path("/proc/nothing.json")):
        with pytest.raises(OSError) as caught:
            write_whole(place, b"{}")
        assert str(place) in (str(caught.value.filename), str(caught.value.filename2))


def test_an_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, replacing(tmp_path / "file"), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "file")


def test_a_place_is_tried_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "file.png"
    assert check_writable(path) == path and check_writable(path.parent, folder=True) == path.parent
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_whole(tmp_path / "file", b"old")
    assert check_writable(file) == file  # it is replaced
    for place, folder in ((file / "inside.png", False), (file, True), (tmp_path, False), (Path("/dev/null"), False)):
        with pytest.raises(FileRefusedError, match="Name another"):
            check_writable(place, folder=folder)

    def read_only(dir: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(FileRefusedError, match=f"{file} cannot be written: Read-only file system. Copy it."):
        check_writable(file, "Copy it.")
