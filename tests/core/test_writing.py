"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.core.writing import replacing, write_whole


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


def test_an_error_names_the_place_and_not_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for place in (tmp_path / "taken", Path("/proc/nothing.json")):
        with pytest.raises(OSError) as caught:
            write_whole(place, b"{}")
        assert str(place) in (str(caught.value.filename), str(caught.value.filename2))
