"""Streamed images are the same samples as images in memory, for any number of workers, also after a stop mid-epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data import DataError, Loader, load
from sfumato.data.gathering import Shape
from sfumato.data.sources import listing_of
from sfumato.data.streaming import Stream, StreamLoader, streamed, too_large
from sfumato.recipes.digits import edm_digits
from sfumato.runs.override import override
from sfumato.runs.resolve import training_data
from sfumato.runs.run import Run
from sfumato.training.loop import train

COUNT = 41


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """41 pictures of 10x10 in two classes."""
    top = tmp_path_factory.mktemp("photos")
    g = np.random.Generator(np.random.Philox(5))
    for i in range(COUNT):
        target = top / ("cats" if i % 3 else "dogs")
        target.mkdir(exist_ok=True)
        Image.fromarray(g.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(target / f"{i:03d}.png")
    return top


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(folder: Path, split: str = "train", size: int | None = 8) -> Stream:
    found = streamed(str(folder), Shape(size), split=split, always=True)
    assert found is not None
    return found


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_stream_is_the_dataset_without_its_pixels(folder: Path, split: str) -> None:
    stream, data = opened(folder, split), load(str(folder), split=split, size=8)
    assert len(stream) == len(data) and stream.shape == data.shape and stream.classes == data.classes
    assert stream.labels.equal(data.labels) and stream.rule == data.rule
    assert np.array_equal(stream.image_hashes, data.image_hashes)
    assert (stream.content_hash, stream.index_hash) == (data.content_hash, data.index_hash)
    assert stream.read(range(len(stream))).equal(data.images)
    assert stream.take(5, seed=3).images.equal(data.take(5, seed=3).images)
    with pytest.raises(DataError, match="is streamed"):
        _ = stream.images


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_samples_are_those_of_the_loader_in_memory(folder: Path, workers: int, flip: bool) -> None:
    loader = StreamLoader(opened(folder), 3, flip=flip, workers=workers)
    plain = Loader(load(str(folder), size=8), 3, flip=flip)
    for start, count in [(0, 7), (7, 7), (14, 7), (21, 7), (28, 7), (100, 3), (5, 9), (14, 9)]:
        for ours, theirs in zip(loader.batch(start, count), plain.batch(start, count)):
            assert ours.equal(theirs)
    loader.close()


@pytest.mark.parametrize("at", [1, 3, 5])
def test_after_a_stop_mid_epoch_the_rest_is_the_same_with_two_workers(folder: Path, at: int) -> None:
    """P3: no sample is repeated and none missed."""
    stream, batch = opened(folder), 4
    whole = StreamLoader(stream, 9, workers=2)
    all_ids = [whole.order(torch.arange(k * batch, (k + 1) * batch)) for k in range(12)]
    seen = [whole.batch(k * batch, batch)[0] for k in range(12)]
    first, rest = StreamLoader(stream, 9, workers=2), StreamLoader(opened(folder), 9, workers=2)
    parts = [first.batch(k * batch, batch)[0] for k in range(at)]
    first.close()
    parts += [rest.batch(k * batch, batch)[0] for k in range(at, 12)]
    assert torch.cat(parts).equal(torch.cat(seen))
    epoch = torch.cat(all_ids)[: len(stream)].tolist()
    assert sorted(epoch) == list(range(len(stream)))


def test_workers_decode_ahead_of_the_asking(folder: Path) -> None:
    loader = StreamLoader(opened(folder), 0, workers=2)
    loader.batch(0, 4)
    assert set(loader._ready) == {(4, 4), (8, 4), (12, 4)}
    loader.batch(8, 4)  # a stride of 8: a share of a larger batch
    assert set(loader._ready) == {(16, 4), (24, 4), (32, 4)}
    loader.close()
    with pytest.raises(ValueError, match="0 or more; got -1"):
        StreamLoader(opened(folder), 0, workers=-1)


def test_a_stream_is_chosen_by_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert streamed(str(folder), Shape(8), split="train") is None
    monkeypatch.setenv("SFUMATO_MEMORY", "0.005")  # MiB: 41 images of 8x8x3 take 7.7 kB
    assert isinstance(streamed(str(folder), Shape(8), split="train"), Stream)
    assert too_large(listing_of(f"folder:{folder}")[1], Shape(size=8))
    assert not too_large(listing_of(str(folder))[1], Shape(size=4))
    assert streamed("digits", Shape(), split="train") is None
    with pytest.raises(DataError, match="digits cannot be streamed"):
        streamed("digits", Shape(), split="train", always=True)
    monkeypatch.setenv("SFUMATO_MEMORY", "much")
    with pytest.raises(DataError, match="number of MiB; got 'much'"):
        streamed(str(folder), Shape(8), split="train")


def test_the_first_pass_is_made_once_and_bad_files_are_named(folder: Path, tmp_path: Path) -> None:
    opened(folder)
    (cached,) = (tmp_path / "cache" / "sfumato" / "streams").glob("*.npz")
    before = cached.stat().st_mtime_ns
    opened(folder)
    assert cached.stat().st_mtime_ns == before
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in list(folder.glob("cats/*.png"))[:3]:
        (bad / file.name).write_bytes(file.read_bytes())
    (bad / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty.png: empty file"):
        opened(bad)
    stream = opened(folder)
    name = stream.listing.names[int(stream.facts.indices[0])]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:50])
    try:
        with pytest.raises(DataError, match="has changed since"):
            stream.read([0])
    finally:
        (folder / name).write_bytes(content)


FIELDS = (
    "data.size=8",
    "data.test=0.0",
    "data.flip=true",
    "network.width=16",
    "network.head_width=16",
    "network.blocks=1",
    "network.embedding=32",
    "train.batch=8",
    "train.precision=fp32",
    "train.optimizer=adam",
    "train.log_every=8",
    "train.rate=constant",
    "train.images=96",
    "sample.grid.steps=2",
    "train.sheet_every=1000000",
    "data.labels=true",
    "sigma_data=0.5",
)


@pytest.mark.slow
def test_a_streamed_run_is_the_run_in_memory_also_when_it_is_resumed(folder: Path, tmp_path: Path) -> None:
    def weights(*more: str, images: int = 96, to: str = "run") -> dict[str, torch.Tensor]:
        recipe = override(edm_digits(), [f"data.name=folder:{folder}", *FIELDS, *more, f"train.images={images}"])
        run = train(recipe, tmp_path / to, device="cpu", quiet=True, allow=("train.images",))
        return dict(Run.open(run.path).network("raw").state_dict())

    plain = weights("data.stream=false", to="memory")
    stream = weights("data.stream=true", "data.workers=2", to="stream")
    weights("data.stream=true", "data.workers=2", images=40, to="stopped")  # mid-epoch
    resumed = weights("data.stream=true", "data.workers=0", to="stopped")
    for name, value in plain.items():
        assert stream[name].equal(value) and resumed[name].equal(value)


def test_training_data_follows_the_recipe(folder: Path) -> None:
    recipe = override(edm_digits(), [f"data.name=folder:{folder}", "data.size=8", "data.stream=true", "data.first=10"])
    data = training_data(recipe)
    assert isinstance(data, Stream) and len(data) == 10
    assert data.content_hash == load(str(folder), size=8, first=10).content_hash
    with pytest.raises(ValueError, match="streams whole sources"):
        training_data(override(recipe, ["data.pad=16"]))
