"""Checkpoints are whole or not there (reliability P1, P5, P6, P7)."""

from __future__ import annotations

import json
import os

import pytest
import torch

from sfumato.runs import checkpoint
from sfumato.runs.checkpoint import CheckpointError


def write(folder, step, value=0.0):
    return checkpoint.save(folder, step, {"network": {"w": torch.full((1000,), value)}}, {"seen": step})


def test_round_trip(tmp_path):
    tensors = {"network": {"a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))}, "empty": {}}
    path = checkpoint.save(tmp_path, 7, tensors, {"seen": 448}, fingerprint={"data": "abc"})
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.tensors["network"]["a"], tensors["network"]["a"])
    assert loaded.tensors["empty"] == {}
    assert loaded.state == {"seen": 448, "belongs": {"data": "abc"}}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_newest_is_passed_over_loudly(tmp_path, share):
    """P5: the checkpoint before it is taken and the file is named."""
    write(tmp_path, 1, 1.0)
    path = write(tmp_path, 2, 2.0)
    file = path / "network.safetensors"
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.warns(UserWarning, match="step-2.network.safetensors.*truncated"):
        found = checkpoint.latest(tmp_path)
    assert found.state["seen"] == 1
    assert found.tensors["network"]["w"][0] == 1.0


def test_one_flipped_bit_is_found(tmp_path):
    """P6: safetensors would load it silently; the manifest does not."""
    path = write(tmp_path, 3, 3.0)
    file = path / "network.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="network.safetensors.*sha256"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="Every checkpoint"), pytest.warns(UserWarning):
        checkpoint.latest(tmp_path)


def test_partial_and_foreign_are_not_taken(tmp_path):
    """P1: a .tmp is never read and the next save removes it; an unfinished or newer-schema folder is refused."""
    write(tmp_path, 1)
    (tmp_path / "step-9.tmp").mkdir()
    (tmp_path / "step-9.tmp" / "network.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path).state["seen"] == 1
    path = write(tmp_path, 2)
    assert not (tmp_path / "step-9.tmp").exists()
    manifest = json.loads((path / "MANIFEST.json").read_text())
    (path / "MANIFEST.json").write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        checkpoint.load(path)
    (path / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="MANIFEST.json cannot be read"):
        checkpoint.load(path)


def test_failed_save_keeps_the_earlier_ones(tmp_path, monkeypatch):
    """P7: an OSError while writing leaves the old checkpoint whole and no partial one."""
    write(tmp_path, 1, 1.0)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]
    assert checkpoint.latest(tmp_path).tensors["network"]["w"][0] == 1.0


def test_keep(tmp_path):
    for step in range(1, 6):
        write(tmp_path, step)
    assert checkpoint.steps(tmp_path) == [4, 5]
