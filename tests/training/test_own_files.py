"""Training on files of one's own: what the recipe says of them is done, and what is left out is told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main
from sfumato.recipes.digits import edm_digits
from sfumato.runs.override import override
from sfumato.runs.resolve import load_data, resolve, training_data
from sfumato.runs.run import Run

SMALL = [
    "shape=none",
    "network.width=8",
    "network.blocks=1",
    "network.mult=1",
    "network.attention=()",
    "train.precision=fp32",
    "train.batch=16",
    "train.images=32",
    "train.sheet_every=1000000",
    "sample.grid.steps=2",
    "--device",
    "cpu",
]


def picture(number: int, mode: str = "RGB") -> bytes:
    generator = np.random.default_rng(number)
    channels = len(Image.new(mode, (1, 1)).getbands())
    buffer = io.BytesIO()
    Image.frombytes(mode, (8, 8), generator.integers(0, 256, 64 * channels, dtype=np.uint8).tobytes()).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i:02d}.png").write_bytes(picture(i, ("RGB", "RGBA", "L")[i % 3]))
    (folder / "bad.png").write_bytes(b"")
    (folder / "old.psd").write_bytes(b"8BPS")
    return folder


@pytest.mark.parametrize("stream", ["true", "false"])
def test_the_fields_for_files_are_obeyed_in_memory_and_as_a_stream(photos: Path, stream: str, capsys) -> None:
    fields = [f"data.name={photos}", "data.size=8", "data.channels=1", "data.alpha=white", "data.skip_bad=true"]
    recipe = override(edm_digits(), [*fields, "shape=none", f"data.stream={stream}"])
    data = training_data(recipe)
    assert data.shape == (1, 8, 8) and len(data) + len(load_data(recipe, "test")) == 60
    assert data.content_hash == load_data(recipe, "train").content_hash
    assert (
        main(["train", "edm-digits", "--out", str(photos.parent / "run"), *fields, f"data.stream={stream}", *SMALL])
        == 0
    )
    told = "".join(capsys.readouterr())
    assert "data left out: 1 bad file:" in told and "data left out: 1 other file (1 .psd)" in told
    saved = Run.open(photos.parent / "run").recipe.data
    assert (saved.channels, saved.alpha, saved.skip_bad) == (1, "white", True)


def test_without_them_training_is_refused_with_their_names(photos: Path, capsys) -> None:
    assert main(["train", "edm-digits", "--out", str(photos.parent / "run"), f"data.name={photos}", *SMALL]) == 2
    said = capsys.readouterr().err
    assert "data.skip_bad=true" in said and "choose alpha=" in said
    assert main(["train", "edm-digits", "--out", str(photos.parent / "r2"), "data.alpha=white", *SMALL]) == 2
    assert "dataset 'digits' takes no options; got alpha=white" in capsys.readouterr().err


def test_fields_at_their_defaults_do_not_change_a_recipes_tree() -> None:
    tree = edm_digits().to_json()["data"]
    assert not {"channels", "alpha", "cmyk", "skip_bad"} & set(tree)
    changed = override(edm_digits(), ["data.alpha=keep"])
    assert changed.to_json()["data"]["alpha"] == "keep" and type(changed).from_json(changed.to_json()) == changed


def test_an_extractor_that_fits_is_chosen_before_training(photos: Path) -> None:
    recipe = override(
        edm_digits(), [f"data.name={photos}", "data.alpha=drop", "data.channels=3", "data.skip_bad=true", "shape=none"]
    )
    assert recipe.evaluate.extractor == "digits"
    assert resolve(recipe, training_data(recipe)).evaluate.extractor == "random"
    grey = override(recipe, ["data.channels=1"])
    assert resolve(grey, training_data(grey)).evaluate.extractor == "digits", "a trained one if its shape fits"


def test_a_run_trained_on_a_streamed_database_is_scored_in_the_same_process(tmp_path: Path, capsys) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for i in range(240):
            transaction.put(f"{i:04d}".encode(), picture(i))
    fields = [f"data.name=lmdb:{tmp_path}/db", "data.size=8", "data.stream=true", "evaluate.extractor=pixels"]
    assert main(["train", "edm-digits", "--out", str(tmp_path / "run"), *fields, *SMALL]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--n", "40", "--device", "cpu", "--quiet"]) == 0
    assert "FD[pixels]" in capsys.readouterr().out
